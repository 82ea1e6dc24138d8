"""Sites whose learning is a hash, all else real: worker, diary, what is kept, keys and sealing.

What a site sends and what it leaves over follow from all that a real one reads, so that two questions that differ in anything give
other numbers, and a question asked twice gives the same.
"""

import functools
import hashlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.flower.app import reason_of_failure
from client.worker.diary import Diary, Hospitals
from client.worker.kept import Kept, LeftOver, state_name
from client.worker.learner import Work
from client.worker.worker import SiteWorker
from csasn.errors import TrainingError
from csasn.federated.messages import Collect, Finish, Header, Hello, Kind, Measure, ModelUpdate, Survey, Train, Validate, Weighting
from csasn.measures.blocks import Layout
from csasn.model.segments import Segment
from csasn.model.state import StateLayout
from csasn.platform.configuration import validate
from csasn.privacy.contract import FAILED, Contract
from csasn.study import Study
from csasn.trust import identity
from csasn.trust.membership import Member, Membership, share_weights

NAMES = ("zeta", "alpha", "mid", "beta", "omega", "kappa")  # their order is the roster's, not the alphabet's
ROUNDS = 3
MOST, MOST_COUNTED = 1500, (1 << 40) - 1  # of a value of an update, which the least weight allows, and of a count


speaking = []  # who is asked, the last one last


@functools.cache
def identities(num):
    return {name: Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()) for name in NAMES[:num]}


@functools.cache
def contract_of(num, size=4, seed=7):
    """A contract with few numbers: `size` of an update, and two counts."""
    facts = {
        "name": "symbols", "classes": ["a", "b"], "malignant": ["b"], "seed": seed, "model": {"profile": "csasn-test"},
        "tasks": {"subtype": {"weight": 1.0}}, "federation": {"sites": list(NAMES[:num]), "rounds": ROUNDS},
    }  # fmt: skip
    study = validate(Study, facts, "study.yaml")
    units = share_weights(dict.fromkeys(NAMES[:num], 10))
    members = [
        Member(site=name, weight_units=units[name], identity=identity.public_hex(key)) for name, key in identities(num).items()
    ]
    membership = Membership(study_hash=study.study_hash, members=tuple(members))
    counts = dict.fromkeys(set(Kind) - {Kind.COLLECT}, Layout((("seen", (1,)), FAILED)))
    state = StateLayout((Segment("w", (size,), 0, size),), ())
    return Contract(_Once(study), _Once(membership), state, counts, Layout((("moments", (size,)),)), ())


class _Once:
    """What a study or membership says, worked out once: its hash is asked for with every message."""

    def __init__(self, facts):
        self._facts = facts

    def __getattr__(self, name):
        value = getattr(self._facts, name)
        setattr(self, name, value)
        return value


class LightLearner:
    """Numbers that follow from what a real learner reads, and from nothing else. `fails` says whether training raises now;
    `meaning` is told what each array is, whatever T says."""

    withdrawals: tuple[()] = ()

    def __init__(self, site, contract, meaning):
        self.site, self.contract, self.fails, self.meaning = site, contract, False, meaning

    def receive(self, update):
        return update.whole

    def load_data(self):
        return None

    def check_weighting(self, weighting):
        return weighting

    def count_classes(self):
        counted = np.array([5 + len(self.site)])
        self._note("hello", Work({"seen": counted}))
        return counted

    def work(self, question, model, weights, before):
        if self.fails:
            raise TrainingError("the model's logits are not finite")
        header, weighting, train = question.header, question.weighting, isinstance(question, Train)
        arrays = [weighting.omega_K, weighting.histogram_K, weighting.history_R3K, *([question.ranges] if train else [])]
        read = [question.kind.value, header.number if train else 0, header.round, question.model.state_hash]
        read += [array.tobytes().hex() for array in arrays]
        before_is = None if before is None else self.meaning[self.site, before.residual_P.tobytes()]
        stream = hashlib.shake_256(repr([self.site, read, before and before.residual_P.tobytes()]).encode())
        counts = {"seen": np.frombuffer(stream.digest(8), "<i8") >> 20 & MOST_COUNTED}
        work, drawn = Work(counts), np.frombuffer(stream.digest(8 + 4 * self.contract.state.size)[8:], "<i4")
        if isinstance(question, Measure | Train):
            left = LeftOver((drawn >> 12).astype(np.float32)) if train else None
            work = Work(counts, (drawn % MOST).astype(self.contract.upload(question.kind, header.round)[0]), left)
        self._note(hashlib.sha256(repr([read, before_is]).encode()).hexdigest()[:16], work)
        return work

    def _note(self, meaning, work):
        """What the numbers of this work mean, whoever's they are: all that they follow from but the cases."""
        arrays = [*work.counts.values(), work.update_P, work.left and work.left.residual_P]
        for array in arrays:
            if array is not None:
                self.meaning[self.site, array.tobytes()] = meaning

    def nothing(self, kind, current_round, before):
        upload = self.contract.upload(kind, current_round)
        left = before or LeftOver(np.zeros(self.contract.state.size, np.float32))
        return Work({}, None if upload is None else np.zeros(upload[1], upload[0]), left if kind is Kind.TRAIN else None)


class LightWorker(SiteWorker):
    """The real worker over a `LightLearner`."""

    def __init__(self, name, contract, folder, sign):
        manifest = folder / "manifest.csv"
        if not manifest.exists():
            folder.mkdir(parents=True, exist_ok=True)
            manifest.write_text("case_id\n")
        self.study, self.contract, self.sign, self.ledger = contract.study, contract, sign, None
        self.site = SimpleNamespace(site=name, manifest=str(manifest), policy=SimpleNamespace(keep_for_replay=False))
        hashes = contract.study.study_hash, contract.membership.membership_hash
        self.kept = Kept(folder / state_name(*hashes))
        self.diary = Diary(self.kept.folder, Hospitals(study_hash=hashes[0], membership_hash=hashes[1], sites=NAMES))

    def _work(self, question, *given):
        if isinstance(question, Hello | Survey):
            return Work({"seen": self.learner.count_classes()})
        return super()._work(question, *given)

    def _count_withdrawn(self, work):
        """Its counts have no such block."""


@dataclass
class LightSites:
    """n sites in a folder; `ask` and `collect` speak to them as a coordinator would."""

    num: int
    folder: Path
    size: int = 4
    seed: int = 7
    sign: object = identity.sign
    learner: type = LightLearner
    workers: dict = field(default_factory=dict)
    meaning: dict = field(default_factory=dict)

    def __post_init__(self):
        self.contract = contract_of(self.num, self.size, self.seed)
        self.names, self.roster = NAMES[: self.num], self.contract.roster

    def signer(self, name):
        return functools.partial(self.sign, identities(self.num)[name])

    def worker(self, name):
        if name not in self.workers:
            worker = LightWorker(name, self.contract, self.folder_of(name), self.signer(name))
            worker.learner = self.learner(name, self.contract, self.meaning)
            self.workers[name] = worker
        return self.workers[name]

    def kill(self, name):
        """All but its files is gone."""
        self.workers.pop(name, None)

    def folder_of(self, name):
        return self.folder / name

    def copy_of(self, name):
        """What is in a site's folder now, to be brought back."""
        self.worker(name)
        copies = self.folder / "copies"
        copies.mkdir(parents=True, exist_ok=True)
        return shutil.copytree(self.folder_of(name), copies / f"{name}-{len(list(copies.iterdir()))}")

    def bring_back(self, name, copy):
        self.kill(name)
        shutil.rmtree(self.folder_of(name))
        shutil.copytree(copy, self.folder_of(name))

    def say(self, name, request):
        speaking.append(name)
        return reason_of_failure(lambda: self.worker(name).answer(request))

    def ask(self, question, names=None):
        return {name: self.say(name, question) for name in names or self.names}

    def collect(self, question, readies, names=None, **changes):
        """What sites answer to a collect with these keys, all of them by default."""
        request = self.collecting(question, readies, **changes)
        return {name: self.say(name, request) for name in names or self.names}

    def collecting(self, question, readies, **changes):
        facts = {"header": question.header, "of": question.kind, "transcript": readies[self.names[0]].transcript}
        return Collect(**(facts | {"keys": tuple(readies[name].key for name in self.names)} | changes))

    def both(self, question):
        """What an honest coordinator gets."""
        return self.collect(question, self.ask(question))

    def header(self, number=1, current_round=0, **changes):
        hashes = self.contract.study.study_hash, self.contract.membership.membership_hash
        return Header(*hashes, number, current_round, changes.pop("run", "run"), changes.pop("attempt", 1), **changes)

    def hello(self, number=1):
        return Hello(self.header(number))

    def survey(self, number=1):
        return Survey(self.header(number))

    def about(self, number=1, current_round=0, model="model", accepted=None, omega=1.0):
        weighting = Weighting(np.array([1.0, omega]), np.array([5, 6]), np.zeros((0, 3, 2), np.int64))
        update = ModelUpdate(hashlib.sha256(model.encode()).hexdigest(), np.zeros(self.size, np.float32))
        return self.header(number, current_round), update, weighting, accepted

    def train(self, number=1, current_round=1, ranges=1.0, **changes):
        return Train(*self.about(number, current_round, **changes), np.array([ranges]))

    def measure(self, number=1, **changes):
        return Measure(*self.about(number, **changes))

    def validate(self, number=1, **changes):
        return Validate(*self.about(number, **changes))

    def finish(self, number=1, **changes):
        return Finish(*self.about(number, **changes), 1.0)


def total(answers, what="update_P"):
    """Σ in the ring of the answers' type."""
    return functools.reduce(np.add, [getattr(answer, what) for answer in answers.values()])
