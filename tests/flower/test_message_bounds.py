"""A node may have on its way what the largest message of the study needs."""

import typing

import pytest
import yaml

from conftest import write_hospitals
from csasn.study import Model, read_study
from server.flower.message_bounds import ENVELOPE_BYTES, WEIGHTS_BYTES, message_bytes


def test_every_profile_has_a_bound():
    assert set(WEIGHTS_BYTES) == set(typing.get_args(Model.model_fields["profile"].annotation))


@pytest.mark.parametrize("profile", WEIGHTS_BYTES)
def test_a_model_in_float32_fits_with_a_fifth_more_and_not_twice(tmp_path, profile):
    import torch

    from csasn.model.network import build_network

    path = write_hospitals(tmp_path / "h", num_cases=3)
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"model": {"profile": profile}}))
    study = read_study(path)
    with torch.device("meta"):
        network = build_network(study)
    size = 4 * sum(tensor.numel() for tensor in network.state_dict().values())
    assert 1.2 * size < message_bytes(study.model) < 2 * size + 2 * ENVELOPE_BYTES
