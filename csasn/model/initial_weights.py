"""Initial weights of the branches, on the coordinator only: sites receive them with round 1 and need neither file nor hub."""

import hashlib
from collections.abc import Mapping
from math import isqrt
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from csasn.errors import ConfigurationError, ModelError
from csasn.model.network import Csasn, build_network
from csasn.model.package_tensors import READERS
from csasn.model.packages import PACKAGES
from csasn.model.profiles import profile_of
from csasn.model.timm_import import import_timm
from csasn.recipe import BranchWeights
from csasn.study import Study


def initial_network(study: Study) -> Csasn:
    """The study's network with its initial weights loaded.

    Raises:
        ModelError: weights that are missing, of another architecture, or of another SHA-256 than the study says.
        ConfigurationError: the study goes on from another's model.
    """
    if study.continues:
        raise ConfigurationError(
            f"study {study.name} continues model {study.continues.model[:12]}, which a federation alone can",
            "leave out continues, or --baselines",
        )
    network = build_network(study)
    profile = profile_of(study.model)
    weights = study.model.initial_weights
    for branch, source, name in (
        (network.efficientnet, weights.efficientnet, profile.efficientnet),
        (network.vit, weights.vit, profile.vit),
    ):
        if branch is not None and source.source != "random":
            _load(branch.net, _resample_positions(branch.net, _read(source, name)), name)
    return network


def _resample_positions(net: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A ViT's position embedding on the grid of the study's image size; tensors without one as they are."""
    expected, given = net.state_dict().get("pos_embed"), tensors.get("pos_embed")
    if expected is None or given is None or not hasattr(net, "num_prefix_tokens"):
        return tensors
    if given.ndim != 3 or given.shape[1] == expected.shape[1]:
        return tensors
    num_prefix, grid = int(net.num_prefix_tokens), net.patch_embed.grid_size  # type: ignore[arg-type, union-attr]  # timm is not typed
    num_patches = given.shape[1] - num_prefix
    if num_patches < 1 or isqrt(num_patches) ** 2 != num_patches:
        return tensors  # no square grid: refused as of another model
    resampled = import_timm().layers.resample_abs_pos_embed(given, grid, num_prefix_tokens=num_prefix)
    return {**tensors, "pos_embed": resampled}


def _load(net: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    expected = {key: value.shape for key, value in net.state_dict().items()}
    grouped = not any(key.endswith("running_mean") for key in expected)  # group normalisation keeps no statistics
    spare = ("running_mean", "running_var", "num_batches_tracked") if grouped else ()
    given = {
        key: value.shape
        for key, value in tensors.items()
        if key in expected or not (key.startswith(("classifier.", "head.", "fc.")) or key.endswith(spare))
    }
    if expected != given:
        wrong = sorted(key for key in expected.keys() | given.keys() if expected.get(key) != given.get(key))
        raise ModelError(
            f"initial weights do not fit {name}: {len(wrong)} tensors differ, first {wrong[0]}", "is it the same model?"
        )
    net.load_state_dict({key: tensors[key] for key in expected}, strict=True)


def _read(source: BranchWeights, name: str) -> Mapping[str, Tensor]:
    if source.source == "package":
        return _from_package(name, source.sha256)
    if source.source == "hub":
        return _from_hub(name)
    path = Path(str(source.path))
    _check_hash(path, source.sha256)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path.name} is not a safetensors file", "export the weights again") from error


def _from_hub(name: str) -> Mapping[str, Tensor]:
    try:
        state: Mapping[str, Tensor] = import_timm().create_model(name, pretrained=True, num_classes=0).state_dict()
    except (OSError, RuntimeError) as error:
        raise ModelError(f"cannot fetch {name} from the hub: {type(error).__name__}", "use source: file, or package") from error
    return state


def _from_package(name: str, sha256: str | None) -> Mapping[str, Tensor]:
    if (package := PACKAGES.get(name)) is None:
        raise ModelError(f"no package ships weights of {name}", "use source: file, hub or random")
    if (path := package.path) is None:
        raise ModelError(f"the package {package.distribution} is not installed", package.install)
    _check_hash(path, sha256 or package.sha256)
    return READERS[path.suffix](path)


def _check_hash(path: Path, sha256: str | None) -> None:
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read initial weights {path.name}: {error.strerror}", "check model.initial_weights") from error
    if sha256 and found != sha256:
        raise ModelError(f"{path.name} has SHA-256 {found}, expected {sha256}", "the file changed since the study was written")
