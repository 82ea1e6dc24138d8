"""What report.json and survey.json hold, as types; csasn/SPEC.md says what each key means. Keys may be added, none changes.

Keys that came after version 0.1.0 have defaults, so that an older report can be read; what it lacks stays unset, and is not shown.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from csasn.study import Ancestor

Json = dict[str, JsonValue]
Engine = Literal["local", "flower", "deployment"]
Status = Literal["complete", "degraded", "incomplete", "stopped", "failed"]
Ends = tuple[float, float]  # of an interval, or a point of a curve
Reasons = dict[str, str]  # by site: why it was missing


class Facts(BaseModel):
    """What was written to JSON, or will be. Keys of a newer version are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    def as_json(self) -> Json:
        """The keys that are set, in order."""
        return self.model_dump(mode="json", exclude_unset=True)

    @classmethod
    def of_json(cls, facts: Json) -> Self:
        """Reads what `as_json` gave, also of an older version.

        Raises:
            ValidationError: it is no such thing.
        """
        return cls.model_validate(facts)


class ClassResult(Facts):
    """Rates of one class on test cases, None where undefined, with their intervals, curves and calibration."""

    recall: float | None
    precision: float | None
    f1: float | None
    auroc: float | None
    support: int
    conclusive: bool | None = None
    recall_ci95: Ends | None = None
    precision_ci95: Ends | None = None
    auroc_ci95: Ends | None = None
    roc: tuple[Ends, ...] | None = None
    precision_recall: tuple[Ends, ...] | None = None
    ece: float | None = None
    reliability: tuple[tuple[float, float, int], ...] | None = None

    @property
    def flat(self) -> dict[str, float | None]:
        """All but the curves; the ends of an interval as two values."""
        found: dict[str, float | None] = {}
        for name in ("recall", "precision", "f1", "auroc", "support", "ece"):
            found[name] = getattr(self, name)
            if f"{name}_ci95" in type(self).model_fields:
                found[f"{name}_low"], found[f"{name}_high"] = getattr(self, f"{name}_ci95") or (None, None)
        return found


class Malignancy(Facts):
    """Of the cases of malignant classes how many are decided to be of any of them, and of the others how many of none; the
    shares of both, None where there is no case."""

    cancers: int
    found: int
    sensitivity: float | None
    sensitivity_ci95: Ends | None
    benign: int
    cleared: int
    specificity: float | None
    specificity_ci95: Ends | None


class Gain(Facts):
    """By how much the federated model is above another on the same cases, and the interval of that."""

    value: float | None
    ci95: Ends | None


class Result(Facts):
    """What a model reached on test cases; `confusion` has a row for each true class. `gains`, of a model to compare with, are those
    of the federated model over it, by measure."""

    macro_auroc: float | None
    macro_auroc_ci95: Ends | None = None
    balanced_accuracy: float | None
    balanced_accuracy_ci95: Ends | None = None
    macro_f1: float | None
    ece: float | None = None
    intervals: str = ""
    per_class: dict[str, ClassResult]
    malignancy_auroc: float | None
    malignancy: Malignancy | None = None
    gains: dict[str, Gain] | None = None
    confusion: tuple[tuple[int, ...], ...]
    round: int

    @property
    def num_cases(self) -> int:
        """Of all classes together."""
        return sum(map(sum, self.confusion))

    @property
    def rows(self) -> list[dict[str, str | float | None]]:
        """A flat row a class, for a data frame: rates, the ends of their intervals as <rate>_low and <rate>_high, support."""
        return [{"class": name, **rates.flat} for name, rates in self.per_class.items()]


class OwnStatistics(Facts):
    """What the model reaches where each site gives it normalisation statistics of its own cases, and by how much more of the same
    cases it is right then."""

    result: Result
    accuracy_difference: float
    accuracy_difference_ci95: Ends


class RoundResult(Facts):
    """One accepted round, and what its model reached on validation cases."""

    round: int
    absent: Reasons
    participants: tuple[str, ...]
    attempts: int
    clipped_share: float | None
    bytes_up: int
    bytes_down: int
    seconds: float
    class_weights: tuple[float, ...] | None
    loss: float | None
    macro_auroc: float | None
    balanced_accuracy: float | None
    recall: dict[str, float | None] | None


class SiteWeight(Facts):
    """A site's public share of the training cases."""

    weight: float


class MembershipSpan(Facts):
    """Sites that took part together, from when `after_round` rounds were done until the next membership."""

    membership_hash: str
    after_round: int
    sites: tuple[str, ...]


class Used(Facts):
    """Cases and images of a split over all sites; images are None where their number would tell that of a small class."""

    cases: int
    cases_used: int
    images: int | None
    images_used: int | None
    images_left_out: int


class Totals(Facts):
    """Sums over the accepted rounds; in how many an attempt failed, in how many a site is missing."""

    rounds: int
    repeated_rounds: int
    partial_rounds: int
    bytes_up: int
    bytes_down: int
    seconds: float


class Elapsed(Facts):
    """Seconds from the first event of a run to the last, and what they went to: `stopped` while it was ended, `waiting` for sites,
    `baselines` for training models to compare with, `working` for the rest."""

    whole: float
    working: float
    waiting: float
    stopped: float
    baselines: float


class BranchStart(Facts):
    """Where a branch began: its network, the source that the study names, package or file, and the SHA-256 that was compared."""

    network: str
    source: str
    of: str | None = None
    sha256: str | None = None


class Report(Facts):
    """report.json: what came of a run."""

    schema_version: Literal[1] = 1
    notice: str = ""
    study: str = ""
    study_hash: str
    membership_hash: str = ""
    code_version: str
    engine: Engine
    seed: int
    profile: str
    initial_weights: dict[str, BranchStart] = Field(default_factory=dict)
    about: dict[str, str | None] | None = None
    classes: tuple[str, ...]
    malignant: tuple[str, ...] = ()
    secure_aggregation: bool
    coordinator_saw: str
    sites: dict[str, SiteWeight]
    lineage: tuple[Ancestor, ...] = ()
    memberships: tuple[MembershipSpan, ...] = ()
    training_cases: dict[str, int | None] = Field(default_factory=dict)
    data: dict[str, Used] | None = None
    withdrawn: int | None = None
    rounds: tuple[RoundResult, ...]
    totals: Totals | None = None
    elapsed: Elapsed | None = None
    absent_at_finish: Reasons | None = None
    final: Result | None
    own_statistics: OwnStatistics | None = None
    state_hash: str | None
    weights_sha256: str | None = None
    adjustment: tuple[float, ...] | None = None
    temperature: float | None = None
    baselines: dict[str, Result]
    status: Status


class SurveyRow(Facts):
    """A count over the sites that showed theirs, None where it hides; how many sites hid theirs."""

    name: str
    count: int | None
    hiding_sites: int


class SurveyTable(Facts):
    """The counts of a block of the survey."""

    of: str
    title: str
    rows: tuple[SurveyRow, ...]


class SurveyReport(Facts):
    """survey.json: what a survey counted."""

    schema_version: Literal[1] = 1
    study: str
    study_hash: str
    membership_hash: str
    code_version: str
    engine: Engine
    secure_aggregation: bool
    coordinator_saw: str
    classes: tuple[str, ...]
    sites: tuple[str, ...]
    smallest_sum: int
    tables: tuple[SurveyTable, ...]
    status: Status
