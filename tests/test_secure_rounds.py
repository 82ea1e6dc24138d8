"""Secure aggregation through the real coordinator, workers and files: the same model as in plain, and every site in every sum."""

import numpy as np
import pytest

FOUR = ("centerA", "centerB", "centerC", "centerD")
SECURE = {"secure_aggregation": True, "rounds": 2}


def masked(federate, name="run", tamper=None, **changes):
    return federate(name, tamper=tamper, sites=FOUR, federation=SECURE | changes)


def plain(federate, **changes):
    return federate("plain", sites=FOUR, federation=SECURE | {"secure_aggregation": False} | changes)


@pytest.mark.parametrize("bits", [16, 8])
def test_masked_or_plain_the_model_its_counts_and_its_statistics_are_the_same(federate, bits):
    hidden, seen = masked(federate, upload_bits=bits), plain(federate, upload_bits=bits)
    one, other = hidden.run(), seen.run()
    assert hidden.state_hash() == seen.state_hash()
    for name in ("counts", "statistics"):
        for block, values in getattr(one, name).items():
            np.testing.assert_array_equal(values, getattr(other, name)[block])
    assert [e["clipped_share"] for e in hidden.events("round-finished")] == [
        e["clipped_share"] for e in seen.events("round-finished")
    ]
