"""Benchmarks of a real deployment on this machine: processes, TLS, signed requests; four sites on loopback."""

import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from csasn.platform.supervision import free_port
from csasn.report.events import RoundFinished, of_kind
from server.run.run_directory import read_events

sys.path.append(str(Path(__file__).parent.parent))  # of the tests: what they start real processes with
from e2e.deployment import COORDINATOR, Deployment, simulate

Line = dict[str, object]
SITES = ("centerA", "centerB", "centerC", "centerD")
# Flower 1.41 as it comes, with the same models, and without secure aggregation, which it does not have for them
STOCK_ROUND_S, STOCK_PEAK_GB, STOCK_94M_ROUND_S = 18.4, 6.4, 65.0


def deploy_round_overhead_s() -> Line:
    """Median seconds of a round beyond those of the local engine; tiny model, nobody missing, no secure aggregation."""
    return _round_overhead_s(secure=False)


def deploy_round_overhead_secured_s() -> Line:
    """The same with secure aggregation, on both sides."""
    return _round_overhead_s(secure=True)


def _round_overhead_s(*, secure: bool) -> Line:
    with _deployment({"profile": "csasn-test", "image_size": 32}, side_px=40, num_rounds=10, secure=secure) as deployment:
        deployment.start_all()
        deployment.report(600)
        simulate(deployment.folder)
        seconds = [_round_seconds(path) for path in (deployment.run_path, deployment.folder / "local")]
    ours, local = (statistics.median(rounds[1:]) for rounds in seconds)  # the first one loads images and starts torch
    return {"ours": ours - local, "rival": STOCK_ROUND_S, "ratio": (ours - local) / STOCK_ROUND_S, "unit": "s a round"}


def deploy_coordinator_peak_gb_94m() -> Line:
    """Peak memory of all coordinator processes together (proportional set size); 94.7 M parameters, one step a round, 5 rounds."""
    _, peak_gb = _run_94m()
    return {"ours": peak_gb, "rival": STOCK_PEAK_GB, "ratio": peak_gb / STOCK_PEAK_GB, "unit": "GB"}


def deploy_round_94m_secured_s() -> Line:
    """Median seconds of a whole round in that run, beyond the first: sums are masked, four sites on loopback."""
    seconds, _ = _run_94m()
    return {"ours": seconds, "rival": STOCK_94M_ROUND_S, "ratio": seconds / STOCK_94M_ROUND_S, "unit": "s a round"}


@lru_cache(maxsize=1)
def _run_94m() -> tuple[float, float]:
    """One run of the paper's size, masked: seconds a round, and GB at the coordinator."""
    with _deployment({"profile": "csasn-b2-vitb"}, side_px=256, num_rounds=5, secure=True, num_cases=4) as deployment:
        deployment.start(COORDINATOR)
        peak = _Peak(lambda: deployment.pid(COORDINATOR))
        for site in SITES:
            deployment.start(site, OMP_NUM_THREADS="1")
        report = deployment.report(1800)
        peak.stop()
        seconds = statistics.median(_round_seconds(deployment.run_path)[1:])
    assert report["status"] == "complete"
    return seconds, peak.gb


@contextmanager
def _deployment(
    model: Mapping[str, object], side_px: int, num_rounds: int, *, secure: bool = False, num_cases: int = 8
) -> Iterator[Deployment]:
    """Four enrolled sites with pictures of noise: half of them to train, a quarter each to validate and to test."""
    with tempfile.TemporaryDirectory() as name:
        folder, random = Path(name), np.random.default_rng(1)
        (folder / "sites").mkdir()
        for site in SITES:
            images = folder / site / "images"
            images.mkdir(parents=True)
            rows = ["case_id,image,label,split"]
            for case in range(num_cases):
                Image.fromarray(random.integers(0, 255, (side_px, side_px), np.uint8)).save(images / f"{case}.png")
                rows.append(f"{case},{case}.png,{'ab'[case % 2]},{('train', 'train', 'validation', 'test')[4 * case // num_cases]}")
            (folder / site / "manifest.csv").write_text("\n".join(rows) + "\n")
            places = {"manifest": f"../{site}/manifest.csv", "images": f"../{site}/images", "state": f"../{site}/state"}
            (folder / f"sites/{site}.yaml").write_text(yaml.safe_dump({"site": site, "device": "cpu", **places}))
        federation = {"sites": list(SITES), "rounds": num_rounds, "answer_deadline_s": 900.0, "secure_aggregation": secure}
        federation |= {"loss_guard": None}  # noise cannot be learnt
        study = {"name": "bench", "classes": ["a", "b"], "model": dict(model), "federation": federation}
        (folder / "study.yaml").write_text(yaml.safe_dump(study))
        deployment = Deployment(folder)
        try:
            deployment.enrol(f"127.0.0.1:{free_port()}")
            yield deployment
        finally:
            deployment.close()


def _round_seconds(path: Path) -> list[float]:
    return [event.seconds for event in of_kind(read_events(path), RoundFinished)]


class _Peak:
    """The largest sum of memory, in GB, of a process and all below it, looked at four times a second."""

    def __init__(self, root: Callable[[], int | None]) -> None:
        self.gb, self._root, self._end = 0.0, root, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Looks no more."""
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(0.25):
            if (root := self._root()) is not None:
                self.gb = max(self.gb, sum(_pss_bytes(pid) for pid in _tree(root)) / 1e9)


def _tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(") ")[2].split()[1])
        except OSError:
            continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _pss_bytes(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) * 1024
