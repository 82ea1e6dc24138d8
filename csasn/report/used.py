"""How many of the sites' cases and images a run uses, and how many are left out since they cannot be read."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from csasn.data.split import SPLITS, TRAIN
from csasn.report.marked import Marked
from csasn.report.parts import as_dict, as_list

Report = Mapping[str, object]
STILL = "rounds before a withdrawal hold what was learned of the patient, later ones begin from these"
DONE = ("trained", "validated", "tested")  # on the cases of each split


def used_data(counted: Mapping[str, object] | None, shown_cases: int) -> dict[str, object] | None:
    """What report.json says of it, by the event of hello; None before it.

    Where a class has fewer than `shown_cases` training cases, they are in no number here: beside those of the other classes, sums
    with them would tell how many they are.
    """
    if counted is None or "used" not in counted:
        return None
    hidden = sum(number for number in as_list(counted["histogram"]) if number < shown_cases)
    few = any(number < shown_cases for number in as_list(counted["histogram"]))
    data: dict[str, object] = {}
    for number, (split, used, gone) in enumerate(zip(SPLITS, as_list(counted["used"]), as_list(counted["left_out"]), strict=True)):
        hides = number == TRAIN and few
        cases, images = used[0] - hidden * hides, used[1]
        data[split] = {
            "cases": cases + gone[0],
            "cases_used": cases,
            "images": None if hides else images + gone[1],
            "images_used": None if hides else images,
            "images_left_out": gone[1],
        }
    return data


def used_sentence(marked: Marked) -> Markup:
    """The same in a sentence, with a few training cases of small classes apart; empty where nothing is known."""
    if not marked.find("data"):
        return Markup()
    parts = [
        Markup("{} on {} of {} cases").format(done, marked.count("data", split, "cases_used"), marked.count("data", split, "cases"))
        for done, split in zip(DONE, SPLITS, strict=True)
        if marked.number("data", split, "cases")
    ]
    if not parts:
        return Markup()
    if small := small_classes(marked.find("training_cases")):
        parts[0] += Markup(" (besides those of {}, too few to be shown)").format(", ".join(small))
    num_gone = sum(marked.number("data", split, "images_left_out") or 0 for split in SPLITS)
    rest = "The rest is left out: no image of them can be read at their sites." if num_gone else "Every image could be read."
    withdrew = Markup(" {} of the patients withdrew while it was trained: {}.").format(marked.count("withdrawn"), STILL)
    return Markup("It was {}. {}").format(Markup(", ").join(parts), rest) + (withdrew if marked.number("withdrawn") else "")


def used_rows(report: Report) -> tuple[tuple[str, str], ...]:
    """A row of the model card for each split."""
    data, small = as_dict(report.get("data") or {}), small_classes(report["training_cases"])
    rows = [(f"{split} cases", _used(as_dict(data[split]), small if number == TRAIN else ())) for number, split in enumerate(data)]
    if (withdrawn := report.get("withdrawn")) is not None:
        rows.append(("patients who withdrew while it was trained", f"{withdrawn}; {STILL}" if withdrawn else "none"))
    return tuple(rows)


def _used(counts: Mapping[str, object], small: Sequence[str]) -> str:
    images = "" if counts["images"] is None else f", {counts['images_used']} of {counts['images']} images"
    few = f", besides those of {', '.join(small)}, too few to be shown" if small else ""
    gone = f"; unreadable images left out: {counts['images_left_out']}"
    return f"{counts['cases_used']} of {counts['cases']} cases used{images}{few}{gone}"


def small_classes(training_cases: object) -> list[str]:
    """Classes whose number of training cases is not shown."""
    return [str(name) for name, number in training_cases.items() if number is None] if isinstance(training_cases, Mapping) else []
