"""Fixtures of the tests against an adversary."""

import functools
from dataclasses import replace

import pytest

from csasn.study import read_study
from csasn.trust.identity import KEYS_FOLDER, load_identity, sign

MASKED = {"secure_aggregation": True, "rounds": 2}


class Prepared:
    """A masked run over three small hospitals that came to its end: its requests, to be asked of workers in new folders."""

    def __init__(self, federation):
        self.federation, self.contract = federation, federation.contract
        self.names = federation.contract.membership.sites

    def request(self, kind, place=-1):
        """A request of this kind about the model that the run began with, the last one by default."""
        request = [request for _, request in self.federation.requests if request.kind == kind][place]
        return replace(request, model=self.model) if hasattr(request, "model") else request

    @property
    def model(self):
        """The model that the run began with, whole."""
        return next(r.model for _, r in self.federation.requests if hasattr(r, "model") and r.model.whole is not None)

    def signer(self, name):
        return functools.partial(sign, load_identity(self.federation.path / "sites" / name / KEYS_FOLDER))


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, write_small_hospitals, local_federation):
    folder = tmp_path_factory.mktemp("prepared")
    write_small_hospitals(folder / "hospitals", num_cases=12, federation=MASKED)
    assert read_study(folder / "hospitals/study.yaml").federation.secure_aggregation
    federation = local_federation(folder / "hospitals", folder / "run")
    federation.run()
    return Prepared(federation)
