"""Reading voxels of compressed images: several members, padding, damage, both libraries."""

import gzip
import itertools
import sys
import zlib

import nibabel as nib
import numpy as np
import pytest

from bids_brainlm.bidsio import stream
from bids_brainlm.errors import DataError

SHAPE = (5, 6, 7, 40)


@pytest.fixture(params=["zlib", "isal"])
def library(request, monkeypatch):
    """Read with the library of Python, or with the faster one where it is installed."""
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)
        assert stream._engine() is zlib
    else:
        pytest.importorskip("isal")
        assert stream._engine() is not zlib


@pytest.fixture
def content(rng):
    """Return the values and the bytes of an image without compression."""
    values = rng.standard_normal(SHAPE).astype(np.float32)
    return values, nib.Nifti1Image(values, np.eye(4)).to_bytes()


def read(path, packed):
    path.write_bytes(packed)
    flat = np.arange(3, np.prod(SHAPE[:3]), 4)
    return flat, stream.read_voxels(path, flat)


@pytest.mark.parametrize("padding", [b"", b"\0" * 700])
@pytest.mark.parametrize("n_members", [1, 2, 5])
def test_members_and_padding(tmp_path, content, library, n_members, padding):
    values, plain = content
    edges = np.linspace(0, len(plain), n_members + 1).astype(int)
    parts = [gzip.compress(plain[a:b]) for a, b in itertools.pairwise(edges)]
    flat, found = read(tmp_path / "x.nii.gz", b"".join(parts) + padding)
    expected = values.reshape(-1, SHAPE[3], order="F")[flat]
    np.testing.assert_array_equal(found, expected)


def test_pieces_do_not_matter(tmp_path, content, library, monkeypatch):
    values, plain = content
    monkeypatch.setattr(stream, "_CHUNK", 61)
    flat, found = read(tmp_path / "x.nii.gz", gzip.compress(plain))
    np.testing.assert_array_equal(found, values.reshape(-1, SHAPE[3], order="F")[flat])


@pytest.mark.parametrize("lost", [1, 4, 9, 3000])
def test_files_that_end_early(tmp_path, content, library, lost):
    with pytest.raises(DataError, match="damaged"):
        read(tmp_path / "x.nii.gz", gzip.compress(content[1])[:-lost])


@pytest.mark.parametrize("place", [0.3, 0.6, 0.95])
def test_a_flipped_bit_is_noticed(tmp_path, content, library, place):
    packed = bytearray(gzip.compress(content[1], compresslevel=0))  # stored: only the sum tells
    packed[int(place * len(packed))] ^= 4
    with pytest.raises(DataError, match="damaged"):
        read(tmp_path / "x.nii.gz", bytes(packed))
