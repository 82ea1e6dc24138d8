"""A site that cannot write, or read what it keeps: it is named with its reason and waited for, and the bits are those of a run that
nothing disturbed."""

from contextlib import contextmanager

import pytest

from client.worker.diary import DIARY_FILE
from csasn.federated.messages import Collect, Kind, Reason
from full_disk import room_for

TIMES = 3  # that a site answers nothing


def disturb(federation, disturbed, wanted, often=TIMES):
    """The questions to centerB of which `wanted` is true are answered under `disturbed`, so often."""
    ask, times = federation._worker, []

    def worker(site):
        found = ask(site)
        if site == "centerB" and not hasattr(found, "undisturbed"):
            found.undisturbed = found.answer

            def answer(request):
                if wanted(request) and len(times) < often:
                    times.append(request)
                    with disturbed():
                        return found.undisturbed(request)
                return found.undisturbed(request)

            found.answer = answer
        return found

    federation._worker = worker
    return times


def check(federation, undisturbed, reason):
    assert {"sites": {"centerB": str(reason)}}.items() <= federation.events("waiting")[0].items()
    assert federation.events("waiting")[-1]["sites"] == {}
    assert [event["absent"] for event in federation.events("round-finished")] == [{}, {}]
    assert [event["attempts"] for event in federation.events("round-finished")] == [1, 1]
    assert federation.state_hash() == undisturbed.state_hash()


def second_round(request):
    return request.kind is Kind.TRAIN and request.header.round == 2


@pytest.mark.parametrize(("secure", "room_bytes"), [(False, 0), (True, 64 << 10)])  # for nothing; for a diary, and no update
def test_a_full_disk_is_waited_for_and_said_and_once_mended_gives_the_same_bits(
    federate, undisturbed, monkeypatch, secure, room_bytes
):
    monkeypatch.setattr("server.run.exchange.FIRST_PAUSE_S", 0.01)
    changes = {"federation": {"secure_aggregation": secure}}
    federation = federate("run", **changes)
    times = disturb(federation, lambda: room_for(room_bytes), second_round)
    federation.run()
    assert len(times) == TIMES
    check(federation, undisturbed(**changes), Reason.DISK)


def test_a_disk_that_is_full_when_a_masked_answer_leaves_is_waited_for_too(federate, undisturbed, monkeypatch):
    monkeypatch.setattr("server.run.exchange.FIRST_PAUSE_S", 0.01)
    changes = {"federation": {"secure_aggregation": True}}
    federation = federate("run", **changes)
    wanted = lambda request: isinstance(request, Collect) and request.of is Kind.TRAIN and request.header.round == 2  # noqa: E731
    times = disturb(federation, lambda: room_for(0), wanted)
    federation.run()
    assert len(times) == TIMES
    check(federation, undisturbed(**changes), Reason.DISK)


def test_a_diary_that_cannot_be_read_is_waited_for_until_it_is_brought_back(federate, undisturbed, monkeypatch):
    monkeypatch.setattr("server.run.exchange.FIRST_PAUSE_S", 0.01)
    federation = federate("run")

    @contextmanager
    def damaged():
        path = federation.workers["centerB"].kept.folder / DIARY_FILE
        kept = path.read_bytes()
        path.write_bytes(bytes(len(kept)))
        try:
            yield
        finally:
            path.write_bytes(kept)

    times = disturb(federation, damaged, second_round)
    federation.run()
    assert len(times) == TIMES
    check(federation, undisturbed(), Reason.KEPT)


def test_in_plain_mode_a_disk_that_stays_full_until_the_deadline_makes_a_partial_round_with_its_reason(federate, monkeypatch):
    monkeypatch.setattr("server.run.exchange.FIRST_PAUSE_S", 0.1)
    allowed = {"min_sites": 2, "max_partial_rounds": 1.0, "answer_deadline_s": 1.5}
    federation = federate("run", federation=allowed)
    times = disturb(federation, lambda: room_for(0), second_round, often=99)
    federation.run()
    assert len(times) > 3
    assert [event["absent"] for event in federation.events("round-finished")] == [{}, {"centerB": str(Reason.DISK)}]
