"""The personal model of a site (csasn/learning/personal.py) in its state folder: kept there, and sent nowhere.

What the site answers does not depend on it: where it cannot be trained, the site's own log says so, and nothing else does.
"""

import logging
from pathlib import Path

import numpy as np
import torch

from csasn.data.cases import SiteData
from csasn.errors import CsasnError, ModelError
from csasn.federated.weighting import ClassWeights
from csasn.learning.loss import LossTerms
from csasn.learning.personal import Tensors, train_ditto, tune_heads
from csasn.learning.training import LocalPlan
from csasn.model.network import Csasn
from csasn.model.state import write_tensors
from csasn.platform.checkpoint import load_arrays, save_arrays
from csasn.site import Site
from csasn.study import Study

PERSONAL, PRIVATE = "personal.safetensors", 0o600
REMEMBERED = "personal."  # before the names of its tensors, in what a site remembers from round to round
FAILURES = CsasnError, torch.OutOfMemoryError
log = logging.getLogger(__name__)


def train_personal(
    network: Csasn, data: SiteData, study: Study, terms: LossTerms, plan: LocalPlan, memory: Tensors
) -> dict[str, np.ndarray]:
    """What is remembered of a personal model that trains in each round, after this one; as before where it could not be trained.

    Changes the network, which holds the received model; `plan` is that of the global model.
    """
    tensors: Tensors = _remembered(memory)
    try:
        tensors = train_ditto(network, data, study, terms, plan, tensors)
    except FAILURES as error:
        _tell("stays as it was", error)
    return {REMEMBERED + name: tensor for name, tensor in tensors.items()}


def make_personal(
    network: Csasn, data: SiteData, study: Study, weights: ClassWeights, site: str, micro_batch: int | None, memory: Tensors
) -> bool:
    """Makes the personal model of the chosen one, which the network holds; False where the study has none, or it could not be
    trained. `memory` is what the site remembers of the last round."""
    if study.federation.personal == "none":
        return False
    if study.federation.personal == "heads":
        try:
            tune_heads(network, data, study, LossTerms.of(study, weights, next(network.parameters()).device), site, micro_batch)
        except FAILURES as error:
            _tell("is not kept", error)
            return False
    elif last := _remembered(memory):
        write_tensors(network, last)
    else:
        log.warning("the personal model is not kept: none is left over from the last round")
        return False
    return True


def _remembered(memory: Tensors) -> dict[str, np.ndarray]:
    return {name.removeprefix(REMEMBERED): tensor for name, tensor in memory.items() if name.startswith(REMEMBERED)}


def _tell(what: str, error: BaseException) -> None:
    log.warning("the personal model %s: %s", what, error.message if isinstance(error, CsasnError) else "the GPU is too small")


def keep_personal(folder: Path, tensors: Tensors, study: Study, current_round: int) -> None:
    """Writes it in place of an earlier one, before the answer to finish leaves; `current_round` is that of the finished model.

    Raises:
        StorageError: it cannot be written.
    """
    facts = {"study_hash": study.study_hash, "round": current_round, "kind": study.federation.personal}
    save_arrays(folder / PERSONAL, dict(tensors), facts, PRIVATE)


def find_personal(site: Site, study: Study, current_round: int) -> Tensors | None:
    """The newest personal model of a study that the site kept beside the finished one of this round; None where there is none, or
    it is damaged."""
    found = sorted(site.run_folder.glob(f"study-{study.study_hash[:12]}-*/{PERSONAL}"), key=lambda path: path.stat().st_mtime)
    try:
        arrays, facts = load_arrays(found[-1]) if found else ({}, {})
    except ModelError:
        return None
    if (facts.get("study_hash"), facts.get("round")) != (study.study_hash, current_round):
        return None
    return {name: array.astype(np.float32, copy=False) for name, array in arrays.items()}
