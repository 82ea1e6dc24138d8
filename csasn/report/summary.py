"""A report in plain words: what was trained and by whom, whether it is good, and what must not be concluded from it."""

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from csasn.finished.weights import NOTICE
from csasn.report.figures import methods_of
from csasn.report.marked import Marked, constant, listed
from csasn.report.rates import whose_cases
from csasn.report.report import CONCLUSIVE_CASES
from csasn.report.used import used_sentence

GUESSING = 0.5  # the macro AUROC of it
ENGINES = {
    "local": "in a simulation on one machine, from a folder for each site",
    "flower": "in a simulation on Flower's runtime, from a folder for each site",
    "deployment": "at the sites themselves, each of which kept its images and labels",
}


@dataclass(frozen=True)
class Paragraph:
    """Sentences under a title."""

    title: str
    sentences: tuple[Markup, ...]


def summary(marked: Marked) -> tuple[Paragraph, ...]:
    """The paragraphs that begin the page."""
    return (
        Paragraph("What was trained, and by whom", (*_training(marked), *_status(marked))),
        Paragraph("Is it good?", tuple(_quality(marked))),
        Paragraph("What must not be concluded", tuple(_limits(marked))),
    )


def notice(marked: Marked) -> str:
    """What every user of the model must know."""
    return str(marked.find("notice") or NOTICE)


def inconclusive(of_class: Marked) -> bool:
    """Whether a class has too few test cases to conclude anything about it."""
    told, support = of_class.find("conclusive"), of_class.number("support")
    return not told if isinstance(told, bool) else support is not None and support < CONCLUSIVE_CASES


def no_metrics(marked: Marked) -> str:
    """Why a report has no test metrics."""
    if marked.find("status") == "incomplete":
        return (
            "Nothing is known of its quality: the test metrics were withheld, since a site was missing when they were counted, and "
            "the study allows none of fewer sites."
        )
    return "Nothing is known of its quality: there is no finished model, and no test metrics."


def _training(marked: Marked) -> list[Markup]:
    model = Markup("A model of profile {} that tells apart {}, trained by {} together").format(
        marked.text("profile"), listed(marked.names("classes")), listed(marked.names("sites"))
    )
    done = len(marked.items("rounds"))
    rounds = Markup(" in {} rounds").format(marked.count("rounds", done - 1, "round")) if done else Markup()
    engine = ENGINES.get(str(marked.find("engine")), "")
    seen = Markup("What the coordinator saw: {}.").format(marked.text("coordinator_saw"))
    return [Markup("{}{}, {}.").format(model, rounds, engine), *_about(marked), *filter(None, [used_sentence(marked)]), seen]


def _about(marked: Marked) -> list[Markup]:
    """What the study says that the model is of and for."""
    said = [
        Markup("{} {}").format(word, marked.text("about", key))
        for key, word in (("organ", "organ:"), ("modality", "modality:"), ("intended_use", "intended use:"))
        if marked.find("about", key)
    ]
    if not said:
        return [Markup("The study states neither organ nor modality, and no intended use.")]
    return [Markup("The study states: {}.").format(Markup("; ").join(said))]


def _status(marked: Marked) -> list[Markup]:
    status = str(marked.find("status"))
    words = {
        "complete": Markup("The run is complete: every site took part in every round and at the end."),
        "degraded": Markup("The run is degraded: a site was missing in a round or at the end, as is told below."),
        "incomplete": Markup("The run is incomplete: a site was missing where all have to answer, and metrics were withheld."),
        "stopped": Markup("The run was stopped before its end; it can be resumed."),
        "failed": Markup("The run failed: {}.").format(_last_error(marked)),
    }
    return [words.get(status, Markup("Status {}.").format(marked.text("status")))]


def _last_error(marked: Marked) -> Markup:
    failed = [index for index, event in enumerate(marked.items("events")) if _kind(event) == "failed"]
    return marked.text("events", failed[-1], "error") if failed else Markup("why is in events.jsonl")


def _kind(event: object) -> object:
    return event.get("event") if isinstance(event, Mapping) else None


def _quality(marked: Marked) -> list[Markup]:
    final = marked.at("final")
    if not final.find():
        return [Markup("<strong>{}</strong>").format(no_metrics(marked))]
    tested = Markup("On test cases of {}, which it was not trained on, the macro AUROC of the model of round {} is {}")
    sentences = [
        (tested + Markup(", where {} is perfect and {} is guessing.")).format(
            whose_cases(marked.find("absent_at_finish")),
            final.count("round"),
            final.rate_and_interval("macro_auroc"),
            constant("1"),
            constant("0.5"),
        ),
        Markup("Its balanced accuracy, the mean recall of all classes, is {}.").format(
            final.rate_and_interval("balanced_accuracy")
        ),
    ]
    low = final.number("macro_auroc_ci95", 0)
    if low is not None and low <= GUESSING:
        sentences.append(
            Markup("<strong>The interval of its macro AUROC reaches down to guessing: nothing shows that it has learned.</strong>")
        )
    return [*sentences, *_extremes(final), *_gains(marked)]


def _extremes(final: Marked) -> list[Markup]:
    """The classes that are found most and least often, of those with enough test cases to say so."""
    classes = {name: final.at("per_class", name) for name in final.names("per_class")}
    recalls = {name: row.number("recall") for name, row in classes.items() if not inconclusive(row)}
    known = {name: recall for name, recall in recalls.items() if recall is not None}
    if len(set(known.values())) < 2:
        return []
    ends = max(known, key=lambda name: known[name]), min(known, key=lambda name: known[name])
    parts = [
        Markup("{} (recall {} of {} cases)").format(name, classes[name].rate("recall"), classes[name].count("support"))
        for name in ends
    ]
    return [Markup("It finds {} most often, and {} least often.").format(*parts)]


def _gains(marked: Marked) -> list[Markup]:
    """The federated model beside each site alone and all cases pooled, by macro AUROC."""
    ours, methods = marked.number("final", "macro_auroc"), methods_of(marked)
    alone = {name: method for name, method in methods.items() if name not in ("federated", "pooled")}
    if ours is None or not alone:
        return [Markup("Whether the federation helped is not known: the run had no baselines to compare with.")]
    sides: dict[bool, list[Markup]] = {True: [], False: []}
    for name, method in alone.items():
        theirs = method.number("macro_auroc")
        if theirs is not None:
            sides[ours > theirs].append(Markup("{} ({})").format(name, method.rate("macro_auroc")))
    compared = [
        Markup("{} {}").format(words, listed(names))
        for words, names in (("better than", sides[True]), ("not better than", sides[False]))
        if names
    ]
    sentences = [Markup("By macro AUROC it is {}.").format(Markup(", and ").join(compared))] if compared else []
    if "pooled" in methods:
        words = Markup(
            "One model trained on the cases of all sites in one place, which a federation is there to avoid, reaches {}."
        )
        sentences.append(words.format(methods["pooled"].rate_and_interval("macro_auroc")))
    return [*sentences, Markup("Where intervals overlap, the order may be chance.")]


def _limits(marked: Marked) -> list[Markup]:
    classes = {name: marked.at("final", "per_class", name) for name in marked.names("final", "per_class")}
    few = [Markup("{} ({})").format(name, row.count("support")) for name, row in classes.items() if inconclusive(row)]
    limits = [Markup("Nothing about a patient: the model is {}.").format(notice(marked))]
    if few:
        limits.append(
            Markup("<strong>Nothing about {}: too few test cases.</strong> Their rates are shown, marked *.").format(listed(few))
        )
    if classes:
        seed = marked.text("seed")
        limits += [
            Markup("Nothing about other hospitals, scanners or patients than those of these sites."),
            Markup("Nothing about another run: this is one, with seed {}, and another seed gives other numbers.").format(seed),
            Markup("Precision holds only where classes are as common as among these test cases."),
        ]
    if marked.find("final", "ece") is not None:
        words = Markup("A probability is not to be taken at its word: the mean expected calibration error is {}.")
        limits.append(words.format(marked.rate("final", "ece")))
    return limits
