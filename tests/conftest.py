"""Small hospitals on disk, and a federation in this process that runs the real coordinator and the real workers."""

import copy
import json
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from PIL import Image

from client.flower.app import reason_of_failure
from client.worker.worker import SiteWorker
from csasn.data.cases import count_training_cases
from csasn.federated.messages import Absence, Reason, Reply, Request
from csasn.measures.blocks import Integers
from csasn.model.initial_weights import initial_network
from csasn.model.network import build_network
from csasn.privacy.contract import Contract
from csasn.site import find_site
from csasn.study import Study, read_study
from csasn.trust.identity import KEYS_FOLDER, load_identity, public_hex, sign, write_identity
from csasn.trust.membership import Member, Membership, share_weights
from server.run.continuation import begin_with
from server.run.rounds import Finished, StudyRun
from server.run.run_directory import Beginning, RunDirectory
from server.run.survey import tell_outcome

CLASSES = ("benign", "PTC", "FTC")
SITES = ("centerA", "centerB", "centerC")
LONGEST_RUN_S = 300.0  # of a federation in a test: masked sums wait for every site without end


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """What is written survives the death of this process without fsync, which is for machines that lose power: no test takes that
    away, and waiting for the disk was half of a federation's time. Processes that a test starts do wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_is_heard() -> None:
    """Where tests run in the background of a shell, SIGINT is ignored, and so it would be by each process that a test starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def write_hospitals(folder: Path, sites: Collection[str] = SITES, num_cases: int = 18, **changes: object) -> Path:
    """Folders of sites with PNG files that a small model can tell apart, and a study file for them; its path."""
    study = {
        "name": "small",
        "classes": list(CLASSES),
        "malignant": ["PTC", "FTC"],
        "tasks": {"subtype": {"weight": 1.0}, "malignancy": {"weight": 0.5}},
        "model": {"profile": "csasn-test", "image_size": 32},
        "federation": {
            "sites": list(sites),
            "rounds": 2,
            "answer_deadline_s": 60.0,
            "secure_aggregation": False,
            "server_rule": "fedavg",  # so that the coordinator has nothing to settle, and sends the file as it is
        },
        "optimiser": {"batch_size": 8},
    }
    for key, value in changes.items():
        study[key] = study[key] | value if key in ("model", "federation", "optimiser") else value  # type: ignore[operator]
    (folder / "sites").mkdir(parents=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    for number, site in enumerate(sites):
        _write_site(folder, site, list(study["classes"]), num_cases + 3 * number, seed=number)
    return folder / "study.yaml"


def _write_site(folder: Path, site: str, classes: list[str], num_cases: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    images = folder / site / "images"
    images.mkdir(parents=True)
    rows = ["case_id,image,label"]
    for case in range(num_cases):
        label = case % len(classes)
        for view in range(1 + case % 2):
            picture = random.normal(90, 25, (40, 48))
            row, column = divmod(label, 4)
            picture[6 + 10 * row : 14 + 10 * row, 4 + 11 * column : 13 + 11 * column] += 90
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(images / f"{case:03}-{view}.png")
            rows.append(f"c{case:03},{case:03}-{view}.png,{classes[label]}")
    (folder / site / "manifest.csv").write_text("\n".join(rows) + "\n")
    facts = {
        "site": site,
        "manifest": f"../{site}/manifest.csv",
        "images": f"../{site}/images",
        "state": f"../{site}/state",
        "device": "cpu",
    }
    (folder / "sites" / f"{site}.yaml").write_text(yaml.safe_dump(facts))


Tamper = Callable[[str, Request, Reply], Reply | None]


@dataclass
class LocalFederation:
    """The real coordinator, run directory and workers, without processes between them.

    `tamper(site, request, answer)` may change what a site answers; None means that no answer comes.
    """

    study: Study
    sites_folder: Path
    path: Path
    tamper: Tamper = lambda site, request, answer: answer
    start: Path | None = None
    requests: list[tuple[str, Request]] = field(default_factory=list)
    _waiting: list[tuple[str, Request]] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if not self.path.exists():
            keys = {name: Ed25519PrivateKey.generate() for name in self.study.federation.sites}
            RunDirectory.create(self.path, self.study, self.membership(keys), keys, self.start)
        self.directory = RunDirectory(self.path)
        self.sites = {name: find_site(name, folder=self.sites_folder) for name in self.directory.membership.sites}
        self.network = build_network(self.study) if self.study.continues else initial_network(self.study)
        self.contract = Contract.of(self.study, self.directory.membership, self.network)
        self.workers: dict[str, SiteWorker] = {}
        self.coordinator = StudyRun(self.contract, self.directory, self)

    def beginning(self) -> Beginning:
        """What the run begins with."""
        return (
            begin_with(self.directory, self.contract.state)
            if self.study.continues
            else Beginning(self.contract.state.read(self.network))
        )

    def membership(self, keys: Mapping[str, Ed25519PrivateKey]) -> Membership:
        """The membership of the sites that `keys` names, which weigh by their training cases."""
        sites = {name: find_site(name, folder=self.sites_folder) for name in keys}
        units = share_weights({name: count_training_cases(self.study, site) for name, site in sites.items()})
        members = tuple(Member(site=name, weight_units=units[name], identity=public_hex(key)) for name, key in keys.items())
        return Membership(study_hash=self.study.study_hash, members=members)

    def change(self, *sites: str) -> None:
        """The run is to go on with these sites."""
        keys = {}
        for site in sites:
            folder = self.path / "sites" / site / KEYS_FOLDER
            if not folder.exists():
                write_identity(folder, Ed25519PrivateKey.generate())
            keys[site] = load_identity(folder)
        self.directory.adopt(self.membership(keys))

    def restart_worker(self, site: str) -> None:
        """The worker's process dies: all but its files is gone."""
        self.workers.pop(site, None)

    def run(self) -> Finished:
        try:
            return self.coordinator.run(self.beginning)
        finally:
            self.directory.close()

    def count(self) -> dict[str, Integers]:
        """The sums of a survey, which ends with its outcome."""
        try:
            sums = self.coordinator.survey()
            tell_outcome(self.directory, sums)
            return sums
        finally:
            self.directory.close()

    def send(self, requests: Mapping[str, Request], deadlines_s: Mapping[str, float]) -> int:
        self._waiting = [old for old in self._waiting if old[0] not in requests]
        # the coordinator moves its model in place
        self._waiting += [(site, copy.deepcopy(request)) for site, request in requests.items()]
        return 0

    def receive(self) -> Iterator[tuple[str, Reply]]:
        assert time.monotonic() < self._began + LONGEST_RUN_S, "the run waits for a site that does not answer"
        if self._waiting:
            site, request = self._waiting.pop(0)
            self.requests.append((site, request))
            reply = self.tamper(site, request, reason_of_failure(lambda: self._worker(site).answer(request)))
            yield site, reply or Absence(Reason.DEADLINE)

    def _worker(self, site: str) -> SiteWorker:
        if site not in self.workers:
            folder = self.path / "sites" / site
            signer = partial(sign, load_identity(folder / KEYS_FOLDER))
            self.workers[site] = SiteWorker(self.study, self.directory.membership, self.sites[site], folder, signer)
        return self.workers[site]

    def state_hash(self) -> str:
        state = self.directory.load()
        assert state is not None
        return state.model_hash

    def events(self, kind: str) -> list[dict[str, object]]:
        return [event.as_json() for event in self.directory.events() if event.event == kind]


@pytest.fixture
def federate(tmp_path: Path) -> Callable[..., LocalFederation]:
    """federate(name, tamper=..., **changes of the study) -> a federation over small hospitals, ready to run."""

    def make(name: str = "run", tamper: Tamper | None = None, start: Path | None = None, **changes: object) -> LocalFederation:
        hospitals = tmp_path / f"hospitals-{name}"
        study_file = hospitals / "study.yaml" if hospitals.exists() else write_hospitals(hospitals, **changes)
        extra = {"tamper": tamper} if tamper else {}
        return LocalFederation(read_study(study_file), hospitals / "sites", tmp_path / "runs" / name, start=start, **extra)

    return make


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., LocalFederation]:
    """undisturbed(**changes of the study) -> a federation that ran to its end with nothing in its way, made once for all tests."""
    known: dict[str, LocalFederation] = {}

    def run(**changes: object) -> LocalFederation:
        key = json.dumps(changes, sort_keys=True)
        if key not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            study = read_study(write_hospitals(folder / "hospitals", **changes))  # type: ignore[arg-type]
            known[key] = LocalFederation(study, folder / "hospitals/sites", folder / "run")
            known[key].run()
            known[key].requests.clear()  # each holds a model
            known[key].workers.clear()
        return known[key]

    return run


@pytest.fixture(scope="session")
def write_small_hospitals() -> Callable[..., Path]:
    """`write_hospitals`."""
    return write_hospitals


@pytest.fixture(scope="session")
def local_federation() -> Callable[..., LocalFederation]:
    """A federation over hospitals that are there already."""

    def make(hospitals: Path, path: Path, **extra: Tamper) -> LocalFederation:
        return LocalFederation(read_study(hospitals / "study.yaml"), hospitals / "sites", path, **extra)

    return make
