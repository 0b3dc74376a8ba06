#!/bin/bash
# JupyterLab with the image on a node. Once, where there is a network (the image has no Jupyter):
#   JUPYTER=/scratch/me/jupyter IMAGE=/images/brainlm.sif platforms/slurm/jupyter.sh prepare
# Then, from a login node:
#   JUPYTER=/scratch/me/jupyter IMAGE=/images/brainlm.sif OUT=/scratch/brainlm platforms/slurm/jupyter.sh submit
# It waits for the node and prints what to type on your own computer. FOLDERS (separated by :) are
# seen read-only; NOTEBOOKS (by default the working directory) is where notebooks are kept. With
# LOCAL=1 the server listens on the node's own address 127.0.0.1 alone, for clusters where you may
# ssh to your nodes. Without IMAGE, PYTHON (by default python3) runs. RELAY is how your computer
# reaches the cluster, by default user@login-node.
#SBATCH --job-name=jupyter-brainlm
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=04:00:00
set -euo pipefail
: "${JUPYTER:?a folder for JupyterLab, which the nodes see}"
umask 077 # the token is for you alone
mkdir -p "$JUPYTER/jobs"
notebooks=${NOTEBOOKS:-$PWD}

# Where JupyterLab, its pages and its kernels are.
found=(
    PYTHONPATH="$JUPYTER/packages"
    JUPYTER_PATH="$JUPYTER/packages/share/jupyter"
    JUPYTERLAB_DIR="$JUPYTER/packages/share/jupyter/lab"
)

# Run a program of the image, or of this machine; the first argument is a scratch folder (an image's
# own /tmp may be too small for the installation).
inside() {
    local scratch=$1 binds=() place
    shift
    if [ -z "${IMAGE:-}" ]; then
        env HOME="$scratch" TMPDIR="$scratch" "${found[@]}" "$@"
        return
    fi
    local places=()
    IFS=: read -ra places <<< "${FOLDERS:-}"
    for place in "${places[@]}"; do
        [ -z "$place" ] || binds+=(-B "$place:$place:ro")
    done
    [ -z "${OUT:-}" ] || binds+=(-B "$OUT")
    # The token goes by the environment: arguments can be read by everybody on the node.
    APPTAINERENV_JUPYTER_TOKEN="${JUPYTER_TOKEN:-}" "${APPTAINER:-apptainer}" exec --containall --cleanenv \
        --no-home "${binds[@]}" -B "$JUPYTER" -B "$notebooks" -B "$scratch" --pwd "$notebooks" "$IMAGE" \
        env HOME="$scratch" TMPDIR="$scratch" "${found[@]}" "$@"
}

python=${IMAGE:+/opt/venv/bin/python}
python=${python:-${PYTHON:-python3}}
case ${1:-} in
    prepare)
        scratch=$(mktemp -d)
        trap 'rm -rf "$scratch"' EXIT
        pip=("$python" -m pip)
        # The image's own environment has no pip; the Python that it was made of has.
        # shellcheck disable=SC2016  # expands inside the image
        [ -z "${IMAGE:-}" ] || pip=(sh -c 'exec "$(realpath "$0")" -m pip "$@"' "$python")
        inside "$scratch" "${pip[@]}" install --quiet --upgrade --target "$JUPYTER/packages" jupyterlab
        echo "JupyterLab is in $JUPYTER/packages"
        ;;
    submit)
        [ -d "$JUPYTER/packages" ] || { echo "first: $0 prepare" >&2; exit 66; }
        job=$(sbatch --parsable --output="$JUPYTER/jobs/%j.log" "$0" serve)
        job=${job%%;*}
        echo "Job $job is in the queue; its log is $JUPYTER/jobs/$job.log"
        before=
        until [ -s "$JUPYTER/jobs/$job.txt" ]; do
            state=$(squeue --noheader --jobs "$job" --format "%T (%r)" 2>/dev/null || true)
            [ "$state" = "$before" ] || echo "  $state"
            before=$state
            case $state in
                PENDING* | CONFIGURING* | RUNNING*) sleep "${POLL:-3}" ;;
                *) echo "Job $job has ended: $(tail -n 3 "$JUPYTER/jobs/$job.log" 2>/dev/null)" >&2; exit 74 ;;
            esac
        done
        cat "$JUPYTER/jobs/$job.txt"
        ;;
    serve)
        job=${SLURM_JOB_ID:?this is run by submit}
        scratch=${TMPDIR:-/tmp}/jupyter-$job
        mkdir -p "$scratch"
        trap 'rm -rf "$scratch" "$JUPYTER/jobs/$job.txt"' EXIT
        node=$(hostname)
        [ -z "${LOCAL:-}" ] || node=127.0.0.1
        read -r port JUPYTER_TOKEN < <(inside "$scratch" "$python" -c "
import secrets, socket
with socket.socket() as free:
    free.bind(('', 0))
    print(free.getsockname()[1], secrets.token_urlsafe(32))")
        export JUPYTER_TOKEN
        me=$(id -un)
        relay=${RELAY:-$me@${SLURM_SUBMIT_HOST:-login-node}}
        jump=$relay
        [ -z "${LOCAL:-}" ] || jump="-J $relay $me@$(hostname)"
        flags=(--no-browser --ip="$node" --port="$port" --ServerApp.port_retries=0)
        flags+=(--ServerApp.root_dir="$notebooks")
        [ "$(id -u)" != 0 ] || flags+=(--allow-root)
        inside "$scratch" "$python" -m jupyterlab "${flags[@]}" &
        server=$!
        for _ in $(seq 120); do # until it listens
            if (exec 3<> "/dev/tcp/$node/$port") 2>/dev/null; then break; fi
            kill -0 "$server" 2>/dev/null || { echo "JupyterLab does not start" >&2; exit 74; }
            sleep 0.5
        done
        cat > "$JUPYTER/jobs/$job.part" <<WORDS
On your computer:
  ssh -N -L $port:$node:$port $jump
then open
  http://127.0.0.1:$port/lab?token=$JUPYTER_TOKEN
and when you are done:
  scancel $job
WORDS
        mv "$JUPYTER/jobs/$job.part" "$JUPYTER/jobs/$job.txt"
        wait "$server"
        ;;
    *)
        echo "usage: JUPYTER=... [IMAGE=...] [OUT=...] $0 prepare|submit" >&2
        exit 64
        ;;
esac
