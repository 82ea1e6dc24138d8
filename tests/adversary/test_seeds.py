"""No seed hides two arrays, whatever dies and whatever is brought back in a whole run."""

import hashlib
import shutil
from collections import defaultdict

import pytest

import client.worker.worker
from csasn.federated.secagg import keys, sealing
from csasn.federated.secagg.masks import add_masks

SECURE = {"secure_aggregation": True, "rounds": 2}
SITES = ("centerA", "centerB", "centerC")


class Recorder:
    """Stands before `add_masks`: which arrays each seed hid, by site and digest."""

    def __init__(self):
        self.hidden = defaultdict(set)
        self.calls = 0

    def __call__(self, values, masks, num_threads=1):
        digest = hashlib.sha256(values.tobytes()).hexdigest()
        self.calls += 1
        for mask in masks:
            self.hidden[mask.seed].add((mask.sign, digest))
        add_masks(values, masks, num_threads)

    def used_twice(self):
        """Seeds under which one side of a pair hid two different arrays."""
        return [seed for seed, hid in self.hidden.items() if len({digest for sign, digest in hid if sign > 0}) > 1
                or len({digest for sign, digest in hid if sign < 0}) > 1]  # fmt: skip


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(sealing, "add_masks", recorder)
    return recorder


def eventful(federate, tmp_path):
    """A run in which a site's machine is killed again and again, and brought back from an image twice."""
    told = defaultdict(int)

    def tamper(site, request, reply):
        told[site] += 1
        folder = federation.path / "sites" / site
        if told[site] % 3 == 0:
            federation.restart_worker(site)
        if site == "centerB" and request.kind == "train" and request.header.number == 1 and not (tmp_path / "image").exists():
            shutil.copytree(folder, tmp_path / "image")  # with the answer that waits, and its key
        if site == "centerB" and told[site] in (6, 9):
            federation.restart_worker(site)
            shutil.rmtree(folder)
            shutil.copytree(tmp_path / "image", folder)
            return None  # and its reply is lost
        return None if told[site] == 4 else reply

    federation = federate(tamper=tamper, federation=SECURE, num_cases=12)
    federation.run()
    assert len(federation.events("round-finished")) == 2
    assert told["centerB"] > 12
    return federation


def test_no_seed_hides_two_arrays_in_a_run_with_kills_and_restores(federate, tmp_path, recorder):
    eventful(federate, tmp_path)
    assert recorder.calls > 24
    assert recorder.used_twice() == []


def test_seeds_of_keys_that_serve_two_questions_are_found(federate, recorder, monkeypatch):
    speaking = []
    plain = client.worker.worker.SiteWorker.answer
    monkeypatch.setattr(
        client.worker.worker.SiteWorker, "answer", lambda w, request: speaking.append(w.site.site) or plain(w, request)
    )
    monkeypatch.setattr(client.worker.worker, "fresh_key", lambda: hashlib.sha256(speaking[-1].encode()).digest())
    view_of = keys.view_of
    monkeypatch.setattr(keys, "_derive", lambda secret, context, plain=keys._derive: plain(secret, [context[-1]]))
    assert view_of is keys.view_of
    federate(federation=SECURE, num_cases=12).run()
    assert len(recorder.used_twice()) == 6  # of three pairs, for updates and for counts
