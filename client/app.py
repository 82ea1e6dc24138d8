"""The site's Flower app: it carries requests to the resident worker and answers back, and does nothing else."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

import torch
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from client.approval import read_agreed
from client.outbox import Outbox
from client.worker import SiteWorker
from csasn import wire
from csasn.errors import ConfigurationError, CsasnError, StorageError, TrainingError
from csasn.federated.messages import Absence, Reason, Request
from csasn.federated.quantise import ScaleTooSmallError
from csasn.federated.secagg.messages import Sign
from csasn.identity import KEYS_FOLDER, load_identity, sign
from csasn.membership import read_membership
from csasn.privacy.gate import Terms
from csasn.privacy.ledger import LEDGER_FILE, Ledger, Occasion
from csasn.privacy.receipt import PURPOSE
from csasn.site import read_site
from csasn.storage import private_folder, write_json
from csasn.study import read_study

log = logging.getLogger(__name__)

# keys of the node configuration: files at the site, never anything that a message names
SITE_FILE, STUDY_FILE, MEMBERSHIP_FILE, STATE_FOLDER = "site-file", "study-file", "membership-file", "state-folder"
THREADS, DOING_FILE = "threads", "doing-file"

# keys that Flower's simulation sets in the node configuration, and those of the run configuration that it goes with
PARTITION, SITES, OUT, RUN_DIRECTORY = "partition-id", "sites", "out", "run-directory"

# all that the coordinator is told of a site file, which holds addresses, folders and values of this hospital alone
UNUSABLE = "the site file or study cannot be used here; this site's log says why"

T = TypeVar("T")

app = ClientApp()


def _reply(message: Message, context: Context) -> Message:
    torch.set_num_threads(int(context.node_config.get(THREADS, 1)))
    request = reason_of_failure(lambda: wire.request_from_message(message))
    worker = reason_of_failure(lambda: _worker(*_files(context), str(context.node_config.get(DOING_FILE, ""))))
    if isinstance(request, Absence) or isinstance(worker, Absence):
        absence = request if isinstance(request, Absence) else worker
        assert isinstance(absence, Absence)
        return _send(message, context, lambda outbox: outbox.post(absence, _occasion(request), None))
    reply = reason_of_failure(lambda: worker.answer(request))

    def post(outbox: Outbox) -> wire.Records:
        header = request.header
        left = outbox.bytes_left(worker.site.policy.upload_budget_mib, header.run, header.round)
        num_survivors = len(request.survivors.sites) if request.survivors else 0
        terms = Terms(worker.contract, worker.site.site, request.kind, header.round, left, num_survivors)
        return outbox.post(reply, _occasion(request), terms)

    return _send(message, context, post)


def _occasion(request: Request | Absence) -> Occasion:
    if isinstance(request, Absence):
        return Occasion()
    header = request.header
    return Occasion(header.run, header.round, header.attempt, request.kind.value)


def _send(message: Message, context: Context, post: Callable[[Outbox], wire.Records]) -> Message:
    """The message of what `post` hands over; where the ledger cannot be written, a number and a fixed text are all that leaves."""
    try:
        site_file, _, membership_file, state_folder = _files(context)
        signer = reason_of_failure(lambda: _signer(site_file, membership_file, state_folder))
        if isinstance(signer, Absence):
            log.error("the head of the ledger goes unsigned: %s", signer.text)
            signer = None
        sign_head = partial(signer, PURPOSE) if signer else None
        return Message(post(Outbox(_ledger(state_folder), sign_head)), reply_to=message)
    except CsasnError as error:
        log.error("nothing is sent: %s", _line(error))
    except Exception as error:  # noqa: BLE001 - as in `reason_of_failure`
        log.error("nothing is sent: unexpected %s", type(error).__name__)
    return Message(Error(wire.NO_LEDGER, "no ledger, nothing sent"), reply_to=message)


app.query("keys")(_reply)
app.query("hello")(_reply)
app.train()(_reply)
app.evaluate("validate")(_reply)
app.evaluate("finish")(_reply)
app.query("confirm")(_reply)
app.query("unmask")(_reply)


@app.query("place")
def _place(message: Message, context: Context) -> Message:
    """Says where in the roster a node of Flower's simulation stands; a hospital's node stands nowhere, and refuses."""
    place = context.node_config.get(PARTITION)
    if isinstance(place, int):
        return Message(wire.place_to_records(place), reply_to=message)
    refusal = Absence(Reason.REFUSED, "this node is of no simulation")
    return _send(message, context, lambda outbox: outbox.post(refusal, Occasion(), None))


def _files(context: Context) -> tuple[str, str, str, str]:
    """Site file, study file, membership file and state folder of a node.

    The coordinator writes the run configuration, so that files follow from it only where the node itself says that it is of a
    simulation: a hospital's node names its files and has no partition.
    """
    node, run = context.node_config, context.run_config
    if SITE_FILE in node or PARTITION not in node:
        site_file, study_file, membership_file, state_folder = (
            str(node[key]) for key in (SITE_FILE, STUDY_FILE, MEMBERSHIP_FILE, STATE_FOLDER)
        )
        return site_file, study_file, membership_file, state_folder
    folder = Path(str(run[RUN_DIRECTORY] if RUN_DIRECTORY in run else run[OUT]))
    site = read_membership(folder / "membership.json").sites[int(node[PARTITION])]
    site_file = str(Path(str(run[SITES])) / f"{site}.yaml")
    return site_file, str(folder / "study.yaml"), str(folder / "membership.json"), str(folder / "sites" / site)


def reason_of_failure(answer: Callable[[], T]) -> T | Absence:
    """What `answer` returns; whatever goes wrong in it becomes a reason and a line of our own, never a foreign text."""
    try:
        return answer()
    except ScaleTooSmallError:
        return Absence(Reason.SCALE_TOO_SMALL)
    except TrainingError as error:
        return Absence(Reason.TRAINING, _line(error))
    except ConfigurationError as error:
        log.error("this site cannot be used: %s", _line(error))
        return Absence(Reason.REFUSED, UNUSABLE)
    except CsasnError as error:
        return Absence(Reason.REFUSED, _line(error))
    except Exception as error:  # noqa: BLE001 - the one boundary of this process: a foreign text is never sent or logged
        log.error("unexpected %s while answering", type(error).__name__)
        return Absence(Reason.FAILED, f"unexpected {type(error).__name__} at the site")


def _line(error: CsasnError) -> str:
    return (f"{error.message}; {error.hint}" if error.hint else error.message)[: wire.MAX_TEXT]


@lru_cache(maxsize=64)
def _ledger(state_folder: str) -> Ledger:
    """The ledger of a site, verified once, when the process starts."""
    return Ledger(private_folder(Path(state_folder)) / LEDGER_FILE)


@lru_cache(maxsize=64)
def _signer(site_file: str, membership_file: str, state_folder: str) -> Sign | None:
    """Signs with the identity that the membership names for the site, None where it names none; in simulation it is in the run."""
    site, membership = read_site(Path(site_file)), read_membership(Path(membership_file))
    member = next((member for member in membership.members if member.site == site.site), None)
    if member is None or member.identity is None:
        return None
    key = load_identity(site.keys_folder if membership.of_hospitals else Path(state_folder) / KEYS_FOLDER)
    return partial(sign, key)


@lru_cache(maxsize=64)
def _worker(site_file: str, study_file: str, membership_file: str, state_folder: str, doing_file: str) -> SiteWorker:
    """The resident worker of a site; a process that serves several sites in simulation keeps one of each.

    A membership with keys, a hospital's, has to be approved by this site and by every other one.
    """
    study, membership = read_study(Path(study_file)), read_membership(Path(membership_file))
    site = read_site(Path(site_file))
    if membership.of_hospitals:
        study, membership = read_agreed(site)
    if membership.study_hash != study.study_hash or site.site not in membership.sites:
        raise ConfigurationError(f"{site.site} is no member of study {study.name}", "ask the coordinator for the membership")
    signer = _signer(site_file, membership_file, state_folder)
    doing = partial(_note, Path(doing_file)) if doing_file else _ignore
    return SiteWorker(study, membership, site, Path(state_folder), signer, doing)


def _note(file: Path, doing: str) -> None:
    with suppress(StorageError):  # on a full disk the answer says so, where it matters
        write_json(file, {"doing": doing, "time": time.time()}, 0o600)


def _ignore(_: str) -> None:
    return
