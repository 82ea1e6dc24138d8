"""One real training step of the study's model, in a process of its own, so that the peak of memory is its own.

It trains on noise in the shape of a batch: a fault of the site's data does not keep anybody from knowing the machine.
"""

import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csasn.errors import CsasnError, TrainingError
from csasn.platform.command import run_command

if TYPE_CHECKING:
    from csasn.data.cases import SiteData
    from csasn.site import Site
    from csasn.study import Study

OUT_OF_MEMORY = 99  # exit code of the child; a kernel that is short of memory kills it instead
KILLED = -9
LONGEST_S = 300.0
QUICK_S = 10.0  # a step that takes less is taken once more, warm


@dataclass(frozen=True)
class Measured:
    """A step on `device`: seconds, the process' peak of memory there, and the micro batch that fitted."""

    device: str
    step_s: float
    peak_bytes: int
    micro_batch: int


def measure_training(site_file: Path, study_file: Path, wanted: int) -> Measured:
    """A step with the largest micro batch that fits: `wanted`, or else half of it, and so on, each in a new process.

    Raises:
        CsasnError: the step fails for another reason, or not even one image fits.
    """
    size = wanted
    while size:
        if found := take_step(site_file, study_file, size):
            return found
        size //= 2
    raise TrainingError("out of memory with a single image", "this machine is too small for the study's model")


def take_step(site_file: Path, study_file: Path, micro_batch: int) -> Measured | None:
    """One step in a process of its own; None where it is out of memory.

    Raises:
        CsasnError: what the child says.
        TrainingError: it says nothing, or takes longer than five minutes.
    """
    command = [sys.executable, "-P", "-m", "client.doctor.training_probe", str(site_file), str(study_file), str(micro_batch)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False, stdin=subprocess.DEVNULL)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise TrainingError(
            f"one step takes longer than {LONGEST_S:.0f} s", "this machine is too slow for the study's model"
        ) from None
    if done.returncode == 0:
        return Measured(**json.loads(done.stdout.splitlines()[-1]))
    if done.returncode in (OUT_OF_MEMORY, KILLED):
        return None
    said = dict(line.split(": ", 1) for line in done.stderr.splitlines() if line.startswith(("error: ", "hint: ")))
    kind = next((kind for kind in CsasnError.__subclasses__() if kind.exit_code == done.returncode), TrainingError)
    raise kind(said.get("error", f"the step ended with exit code {done.returncode}"), said.get("hint", ""))


def main() -> None:
    """Takes the step that the command line of the child names, and prints what it took."""
    site_file, study_file, micro_batch = sys.argv[1:]
    sys.exit(run_command(lambda: _print_step(Path(site_file), Path(study_file), int(micro_batch))))


def _print_step(site_file: Path, study_file: Path, micro_batch: int) -> None:
    import torch

    from csasn.site import read_site
    from csasn.study import read_study

    try:
        measured = _measure(read_study(study_file), read_site(site_file), micro_batch)
    except (torch.OutOfMemoryError, MemoryError):
        sys.exit(OUT_OF_MEMORY)
    except RuntimeError as error:
        if "allocate memory" in str(error):  # PyTorch's own word for a CPU without memory
            sys.exit(OUT_OF_MEMORY)
        raise
    sys.stdout.write(json.dumps(asdict(measured)) + "\n")


def _measure(study: "Study", site: "Site", micro_batch: int) -> Measured:
    import numpy as np
    import torch

    from client.worker.learner import choose_device
    from csasn.federated.weighting import class_weights
    from csasn.learning.loss import LossTerms
    from csasn.learning.objectives.objective import local_objective
    from csasn.learning.training import LocalPlan, train_locally
    from csasn.model.network import build_network

    torch.set_num_threads(1)  # as the worker does
    device = choose_device(site, study.deterministic)
    network, data = build_network(study).to(device), _noise(study)
    weights = class_weights(study.class_weighting, np.ones(len(study.classes), np.int64), [])
    plan = LocalPlan(site.site, 1, local_objective(study.federation), num_steps=1, micro_batch=micro_batch)
    for _ in range(2):
        begin = time.perf_counter()
        train_locally(network, data, study, LossTerms.of(study, weights, device), plan)
        if device.type == "cuda":
            torch.cuda.synchronize()
        took = time.perf_counter() - begin
        if took > QUICK_S:
            break
    peak = torch.cuda.max_memory_reserved() if device.type == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    return Measured(name, took, peak, micro_batch)


def _noise(study: "Study") -> "SiteData":
    """A batch of cases with one image each, each labelled for every task."""
    import numpy as np

    from csasn.data.cases import TRAIN, SiteData
    from csasn.model.profiles import image_size

    num, size = study.optimiser.batch_size, image_size(study.model)
    random = np.random.default_rng(0)
    return SiteData(
        images_NHW=random.integers(0, 256, (num, size, size), np.uint8),
        case_N=np.arange(num),
        labels_N={task: np.arange(num) % 2 for task in study.tasks},
        split_C=np.full(num, TRAIN, np.int8),
        class_C=np.arange(num) % 2,
        notes=(),
    )


if __name__ == "__main__":
    main()
