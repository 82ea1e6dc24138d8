"""The study: the contract that coordinator and sites agree on, identified by its hash. The text below a key is what `csasn study`
says of it."""

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, field_validator, model_validator

from csasn.platform.configuration import Configuration, Grown, Sha256, pattern, read_yaml, set_keys, validate
from csasn.platform.labels import check_label, require_distinct
from csasn.platform.registry import LOCAL_OBJECTIVES, SERVER_RULES, check_name, load
from csasn.recipe import Augmentation, ClassWeighting, Loss, Model, Optimiser, Positive, Split

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
Share = Annotated[float, Field(ge=0, le=1)]
# names that packages can add to
ServerRuleName = Annotated[str, AfterValidator(partial(check_name, SERVER_RULES))]
LocalObjectiveName = Annotated[str, AfterValidator(partial(check_name, LOCAL_OBJECTIVES))]
OPTIONS = {"server_options": (SERVER_RULES, "server_rule"), "local_options": (LOCAL_OBJECTIVES, "local_objective")}

SUBTYPE, MALIGNANCY = "subtype", "malignancy"
MAX_SITES_8_BITS = 8
MIN_SECURE_SITES, MAX_SECURE_SITES = 3, 16
MANIFEST_COLUMNS = ("case_id", "image", "label", "patient_id", "split", "view", "scanner")  # no descriptor may be called so


class Task(Configuration):
    """One head. `subtype` and `malignancy` take their labels from the class; any other task names a manifest column."""

    weight: Positive = 1.0
    """weight of this head in the loss"""
    values: tuple[Label, ...] = ()
    """what stands in the manifest's column of the task's name; nothing for subtype and malignancy"""


def _secure_by_default(values: dict[str, object]) -> bool:
    sites = values["sites"]
    return isinstance(sites, tuple) and len(sites) >= MIN_SECURE_SITES


def _enough_by_default(values: dict[str, object]) -> int:
    sites = values["sites"]
    return len(sites) if values["secure_aggregation"] and isinstance(sites, tuple) else 1


def _partial_by_default(values: dict[str, object]) -> float:
    return 0.0 if values["secure_aggregation"] else 0.1


class Federation(Grown):
    """Who takes part, and how rounds run."""

    newer: ClassVar[Mapping[str, object]] = {
        "server_rule": "fedavg", "server_options": {}, "local_objective": "fedprox", "local_options": {},
        "personal": "none", "personal_lambda": 0.1,
    }  # fmt: skip
    sites: tuple[Name, ...] = Field(min_length=1, max_length=1024, examples=[["centerA", "centerB", "centerC", "centerD"]])
    """names of the sites, in roster order"""
    secure_aggregation: bool = Field(default_factory=_secure_by_default)
    """sums alone are seen, never one site's numbers; every round is then of all sites, and one that is away is waited for. Unless
    written: true for three sites or more"""
    min_sites: Annotated[int, Field(ge=1)] = Field(default_factory=_enough_by_default)
    """sites that a round needs. Unless written: all where sums are masked, else 1"""
    rounds: Annotated[int, Field(ge=1, le=10_000)] = 10
    """rounds of the study"""
    local_epochs: Annotated[int, Field(ge=1, le=100)] = 1
    """times that a site goes through its training cases in a round"""
    server_rule: ServerRuleName = "fedavg"
    """how the mean update makes the step of a round (csasn/federated/server_rules/). Unless written, with fedprox at the sites, the
    coordinator settles it before anybody is asked: fedavgm with momentum 0.5"""
    server_options: dict[Name, float] = Field(default_factory=dict)
    """options of server_rule"""
    local_objective: LocalObjectiveName = "fedprox"
    """what a site adds to its loss (csasn/learning/objectives/)"""
    local_options: dict[Name, float] = Field(default_factory=dict)
    """options of local_objective"""
    proximal_mu: Annotated[float, Field(ge=0)] = 0.01
    """μ of FedProx: how strongly a site's model is held to the round's; 0: FedAvg"""
    personal: Literal["none", "heads", "ditto"] = "none"
    """a model of its own that each site keeps, and nobody else sees (csasn/learning/personal.py)"""
    personal_lambda: Annotated[float, Field(ge=0)] = 0.1
    """how near the model of ditto stays to that of all; goes with personal ditto alone"""
    batchnorm: Literal["fixbn", "silo", "shared", "group", "frozen"] = "fixbn"
    """statistics of normalisation: silo: measured anew of each model; fixbn: the same, and in the second half of the rounds sites
    train by them too; shared: the mean of what training left at the sites; group: none, by groups of channels; frozen: those of
    the initial weights"""
    upload_bits: Literal[8, 16, 32] = 16
    """bits of a number of an update"""
    answer_deadline_s: Positive = 3600.0
    """how long a round waits for a site of average weight"""
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 4
    """times that a round is asked before the run stops"""
    max_partial_rounds: Share = Field(default_factory=_partial_by_default)
    """share of the rounds that may be made without some site. Unless written: 0 where sums are masked, else 0.1"""
    loss_guard: Annotated[float, Field(gt=1)] | None = 2.0
    """a round whose model has more than this times the validation loss of the best so far is undone once; null: none is"""
    on_loss: Literal["withhold", "reveal"] = "withhold"
    """counts of fewer than all sites, where one fell out: left out, or shown"""

    @property
    def measures(self) -> bool:
        """Whether statistics of normalisation are measured anew of each model."""
        return self.batchnorm in ("fixbn", "silo")

    def trains_by_batches(self, current_round: int) -> bool:
        """Whether training normalises each batch by itself in this round, 1 the first, or by the statistics of the model."""
        return self.batchnorm != "frozen" and not (self.batchnorm == "fixbn" and 2 * (current_round - 1) >= self.rounds)

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
    """The finished model that a study begins with, which `--continue RUN` writes. Network, normalisation statistics, the memory
    of the server's rule, and ω go on."""

    model: Sha256 = Field(examples=["0" * 64])
    """SHA-256 of its run's continuation.safetensors, which lies at the coordinator alone"""


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
    """what is examined"""
    modality: Prose | None = None
    """how pictures are made"""
    intended_use: Prose | None = None
    """what the model is to be used for"""
    out_of_scope: Prose | None = None
    """what it must not be used for"""
    population: Prose | None = None
    """whose pictures it learns from"""
    ground_truth: Prose | None = None
    """how labels came about"""


class Study(Grown):
    """study.yaml: the same at every site."""

    newer: ClassVar[Mapping[str, object]] = {
        "about": None, "survey": False, "unit": "case", "loss": {}, "sampling": "plain", "calibration": "none", "continues": None,
    }  # fmt: skip
    name: Name = Field(examples=["my-study"])
    """name of the study"""
    about: About | None = None
    survey: bool = False
    """counts the cases of all sites, and trains nothing (csasn/data/survey_tables.py); `server survey` says it"""
    continues: Continues | None = None
    classes: tuple[Label, ...] = Field(min_length=2, max_length=256, examples=[["benign", "PTC", "FTC", "MTC"]])
    """values of the manifest's column label"""
    malignant: tuple[Label, ...] = ()
    """which classes are cancer"""
    tasks: dict[Name, Task] = Field(default_factory=lambda: {SUBTYPE: Task()})
    """heads of the network: subtype, and any of malignancy and columns of the manifest"""
    model: Model = Model()
    federation: Federation
    class_weighting: ClassWeighting = ClassWeighting()
    model_selection: Literal["best", "last"] = "best"
    """which round's model is released: the best by validation, or the last"""
    calibration: Literal["none", "temperature"] = "none"
    """temperature: logits of the finished model are divided by one number, fitted to the validation cases of all sites"""
    optimiser: Optimiser = Optimiser()
    loss: Loss = Loss()
    augmentation: Augmentation = Augmentation()
    split: Split = Split()
    images_per_case: Literal["one", "all"] = "one"
    """images of a case in an epoch: one, drawn anew, or all"""
    unit: Literal["case", "patient"] = "case"
    """what an epoch goes through: each case, or each patient with one case of theirs, drawn anew"""
    sampling: Literal["plain", "balanced"] = "plain"
    """balanced: an epoch draws as many with replacement, each class of the site as often"""
    deterministic: bool = True
    """the same bits on the same kind of machine, which costs a GPU some speed"""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """of all that is drawn by chance"""

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
