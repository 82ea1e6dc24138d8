"""Child processes that are started anew when they end, and what a service manager is told (systemd's sd_notify).

A child that ends at once, again and again, is started after 1, 2, 4 ... 30 seconds; one that ran for a minute starts at once.
"""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from csasn.errors import StorageError
from csasn.platform.storage import private_folder, write_atomically

LONGEST_WAIT_S = 30.0
HEALTHY_S = 60.0
END_WITHIN_S = 10.0
LOOK_S = 0.2  # at whether the parent is there
GRACE_S = 5.0
MAX_LOG_BYTES = 16 << 20
# of every process that runs Flower: nothing is reported to its makers, and its log holds what is worth a look
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "FLWR_LOG_LEVEL": "WARNING"}


@dataclass
class Child:
    """A process to keep running. What it writes goes to `log`, whose last 16 MiB and those before, in `log`.1, are kept.

    What it writes in the moment in which a full log is set aside may be lost. `environment` is all of its environment, None for
    that of this process.
    """

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] | None = None
    process: subprocess.Popen[bytes] | None = None
    num_failures: int = 0
    _started: float = 0.0
    _due: float = 0.0

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self.process is not None and self.process.poll() is None

    def turn(self) -> str:
        """Starts the process where it is due, and sets its log aside where that is full; what is worth saying, or nothing."""
        now = time.monotonic()
        if self.process is not None and self.process.poll() is not None:
            code, self.process = self.process.returncode, None
            self.num_failures = 1 if now - self._started > HEALTHY_S else self.num_failures + 1
            wait = min(2.0 ** (self.num_failures - 1), LONGEST_WAIT_S) if self.num_failures > 1 else 0.0
            self._due = now + wait
            return f"{self.name} ended ({_cause(code)}), started again in {wait:.0f} s; see {self.log.name}"
        if self.process is not None:
            self._set_log_aside()
        elif now >= self._due:
            self._start(now)
        return ""

    def stop(self) -> None:
        """Ends the process: asked first, then killed."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process, self.num_failures, self._due = None, 0, 0.0

    def _start(self, now: float) -> None:
        private_folder(self.log.parent)
        self._set_log_aside()
        # O_APPEND: after the log was cut short, the process goes on at its new end
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self.process = subprocess.Popen(  # noqa: S603 - commands of our own
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env=self.environment,
                start_new_session=True,  # a Ctrl-C at the terminal is for the parent, which ends its children in order
            )
        finally:
            os.close(descriptor)
        self._started = now

    def _set_log_aside(self) -> None:
        """Copies a full log to `log`.1 and empties it, also while the process holds it open."""
        with suppress(FileNotFoundError, StorageError):  # none yet; or a full disk: the next turn tries again
            if self.log.stat().st_size > MAX_LOG_BYTES:
                write_atomically(self.log.with_name(f"{self.log.name}.1"), self.log.read_bytes(), 0o600)
                os.truncate(self.log, 0)


def _cause(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


class ServiceManager:
    """Tells systemd how a service does, where it asked; `address` is NOTIFY_SOCKET, empty where nobody listens."""

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._ready = False

    def ready(self) -> None:
        """The service does what it is for."""
        if not self._ready:
            self._ready = True
            self._tell("READY=1")

    def alive(self, status: str) -> None:
        """The watchdog need not bite; `status` is one line for `systemctl status`."""
        self._tell(f"WATCHDOG=1\nSTATUS={status}")

    def stopping(self) -> None:
        """The service is about to end."""
        self._tell("STOPPING=1")

    def _tell(self, text: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            try:
                sender.sendto(text.encode(), self._address)
            except OSError:
                return  # the manager went away: the service goes on


@contextmanager
def told_health(address: str) -> Iterator[Callable[[bool], None]]:
    """What is told whether the service is ready, and says it to gRPC probes at `address`; to nobody where that is empty."""
    if not address:
        yield lambda _: None
        return
    from csasn.platform.health import Health  # 20 MB that only who is probed needs

    with Health(address) as health:
        yield lambda ready: health.tell(ready=ready)


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end_with_parent(parent: int) -> None:
    """Ends this process once `parent`, who started it, is gone, however that came: a port or lock is not kept.

    By SIGTERM, and by SIGKILL where it is still there after `GRACE_S`: a web server may wait long for its open connections.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_S)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def end_on_sigterm() -> None:
    """Makes SIGTERM end this process the way Ctrl-C does, so that children are ended and locks given back."""

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not cut short what the first one set about
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
