"""The model card: what a clinical board must know of a model, from report.json, for every way in which a run can end."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from csasn.report.parts import as_dict, as_list
from csasn.report.rates import show_rate, with_interval
from csasn.report.report import CONCLUSIVE_CASES, SHOWN_CASES
from csasn.report.used import used_rows

Report = Mapping[str, object]
Row = tuple[str, str]
MIB = 1 << 20
MEASURE = (
    "csasn evaluate RUN --sites SITES; with the released normalisation statistics, where the results above are by each site's own "
    "if the study keeps them at the sites"
)
NOT_STATED = "not stated by the study"
ABOUT = {
    "intended_use": "intended use",
    "organ": "organ",
    "modality": "modality",
    "population": "patients and their cases",
    "ground_truth": "how labels came about",
    "out_of_scope": "not meant for",
}
ENDINGS = {
    "complete": "Every site took part in every round and in the final count of test cases.",
    "degraded": "A site was missing in a round or at the end; the model follows from those that took part.",
    "incomplete": "A site was missing when cases were counted: counts of fewer than all sites, and their metrics, are withheld.",
    "stopped": "The run was stopped before its end. The card says what holds so far; it is written anew when the run has gone on.",
    "failed": "The run failed before its end; events.jsonl says why. The card says what holds so far; the run can be resumed.",
}


@dataclass(frozen=True)
class Section:
    """A part of the card in plain text: paragraphs, then rows of a name and what is said of it."""

    title: str
    paragraphs: tuple[str, ...]
    rows: tuple[Row, ...] = ()


def card_sections(report: Report) -> tuple[Section, ...]:
    """The sections of the card, in order."""
    parts = _use, _decision, _data, _participation, _results, _inconclusive, _calibration, _privacy, _identity, _reproduction
    return tuple(part(report) for part in parts)


def model_card(report: Report) -> str:
    """The card as Markdown; text that a site or a study brought shows as it is, and forms nothing."""
    lines = [f"# Model card: {_escaped(str(report['study']))}", ""]
    for section in card_sections(report):
        lines += [f"## {section.title}", ""]
        for paragraph in section.paragraphs:
            lines += [_escaped(paragraph), ""]
        if section.rows:
            lines += ["| | |", "|---|---|", *(f"| {_escaped(name)} | {_escaped(said)} |" for name, said in section.rows), ""]
    return "\n".join(lines)


def _use(report: Report) -> Section:
    classes = ", ".join(str(name) for name in as_list(report["classes"]))
    about = as_dict(report.get("about") or {})
    return Section(
        "Intended use",
        (
            _sentence(report["notice"]),
            f"The model sorts a case, by its images, into {classes}, with a probability for each class. It knows no other class, "
            "and nothing is known of it on scanners, hospitals and patients unlike those below.",
            "What the study says of itself is below; nothing here checks it.",
        ),
        tuple((words, str(about.get(key) or NOT_STATED)) for key, words in ABOUT.items()),
    )


def _decision(report: Report) -> Section:
    adjustment = report.get("adjustment")  # which reports of 0.1.0 lack
    if adjustment is None:
        return Section("How a case is decided", ("Not known: there is no finished model, or an older version made it.",))
    if not any(as_list(adjustment)):
        return Section("How a case is decided", ("For the class that is most probable by the mean over its images.",))
    shares = (f"{math.exp(float(str(value))):.3f}" for value in as_list(adjustment))
    return Section(
        "How a case is decided",
        (
            "For the class whose probability, by the mean over its images, is the largest after division by the number below. So a "
            "rare class may be decided where a common one is more probable: more of its cases are found, and more of the decisions "
            "for it are wrong.",
        ),
        tuple((f"class {name}", share) for name, share in zip(as_list(report["classes"]), shares, strict=True)),
    )


def _data(report: Report) -> Section:
    training, tested = as_dict(report["training_cases"]), _per_class(report)
    counted = bool(report["rounds"]) or any(number is not None for number in training.values())

    def cases_of(name: str) -> str:
        few = f"fewer than {SHOWN_CASES}" if counted else "unknown number of"
        shown = few if training[name] is None else str(training[name])
        return f"{shown} training cases, {tested[name]['support'] if tested else 'unknown number of'} test cases"

    sites = tuple((f"site {name}", f"weight {as_dict(facts)['weight']:.3f}") for name, facts in as_dict(report["sites"]).items())
    return Section(
        "Data",
        (
            "A case is what has a label: a patient, or one of several findings in a patient. Cases are counted over all sites "
            f"together; fewer than {SHOWN_CASES} training cases of a class are not shown. A site's weight is its public share of "
            "the training cases. Images that cannot be read, if few, are left out, and with them the cases that have no other.",
        ),
        (*sites, *used_rows(report), *((f"class {name}", cases_of(str(name))) for name in as_list(report["classes"]))),
    )


def _participation(report: Report) -> Section:
    totals, rounds = as_dict(report["totals"]), [as_dict(row) for row in as_list(report["rounds"])]
    sizes = f"{totals['bytes_up'] / MIB:.1f} MiB went up, {totals['bytes_down'] / MIB:.1f} MiB down"
    summary = (
        f"{totals['rounds']} rounds in {totals['seconds']:.0f} seconds; {totals['partial_rounds']} of them lacked a site, "
        f"{totals['repeated_rounds']} had an attempt that failed. {sizes}."
    )
    at_the_end = as_dict(report["absent_at_finish"] or {})
    return Section(
        "Participation",
        (f"Status: {report['status']}. {ENDINGS[str(report['status'])]}", summary),
        tuple((f"site {name}", _attendance(str(name), rounds, at_the_end)) for name in as_dict(report["sites"])),
    )


def _attendance(site: str, rounds: Sequence[Mapping[str, object]], at_the_end: Mapping[str, object]) -> str:
    missed: dict[str, list[str]] = {}
    for row in rounds:
        if site in as_dict(row["absent"]):
            missed.setdefault(str(as_dict(row["absent"])[site]), []).append(f"round {row['round']}")
    present = len(rounds) - sum(map(len, missed.values()))
    if site in at_the_end:
        missed.setdefault(str(at_the_end[site]), []).append("the end")
    reasons = "".join(f"; absent in {', '.join(when)}: {reason}" for reason, when in missed.items())
    return f"{present} of {len(rounds)} rounds{reasons}"


def _results(report: Report) -> Section:
    if not report["final"]:
        return Section("Results on test cases", (_without_results(report),))
    final = as_dict(report["final"])
    whole = (
        ("macro AUROC", with_interval(final, "macro_auroc")),
        ("balanced accuracy", with_interval(final, "balanced_accuracy")),
        ("macro F1", show_rate(final["macro_f1"])),
        ("AUROC of malignancy", show_rate(final["malignancy_auroc"])),
    )
    beside = tuple(
        (f"baseline {name}", f"macro AUROC {with_interval(other, 'macro_auroc')}, balanced accuracy "
                             f"{with_interval(other, 'balanced_accuracy')}")
        for name, other in as_dict(report["baselines"]).items()
    )  # fmt: skip
    return Section(
        "Results on test cases",
        (
            f"The model is that of round {final['round']}, on {sum(map(sum, final['confusion']))} cases that no site trained on. "
            f"Intervals in brackets are of {final['intervals']}.",
        ),
        whole + tuple((f"class {name}", _class_rates(row)) for name, row in _per_class(report).items()) + beside,
    )


def _class_rates(row: Mapping[str, object]) -> str:
    rates = ", ".join(
        f"{name} {with_interval(row, key)}" for name, key in (("recall", "recall"), ("precision", "precision"), ("AUROC", "auroc"))
    )
    return f"{rates}; {row['support']} test cases"


def _without_results(report: Report) -> str:
    if report["status"] == "incomplete":
        return "The metrics are withheld: not every site's test cases were counted. The model is there, how good it is unknown."
    return f"There are none: the run {report['status']} before its end, and no model was finished."


def _inconclusive(report: Report) -> Section:
    few = {name: row["support"] for name, row in _per_class(report).items() if not row["conclusive"]}
    if not report["final"]:
        said = "Nothing is to be concluded of any class, since none has results."
    elif few:
        named = ", ".join(f"{name} ({support})" for name, support in few.items())
        said = (
            f"Fewer than {CONCLUSIVE_CASES} test cases: {named}. Their rates are shown, and nothing is to be concluded from them."
        )
    else:
        said = f"None: every class has {CONCLUSIVE_CASES} test cases or more."
    return Section("Classes not to be concluded from", (said,))


def _calibration(report: Report) -> Section:
    if not report["final"]:
        return Section("Calibration", ("Unknown, as the results.",))
    final = as_dict(report["final"])
    return Section(
        "Calibration",
        (
            "Expected calibration error over ten equal bins of probability: how far probabilities lie from the share of cases that "
            "are of the class, 0 at best. It grows by chance where cases are few.",
        ),
        (("mean over classes", show_rate(final["ece"])),
         *((f"class {name}", f"{show_rate(row['ece'])}; {row['support']} test cases") for name, row in _per_class(report).items())),
    )  # fmt: skip


def _privacy(report: Report) -> Section:
    masked = "on" if report["secure_aggregation"] else "off"
    return Section(
        "What the coordinator saw",
        (_sentence(report["coordinator_saw"]), "No image, label or row of a patient left a site."),
        (("secure aggregation", masked),),
    )


def _identity(report: Report) -> Section:
    names = {
        "study": "study_hash", "membership": "membership_hash", "weights after the last round": "state_hash",
        "model.safetensors": "weights_sha256",
    }  # fmt: skip
    hashes = tuple((f"SHA-256 of {name}", str(report[key] or "none yet")) for name, key in names.items())
    facts = tuple((name, str(report[key])) for name, key in (("model", "profile"), ("engine", "engine"), ("seed", "seed")))
    return Section("Which model this is", (), (*hashes, ("code version", f"csasn-federated {report['code_version']}"), *facts))


def _reproduction(report: Report) -> Section:
    simulate = "server simulate RUN/study.yaml --sites SITES --out AGAIN" + (" --baselines" if report["baselines"] else "")
    train = {
        "local": simulate,
        "flower": f"{simulate} --engine flower",
        "deployment": "server init RUN/study.yaml --address HOST:PORT, then as in deploy/README.md: each hospital keeps its cases",
    }[str(report["engine"])]
    return Section(
        "How to reproduce",
        (
            "RUN is the folder of this card, SITES that of the sites' files. With the same cases, code version and kind of "
            "processor, and the same sites in each round, the weights after the last round are the same to the bit: compare their "
            "SHA-256.",
        ),
        (("train again", train), ("measure model.safetensors", MEASURE), ("every number of this card", "report.json in RUN")),
    )


def _per_class(report: Report) -> dict[str, dict[str, object]]:
    return as_dict(as_dict(report["final"])["per_class"]) if report["final"] else {}


def _sentence(text: object) -> str:
    return f"{str(text)[:1].upper()}{str(text)[1:]}."


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#&~])", r"\\\1", " ".join(text.split()))
