"""Checkpoints and run directories: whole or absent, checked on the way back, never another study's."""

import dataclasses
import os
import subprocess

import numpy as np
import pytest

from csasn.errors import ModelError, RunError, StorageError
from csasn.platform.checkpoint import load_arrays, save_arrays
from reports import read_lines
from server.run.run_directory import BEFORE, BEST, LATEST, RunDirectory, RunState, set_aside

ARRAYS = {"model": np.arange(7, dtype=np.float32), "counts": np.arange(6).reshape(2, 3)}


@pytest.fixture
def directory(federate):
    directory = federate("run").directory
    yield directory
    directory.close()


STATE = RunState(
    round=2,
    model=np.arange(9, dtype=np.float32),
    model_hash="d" * 64,
    ranges=np.array([0.1, 0.2]),
    histogram_K=np.array([20, 10, 5]),
    history=(np.arange(9).reshape(3, 3), np.ones((3, 3), np.int64)),
    number=5,
    accepted=bytes(range(32)),
    best_round=1,
    best_score=0.75,
    loss=0.5,
    best_loss=0.25,
    undone=1,
    num_partial=1,
    validated=True,
)


def test_arrays_and_facts_come_back_as_they_went(tmp_path):
    save_arrays(tmp_path / "x.safetensors", ARRAYS, {"round": 3, "name": "a"})
    arrays, facts = load_arrays(tmp_path / "x.safetensors")
    assert facts == {"round": 3, "name": "a"}
    assert all(arrays[name].tobytes() == array.tobytes() for name, array in ARRAYS.items())


def test_any_flipped_byte_is_found(tmp_path):
    path = tmp_path / "x.safetensors"
    save_arrays(path, ARRAYS, {"round": 3})
    whole = path.read_bytes()
    for place in range(8, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ModelError):
            load_arrays(path)


def test_a_cut_file_is_refused_at_every_length(tmp_path):
    path = tmp_path / "x.safetensors"
    save_arrays(path, ARRAYS, {"round": 3})
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match="damaged"):
            load_arrays(path)


BEGUN = RunState(0, STATE.model, STATE.model_hash, STATE.ranges, STATE.histogram_K)


@pytest.mark.parametrize("state", [STATE, BEGUN])
def test_a_run_state_comes_back_as_it_went(directory, state):
    directory.save(state)
    back = directory.load()
    assert back is not None
    for field in dataclasses.fields(RunState):
        ours, theirs = getattr(state, field.name), getattr(back, field.name)
        assert type(theirs) is type(ours)
        np.testing.assert_array_equal(np.asarray(theirs, dtype=object), np.asarray(ours, dtype=object))


def test_a_checkpoint_of_another_study_is_refused(directory, federate):
    other = federate("other", seed=9).directory
    other.save(STATE)
    (directory.path / LATEST).write_bytes((other.path / LATEST).read_bytes())
    other.close()
    with pytest.raises(ModelError, match="a checkpoint of another study"):
        directory.load()


def test_a_full_disk_while_checkpointing_keeps_the_checkpoint_before(directory, tmp_path):
    """On a real file system that is full: a small tmpfs where that can be mounted, else a limit on the size of files."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = (
        os.geteuid() == 0
        and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)], check=False).returncode == 0
    )
    try:
        path = small / "latest.safetensors"
        save_arrays(path, ARRAYS, {"round": 1})
        large = {"model": np.zeros(1 << 20, np.float32)}
        if mounted:
            with pytest.raises(StorageError, match="no space left"):
                save_arrays(path, large, {"round": 2})
        else:
            import resource

            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
            try:
                with pytest.raises(StorageError):
                    save_arrays(path, large, {"round": 2})
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert load_arrays(path)[1] == {"round": 1}
        assert [entry.name for entry in small.iterdir()] == ["latest.safetensors"]
    finally:
        if mounted:
            subprocess.run(["umount", str(small)], check=True)


def test_attempts_rise_over_the_whole_run(directory):
    first = [directory.next_attempt() for _ in range(3)]
    directory.close()
    again = RunDirectory(directory.path)
    assert [*first, again.next_attempt()] == [1, 2, 3, 4]
    directory._lock = again._lock


def test_two_processes_never_hold_the_same_run(directory):
    with pytest.raises(RunError, match="in use by another process"):
        RunDirectory(directory.path)


def test_an_unfinished_run_is_never_overwritten(directory):
    directory.event("round-finished", round=1)
    with pytest.raises(RunError, match=r"an unfinished run \(1 rounds done\)"):
        RunDirectory.create(directory.path, directory.study, directory.membership)


@pytest.mark.parametrize("lost", [["study.yaml"], ["study.yaml", "run.json"], ["study.yaml", "run.json", "membership.json"]])
def test_a_run_that_was_killed_while_its_directory_was_made_begins_anew(directory, lost):
    for name in lost:
        (directory.path / name).unlink()
    (directory.path / ".run.json.0123.tmp").write_bytes(b"{")
    RunDirectory.create(directory.path, directory.study, directory.membership)
    assert all((directory.path / name).exists() for name in lost)


def test_files_that_are_no_run_are_never_mixed_with_one(directory, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="files that are no run"):
        RunDirectory.create(tmp_path / "notes", directory.study, directory.membership)


def test_a_run_set_aside_keeps_all_its_files(federate):
    federation = federate("run")
    federation.run()
    names = sorted(str(path.relative_to(federation.path)) for path in federation.path.rglob("*"))
    aside = set_aside(federation.path)
    assert not federation.path.exists()
    assert sorted(str(path.relative_to(aside)) for path in aside.rglob("*")) == names


def test_a_run_under_way_is_not_set_aside(directory):
    with pytest.raises(RunError, match="in use"):
        set_aside(directory.path)


def test_an_event_that_a_crash_cut_off_is_left_out(directory):
    directory.event("hello", sites=["centerA"], histogram=[1])
    with (directory.path / "events.jsonl").open("a") as file:
        file.write('{"event": "round-fin')
    assert [event["event"] for event in read_lines(directory.path)] == ["hello"]
    directory.event("finish", round=1)
    assert [event["event"] for event in read_lines(directory.path)] == ["hello", "finish"]


def test_the_study_of_a_run_keeps_its_hash(directory, federate):
    assert directory.study.study_hash == federate("run-too", seed=1).study.study_hash


def test_latest_best_and_the_one_before_are_apart(directory):
    directory.save(dataclasses.replace(STATE, round=1))
    directory.keep_best()
    directory.save(STATE)
    directory.keep_before()
    directory.save(dataclasses.replace(STATE, round=3))
    assert [directory.load(name).round for name in (LATEST, BEFORE, BEST)] == [3, 2, 1]
