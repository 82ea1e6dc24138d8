"""What sites count, packed into one vector and unpacked again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csasn.errors import ProtocolError
from csasn.measures.counts import (
    NUM_BINS,
    Layout,
    case_layout,
)
from csasn.platform.randomness import generator

SOME = settings(deadline=None, max_examples=40)
SEEDS = st.integers(0, 2**31)


def random_blocks(layout, seed):
    random = generator(seed, "blocks")
    return {name: random.integers(-(2**62), 2**62, shape) for name, shape in layout.shapes}


@SOME
@given(st.integers(2, 5), st.booleans(), SEEDS)
def test_unpack_returns_what_pack_took(num_classes, malignancy, seed):
    layout = case_layout(num_classes, malignancy)
    blocks = random_blocks(layout, seed)
    vector = layout.pack(blocks)
    assert vector.shape == (layout.size,)
    assert vector.dtype == np.int64
    unpacked = layout.unpack(vector)
    assert list(unpacked) == [name for name, _ in layout.shapes]
    for name, shape in layout.shapes:
        assert unpacked[name].shape == shape
        assert (unpacked[name] == blocks[name]).all()


def test_order_of_the_given_blocks_does_not_matter():
    layout = case_layout(3, malignancy=True)
    blocks = random_blocks(layout, 1)
    assert layout.pack(dict(reversed(blocks.items()))).tolist() == layout.pack(blocks).tolist()


def test_layout_of_a_number_of_classes():
    names = ["confusion", "loss", "scores", "malignancy"]
    assert [name for name, _ in case_layout(4, malignancy=True).shapes] == names
    assert case_layout(4, malignancy=True).size == 4 * 4 + 1 + 4 * 2 * NUM_BINS + 2 * NUM_BINS
    assert case_layout(4, malignancy=False).size == 4 * 4 + 1 + 4 * 2 * NUM_BINS


SMALL = Layout((("a", (2, 2)), ("b", (3,))))


@pytest.mark.parametrize(
    "blocks",
    [
        pytest.param({"a": np.ones((2, 2), dtype=np.int64)}, id="missing"),
        pytest.param({name: np.ones(3, dtype=np.int64) for name in "ab"}, id="shape"),
        pytest.param(
            {"a": np.ones((2, 2), dtype=np.int64), "b": np.ones(3, dtype=np.int64), "c": np.ones(1, dtype=np.int64)}, id="extra"
        ),
        pytest.param({"a": np.ones((2, 2), dtype=np.int64), "c": np.ones(3, dtype=np.int64)}, id="name"),
    ],
)
def test_blocks_that_are_not_the_layouts_are_refused(blocks):
    with pytest.raises(ProtocolError, match="counts do not fit their layout"):
        SMALL.pack(blocks)


@pytest.mark.parametrize(
    "vector",
    [
        pytest.param(np.ones(6, dtype=np.int64), id="short"),
        pytest.param(np.ones(8, dtype=np.int64), id="long"),
        pytest.param(np.ones((7, 1), dtype=np.int64), id="table"),
        pytest.param(np.ones(7, dtype=np.uint64), id="uint64"),
        pytest.param(np.ones(7, dtype=np.int32), id="int32"),
        pytest.param(np.ones(7), id="float64"),
    ],
)
def test_a_vector_that_is_not_int64_of_the_layouts_size_is_refused(vector):
    with pytest.raises(ProtocolError, match="expected 7 of int64"):
        SMALL.unpack(vector)
