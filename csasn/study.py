"""The study: the contract that coordinator and sites agree on, identified by its hash."""

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from csasn.platform.configuration import Configuration, Grown, pattern, read_yaml, set_keys, validate
from csasn.platform.labels import check_label, require_distinct
from csasn.platform.registry import LOCAL_OBJECTIVES, NETWORKS, SERVER_RULES, check_branch, check_name, load
from csasn.recipe import Augmentation, ClassWeighting, Loss, Optimiser, Split

Name = Annotated[
    str, pattern(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$", "1 to 63 plain letters, digits, - and _, with a letter or digit first")
]
# what a manifest can hold: without commas and control characters, and not with a blank at either end, which would be cut off there
Label = Annotated[
    str,
    pattern(
        r"^[^\s,\p{Cc}](?:[^,\p{Cc}\p{Zl}\p{Zp}]{0,61}[^\s,\p{Cc}])?$",
        "1 to 63 characters in one line, without commas and without blanks at its ends",
    ),
    AfterValidator(check_label),
]
Prose = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=600), AfterValidator(check_label)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, pattern(r"^[0-9a-f]{64}$", "64 digits of 0-9 and a-f")]
# names that packages can add to
ServerRuleName = Annotated[str, AfterValidator(partial(check_name, SERVER_RULES))]
LocalObjectiveName = Annotated[str, AfterValidator(partial(check_name, LOCAL_OBJECTIVES))]
NetworkName = Annotated[str, AfterValidator(partial(check_name, NETWORKS))]
Branch = Annotated[bool | str, PlainValidator(check_branch)]
OPTIONS = {"server_options": (SERVER_RULES, "server_rule"), "local_options": (LOCAL_OBJECTIVES, "local_objective")}

SUBTYPE, MALIGNANCY = "subtype", "malignancy"
MAX_SITES_8_BITS = 8
MIN_SECURE_SITES, MAX_SECURE_SITES = 3, 16
MANIFEST_COLUMNS = ("case_id", "image", "label", "patient_id", "split", "view", "scanner")  # no descriptor may be called so


class Task(Configuration):
    """One head. `subtype` and `malignancy` take their labels from the class; any other task names a manifest column."""

    weight: Positive = 1.0
    values: tuple[Label, ...] = ()


class BranchWeights(Configuration):
    """Where a branch starts: random, a Python package, a safetensors file or timm's hub; on the coordinator only."""

    source: Literal["random", "package", "file", "hub"] = "random"
    path: str | None = None
    sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _file_is_named_and_hashed(self) -> Self:
        if self.source == "file" and not (self.path and self.sha256):
            raise ValueError("source file needs path and sha256")
        if self.source != "file" and self.path:
            raise ValueError(f"path goes with source file, not with {self.source}")
        return self


class InitialWeights(Configuration):
    """Initial weights of the two branches; everything behind them starts random from the study's seed.

    Where a study file says nothing of a branch, the coordinator settles it before anybody is asked (csasn/model/packages.py).
    """

    efficientnet: BranchWeights = BranchWeights()
    vit: BranchWeights = BranchWeights()


class Model(Grown):
    """CSASN and its switches; each switched-off part is an ablation of the paper.

    `efficientnet` and `vit` are the profile's networks where true, none where false, or any of timm by its name. Which sizes of
    images they take shows where they are built (csasn/model/backbones.py).

    Branches in `frozen` keep their initial weights and statistics. Where nothing changes the images, or `frozen_views` says how
    many changed ones there are, each site computes their maps once (csasn/learning/frozen_maps.py). With `test_flip` the finished
    model's logits are the mean over an image and its mirror.
    """

    newer: ClassVar[Mapping[str, object]] = {"test_flip": False}
    profile: NetworkName = "csasn-lite"
    image_size: Annotated[int, Field(ge=32, le=512)] | None = None
    efficientnet: Branch = True
    vit: Branch = True
    channel_attention: bool = True
    spatial_attention: bool = True
    attention_residual: bool = True
    multiscale: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    frozen: tuple[Literal["efficientnet", "vit"], ...] = ()
    initial_weights: InitialWeights = InitialWeights()
    test_flip: bool = False

    @model_validator(mode="after")
    def _some_branch(self) -> Self:
        if not (self.efficientnet or self.vit):
            raise ValueError("efficientnet and vit are both off: the model has no branch left")
        return self


def _secure_by_default(values: dict[str, object]) -> bool:
    sites = values["sites"]
    return isinstance(sites, tuple) and len(sites) >= MIN_SECURE_SITES


def _enough_by_default(values: dict[str, object]) -> int:
    sites = values["sites"]
    return len(sites) if values["secure_aggregation"] and isinstance(sites, tuple) else 1


def _partial_by_default(values: dict[str, object]) -> float:
    return 0.0 if values["secure_aggregation"] else 0.1


class Federation(Grown):
    """Who takes part, and how rounds run. `sites` in roster order; deadlines in seconds.

    `server_rule` makes the step of a round from the mean update (csasn/federated/server_rules/), `local_objective` is what a site
    adds to its loss (csasn/learning/objectives/); the options are those of the rule or objective. With `personal` each site keeps a
    model of its own (csasn/learning/personal.py), which nobody else sees; `personal_lambda` is how near that of `ditto` stays.

    Of three sites or more sums are masked unless the study says otherwise, and then every round is of all of them: one that is away
    is waited for. A round whose model has more than `loss_guard` times the validation loss of the best so far is undone once.
    """

    newer: ClassVar[Mapping[str, object]] = {
        "server_rule": "fedavg", "server_options": {}, "local_objective": "fedprox", "local_options": {},
        "personal": "none", "personal_lambda": 0.1,
    }  # fmt: skip
    sites: tuple[Name, ...] = Field(min_length=1, max_length=1024)
    secure_aggregation: bool = Field(default_factory=_secure_by_default)
    min_sites: Annotated[int, Field(ge=1)] = Field(default_factory=_enough_by_default)
    rounds: Annotated[int, Field(ge=1, le=10_000)] = 10
    local_epochs: Annotated[int, Field(ge=1, le=100)] = 1
    server_rule: ServerRuleName = "fedavg"
    server_options: dict[Name, float] = Field(default_factory=dict)
    local_objective: LocalObjectiveName = "fedprox"
    local_options: dict[Name, float] = Field(default_factory=dict)
    proximal_mu: Annotated[float, Field(ge=0)] = 0.01
    personal: Literal["none", "heads", "ditto"] = "none"
    personal_lambda: Annotated[float, Field(ge=0)] = 0.1
    batchnorm: Literal["silo", "shared", "group", "frozen"] = "silo"
    upload_bits: Literal[8, 16, 32] = 16
    answer_deadline_s: Positive = 3600.0
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 4
    max_partial_rounds: Share = Field(default_factory=_partial_by_default)
    loss_guard: Annotated[float, Field(gt=1)] | None = 2.0
    on_loss: Literal["withhold", "reveal"] = "withhold"

    @field_validator(*OPTIONS)
    @classmethod
    def _known(cls, options: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        """Options of the rule or objective that is named, which is loaded where there are any."""
        group, key = OPTIONS[str(info.field_name)]
        if own := sorted(options.keys() & cls.model_fields):
            raise ValueError(f"holds {', '.join(own)}, which the federation has as a key of its own: write it there")
        if options and key in info.data:  # else its name is at fault
            entry = load(group, info.data[key], Configuration)
            entry.model_validate(dict(entry) | options)
        return options

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if len(set(self.sites)) != len(self.sites):
            raise ValueError(f"sites {list(self.sites)} names a site twice")
        if self.secure_aggregation:
            self._secure()
        if self.min_sites > len(self.sites):
            raise ValueError(f"min_sites {self.min_sites} is above the number of sites {len(self.sites)}")
        if self.upload_bits == 8 and len(self.sites) > MAX_SITES_8_BITS:
            raise ValueError(f"upload_bits 8 with {len(self.sites)} sites, expected at most {MAX_SITES_8_BITS}")
        if "personal_lambda" in self.model_fields_set and self.personal != "ditto":
            raise ValueError(f"personal_lambda goes with personal ditto, not with {self.personal}: leave it out")
        return self

    def _secure(self) -> None:
        """What masking cannot go together with."""
        if not MIN_SECURE_SITES <= len(self.sites) <= MAX_SECURE_SITES:
            raise ValueError(
                f"secure_aggregation true with {len(self.sites)} sites, expected {MIN_SECURE_SITES} to {MAX_SECURE_SITES}; "
                "say secure_aggregation: false if each site's update and counts may be seen"
            )
        if self.min_sites < len(self.sites) or self.max_partial_rounds:
            raise ValueError(
                f"min_sites {self.min_sites} and max_partial_rounds {self.max_partial_rounds} with secure_aggregation, expected "
                f"{len(self.sites)} and 0: a sum over fewer sites, beside one over all, would show one site's; a site that is away "
                "is waited for. Leave both out"
            )
        if self.upload_bits == 32:
            raise ValueError("upload_bits 32 is for comparisons, expected 16 or 8, or secure_aggregation: false")
        if self.on_loss == "reveal":
            raise ValueError("on_loss reveal shows counts of fewer than all sites, which secure_aggregation: true makes impossible")


class Continues(Configuration):
    """The finished model that a study begins with: SHA-256 of its run's continuation.safetensors, which lies at the coordinator
    alone. Network, normalisation statistics, the memory of the server's rule, and ω go on."""

    model: Sha256


class Ancestor(Configuration):
    """A finished run whose model a study went on from; it came of so many rounds, and has this hash."""

    study: str
    study_hash: Sha256
    membership_hash: Sha256
    state_hash: Sha256
    rounds: int


class About(Configuration):
    """What the model is for, in words for card, report and page, which say nothing of it beyond this. It changes no number."""

    organ: Prose | None = None
    modality: Prose | None = None
    intended_use: Prose | None = None
    out_of_scope: Prose | None = None
    population: Prose | None = None
    ground_truth: Prose | None = None  # how labels came about


class Study(Grown):
    """study.yaml: the same at every site. A `survey` counts the cases of all sites, and trains nothing
    (csasn/data/survey_tables.py).

    `unit` is what an epoch goes through: each case, or each patient with one case of theirs, drawn anew. With `sampling: balanced`
    it draws as many of them with replacement, each class of the site as often. With `calibration: temperature` the logits of the
    finished model are divided by one number, fitted to the validation cases of all sites (csasn/measures/temperature.py).
    """

    newer: ClassVar[Mapping[str, object]] = {
        "about": None, "survey": False, "unit": "case", "loss": {}, "sampling": "plain", "calibration": "none", "continues": None,
    }  # fmt: skip
    name: Name
    about: About | None = None
    survey: bool = False
    continues: Continues | None = None
    classes: tuple[Label, ...] = Field(min_length=2, max_length=256)
    malignant: tuple[Label, ...] = ()
    tasks: dict[Name, Task] = Field(default_factory=lambda: {SUBTYPE: Task()})
    model: Model = Model()
    federation: Federation
    class_weighting: ClassWeighting = ClassWeighting()
    model_selection: Literal["best", "last"] = "best"
    calibration: Literal["none", "temperature"] = "none"
    optimiser: Optimiser = Optimiser()
    loss: Loss = Loss()
    augmentation: Augmentation = Augmentation()
    split: Split = Split()
    images_per_case: Literal["one", "all"] = "one"
    unit: Literal["case", "patient"] = "case"
    sampling: Literal["plain", "balanced"] = "plain"
    deterministic: bool = True
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes {list(self.classes)} names a class twice")
        require_distinct(self.classes, "classes")
        if unknown := [name for name in self.malignant if name not in self.classes]:
            raise ValueError(f"malignant {unknown} is not among classes {list(self.classes)}")
        if self.augmentation.frozen_views and not self.model.frozen:
            raise ValueError(
                f"augmentation.frozen_views {self.augmentation.frozen_views} and no branch in model.frozen, "
                "expected 0, or one frozen"
            )
        if self.unit == "patient" and self.images_per_case == "all":
            raise ValueError(
                "unit patient takes one image of each patient, which images_per_case all cannot: leave one of them out"
            )
        if self.sampling == "balanced" and self.images_per_case == "all":
            raise ValueError("sampling balanced takes one image of a case, which images_per_case all cannot: leave one of them out")
        if self.optimiser.warmup_rounds >= self.federation.rounds:
            raise ValueError(
                f"optimiser.warmup_rounds {self.optimiser.warmup_rounds}, expected fewer than the {self.federation.rounds} rounds"
            )
        if SUBTYPE not in self.tasks:
            raise ValueError("tasks has no subtype, expected subtype and any others")
        if MALIGNANCY in self.tasks and not 0 < len(set(self.malignant)) < len(self.classes):
            raise ValueError("task malignancy needs malignant and benign classes, see the key malignant")
        for name, task in self.tasks.items():
            if name in MANIFEST_COLUMNS:
                raise ValueError(f"task {name} has the name of a manifest column that is no label, expected another name")
            given = name in (SUBTYPE, MALIGNANCY)
            if given and task.values:
                raise ValueError(f"task {name} takes its values from classes, expected no values")
            if not given and len(set(task.values)) < max(2, len(task.values)):
                raise ValueError(f"task {name} has values {list(task.values)}, expected two or more different ones")
            require_distinct(task.values, f"values of task {name}")
        return self

    @property
    def study_hash(self) -> str:
        """SHA-256 (hex) of the canonical JSON of every value, defaults included, but for the `newer` keys that say nothing."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def of_survey(self) -> "Study":
        """The survey before this study: all else is the same."""
        return self.model_copy(update={"survey": True})

    @property
    def descriptors(self) -> dict[str, tuple[str, ...]]:
        """Tasks whose labels are a manifest column, with their values in order."""
        return {name: task.values for name, task in self.tasks.items() if task.values}

    @property
    def malignant_classes(self) -> tuple[int, ...]:
        """Indices of the malignant classes."""
        return tuple(index for index, name in enumerate(self.classes) if name in self.malignant)


def read_study(path: Path, changes: tuple[str, ...] = ()) -> Study:
    """The study in `path`, with `key=value` changes applied before it is checked.

    Raises:
        ConfigurationError: see `csasn.platform.configuration`.
    """
    return validate(Study, set_keys(read_yaml(path), changes), path.name)
