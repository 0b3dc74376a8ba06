import numpy as np
import pytest

from bids_brainlm.bidsio.maps import MapSet, rows_of, shared_names
from bids_brainlm.errors import DataError


def test_voxels_of_all_masks_are_shared_in_the_order_of_the_first():
    names = shared_names([["a", "b", "c", "d"], ["d", "b", "x"]], "story", voxelwise=True)
    assert names == ["b", "d"]
    assert rows_of(["d", "b", "x"], names).tolist() == [1, 0]


def test_parcels_of_an_atlas_must_be_the_same():
    with pytest.raises(DataError, match="different names"):
        shared_names([["a", "b"], ["a", "c"]], "story", voxelwise=False)
    with pytest.raises(DataError, match="no voxel"):
        shared_names([["a"], ["b"]], "story", voxelwise=True)


def test_restricting_renumbers_labels():
    maps = MapSet((11, 12, 13), ("a", "b", "c"), np.array([[[0, 1, 2, 3]]]), np.eye(4))
    kept = maps.restrict(["c", "a"])
    assert kept.index == (13, 11)
    assert kept.labels.ravel().tolist() == [0, 2, 0, 1]
    assert maps.restrict(["a", "b", "c"]) is maps
