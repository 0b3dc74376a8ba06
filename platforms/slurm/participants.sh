#!/bin/bash
# One job a participant, then the group. Submit from a login node:
#   BIDS=/data/ds002345 OUT=/scratch/out IMAGE=/images/brainlm.sif platforms/slurm/participants.sh submit
# Further flags of bids_brainlm stand in FLAGS; ATLAS, MODELS_DIR and DERIVATIVES are folders outside
# BIDS that the image must see. Without IMAGE, an installation (bids_brainlm in PATH) runs.
#SBATCH --job-name=bids_brainlm
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=04:00:00
#SBATCH --output=%x-%j.log
set -euo pipefail
: "${BIDS:?the BIDS dataset}" "${OUT:?the output folder}"
read -ra flags <<< "${FLAGS:-}"
scratch=${TMPDIR:-/tmp}/bids_brainlm-${SLURM_JOB_ID:-$$}_${SLURM_ARRAY_TASK_ID:-0}

# Participants in a fixed order; those of a file in PARTICIPANTS (one a line), else all.
list() {
    if [ -n "${PARTICIPANTS:-}" ]; then
        sed 's/^sub-//; /^[[:space:]]*$/d' "$PARTICIPANTS"
    else
        find "$BIDS" -mindepth 1 -maxdepth 1 -type d -name 'sub-*' -printf '%f\n' | sed 's/^sub-//' | sort
    fi
}

run() {
    mkdir -p "$OUT" "$scratch"
    trap 'rm -rf "$scratch"' EXIT
    if [ -z "${IMAGE:-}" ]; then
        bids_brainlm "$@" --work-dir "$scratch" "${flags[@]}"
        return
    fi
    local binds=(-B "$BIDS:$BIDS:ro" -B "$OUT" -B "$scratch")
    for place in "${DERIVATIVES:-}" "${MODELS_DIR:-}" "${ATLAS:-}"; do
        [ -z "$place" ] || binds+=(-B "$place:$place:ro")
    done
    "${APPTAINER:-apptainer}" run --containall --cleanenv --no-home "${binds[@]}" --pwd "$scratch" \
        "$IMAGE" "$@" --work-dir "$scratch" "${flags[@]}"
}

case ${1:-} in
    submit)
        mapfile -t people < <(list)
        [ "${#people[@]}" -gt 0 ] || { echo "found no participants in $BIDS" >&2; exit 66; }
        # Features of the stories once (a good job for a GPU node), then everybody, then the group.
        # The group starts when all jobs have ended; it stops by itself where maps are missing.
        stimulus=$(sbatch --parsable "$0" stimulus)
        array=$(sbatch --parsable --dependency="afterok:$stimulus" --kill-on-invalid-dep=yes \
            --array="1-${#people[@]}${CONCURRENT:+%$CONCURRENT}" "$0" participant)
        group=$(sbatch --parsable --dependency="afterany:$array" "$0" group)
        echo "stimulus $stimulus, ${#people[@]} participants $array, group $group"
        ;;
    participant)
        person=$(list | sed -n "${SLURM_ARRAY_TASK_ID:?}p")
        run "$BIDS" "$OUT" participant --participant-label "$person" \
            --nprocs "${SLURM_CPUS_PER_TASK:-1}"
        ;;
    stimulus | group)
        run "$BIDS" "$OUT" "$1" --nprocs "${SLURM_CPUS_PER_TASK:-1}"
        ;;
    *)
        echo "usage: BIDS=... OUT=... [IMAGE=...] $0 submit|stimulus|participant|group" >&2
        exit 64
        ;;
esac
