"""server/run/exchange.py: who is asked again and when, who is sent the whole model, who is waited for and who is told of it."""

from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest

import server.run.exchange
from csasn.federated.messages import (
    Absence,
    Answer,
    Collect,
    Finish,
    Header,
    Hello,
    Kind,
    ModelUpdate,
    Reason,
    Step,
    Train,
    Validate,
    Weighting,
)
from csasn.trust.membership import Member, Membership
from server.run.exchange import FIRST_PAUSE_S, LONGEST_PAUSE_S, MAX_RETRIES, SiteChannel, try_a_few_times, wait_for_it

SITES = ("centerA", "centerB", "centerC")
UNITS = MappingProxyType(dict(zip(SITES, (22, 21, 21), strict=True)))
ANSWER = Answer(np.ones(3, np.int64))
HELLO = Hello(Header("a" * 64, "b" * 64, 1, 0, "run", 1))
DEADLINE_S = 3600.0
OTHERS = [reason for reason in Reason if reason not in (Reason.NEEDS_MODEL, Reason.DEADLINE)]


class Sites:
    """Sites that say what `script` has for them, one word after the other, then answer; the clock moves as fast as it has to.

    A word None is silence: the site says nothing to that request.
    """

    def __init__(self, **script):
        self.script, self.now, self.sent, self._open = script, 0.0, [], {}

    def monotonic(self):
        return self.now

    def send(self, requests, deadlines_s):
        self.deadlines_s = deadlines_s
        self.sent += [(round(self.now, 6), site, request) for site, request in requests.items()]
        self._open |= requests
        return 10 * len(requests)

    def receive(self):
        if not self._open:
            self.now += 0.25
        for site in list(self._open):
            words = self.script.get(site, [])
            word = words.pop(0) if words else ANSWER
            del self._open[site]
            if word is not None:
                yield site, word
            else:
                words.insert(0, None)  # as long as nobody asks it anything else

    def times(self, site):
        """When it was sent something."""
        return [when for when, name, _ in self.sent if name == site]


@pytest.fixture
def channel(monkeypatch):
    """channel(centerB=[...]) -> the channel, its sites, and who was said to be waited for, one change after the other."""

    def make(units=UNITS, took=MappingProxyType({}), **script):
        sites, told = Sites(**script), []
        monkeypatch.setattr(server.run.exchange, "time", sites)
        study = SimpleNamespace(federation=SimpleNamespace(answer_deadline_s=DEADLINE_S))
        members = tuple(Member(site=site, weight_units=weight) for site, weight in units.items())
        contract = SimpleNamespace(study=study, membership=Membership(study_hash="0" * 64, members=members))
        return SiteChannel(contract, sites, told.append, took), sites, told

    return make


def ask(channel, again=wait_for_it, question=HELLO, sites=SITES):
    """Every word that came, in order, and the bytes sent."""
    came = []
    num_bytes = channel.ask(question, sites, lambda site, reply: came.append((site, reply)), again)
    return came, num_bytes


def test_each_site_is_asked_once_and_what_was_sent_is_counted(channel):
    asked, sites, told = channel()
    came, num_bytes = ask(asked)
    assert came == [(site, ANSWER) for site in SITES]
    assert num_bytes == 30
    assert [sites.times(site) for site in SITES] == [[0.0]] * 3
    assert told == []


@pytest.mark.parametrize("reason", OTHERS)
def test_a_site_that_is_waited_for_is_asked_at_growing_intervals_of_at_most_five_minutes(channel, reason):
    asked, sites, _ = channel(centerB=[Absence(reason)] * 14)
    came, _ = ask(asked)
    pauses = np.diff(sites.times("centerB"))
    np.testing.assert_allclose(pauses[:9], [FIRST_PAUSE_S * 2**k for k in range(9)], atol=0.26)
    np.testing.assert_allclose(pauses[9:], LONGEST_PAUSE_S, atol=0.26)
    assert LONGEST_PAUSE_S == 300
    assert [site for site, reply in came if reply is ANSWER] == ["centerA", "centerC", "centerB"]
    assert len(sites.times("centerA")) == len(sites.times("centerC")) == 1


@pytest.mark.parametrize("times", [0, 9, 1023, 1024, 10_000])
def test_a_site_that_is_away_for_weeks_is_waited_for_all_the_same(times):
    for reason in Reason:
        assert 0 <= wait_for_it(Absence(reason), times, 0.0) <= LONGEST_PAUSE_S


@pytest.mark.parametrize("reason", [Reason.NEEDS_MODEL, Reason.DEADLINE])
def test_a_site_that_lacks_the_model_or_let_the_deadline_pass_is_asked_again_at_once(channel, reason):
    asked, sites, _ = channel(centerB=[Absence(reason)] * 3)
    ask(asked)
    assert sites.times("centerB") == [0.0] * 4


@pytest.mark.parametrize("reason", [reason for reason in Reason if not reason.heals])
def test_where_a_round_may_do_without_it_a_site_is_asked_again_only_where_that_may_help_at_once(channel, reason):
    asked, sites, told = channel(centerB=[Absence(reason)] * 9)
    came, _ = ask(asked, try_a_few_times)
    often = MAX_RETRIES + 1 if reason in (Reason.NEEDS_MODEL, Reason.FAILED) else 1
    assert sites.times("centerB") == [0.0] * often
    assert came[-1] == ("centerB", Absence(reason)) or ("centerC", ANSWER) in came
    assert all(waiting in ({}, {"centerB": str(reason)}) for waiting in told)


@pytest.mark.parametrize("reason", [Reason.DISK, Reason.MEMORY, Reason.KEPT])
def test_a_site_whose_people_can_mend_it_is_waited_for_until_its_deadline_as_one_that_is_away(channel, reason):
    asked, sites, told = channel(centerB=[Absence(reason)] * 5)
    came, _ = ask(asked, try_a_few_times)
    assert came[-1] == ("centerB", ANSWER)
    np.testing.assert_allclose(np.diff(sites.times("centerB")), [1, 2, 4, 8, 16], atol=0.26)
    assert told == [{"centerB": str(reason)}, {}]
    asked, sites, _ = channel(centerB=[Absence(reason)] * 999)
    came, _ = ask(asked, try_a_few_times)
    assert came[-1] == ("centerB", Absence(reason))
    assert DEADLINE_S <= sites.now < DEADLINE_S + 1
    begun = len(sites.sent)
    came, _ = ask(asked, try_a_few_times)  # it is asked again, not waited for, and still named with its reason
    assert [site for _, site, _ in sites.sent[begun:]] == list(SITES)
    assert came[-1] == ("centerB", Absence(reason))
    assert sites.now < DEADLINE_S + 2


def test_deadlines_follow_weights_and_what_sites_took(channel):
    asked, sites, _ = channel(units={"centerA": 4, "centerB": 6, "centerC": 54}, took={"centerA": 1500.0, "centerB": 900.0})
    ask(asked)
    share = 54 * 3 / 64
    assert sites.deadlines_s == {"centerA": 4500.0, "centerB": DEADLINE_S, "centerC": pytest.approx(share * DEADLINE_S)}
    silent = iter(range(9000))
    receive = sites.receive

    def slow():
        if next(silent) < 8000:  # quarters of a second
            sites.now += 0.25
            return iter(())
        return receive()

    sites.receive = slow
    ask(asked, question=about(Kind.TRAIN, "one"))
    ask(asked, question=about(Kind.FINISH, "one"))
    assert sites.deadlines_s["centerB"] == pytest.approx(6000.0, abs=2)


def test_pauses_grow_for_each_site_alone_and_begin_anew_with_the_next_question(channel):
    asked, sites, _ = channel(centerB=[Absence(Reason.DISK)] * 4, centerC=[Absence(Reason.DISK)])
    ask(asked)
    np.testing.assert_allclose(np.diff(sites.times("centerB")), [1, 2, 4, 8], atol=0.26)
    np.testing.assert_allclose(np.diff(sites.times("centerC")), [1], atol=0.26)
    sites.script["centerB"] = [Absence(Reason.DISK)]
    sites.sent.clear()
    ask(asked)
    np.testing.assert_allclose(np.diff(sites.times("centerB")), [1], atol=0.26)


def test_who_is_waited_for_is_told_once_for_each_change(channel):
    disk, images = Absence(Reason.DISK), Absence(Reason.IMAGES)
    asked, _, told = channel(centerA=[disk], centerB=[disk, disk, images, images, disk])
    ask(asked)
    assert told == [
        {"centerA": str(disk)},
        {"centerA": str(disk), "centerB": str(disk)},
        {"centerB": str(disk)},
        {"centerB": str(images)},
        {"centerB": str(disk)},
        {},
    ]


def test_who_let_the_deadline_pass_is_waited_for_and_told_and_who_lacks_the_model_alone_is_not(channel):
    late = Absence(Reason.DEADLINE)
    asked, _, told = channel(centerA=[Absence(Reason.NEEDS_MODEL)], centerB=[late, late])
    ask(asked)
    assert told == [{"centerB": str(late)}, {}]


def test_what_a_site_says_without_being_asked_or_twice_does_not_count(channel):
    asked, sites, _ = channel()
    receive = sites.receive

    def twice():
        for site, reply in receive():
            yield site, reply
            yield site, Absence(Reason.FAILED)
            yield "stranger", reply

    sites.receive = twice
    came, _ = ask(asked)
    assert came == [(site, ANSWER) for site in SITES]


def test_a_lost_site_is_waited_for_no_more_until_it_answers_or_everybody_is_waited_for(channel):
    asked, sites, _ = channel(centerB=[Absence(Reason.DEADLINE), None])
    ask(asked, try_a_few_times)
    came, _ = ask(asked, try_a_few_times)
    assert ("centerB", Absence(Reason.DEADLINE)) in came  # nothing came of it, and nobody waited
    sites.script["centerB"] = [ANSWER]
    came, _ = ask(asked, try_a_few_times)
    assert ("centerB", ANSWER) in came
    sites.script["centerB"] = [Absence(Reason.DEADLINE), Absence(Reason.FAILED), ANSWER]
    ask(asked, try_a_few_times)
    asked.wait_for_all()
    came, _ = ask(asked, try_a_few_times)
    assert came[-1] == ("centerB", ANSWER)


def test_where_all_sites_were_lost_and_where_every_site_has_to_answer_nobody_is_left_out(channel):
    late = Absence(Reason.DEADLINE)
    asked, _, _ = channel(**{site: [late, Absence(Reason.FAILED)] for site in SITES})
    ask(asked, try_a_few_times)
    came, _ = ask(asked, try_a_few_times)
    assert [site for site, reply in came if reply is ANSWER] == list(SITES)
    asked, sites, _ = channel(centerB=[late])
    ask(asked, try_a_few_times)
    sites.script["centerB"] = [Absence(Reason.DISK)]
    came, _ = ask(asked, wait_for_it)
    assert came[-1] == ("centerB", ANSWER)


def test_bytes_of_every_repeat_are_counted(channel):
    asked, _, _ = channel(centerB=[Absence(Reason.NEEDS_MODEL)] * 2)
    assert ask(asked)[1] == 50


STEP = Step(np.ones(3, "<i2"), np.ones(1), 64)
WEIGHTING = Weighting(np.ones(2), np.array([3, 4]), np.zeros((0, 3, 2), int))


def about(kind, model, number=1):
    """A question about the model of this hash."""
    header, update = Header("a" * 64, "b" * 64, number, number, "run", number), ModelUpdate(model, whole=np.ones(3, np.float32))
    given = header, update, WEIGHTING, None
    if kind is Kind.TRAIN:
        return Train(*given, np.ones(1))
    return Validate(*given) if kind is Kind.VALIDATE else Finish(*given, temperature=1.0)


def forms(sites, start=0):
    """What each site was sent since: a whole model, a step, or neither."""
    sent = [(site, request.model) for _, site, request in sites.sent[start:]]
    return [(site, "whole" if model.whole is not None else "step" if model.step is not None else "hash") for site, model in sent]


def test_a_site_that_holds_the_model_before_gets_the_step_and_every_other_the_whole(channel):
    asked, sites, _ = channel()
    ask(asked, question=about(Kind.TRAIN, "one"), sites=SITES[:2])
    assert forms(sites) == [("centerA", "whole"), ("centerB", "whole")]
    asked.remember_step("one", "two", STEP)
    begun = len(sites.sent)
    ask(asked, question=about(Kind.TRAIN, "two", 2))
    assert sorted(forms(sites, begun)) == [("centerA", "step"), ("centerB", "step"), ("centerC", "whole")]
    steps = [request for _, site, request in sites.sent[begun:] if site != "centerC"]
    assert steps[0] is steps[1]  # one object, serialised once
    assert (steps[0].model.state_hash, steps[0].model.step) == ("two", STEP)


def test_a_site_that_holds_the_very_model_is_sent_its_hash_alone(channel):
    asked, sites, _ = channel()
    ask(asked, question=about(Kind.TRAIN, "one"))
    asked.remember_step("one", "two", STEP)
    ask(asked, question=about(Kind.TRAIN, "two", 2))
    begun = len(sites.sent)
    ask(asked, question=about(Kind.VALIDATE, "two"))
    ask(asked, question=about(Kind.FINISH, "two"))
    assert {form for _, form in forms(sites, begun)} == {"hash"}
    sites.script["centerB"] = [Absence(Reason.NEEDS_MODEL)]  # it was started anew
    begun = len(sites.sent)
    ask(asked, question=about(Kind.FINISH, "two"))
    assert [form for site, form in forms(sites, begun) if site == "centerB"] == ["hash", "whole"]


@pytest.mark.parametrize("reason", Reason)
def test_whatever_keeps_a_site_from_answering_it_gets_the_whole_model_next(channel, reason):
    asked, sites, _ = channel()
    ask(asked, question=about(Kind.TRAIN, "one"))
    asked.remember_step("one", "two", STEP)
    sites.script["centerB"] = [Absence(reason)]
    begun = len(sites.sent)
    ask(asked, question=about(Kind.TRAIN, "two", 2))
    assert [form for site, form in forms(sites, begun) if site == "centerB"] == ["step", "whole"]


def test_a_model_that_the_last_step_does_not_lead_to_travels_whole(channel):
    """After a round that was undone, and for the chosen model at the end."""
    asked, sites, _ = channel()
    ask(asked, question=about(Kind.TRAIN, "one"))
    asked.remember_step("one", "two", STEP)
    ask(asked, question=about(Kind.TRAIN, "two", 2))
    begun = len(sites.sent)
    ask(asked, question=about(Kind.TRAIN, "one", 3))
    assert {form for _, form in forms(sites, begun)} == {"whole"}
    begun = len(sites.sent)
    ask(asked, question=about(Kind.FINISH, "two"))
    assert {form for _, form in forms(sites, begun)} == {"whole"}


def test_what_is_collected_says_nothing_of_the_model_that_a_site_holds(channel):
    asked, sites, _ = channel()
    ask(asked, question=about(Kind.TRAIN, "one"))
    asked.remember_step("one", "two", STEP)
    collect = Collect(HELLO.header, Kind.TRAIN, bytes(32), ())
    sites.script["centerB"] = [Absence(Reason.DISK)]
    assert asked.deliver(lambda _: collect, SITES, lambda *_: None, wait_for_it) == 40
    begun = len(sites.sent)
    ask(asked, question=about(Kind.TRAIN, "two", 2))
    assert {form for _, form in forms(sites, begun)} == {"step"}
