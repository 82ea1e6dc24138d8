"""csasn/platform/storage.py: whole files or none, private folders."""

import errno
import json
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from csasn.errors import StorageError
from csasn.platform.storage import (
    append_line,
    atomic_writer,
    link_atomically,
    private_folder,
    writable_folder,
    write_atomically,
    write_json,
)


@contextmanager
def small_disk(folder: Path, size_kib: int = 64) -> Iterator[Path]:
    """A folder with room for `size_kib`: a tmpfs of its own, or where that may not be mounted, a limit on the size of any file."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(folder)]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_kib * 1024, hard))
    try:
        yield folder
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_written_bytes_are_read_back_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_atomically(tmp_path / "state.bin", b"one")
    write_atomically(tmp_path / "state.bin", b"two")
    assert (tmp_path / "state.bin").read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["state.bin"]


def test_a_private_file_is_private_from_its_first_byte_on(tmp_path: Path) -> None:
    with atomic_writer(tmp_path / "key", 0o600) as file:
        file.write(b"secret")
        file.flush()
        assert [mode_of(path) for path in tmp_path.iterdir()] == [0o600]
    assert mode_of(tmp_path / "key") == 0o600


def test_a_block_that_raises_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state.bin"
    write_atomically(path, b"old")

    def interrupted() -> None:
        with atomic_writer(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["state.bin"]


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "state.bin"
    with atomic_writer(path) as first, atomic_writer(path) as second:
        first.write(b"1" * 100)
        second.write(b"2" * 100)
    assert path.read_bytes() == b"1" * 100
    assert os.listdir(tmp_path) == ["state.bin"]


def test_a_writer_killed_before_its_end_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state.bin"
    write_atomically(path, b"old")
    script = (
        "import os, signal, sys; from pathlib import Path; from csasn.platform.storage import atomic_writer\n"
        "with atomic_writer(Path(sys.argv[1])) as file:\n"
        "    file.write(b'new'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    result = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert result.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"


def test_a_full_disk_is_a_storage_error_and_leaves_the_old_file_alone(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as folder:
        write_atomically(folder / "model.bin", b"old")
        with pytest.raises(StorageError, match=r"^cannot write model\.bin: (no space left on device|file too large)$") as caught:
            write_atomically(folder / "model.bin", b"x" * 200_000)
        assert caught.value.hint == "free disk space and try again"
        assert (folder / "model.bin").read_bytes() == b"old"
        assert os.listdir(folder) == ["model.bin"]


def test_a_full_disk_takes_a_line_back(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as folder:
        append_line(folder / "events.jsonl", "first")
        with pytest.raises(StorageError, match=r"cannot write events\.jsonl"):
            append_line(folder / "events.jsonl", "x" * 200_000)
        append_line(folder / "events.jsonl", "second")
        assert (folder / "events.jsonl").read_text() == "first\nsecond\n"


def test_a_missing_folder_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot write a\.json: no such file or directory"):
        write_json(tmp_path / "missing" / "a.json", {})
    with pytest.raises(StorageError, match=r"cannot write a\.log"):
        append_line(tmp_path / "missing" / "a.log", "line")


def test_an_error_of_the_folder_sync_is_reported_unless_the_file_system_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def fail(number: int) -> None:
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(code, "")
        sync(number)

    monkeypatch.setattr(os, "fsync", fail)
    code = errno.EINVAL
    write_atomically(tmp_path / "a", b"1")
    code = errno.EIO
    with pytest.raises(StorageError, match="cannot write a"):
        write_atomically(tmp_path / "a", b"2")


def test_json_round_trips_and_refuses_what_json_does_not_have(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"é": [1, 0.1, None]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"é": [1, 0.1, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_second_name_keeps_what_the_first_one_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for data in (b"one", b"two", b"two"):
        write_atomically(first, data)
        link_atomically(first, second)
        link_atomically(first, second)
        assert second.read_bytes() == data
    write_atomically(first, b"three")
    assert second.read_bytes() == b"two"
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError("no second names here")))
    link_atomically(first, second)
    assert second.read_bytes() == b"three"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]


def test_a_line_after_one_that_was_cut_short_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append_line(path, "one")
    path.write_bytes(path.read_bytes() + b"hal")
    append_line(path, "two")
    assert path.read_text() == "one\nhal\ntwo\n"
    with pytest.raises(ValueError, match="no line break"):
        append_line(path, "two\nlines")


def test_a_private_folder_is_made_or_repaired(tmp_path: Path) -> None:
    assert mode_of(private_folder(tmp_path / "state" / "cache")) == 0o700
    (tmp_path / "wide").mkdir()
    (tmp_path / "wide").chmod(0o777)
    assert mode_of(private_folder(tmp_path / "wide")) == 0o700


def test_a_folder_that_cannot_be_private_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot make folder file private: file exists"):
        private_folder(tmp_path / "file")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "")

    (tmp_path / "wide").mkdir(mode=0o755)
    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(StorageError, match="cannot make folder wide private: operation not permitted"):
        private_folder(tmp_path / "wide")


def test_a_folder_for_results_is_made_and_proved_to_be_writable(tmp_path: Path) -> None:
    assert mode_of(writable_folder(tmp_path / "runs" / "model", 0o700)) == 0o700
    assert os.listdir(writable_folder(tmp_path / "runs" / "model")) == []
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot make folder .*/file/model: not a directory"):
        writable_folder(tmp_path / "file" / "model")
    with pytest.raises(StorageError, match="nothing can be written in /proc/self"):  # not even by root
        writable_folder(Path("/proc/self"))
