"""Child processes that are kept running, and what they write."""

import re
import time

import pytest

from csasn.platform import supervision
from csasn.platform.supervision import Child

TALKS = "number=0; while :; do number=$((number + 1)); echo line $number; sleep 0.002; done"


@pytest.fixture
def talking(tmp_path):
    """A process that does not end and writes without end."""
    child = Child("talker", ["sh", "-c", TALKS], tmp_path / "logs/talker.log")
    child.turn()
    yield child
    child.stop()


def test_the_log_of_a_process_that_runs_on_is_bounded(talking, monkeypatch):
    monkeypatch.setattr(supervision, "MAX_LOG_BYTES", 1 << 11)
    begun, before = talking.process.pid, talking.log.with_name("talker.log.1")
    deadline, sizes, kept = time.monotonic() + 300, [], set()
    while len(kept) < 3:
        assert time.monotonic() < deadline, "the log was not set aside three times"
        assert talking.turn() == ""
        sizes += [path.stat().st_size for path in (talking.log, before) if path.exists()]
        kept |= {before.read_text().partition("\n")[0]} if before.exists() else set()
        time.sleep(0.01)
    assert talking.process.pid == begun
    assert max(sizes) < 1 << 14
    for path in (talking.log, before):
        assert path.stat().st_mode & 0o777 == 0o600
        assert re.fullmatch(r"(line \d+\n)*", path.read_text()), "a hole, or a line cut in two"


def test_a_full_disk_keeps_the_log_as_it_is_and_the_process_running(talking, monkeypatch):
    def full(*_):
        raise supervision.StorageError("cannot write talker.log.1: no space left on device")

    monkeypatch.setattr(supervision, "MAX_LOG_BYTES", 64)
    monkeypatch.setattr(supervision, "write_atomically", full)
    while talking.log.stat().st_size < 128:
        time.sleep(0.01)
    assert talking.turn() == ""
    assert talking.is_running
    assert talking.log.read_text().startswith("line 1\n")
