"""The site's Flower app: it carries requests to the resident worker and answers back, and does nothing else."""

import logging
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.worker import SiteWorker
from csasn import wire
from csasn.errors import ConfigurationError, CsasnError, TrainingError
from csasn.federated.messages import Absence, Answer, Reason
from csasn.federated.quantise import ScaleTooSmallError
from csasn.membership import read_membership
from csasn.site import read_site
from csasn.study import read_study

log = logging.getLogger(__name__)

# keys of the node configuration: files at the site, never anything that a message names
SITE_FILE, STUDY_FILE, MEMBERSHIP_FILE, STATE_FOLDER, THREADS = (
    "site-file",
    "study-file",
    "membership-file",
    "state-folder",
    "threads",
)

# keys that Flower's simulation sets in the node configuration, and those of the run configuration that it goes with
PARTITION, SITES, OUT, RUN_DIRECTORY = "partition-id", "sites", "out", "run-directory"

app = ClientApp()


def _reply(message: Message, context: Context) -> Message:
    return Message(wire.answer_to_records(_answer(message, context)), reply_to=message)


app.query("hello")(_reply)
app.train()(_reply)
app.evaluate("validate")(_reply)
app.evaluate("finish")(_reply)


@app.query("place")
def _place(message: Message, context: Context) -> Message:
    """Says where in the roster a node of Flower's simulation stands; a hospital's node stands nowhere, and refuses."""
    place = context.node_config.get(PARTITION)
    if isinstance(place, int):
        return Message(wire.place_to_records(place), reply_to=message)
    return Message(wire.answer_to_records(Absence(Reason.REFUSED, "this node is of no simulation")), reply_to=message)


def _answer(message: Message, context: Context) -> Answer | Absence:
    def answer() -> Answer | Absence:
        torch.set_num_threads(int(context.node_config.get(THREADS, 1)))
        return _worker(*_files(context)).answer(wire.request_from_message(message))

    return reason_of_failure(answer)


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


def reason_of_failure(answer: Callable[[], Answer | Absence]) -> Answer | Absence:
    """What `answer` returns; whatever goes wrong in it becomes a reason and a line of our own, never a foreign text."""
    try:
        return answer()
    except ScaleTooSmallError:
        return Absence(Reason.SCALE_TOO_SMALL)
    except TrainingError as error:
        return Absence(Reason.TRAINING, _line(error))
    except CsasnError as error:
        return Absence(Reason.REFUSED, _line(error))
    except Exception as error:  # noqa: BLE001 - the one boundary of this process: a foreign text is never sent or logged
        log.error("unexpected %s while answering", type(error).__name__)
        return Absence(Reason.FAILED, f"unexpected {type(error).__name__} at the site")


def _line(error: CsasnError) -> str:
    return f"{error.message}; {error.hint}" if error.hint else error.message


@lru_cache(maxsize=64)
def _worker(site_file: str, study_file: str, membership_file: str, state_folder: str) -> SiteWorker:
    """The resident worker of a site; a process that serves several sites in simulation keeps one of each."""
    study, membership = read_study(Path(study_file)), read_membership(Path(membership_file))
    site = read_site(Path(site_file))
    if membership.study_hash != study.study_hash or site.site not in membership.sites:
        raise ConfigurationError(f"{site.site} is no member of study {study.name}", "ask the coordinator for the membership")
    return SiteWorker(study, membership, site, Path(state_folder))
