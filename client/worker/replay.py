"""The last round that this site trained, kept so that it can be trained again: does the answer that left follow from the cases?

`replay.safetensors` holds question and model, and the digests of update and counts before they were masked;
`replay-left.safetensors` what training went on from. Neither leaves the site, and no ledger holds the digest of small counts, which
can be guessed.

Not shown: that the software is the one that it says it is, or anything of rounds before the last.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from client.worker.kept import Kept, LeftOver, read_left
from client.worker.learner import Learner
from csasn.data.manifest_file import manifest_sha256
from csasn.errors import ModelError
from csasn.federated.messages import Answer, Header, ModelUpdate, Train, Weighting
from csasn.federated.quantise import Floats32
from csasn.platform.checkpoint import load_arrays, save_arrays
from csasn.platform.configuration import Configuration, validate
from csasn.platform.storage import link_atomically
from csasn.site import Site
from csasn.study import Study
from csasn.trust.membership import Membership

REPLAY, REPLAY_LEFT, PRIVATE = "replay.safetensors", "replay-left.safetensors", 0o600


class KeptRound(Configuration):
    """Of the round that is kept: question, model, the digests of what left, and what it was trained on."""

    number: int
    round: int
    state_hash: str
    update: str
    counts: str
    manifest: str
    withdrawn: int


@dataclass(frozen=True)
class Replayed:
    """What came of training a round again."""

    round: int
    number: int
    same_update: bool
    same_counts: bool
    same_manifest: bool

    @property
    def line(self) -> str:
        """The result in plain words."""
        what = f"round {self.round}, question {self.number}, trained again on this machine"
        if self.same_update and self.same_counts:
            return f"{what}: the same update and counts as those that left, masked, to the bit"
        differs = " and ".join(["update"] * (not self.same_update) + ["counts"] * (not self.same_counts))
        if not self.same_manifest:
            return f"{what}: other {differs}; manifest.csv was changed since, or somebody withdrew, so that this says nothing"
        return f"{what}: OTHER {differs} than what left; a GPU, other threads or another version can be why, or somebody changed it"


def keep_replay(kept: Kept, question: Train, model: Floats32, answer: Answer, manifest: Path, num_withdrawn: int) -> None:
    """Keeps a round in place of the one before, before its answer is masked. It is not waited for until it is on disk."""
    header, weighting = question.header, question.weighting
    arrays: dict[str, NDArray[np.generic]] = {
        "model": model, "ranges": question.ranges, "omega": weighting.omega_K, "histogram": weighting.histogram_K,
        "history": weighting.history_R3K,
    }  # fmt: skip
    facts = KeptRound(
        number=header.number, round=header.round, state_hash=question.model.state_hash, update=_digest(answer.update_P),
        counts=_digest(answer.counts), manifest=manifest_sha256(manifest), withdrawn=num_withdrawn,
    )  # fmt: skip
    before, place = kept.left_path(question.accepted), kept.folder / REPLAY_LEFT
    place.unlink(missing_ok=True)
    if before is not None:
        link_atomically(before, place)
    save_arrays(kept.folder / REPLAY, arrays, facts.model_dump(), PRIVATE, sync=False)


def replay(site: Site, study: Study, membership: Membership, folder: Path) -> Replayed:
    """Trains the round that is kept in `folder` once more.

    Raises:
        ModelError: none is kept there, or it is damaged.
        DataError: the site's cases cannot be read.
    """
    arrays, facts = load_arrays(folder / REPLAY)
    said = validate(KeptRound, facts, REPLAY)
    learner = Learner(study, membership, site, lambda _: None)
    weighting = Weighting(arrays["omega"], arrays["histogram"], arrays["history"])  # type: ignore[arg-type]
    header = Header(study.study_hash, membership.membership_hash, said.number, said.round, "", 0)
    update = ModelUpdate(said.state_hash, cast(Floats32, arrays["model"]))
    question = Train(header, update, weighting, None, cast(np.ndarray, arrays["ranges"]))
    before: LeftOver | None = read_left(folder / REPLAY_LEFT) if (folder / REPLAY_LEFT).exists() else None
    received = learner.receive(question.model)
    work = learner.work(question, received, learner.check_weighting(weighting), before)
    counts = learner.contract.pack(question.kind, work.counts)
    return Replayed(
        round=said.round,
        number=said.number,
        same_update=_digest(work.update_P) == said.update,
        same_counts=_digest(counts) == said.counts,
        same_manifest=(manifest_sha256(Path(site.manifest)), len(learner.withdrawals)) == (said.manifest, said.withdrawn),
    )


def find_replay(site: Site) -> Path:
    """The folder of the newest round that is kept.

    Raises:
        ModelError: there is none.
    """
    found = sorted(site.run_folder.glob(f"*/{REPLAY}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ModelError(f"{site.site} keeps no round to train again", "one is kept from the first round on")
    return found[-1].parent


def _digest(array: np.ndarray | None) -> str:
    return "" if array is None else hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
