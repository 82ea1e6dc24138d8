"""A collect whose keys are not those of all sites for this question is refused, costs nothing, and the next honest one works."""

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from adversary.light import NAMES, LightSites, identities, total
from csasn.federated.messages import Absence, Answer, Reason
from csasn.federated.secagg.keys import SignedKey
from csasn.platform.canonical import canonical
from csasn.trust import identity

NUM = 4
ORDER_EIGHT = 325606250916557431795983626356110631294008115727848805560023387167927233504


@pytest.fixture
def scene(tmp_path):
    sites = LightSites(NUM, tmp_path)
    question = sites.train(2)
    return sites, question, sites.ask(question)


def signed_by(name, digest, public=None):
    public = X25519PrivateKey.generate().public_key().public_bytes_raw() if public is None else public
    return SignedKey(public, identity.sign(identities(NUM)[name], "secagg-key", canonical([digest, public])))


def in_place(keys, place, key):
    return (*keys[:place], key, *keys[place + 1 :])


def other_question(sites, **changes):
    """Keys for another question, which then is replaced by the first one again."""
    readies = sites.ask(sites.train(**{"number": 2, "model": "other"} | changes))
    return tuple(readies[name].key for name in sites.names)


LAST = NUM - 1  # in whose place a wrong key is
WRONG = {
    "none": lambda keys, digest: (),
    "of three of four": lambda keys, digest: keys[:-1],
    "of three of four, one twice": lambda keys, digest: (*keys[:-1], keys[0]),
    "of five": lambda keys, digest: (*keys, signed_by(NAMES[0], digest)),
    "in another order": lambda keys, digest: keys[::-1],
    "one of another question": lambda keys, digest: in_place(keys, LAST, signed_by(NAMES[LAST], b"\1" * 32)),
    "one of another identity": lambda keys, digest: in_place(keys, LAST, signed_by(NAMES[0], digest)),
    "one not signed": lambda keys, digest: in_place(keys, LAST, replace(keys[LAST], signature="")),
    "one of order one": lambda keys, digest: in_place(keys, LAST, signed_by(NAMES[LAST], digest, bytes(32))),
    "one of order two": lambda keys, digest: in_place(keys, LAST, signed_by(NAMES[LAST], digest, b"\1" + bytes(31))),
    "one of order eight": lambda keys, digest: in_place(
        keys, LAST, signed_by(NAMES[LAST], digest, ORDER_EIGHT.to_bytes(32, "little"))
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_keys_are_refused_and_the_next_honest_collect_works(scene, wrong):
    sites, question, readies = scene
    digest = readies["zeta"].transcript
    keys = WRONG[wrong](tuple(readies[name].key for name in sites.names), digest)
    first = [name for place, name in enumerate(sites.names) if place != LAST]  # the last is the colluder, or was lied to
    before = {name: sorted(path.name for path in sites.worker(name).kept.folder.iterdir()) for name in first}
    assert sites.collect(question, readies, first, keys=keys) == dict.fromkeys(first, Absence(Reason.CONTENTS))
    assert before == {name: sorted(path.name for path in sites.worker(name).kept.folder.iterdir()) for name in first}
    works(sites, question, readies)


def works(sites, question, readies):
    expected = sum(sites.worker(name).learner.work(question, None, None, None).update_P for name in sites.names)
    answers = sites.collect(question, readies)
    assert all(isinstance(answer, Answer) for answer in answers.values())
    assert np.array_equal(total(answers), expected)


@pytest.mark.parametrize("place", range(NUM))
def test_a_site_whose_own_key_was_replaced_refuses(scene, place):
    sites, question, readies = scene
    name = sites.names[place]
    keys = tuple(readies[peer].key for peer in sites.names)
    replaced = in_place(keys, place, signed_by(name, readies[name].transcript))
    assert sites.collect(question, readies, [name], keys=replaced) == {name: Absence(Reason.CONTENTS)}
    works(sites, question, readies)


@pytest.mark.parametrize("change", [{"model": "other"}, {"number": 3}, {"ranges": 2.0}])
def test_keys_of_another_question_are_refused_once_the_first_is_asked_again(scene, change):
    sites, question, _ = scene
    others = other_question(sites, **change)
    readies = sites.ask(question)
    assert sites.collect(question, readies, keys=others) == dict.fromkeys(sites.names, Absence(Reason.CONTENTS))
    works(sites, question, readies)


@pytest.mark.parametrize("change", [{"model": "other"}, {"number": 3}, {"ranges": 2.0}])
def test_once_another_question_is_worked_on_the_answer_to_the_first_is_gone(scene, change):
    sites, question, readies = scene
    other_question(sites, **change)
    assert sites.collect(question, readies) == dict.fromkeys(sites.names, Absence(Reason.NEEDS_KEY))
    again = sites.ask(question)
    assert all(again[name].key.public != readies[name].key.public for name in sites.names)
    works(sites, question, again)


class KilledError(BaseException):
    """The site's process is gone."""


def test_also_where_the_other_one_is_never_done(scene, monkeypatch):
    sites, question, readies = scene

    def killed(*_):
        raise KilledError

    monkeypatch.setattr(sites.worker("mid").learner, "work", killed)
    with pytest.raises(KilledError):
        sites.say("mid", sites.train(3))
    sites.kill("mid")
    assert sites.collect(question, readies, ["mid"]) == {"mid": Absence(Reason.NEEDS_KEY)}
    works(sites, question, sites.ask(question))


@pytest.mark.parametrize("digest", [b"", b"\1" * 31, b"\2" * 32, b"\2" * 33])
def test_a_collect_of_a_transcript_that_is_not_known_finds_nothing(scene, digest):
    sites, question, readies = scene
    replies = sites.collect(question, readies, transcript=digest)
    assert not any(isinstance(reply, Answer) for reply in replies.values())
    works(sites, question, readies)


def test_a_membership_of_other_sites_or_another_study_is_refused(scene, tmp_path):
    sites, question, _ = scene
    others = LightSites(NUM - 1, tmp_path / "three"), LightSites(NUM, tmp_path / "seed", seed=8)
    for other in others:
        readies = other.ask(other.train(2))
        request = other.collecting(other.train(2), readies)
        assert {sites.say(name, request) for name in sites.names} == {Absence(Reason.CONTENTS)}
        keys = tuple(readies[name].key for name in other.names) + (signed_by(NAMES[LAST], b""),) * (NUM - other.num)
        mine = sites.ask(question)
        assert sites.collect(question, mine, keys=keys) == dict.fromkeys(sites.names, Absence(Reason.CONTENTS))
    works(sites, question, sites.ask(question))
