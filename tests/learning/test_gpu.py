"""What has to hold on a GPU too: the same bits masked and plain, and a round that is trained again gives what left."""

import time

import numpy as np
import pytest
import torch
import yaml

from client.worker.replay import REPLAY, replay
from csasn.federated.messages import Ready
from csasn.federated.secagg.masks import Mask, add_masks

pytestmark = pytest.mark.gpu
SITES = ("centerA", "centerB", "centerC")


@pytest.fixture
def on_gpu(tmp_path, write_small_hospitals, local_federation):
    """on_gpu(name, **changes of the study) -> a federation whose sites train on the GPU."""

    def make(name, **changes):
        hospitals = tmp_path / f"hospitals-{name}"
        write_small_hospitals(hospitals, SITES, **changes)
        for path in (hospitals / "sites").glob("*.yaml"):
            path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"device": "cuda"}))
        return local_federation(hospitals, tmp_path / "runs" / name)

    return make


def test_on_a_gpu_masked_or_plain_the_model_is_the_same_to_the_bit(on_gpu):
    runs = [on_gpu(f"secure-{secure}", federation={"rounds": 3, "secure_aggregation": secure}) for secure in (True, False)]
    for run in runs:
        run.run()
    assert all(worker.learner.device.type == "cuda" for run in runs for worker in run.workers.values())
    assert runs[0].state_hash() == runs[1].state_hash()


def test_on_a_gpu_a_round_trained_again_gives_what_left(on_gpu):
    run = on_gpu("replayed", federation={"rounds": 2, "secure_aggregation": True})
    run.run()
    folder = next((run.path / "sites/centerB").glob(f"study-*/{REPLAY}")).parent
    result = replay(run.sites["centerB"], run.study, run.directory.membership, folder)
    assert (result.same_update, result.same_counts) == (True, True)


def test_on_a_gpu_a_killed_worker_works_on_the_question_again_to_the_same_bits(on_gpu):
    undisturbed, disturbed = (on_gpu(name, federation={"rounds": 2, "secure_aggregation": True}) for name in ("quiet", "killed"))
    undisturbed.run()
    killed = []

    def kill_once(site, request, answer):
        if isinstance(answer, Ready) and site == "centerB" and request.header.round == 2 and not killed:
            killed.append(site)
            disturbed.restart_worker(site)
            next((disturbed.path / "sites/centerB").glob("study-*/pending.safetensors")).unlink()
        return answer

    disturbed.tamper = kill_once
    disturbed.run()
    assert killed
    assert disturbed.state_hash() == undisturbed.state_hash()


def test_a_round_of_the_papers_size_on_a_gpu_is_timed(on_gpu, capsys):
    model = {"profile": "csasn-b2-vitb", "image_size": 224}
    run = on_gpu("paper", model=model, num_cases=12, federation={"rounds": 2, "secure_aggregation": True})
    run.run()
    seconds = [event["seconds"] for event in run.events("round-finished")]
    values = np.zeros(run.contract.state.num_shared, np.int16)
    begin = time.monotonic()
    add_masks(values, [Mask(bytes(32), 1)], 4)
    with capsys.disabled():
        print(f"\n94.7 M parameters, three sites one after the other, {torch.cuda.get_device_name()}: rounds {seconds} s; "
              f"one mask {time.monotonic() - begin:.2f} s on four threads")  # fmt: skip
    assert values.any()
