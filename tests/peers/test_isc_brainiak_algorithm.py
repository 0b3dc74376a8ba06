"""Leave-one-out ISC equals loops that follow the algorithm of BrainIAK's ``isc``.

BrainIAK correlates each participant with the mean of the others and leaves z-scoring to the
user; here each series is z-scored over time first, as the function documents. BrainIAK
itself needs MPI and is not installed.
"""

import numpy as np
import pytest

from bids_brainlm.numerics.isc import leave_one_out

pytestmark = pytest.mark.peer


def _looped(series, include_self, n_segments):
    n_participants, n_trs, n_parcels = series.shape
    z = (series - series.mean(1, keepdims=True)) / series.std(1, keepdims=True)
    result = np.zeros((n_participants, n_parcels))
    for parcel in range(n_parcels):
        for participant in range(n_participants):
            everyone = range(n_participants)
            pool = [i for i in everyone if include_self or i != participant]
            others = np.mean([z[i, :, parcel] for i in pool], axis=0)
            r = [
                np.corrcoef(z[participant, rows, parcel], others[rows])[0, 1]
                for rows in np.array_split(np.arange(n_trs), n_segments)
            ]
            result[participant, parcel] = np.mean(r)
    return result


@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("n_segments", [1, 3])
def test_equals_loops(rng, include_self, n_segments):
    series = rng.standard_normal((7, 71, 6)) * rng.uniform(0.1, 9, (7, 1, 6))
    series += rng.standard_normal((71, 6)) + 50.0
    result = leave_one_out(series, include_self=include_self, n_segments=n_segments)
    np.testing.assert_allclose(result, _looped(series, include_self, n_segments), atol=1e-10)
