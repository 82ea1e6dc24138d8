"""`client audit --replay`: the last round trained once more gives the answer that left, or it is said what differs."""

import numpy as np
import pytest

from client.worker.replay import REPLAY, find_replay, replay
from csasn.errors import ModelError, ProtocolError
from csasn.platform.checkpoint import load_arrays, save_arrays


def kept_of(federation, site):
    return next((federation.path / "sites" / site).glob(f"study-*/{REPLAY}")).parent


def replayed(federation, site="centerB"):
    return replay(federation.sites[site], federation.study, federation.directory.membership, kept_of(federation, site))


def test_the_last_round_trained_again_gives_what_left_to_the_bit(federate):
    federation = federate("run", federation={"rounds": 2, "secure_aggregation": True})
    federation.run()
    result = replayed(federation)
    assert (result.round, result.same_update, result.same_counts, result.same_manifest) == (2, True, True, True)
    assert "to the bit" in result.line


def test_an_answer_that_does_not_follow_from_the_cases_is_said(federate, monkeypatch):
    """A planted fault: what leaves is another update than what training gives."""
    federation = federate("run", federation={"rounds": 1, "secure_aggregation": True})
    worker = federation._worker("centerB")
    honest = worker.learner.work

    def lie(question, *given):
        work = honest(question, *given)
        if work.update_P is not None and question.kind == "train":
            work.update_P[0] += 1
        return work

    monkeypatch.setattr(worker.learner, "work", lie)
    federation.run()
    result = replayed(federation)
    assert (result.same_update, result.same_counts) == (False, True)
    assert "OTHER update" in result.line


def test_after_the_manifest_changed_a_replay_says_that_it_says_nothing(federate):
    federation = federate("run", federation={"rounds": 1, "secure_aggregation": True})
    federation.run()
    manifest = federation.sites_folder.parent / "centerB/manifest.csv"
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join(lines[:-2]) + "\n")
    result = replayed(federation)
    assert not result.same_manifest
    assert "says nothing" in result.line


def test_a_damaged_round_is_refused_and_none_kept_is_said(federate, tmp_path):
    federation = federate("run", federation={"rounds": 1})
    federation.run()
    path = kept_of(federation, "centerB") / REPLAY
    arrays, facts = load_arrays(path)
    save_arrays(path, arrays | {"model": arrays["model"] + np.float32(1)}, facts)
    with pytest.raises(ProtocolError, match="announced as"):
        replayed(federation)
    site = federation.sites["centerA"].model_copy(update={"state": str(tmp_path)})
    assert not list((tmp_path / "run").glob("*"))
    with pytest.raises(ModelError, match="keeps no round"):
        find_replay(site)
