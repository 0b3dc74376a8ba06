#!/bin/bash
# Build both images and run them as strictly as a cluster would; compare with a run on this machine.
usage() {
    cat <<'TEXT'
usage: container/test.sh [--full] [--only docker|apptainer] [--skip-build] [--help]

Builds the image with podman (Dockerfile) and with Apptainer (apptainer.def), runs `participant` and
`group` on the Alice data inside both, without network, home and writable root, as uid 1234 and with
read-only input, and compares every output with that of a run on this machine, byte for byte.

  --full        all 18 participants and all features (default: 3 participants, few draws)
  --only KIND   only one of the two images
  --skip-build  use the images of an earlier call (same WORK)

What it needs is given by environment variables:
  PYTHON       Python with bids_brainlm's dependencies, for the run to compare with (.venv/bin/python)
  BASE         base image that podman finds or pulls (that of Dockerfile)
  BASE_FOLDER  root folder or tarball of a system with Python 3.11 and its venv module; used as the
               base of both images where no registry can be reached
  LOCAL        folder with models/, templateflow/, spacy/ for images that are built without network
  MODELS ATLASES SPACY TORCH TORCH_INDEX   build arguments (as in Dockerfile, except MODELS=minilm,
               ATLASES= and SPACY=: the test needs no more)
  BUILD_FLAGS  further flags of `podman build`, such as -v FILE:/etc/pip.conf:ro
  APPTAINER_BUILD_FLAGS   further flags of `apptainer build`, such as --bind FILE:/etc/pip.conf:ro
  PODMAN APPTAINER   the commands (podman, apptainer)
  CONTEXT      what is built (default: the tracked files of this checkout as they are now)
  WORK         where it works (default: a new folder below TMPDIR); images stay there
TEXT
}
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

full=0 only="" build=1
while [ $# -gt 0 ]; do
    case $1 in
        --full) full=1 ;;
        --only) only=${2:?docker or apptainer}; shift ;;
        --skip-build) build=0 ;;
        --help | -h) usage; exit 0 ;;
        *) usage >&2; exit 64 ;;
    esac
    shift
done
PYTHON=$(realpath -s "${PYTHON:-.venv/bin/python}")
read -ra PODMAN <<< "${PODMAN:-podman}"
read -ra APPTAINER <<< "${APPTAINER:-apptainer}"
read -ra BUILD_FLAGS <<< "${BUILD_FLAGS:-}"
read -ra APPTAINER_BUILD_FLAGS <<< "${APPTAINER_BUILD_FLAGS:-}"
WORK=${WORK:-$(mktemp -d "${TMPDIR:-/tmp}/bids_brainlm-container.XXXXXX")}
mkdir -p "$WORK"
WORK=$(realpath "$WORK")
MODELS=${MODELS-minilm} ATLASES=${ATLASES-} SPACY=${SPACY-}
IMAGE=localhost/bids_brainlm:test
SIF=$WORK/brainlm.sif
arguments=(MODELS ATLASES SPACY)
for name in TORCH TORCH_INDEX; do [ -z "${!name:-}" ] || arguments+=("$name"); done

say() { printf '== %s  %s\n' "$(date +%T)" "$*"; }
wants() { [ -z "$only" ] || [ "$only" = "$1" ]; }

# The files of the build, readable by any user (Apptainer may run as another one).
context() {
    if [ -n "${CONTEXT:-}" ]; then
        CONTEXT=$(realpath "$CONTEXT")
    else
        CONTEXT=$WORK/context
        rm -rf "$CONTEXT"; mkdir -p "$CONTEXT"
        git ls-files -z | tar --null --ignore-failed-read -T - -cf - | tar -C "$CONTEXT" -xf -
    fi
    [ -z "${LOCAL:-}" ] || cp -rL "$LOCAL/." "$CONTEXT/container/local/"
    chmod -R a+rX "$CONTEXT"
}

build_docker() {
    say "building with ${PODMAN[*]}"
    local flags=(--layers -t "$IMAGE" --format docker)
    if [ -n "${BASE_FOLDER:-}" ]; then
        local tarball=$BASE_FOLDER
        if [ -d "$BASE_FOLDER" ]; then
            tarball=$WORK/base.tar
            tar -C "$BASE_FOLDER" -cf "$tarball" .
        fi
        "${PODMAN[@]}" import "$tarball" localhost/brainlm-base:test > "$WORK/import.log" 2>&1
        flags+=(--build-arg BASE=localhost/brainlm-base:test)
    elif [ -n "${BASE:-}" ]; then
        flags+=(--build-arg "BASE=$BASE")
    fi
    for name in "${arguments[@]}"; do flags+=(--build-arg "$name=${!name}"); done
    (cd "$CONTEXT" && "${PODMAN[@]}" build "${flags[@]}" "${BUILD_FLAGS[@]}" .) > "$WORK/docker.log" 2>&1 \
        || { tail -n 30 "$WORK/docker.log" >&2; exit 1; }
    say "image: $("${PODMAN[@]}" image inspect --format '{{.Size}}' "$IMAGE" | awk '{printf "%.0f MB", $1/1e6}')"
}

build_apptainer() {
    say "building with ${APPTAINER[*]}"
    local flags=()
    if [ -n "${BASE_FOLDER:-}" ]; then
        # Inside the wrapper that some machines need, the folder may have another name.
        flags+=(--build-arg bootstrap=localimage --build-arg "base=${APPTAINER_BASE:-$BASE_FOLDER}")
    elif [ -n "${BASE:-}" ]; then
        flags+=(--build-arg "base=$BASE")
    fi
    for name in "${arguments[@]}"; do flags+=(--build-arg "${name,,}=${!name}"); done
    mkdir -p "$WORK/sif"; chmod 777 "$WORK" "$WORK/sif"
    (cd "$CONTEXT" && "${APPTAINER[@]}" build --fakeroot --force "${flags[@]}" "${APPTAINER_BUILD_FLAGS[@]}" \
        "$WORK/sif/brainlm.sif" apptainer.def) > "$WORK/apptainer.log" 2>&1 \
        || { tail -n 30 "$WORK/apptainer.log" >&2; exit 1; }
    mv "$WORK/sif/brainlm.sif" "$SIF"
    say "image: $(stat -c %s "$SIF" | awk '{printf "%.0f MB", $1/1e6}')"
}

# Data for uid 1234: nothing of it can be written.
data() {
    rm -rf "$WORK/host" "$WORK/docker" "$WORK/apptainer"
    mkdir -p "$WORK/host/out" "$WORK/docker/out" "$WORK/apptainer/out"
    cp -r "$CONTEXT/bids_brainlm/data/alice" "$WORK/host/data"
    chmod -R a-w,a+rX "$WORK/host/data"
    chmod 777 "$WORK"/*/out
}

calls() {  # level -> arguments; paths are relative, so that pages are the same everywhere
    local level=$1
    echo data out "$level"
    [ "$level" = group ] && { [ $full = 1 ] || echo --n-permutations 1000 --n-bootstraps 1000; return; }
    echo --model minilm --atlas data/derivatives/atlas/tpl-MNI152NLin2009cAsym_atlas-Alice6_dseg.nii.gz
    echo --offline --nprocs 2
    [ $full = 1 ] || echo --participant-label 18 22 23 --features embeddings magnitudes --layers 3 4 \
        --n-iter 10 --alphas 1 100 10000 --n-permutations 1000
}

# As clean an environment as in a container: variables such as OPENBLAS_CORETYPE, which choose
# other instructions of the processor, change the last digits of numbers.
on_host() {
    (cd "$WORK/host" && env -i PATH="$PATH" HOME=/nonexistent TMPDIR="${TMPDIR:-/tmp}" LC_ALL=C.UTF-8 \
        PYTHONPATH="$CONTEXT" PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 \
        "$PYTHON" -m bids_brainlm "$@")
}

in_docker() {
    "${PODMAN[@]}" run --rm --read-only --user 1234 --network none --cap-drop ALL \
        --env HOME=/nonexistent --workdir / \
        -v "$WORK/host/data:/data:ro" -v "$WORK/docker/out:/out" "$IMAGE" "$@"
}

in_apptainer() {
    (cd "$WORK" && "${APPTAINER[@]}" run --containall --cleanenv --no-home --net --network none --pwd / \
        -B "$WORK/host/data:/data:ro" -B "$WORK/apptainer/out:/out" "$SIF" "$@")
}

run() {  # kind, level
    local kind=$1 level=$2 began=$SECONDS
    mapfile -t words < <(calls "$level" | tr ' ' '\n')
    case $kind in
        host) on_host "${words[@]}" ;;
        docker) in_docker "${words[@]}" ;;
        apptainer) in_apptainer "${words[@]}" ;;
    esac > "$WORK/$kind-$level.log" 2>&1 \
        || { tail -n 20 "$WORK/$kind-$level.log" >&2; say "$kind $level failed"; exit 1; }
    say "$kind $level: $((SECONDS - began)) s"
}

compare() {
    say "host and $1:"
    "$PYTHON" container/compare.py "$WORK/host/out" "$WORK/$1/out" --place "$WORK/host/=/" \
        || { say "$1 differs from the host"; exit 1; }
}

main() {
    context
    say "working in $WORK"
    if [ $build = 1 ]; then
        if wants docker; then build_docker; fi
        if wants apptainer; then build_apptainer; fi
    fi
    data
    run host participant
    run host group
    for kind in docker apptainer; do
        wants "$kind" || continue
        run "$kind" participant
        run "$kind" group
        compare "$kind"
    done
    say "containers: passed"
}

# bash reads a script while it runs it: after this line nothing of it is read any more
{ main; exit; }
