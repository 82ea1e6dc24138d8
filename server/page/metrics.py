"""The state of a federation as metrics, in Prometheus' text format (version 0.0.4): of no case, nor what a site alone counted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Literal, get_args

from csasn import __version__
from csasn.report.events import Evaluated, RoundFinished, Started, finished_rounds, last, of_kind
from csasn.trust.facts import Phase
from server.office.troubles import Trouble
from server.page.view import View

OF_SITES = ("wait", "ledger", "version", "enrolment", "approval")  # kinds of trouble that a site has
OF_ALL = ("certificate", "not_started", "disk", "membership", "no_run", "failed", "too_few_sites")
Labels = Mapping[str, str]


@dataclass(frozen=True)
class Metric:
    """A metric with its samples: labels, and the value."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    samples: Sequence[tuple[Labels, float]]

    def lines(self) -> Iterator[str]:
        """As they are written; none without a sample."""
        if self.samples:
            yield f"# HELP {self.name} {self.help}"
            yield f"# TYPE {self.name} {self.kind}"
        for labels, value in self.samples:
            named = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
            yield f"{self.name}{f'{{{named}}}' if named else ''} {value!r}"


def metrics_text(view: View) -> str:
    """All metrics of what there is to see."""
    found = [*_of_study(view), *_of_rounds(view), *_of_model(view), *_of_sites(view), _troubles(view)]
    return "".join(f"{line}\n" for metric in found for line in metric.lines())


def _of_study(view: View) -> Iterator[Metric]:
    status = view.status
    yield Metric("csasn_info", "gauge", "The study and the version of this software.",
                 [({"study": status.study if status else "", "version": __version__}, 1)])  # fmt: skip
    if status is None:
        return
    yield Metric("csasn_phase", "gauge", "Where the study stands: 1 for its phase, 0 for the others.",
                 [({"phase": phase}, int(status.phase == phase)) for phase in get_args(Phase)])  # fmt: skip
    yield _gauge("csasn_run_seconds_left", "About how long the run takes still, by the mean of its rounds.", status.seconds_left)
    expires = view.expires.timestamp() if view.expires else None
    yield _gauge("csasn_certificate_expiry_timestamp_seconds", "When the server's certificate expires.", expires)


def _of_rounds(view: View) -> Iterator[Metric]:
    if view.status is None:
        return
    rounds = finished_rounds(view.events)
    now = view.status.under_way or view.status.round
    yield _gauge("csasn_round", "The round that is under way, or the last one.", now)
    yield _gauge("csasn_rounds_planned", "Rounds that the study has.", view.status.num_rounds)
    yield _counter("csasn_rounds_total", "Rounds that made a model.", len(rounds))
    yield _counter("csasn_partial_rounds_total", "Rounds that were made without a site.", sum(bool(r.absent) for r in rounds))
    yield _counter("csasn_round_attempts_total", "Attempts that these rounds took.", sum(r.attempts for r in rounds))
    yield _counter("csasn_upload_bytes_total", "Bytes that came from sites in these rounds.", sum(r.bytes_up for r in rounds))
    yield _counter("csasn_download_bytes_total", "Bytes that went to sites in these rounds.", sum(r.bytes_down for r in rounds))
    yield _counter("csasn_rounds_duration_seconds_total", "Seconds that these rounds took.", sum(r.seconds for r in rounds))
    if finished := last(view.events, RoundFinished):
        yield _gauge("csasn_round_duration_seconds", "Seconds that the last round took.", finished.seconds)
        yield _gauge("csasn_train_loss", "Mean training loss of the last round, where all sites took part.", finished.train_loss)


def _of_model(view: View) -> Iterator[Metric]:
    evaluated = last(view.events, Evaluated)
    if evaluated:
        of = "of the newest model on validation cases"
        yield _gauge("csasn_validation_round", "The round whose model was evaluated last.", evaluated.round)
        yield _gauge("csasn_validation_macro_auroc", f"Macro AUROC {of}.", evaluated.macro_auroc)
        yield _gauge("csasn_validation_balanced_accuracy", f"Balanced accuracy {of}.", evaluated.balanced_accuracy)
        yield _gauge("csasn_validation_loss", f"Loss {of}.", evaluated.loss)
        recalls = [({"class": name}, value) for name, value in (evaluated.recall or {}).items() if value is not None]
        yield Metric("csasn_validation_recall", "gauge", f"Recall of a class {of}.", recalls)
    weights = next((event.class_weights for event in reversed(of_kind(view.events, Started)) if event.class_weights), ())
    named = [({"class": name}, value) for name, value in zip(view.classes, weights, strict=False)]
    yield Metric("csasn_class_weight", "gauge", "Weight of a class in the loss, the same at every site.", named)


def _of_sites(view: View) -> Iterator[Metric]:
    sites = view.status.sites if view.status else {}
    if not view.simulated:
        now = view.made.astimezone(UTC).timestamp()
        heard = {name: now - site.seen_seconds_ago for name, site in sites.items() if site.seen_seconds_ago is not None}
        yield _by_site("csasn_site_last_seen_timestamp_seconds", "When a site last spoke, by its clock.", heard)
        yield _by_site("csasn_site_online", "Whether a site is connected.", {name: site.online for name, site in sites.items()})
        approved = {name: site.approved for name, site in sites.items()}
        yield _by_site("csasn_site_approved", "Whether a site approved the membership.", approved)
    awaited = {name: site.waiting is not None for name, site in sites.items()}
    yield _by_site("csasn_site_awaited", "Whether an answer of a site is awaited.", awaited)
    paces = {name: site.seconds_a_round for name, site in sites.items() if site.seconds_a_round is not None}
    yield _by_site("csasn_site_round_duration_seconds", "Seconds that a site took for its last round.", paces)
    trained = {name: site.rounds_trained for name, site in sites.items()}
    yield _by_site("csasn_site_rounds_total", "Rounds in which a site took part.", trained, "counter")
    lines = {name: receipt.count for name, receipt in view.heads.items()}
    yield _by_site("csasn_site_ledger_lines", "Lines of a site's ledger, as it said last.", lines)


def _troubles(view: View) -> Metric:
    """1 for each trouble that `server status --check` names, and 0 for those that there could be."""
    there = {kind_of(trouble) for trouble in view.troubles}
    could = [(kind, "") for kind in OF_ALL] + [(kind, site) for kind in OF_SITES for site in view.sites]
    samples = {pair: int(pair in there) for pair in (*could, *sorted(there))}
    told = [({"kind": kind, "site": site}, value) for (kind, site), value in samples.items()]
    return Metric("csasn_trouble", "gauge", "Whether something wants a person, as server status --check says.", told)


def kind_of(trouble: Trouble) -> tuple[str, str]:
    """What a trouble is, and which site has it: nothing for one of the coordinator or of all."""
    first, _, rest = trouble.key.partition(" ")
    if first in OF_SITES and rest:
        return first, trouble.key.rpartition(" ")[2]
    return trouble.key.replace(" ", "_"), ""


def _gauge(name: str, about: str, value: float | None) -> Metric:
    return Metric(name, "gauge", about, [] if value is None else [({}, value)])


def _counter(name: str, about: str, value: float) -> Metric:
    return Metric(name, "counter", about, [({}, value)])


def _by_site(name: str, about: str, values: Mapping[str, float], kind: Literal["gauge", "counter"] = "gauge") -> Metric:
    return Metric(name, kind, about, [({"site": site}, float(value)) for site, value in values.items()])


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
