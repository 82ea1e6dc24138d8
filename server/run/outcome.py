"""What a run leaves behind: the finished model, its test metrics, and in the end the report with its picture."""

import json
from pathlib import Path

from csasn.federated.weighting import ClassWeights, class_weights
from csasn.finished.description import DESCRIPTION, WEIGHTS
from csasn.finished.weights import save_model
from csasn.model.network import Csasn
from csasn.platform.storage import write_atomically, write_json
from csasn.privacy.contract import Contract
from csasn.report.card import model_card
from csasn.report.report import build_report, final_metrics, own_statistics, run_status
from csasn.report.types import Engine, Report, SurveyReport
from server.run.continuation import CONTINUATION, leave_continuation, lineage_of
from server.run.rounds import Finished
from server.run.run_directory import REPORT, RunDirectory, read_events
from server.run.survey import write_survey

MEASURED = "measured in each round, from summed moments"
# where those of normalisation layers come from, by the study's `batchnorm`
STATISTICS = {
    "fixbn": MEASURED, "silo": MEASURED, "shared": "averaged over rounds", "group": "none", "frozen": "of the initial weights",
}  # fmt: skip


def write_outcome(directory: RunDirectory, contract: Contract, network: Csasn, finished: Finished) -> None:
    """Writes the model as it was evaluated, and the event that ends the federation."""
    study = contract.study
    chosen = finished.chosen
    contract.state.write(network, chosen.model)
    leave_continuation(directory, chosen)
    weights, state_hash = _after_the_last_round(directory)
    network.finish_subtype_logits(weights.offset_K, chosen.temperature)
    adjustment_K, statistics = weights.adjustment_K / chosen.temperature, STATISTICS[study.federation.batchnorm]
    save_model(
        directory.path, study, network, chosen.round, adjustment_K, statistics,
        temperature=chosen.temperature, lineage=lineage_of(directory),
    )  # fmt: skip
    weights_sha256 = str(json.loads((directory.path / DESCRIPTION).read_text(encoding="utf-8"))["weights_sha256"])
    counts = finished.counts
    directory.event(
        "outcome",
        final=None if counts is None else final_metrics(study, counts, chosen.round),
        own_statistics=None if counts is None else own_statistics(study, counts, chosen.round),
        state_hash=state_hash,
        round=chosen.round,
        weights_sha256=weights_sha256,
        adjustment=adjustment_K.tolist(),
        temperature=chosen.temperature,
    )


def forget_model(path: Path) -> None:
    """Throws away what a rehearsal trained: nothing but its events, receipts and report stays in the run directory."""
    for file in (path / WEIGHTS, path / DESCRIPTION, path / CONTINUATION, *path.glob("checkpoints/*")):
        file.unlink(missing_ok=True)


def _after_the_last_round(directory: RunDirectory) -> tuple[ClassWeights, str]:
    """The weights that hold then, and the hash of the model, which is not kept in memory."""
    state = directory.load()
    assert state is not None
    return class_weights(directory.study.class_weighting, state.histogram_K, state.history), state.model_hash


def write_report(directory: RunDirectory, engine: Engine) -> Report | SurveyReport:
    """Writes report.json, MODEL_CARD.md, report.html and curves.png from the events so far, or survey.json and survey.html; the
    report."""
    events = read_events(directory.path)
    if directory.study.survey:
        return write_survey(directory, engine, events)
    report = build_report(directory.study, directory.membership, engine, events, run_status(events))
    write_json(directory.path / REPORT, report.as_json())
    write_atomically(directory.path / "MODEL_CARD.md", model_card(report).encode())
    from csasn.report.curves import draw_curves  # matplotlib, not before there is something to draw: no model is held any more
    from csasn.report.page import write_page

    write_page(report, events, directory.path / "report.html")
    draw_curves(report, directory.path / "curves.png")
    return report
