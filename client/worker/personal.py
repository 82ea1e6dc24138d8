"""The personal model of a site (csasn/learning/personal.py) in its state folder: kept there, and sent nowhere."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from csasn.data.cases import SiteData
from csasn.errors import CsasnError, ModelError
from csasn.federated.weighting import ClassWeights
from csasn.learning.loss import LossTerms
from csasn.learning.personal import tune_heads
from csasn.model.network import Csasn
from csasn.model.state import read_tensors
from csasn.platform.checkpoint import load_arrays, save_arrays
from csasn.site import Site
from csasn.study import Study

PERSONAL, PRIVATE = "personal.safetensors", 0o600
Tensors = Mapping[str, NDArray[np.float32]]
log = logging.getLogger(__name__)


def make_personal(
    network: Csasn, data: SiteData, study: Study, weights: ClassWeights, site: str, micro_batch: int | None
) -> Tensors | None:
    """The tensors of the personal model, whose logits decide as a finished model's do; None where the study has none, or it could
    not be trained: what the site answers does not depend on it. Changes the network, which holds the finished model."""
    if study.federation.personal == "none":
        return None
    device = next(network.parameters()).device
    try:
        tune_heads(network, data, study, LossTerms.of(study, weights, device), site, micro_batch)
    except (CsasnError, torch.OutOfMemoryError) as error:
        log.warning("no personal model is kept: %s", error.message if isinstance(error, CsasnError) else "the GPU is too small")
        return None
    network.shift_subtype_logits(weights.offset_K)
    return read_tensors(network, [name for name, tensor in network.state_dict().items() if tensor.is_floating_point()])


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
