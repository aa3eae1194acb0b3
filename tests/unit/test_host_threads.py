"""Work that processors share gives what one of them would."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from workbench import host_threads
from workbench.host_threads import contiguous, copy_to, digest


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(host_threads, "PIECE", 64)
    monkeypatch.setattr(host_threads, "LEAF", 64)


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (37, 19), (3, 50, 7)])
def test_a_transposed_array_becomes_contiguous_with_the_same_values(shape, small_pieces):
    array = np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape).T
    found = contiguous(array)
    assert found.flags.c_contiguous
    assert np.array_equal(found, array)


def test_an_array_in_order_is_not_copied():
    array = np.ones((4, 4))
    assert contiguous(array) is array


def test_copying_into_a_part_leaves_the_rest(small_pieces):
    target = np.zeros((40, 33), np.int16)
    copy_to(target[:, :30], np.ones((40, 30), np.int16))
    assert target[:, :30].all() and not target[:, 30:].any()


def test_the_digest_is_the_documented_tree(small_pieces):
    data = bytes(range(256)) * 2
    leaves = [hashlib.sha256(data[i : i + 64]).digest() for i in range(0, len(data), 64)]
    whole = hashlib.sha256(b"".join(leaves)).hexdigest()
    assert digest([data]) == digest([data[:64], memoryview(data)[64:]]) == whole
    assert digest([data[:-1] + b"x"]) != whole
