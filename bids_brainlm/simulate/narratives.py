"""Facts about the Narratives dataset (OpenNeuro ds002345, v1.1.4) that its tree does not hold."""

from __future__ import annotations

import math

from bids_brainlm.simulate.seeds import pick

# Volumes of the real runs, smallest and largest (scans that the release excludes left out).
N_VOLUMES = {
    "21styear": (2249, 2249),
    "black": (550, 550),
    "bronx": (390, 390),
    "forgot": (574, 574),
    "lucy": (370, 370),
    "merlin": (613, 657),
    "milkyway": (297, 297),
    "notthefallintact": (400, 400),
    "notthefalllongscram": (400, 400),
    "notthefallshortscram": (400, 400),
    "pieman": (300, 300),
    "piemanpni": (294, 294),
    "prettymouth": (475, 475),
    "shapesphysical": (309, 321),
    "shapessocial": (309, 316),
    "sherlock": (724, 746),
    "slumlordreach": (1205, 1223),
    "tunnel": (1040, 1040),
}
SPARE_VOLUMES = 8  # after the last story, where the real length is not known
SPREAD = 3


def run_length(task: str, participant: str, end: float, tr: float, *, real: bool) -> int:
    """Return the number of volumes of a run.

    Parameters
    ----------
    task, participant : str
        Labels.
    end : float
        End of the last story, s.
    tr : float
        Repetition time, s.
    real : bool
        Take the length of the real task where it is known.

    Returns
    -------
    int
        Within the real range, or a few volumes beyond the last story; unequal lengths differ
        between participants, the same for the same labels.
    """
    needed = math.ceil(end / tr - 1e-6)
    if real and task in N_VOLUMES:
        low, high = N_VOLUMES[task]
        return max(low + pick(high - low + 1, participant, task), needed)
    return needed + SPARE_VOLUMES + pick(SPREAD, participant, task)
