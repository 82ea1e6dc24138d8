"""One process at a time, until it lets go or ends."""

import os
import subprocess
import sys
import threading

import pytest

from csasn.errors import RunError
from csasn.platform import locks
from csasn.platform.locks import is_locked, lock_folder, open_locked, take_lock


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(locks, "LOCK_PAUSE_S", 0.0)


def test_who_comes_second_gets_no_lock_until_the_first_lets_go(tmp_path, impatient):
    path = tmp_path / "lock"
    assert not is_locked(path)
    first = take_lock(path)
    assert is_locked(path)
    assert take_lock(path) is None
    os.close(first)
    assert not is_locked(path)
    os.close(take_lock(path))
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_lock_ends_with_its_process(tmp_path, impatient):
    path = tmp_path / "lock"
    hold = "import sys, time; from pathlib import Path; from csasn.platform.locks import take_lock; "
    hold += "lock = take_lock(Path(sys.argv[1])); print('held', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-P", "-c", hold, path], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        assert take_lock(path) is None
        process.kill()
        process.wait()
        assert not is_locked(path)


def test_a_folder_that_another_holds_is_named(tmp_path):
    first = lock_folder(tmp_path)
    with pytest.raises(RunError, match="is in use by another process"):
        lock_folder(tmp_path)
    os.close(first)
    os.close(lock_folder(tmp_path))


def test_who_waits_gets_the_lock_when_it_is_free(tmp_path):
    first, taken = open_locked(tmp_path / "lock"), []
    thread = threading.Thread(target=lambda: taken.append(open_locked(tmp_path / "lock")))
    thread.start()
    thread.join(0.2)
    assert not taken
    os.close(first)
    thread.join(120)
    os.close(taken[0])
