"""A coordinator and its sites as real processes, by the public commands alone; each process can be killed by its own id.

A process is named by who it belongs to and what it does: ("coordinator",) is `server start`, ("centerA", "worker") a child of
`client --site centerA`. All carry a mark in their environment, by which whatever is left of them is found in the end.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import yaml
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from reports import read_lines

BIN = Path(sys.prefix) / "bin"
MARK = "CSASN_TEST_MARK"
COORDINATOR = "coordinator"
CHILDREN = {COORDINATOR: ("server.flower.superlink", "front", "run"), "site": ("node", "worker")}
PASSPHRASE = "a long enough passphrase"
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
Event = Mapping[str, object]


class Deployment:
    """The processes of one federation, whose files are in `folder`: study.yaml, sites/, coordinator/.

    `inside` gives the words that go before a command of the coordinator or a site, for one that runs on a host of its own.
    """

    def __init__(self, folder: Path, inside: Callable[[str], Sequence[str]] = lambda _: ()) -> None:
        self.folder, self.inside = folder, inside
        self.study = yaml.safe_load((folder / "study.yaml").read_text())
        self.sites = list(self.study["federation"]["sites"])
        self.mark = uuid.uuid4().hex
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._held: list[int] = []  # processes that stand still
        self.health: dict[str, str] = {}  # owner -> where it answers probes
        self.more: dict[str, Sequence[str]] = {}  # owner -> further words of its command

    # enrolment

    def enrol(
        self, address: str, listen: str = "127.0.0.1", names: Sequence[str] = (), begin: str = "init", given: Sequence[str] = ()
    ) -> None:
        """A study, or with `begin` survey the one before it, from nothing to a membership that every site has signed, by files
        alone: no process is needed for it."""
        (self.folder / "listen").write_text(listen)
        (self.folder / "passphrase").write_text(PASSPHRASE)
        more = [word for name in names for word in ("--name", name)]
        given = ("--address", address, "--passphrase-file", "passphrase", "--folder", "coordinator", *more, *given)
        self.run("server", begin, "study.yaml", *given)
        with ThreadPoolExecutor(2) as pool:
            fingerprints = dict(zip(self.sites, pool.map(self._request, self.sites), strict=True))
        for site, fingerprint in fingerprints.items():
            self.run("server", "enroll", f"{site}.request.json", "--fingerprint", fingerprint)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self.approve, self.sites))

    def approve(self, site: str) -> None:
        """Installs the kit of `site` and signs the membership that is proposed."""
        self.run("client", "install", "--site", site, f"coordinator/kits/{site}.kit.zip")
        proposed = self.folder / "coordinator/membership.json"
        said = self.run("client", "approve", "--site", site, "--membership", str(proposed), "--yes", self.membership_hash()[:12])
        assert f"approved by {site}" in said

    def membership_hash(self) -> str:
        """Of the membership that is proposed."""
        from csasn.trust.membership import read_membership

        return read_membership(self.folder / "coordinator/membership.json").membership_hash

    def copy(self, folder: Path) -> "Deployment":
        """Another one that begins with the files of this."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Deployment(folder, self.inside)

    def change_site(self, site: str, **facts: object) -> None:
        """Changes the site file."""
        path = self.folder / f"sites/{site}.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | facts))

    def _request(self, site: str) -> str:
        said = self.run("client", "keygen", "--site", site)
        self.run("client", "enroll", "--site", site, "--study", "coordinator/study.yaml")
        return said.partition("fingerprint: ")[2].partition("\n")[0]

    # processes

    def run(self, *words: str, code: int = 0, host: str = COORDINATOR, within_s: float = 120.0, **environment: str) -> str:
        """Runs a command to its end, which has to come with this exit code; what it printed."""
        done = subprocess.run(
            self._words(host, words), cwd=self.folder, env=self._environment(environment), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=within_s, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}"
        return done.stdout

    def start(self, owner: str, **environment: str) -> None:
        """Starts `server start --run` or `client --site`."""
        words = ("client", "--site", owner)
        if owner == COORDINATOR:
            words = ("server", "start", "--run", "--listen", (self.folder / "listen").read_text())
        if owner in self.health:
            words = (*words, "--health", self.health[owner])
        words = (*words, *self.more.get(owner, ()))
        with self.log(owner).open("ab") as log:
            self.processes[owner] = subprocess.Popen(
                self._words(owner, words), cwd=self.folder, env=self._environment(environment), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def start_all(self) -> None:
        """Starts the coordinator and every site."""
        for owner in (COORDINATOR, *self.sites):
            self.start(owner)

    def pid(self, owner: str, child: str | None = None) -> int | None:
        """The id of a running process."""
        process = self.processes.get(owner)
        if process is None or process.poll() is not None:
            return None
        if child is None:
            return process.pid
        return next((pid for pid, words in _children(process.pid) if child in words[3:5]), None)

    def kill(self, owner: str, child: str | None = None) -> int:
        """kill -9, by its own id; waits for a child that is just being started."""
        self.wait_for(lambda: self.pid(owner, child) is not None, f"{owner} {child} runs")
        pid = self.pid(owner, child)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        if child is None:
            self.processes[owner].wait()
        return pid

    @contextmanager
    def going_on(self, site: str) -> Iterator[None]:
        """Lets the run go on for this block alone: after it the worker of `site`, which every masked round waits for, stands still,
        so that no slow test finds the run at its end."""
        self._let_go()
        try:
            yield
        finally:
            if (pid := self.pid(site, "worker")) is not None:
                os.kill(pid, signal.SIGSTOP)
                self._held.append(pid)

    def _let_go(self) -> None:
        while self._held:
            with suppress(ProcessLookupError):
                os.kill(self._held.pop(), signal.SIGCONT)

    def end(self, owner: str) -> int:
        """Ends `server start` or `client --site` as a service manager would; its exit code."""
        process = self.processes.pop(owner)
        if process.poll() is None:
            process.terminate()
        return process.wait(120)

    def exit_code(self, owner: str, within_s: float = 120.0) -> int:
        """With what `server start` or `client --site` ends by itself."""
        return self.processes.pop(owner).wait(within_s)

    def close(self) -> None:
        """Ends everything; nothing may be left."""
        self._let_go()
        for owner in list(reversed(self.processes)):
            self.end(owner)
        try:
            self.wait_for(lambda: not self.left(), "all processes have ended", 120)
        finally:
            for pid in self.left():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def left(self) -> list[int]:
        """The processes of this deployment that are there."""
        marked = f"{MARK}={self.mark}".encode()
        return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if marked in _read(path).split(b"\0")]

    def log(self, owner: str) -> Path:
        """What `server start` or `client --site` printed."""
        return self.folder / f"{owner}.log"

    def said(self, owner: str) -> str:
        """The text of that."""
        return self.log(owner).read_text() if self.log(owner).exists() else ""

    def run_log(self) -> str:
        """What `server run` wrote, nothing before it was started."""
        path = self.folder / "coordinator/logs/run.log"
        return path.read_text() if path.exists() else ""

    def _words(self, host: str, words: Sequence[str]) -> list[str]:
        return [*self.inside(host), str(BIN / words[0]), *words[1:]]

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        return os.environ | QUIET | {MARK: self.mark} | more

    # what happens

    @property
    def run_path(self) -> Path:
        """The coordinator's run directory."""
        return self.folder / "coordinator/runs" / self.study["name"]

    def events(self, kind: str) -> list[Event]:
        """The events of this kind so far."""
        return [event for event in read_lines(self.run_path) if event["event"] == kind]

    def round(self) -> int:
        """The newest round that was begun."""
        return max((int(str(event["round"])) for event in self.events("train-started")), default=0)

    def finished_round(self, number: int, within_s: float = 300.0) -> Event:
        """The event that ends a round, once it came."""

        def found() -> Event | None:
            return next((event for event in self.events("round-finished") if event["round"] == number), None)

        self.wait_for(lambda: found() is not None, f"round {number} is finished", within_s)
        event = found()
        assert event is not None
        return event

    def epoch(self, site: str) -> tuple[int, int]:
        """The round that `site` trains in and how much of it is done, in parts of a hundred, by what its worker noted last."""
        with suppress(OSError, ValueError):
            doing = str(json.loads((self.folder / site / "state/doing.json").read_bytes())["doing"])
            if found := re.fullmatch(r"round (\d+): training, (\d+) %", doing):
                return int(found[1]), int(found[2])
        return 0, 0

    def await_training(self, *sites: str, within_s: float = 300.0) -> int:
        """Waits until all these sites are in the middle of an epoch of one round; its number."""

        def are_training() -> bool:
            epochs = [self.epoch(site) for site in sites]
            return all(number == self.round() > 0 and 0 < done < 90 for number, done in epochs)

        assert not self.events("run-finished"), "the run is over before this fault"
        self.wait_for(are_training, f"{', '.join(sites)} train", within_s, 0.005)
        return self.round()

    def report(self, within_s: float = 400.0) -> dict[str, object]:
        """report.json, once the run has ended."""
        self.wait_for(lambda: bool(self.events("run-finished")), "the run is finished", within_s)
        self.wait_for((self.run_path / "report.json").exists, "the report is written")
        report = json.loads((self.run_path / "report.json").read_text())
        assert isinstance(report, dict)
        return report

    def wait_for(self, condition: Callable[[], object], what: str, within_s: float = 120.0, look_s: float = 0.05) -> None:
        """Waits until `condition` holds; says what happened instead where it does not in time."""
        end = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < end, f"not within {within_s} s: {what}\n{self.describe()}"
            time.sleep(look_s)

    def describe(self) -> str:
        """The ends of all logs, for a test that fails."""
        places = ("*.log", "coordinator/logs/*.log", "coordinator/studies/*/logs/*.log", "*/state/logs/*.log")
        files = [file for place in places for file in self.folder.glob(place)]
        texts = [f"== {file.relative_to(self.folder)}\n{file.read_text(errors='replace')[-1500:]}" for file in files]
        events = "\n".join(str(event)[:300] for event in read_lines(self.run_path)[-25:])
        return "\n".join([*texts, f"== events\n{events}"])


def simulate(folder: Path, *more: object, out: str = "local", study: str = "study.yaml") -> dict[str, object]:
    """The report of the local engine on the same study and hospitals, with the hash of the state after each round."""
    environment = os.environ | QUIET
    words = [BIN / "server", "simulate", folder / study, "--out", folder / out, *map(str, more)]
    subprocess.run(words, cwd=folder, env=environment, stdin=-3, stdout=-3, check=True, timeout=300)
    report = json.loads((folder / out / "report.json").read_text())
    rounds = [event for event in read_lines(folder / out) if event["event"] == "round-finished"]
    return report | {"hashes": {event["round"]: event["state_hash"] for event in rounds}}


def check_same_bits(deployment: Deployment, local: Mapping[str, object]) -> None:
    """Waits for the end of the run, which has to be that of an undisturbed one, to the bit."""
    report = deployment.report(900)
    assert report["status"] == "complete"
    assert report["state_hash"] == local["state_hash"]
    for site in deployment.sites:
        assert deployment.exit_code(site, 300) == 0, deployment.describe()


def _children(parent: int) -> list[tuple[int, list[str]]]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        fields = _read(path).rpartition(b") ")[2].split()
        if len(fields) > 1 and fields[0] != b"Z" and int(fields[1]) == parent:
            words = _read(path.parent / "cmdline").decode(errors="replace").split("\0")
            found.append((int(path.parent.name), words))
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # just ended
        return b""


def probe(address: str) -> str:
    """What a probe of Kubernetes hears; how the call failed where nobody answers."""
    with grpc.insecure_channel(address) as channel:
        try:
            return HealthCheckResponse.ServingStatus.Name(HealthStub(channel).Check(HealthCheckRequest(), timeout=5).status)
        except grpc.RpcError as error:
            return error.code().name
