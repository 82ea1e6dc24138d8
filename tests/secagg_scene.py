"""One site among four in secure aggregation, and what a coordinator may say to it."""

import pytest

from csasn.errors import ProtocolError
from csasn.federated.secagg import site
from csasn.federated.secagg.messages import Survivors
from secagg_sites import (
    CONTEXT,
    TRAINING,
    answers,
    digest_of,
    names,
    revealed_by,
    sites,
    survivors_of,
    values,
)

ME, NUM = "alpha", 4  # t = 3
ALL, PART, OTHER_PART = ("zeta", "alpha", "mid", "beta"), ("zeta", "alpha", "mid"), ("zeta", "alpha", "beta")
VALIDATE = site.Occasion("validate", 4, "c" * 64)
FINISH = site.Occasion(site.FINISH, 4, "c" * 64)


class Scene:
    """Four sites that answered attempt after attempt, and what the coordinator may say to one of them."""

    def __init__(self, min_sites=1, max_partial=3):
        self.group = sites(NUM, min_sites, max_partial)
        self.state, self.answered = self.group.states[ME], {}

    def attempt(self, number, occasion=TRAINING, transcript=None):
        self.answered = answers(self.group, number, occasion, values(self.group, 3, 16), None, transcript,
                                dict.fromkeys(names(NUM)) | {ME: self.state})  # fmt: skip
        self.state = self.answered[ME].state
        return self

    def survivors(self, chosen):
        return survivors_of(self.group, self.answered, chosen)

    def confirm(self, survivors):
        survivors = survivors if isinstance(survivors, Survivors) else self.survivors(survivors)
        signer = self.group.signer(ME)
        self.state, signature = site.confirm(self.state, ME, self.state.attempt, survivors, self.group.roster, signer)
        return signature

    def reveal(self, survivors):
        survivors = survivors if isinstance(survivors, Survivors) else self.survivors(survivors)
        self.state, revealed = revealed_by(self.group, self.answered, survivors, ME, self.state)
        return revealed

    def open(self, number, occasion=TRAINING, transcript=None, keys=None, context=CONTEXT):
        transcript = transcript or digest_of("transcript", number, occasion)
        keys = (context, keys or self.group.keys)
        return site.open_attempt(self.state, ME, keys, number, transcript, occasion, self.group.roster)


def refuses(phrase, error=ProtocolError):
    return pytest.raises(error, match=phrase)
