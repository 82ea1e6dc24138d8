"""A node may have on its way what the largest message of the study needs."""

import pytest
import yaml

from conftest import write_hospitals
from csasn.platform.registry import BUILT_IN, NETWORKS
from csasn.study import read_study
from server.flower.message_bounds import ENVELOPE_BYTES, message_bytes


@pytest.mark.parametrize("profile", BUILT_IN[NETWORKS])
def test_a_model_in_float32_fits_with_a_fifth_more_and_not_twice(tmp_path, profile):
    import torch

    from csasn.model.network import build_network

    path = write_hospitals(tmp_path / "h", num_cases=3)
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"model": {"profile": profile}}))
    study = read_study(path)
    with torch.device("meta"):
        network = build_network(study)
    size = 4 * sum(tensor.numel() for tensor in network.state_dict().values())
    assert 1.2 * size < message_bytes(study) < 2 * size + 2 * ENVELOPE_BYTES
