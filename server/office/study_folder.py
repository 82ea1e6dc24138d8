"""What the coordinator tells a site of one study beside the rounds, and what an operator wants to know of it at a glance.

Everything is read from the study's folder each time it is asked, so that the front, `server status` and `server run` are
processes of their own and agree.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from csasn import __version__
from csasn.platform.configuration import Configuration
from csasn.platform.storage import private_folder, write_json
from csasn.report.events import Event, finished_rounds
from csasn.study import Name, Study
from csasn.trust.certificates import days_left
from csasn.trust.facts import CoordinatorFacts, Phase, SiteFacts
from csasn.trust.membership import Membership, read_membership
from server.office.authority import SERVER_CERTIFICATE
from server.office.enrolment import Enrolments
from server.office.service_file import Service, find_service
from server.run.event_log import event_log
from server.run.run_directory import MEMBERSHIP, report_name

ENDED: Mapping[str, Phase] = {"complete": "finished", "degraded": "finished", "incomplete": "finished", "failed": "failed"}


class Seen(Configuration):
    """When a site last spoke, by its clock, and with which software."""

    site: Name
    time: float
    software_version: str


@dataclass(frozen=True)
class StudyFolder:
    """The folder of one study, opened for reading."""

    enrolments: Enrolments

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.enrolments.folder

    @property
    def study(self) -> Study:
        """The study."""
        return self.enrolments.study

    @property
    def is_first(self) -> bool:
        """Whether it is the coordinator's folder itself, and not that of a further study."""
        return self.path == self.enrolments.office

    @property
    def is_over(self) -> bool:
        """Whether its run came to an end, good or bad."""
        return self.facts().phase in ("finished", "failed")

    @property
    def run_path(self) -> Path:
        """The run directory of the study."""
        return self.path / "runs" / self.study.name

    def running_membership(self) -> Membership | None:
        """The membership of the run that is under way, None where none is."""
        path = self.run_path / MEMBERSHIP
        return read_membership(path) if path.exists() and not self.is_over else None

    @property
    def service(self) -> Service | None:
        """The `server start` that is at work on the coordinator's folder, if any."""
        return find_service(self.enrolments.office)

    def facts(self) -> CoordinatorFacts:
        """What is told to the sites that are enrolled."""
        study, membership = self.study, self.enrolments.membership()
        approvals = tuple(self.enrolments.approvals())
        status, current = self._run_status() if self.run_path.exists() else ("", 0)
        phase: Phase = "running" if self.run_path.exists() else "ready"
        if status in ENDED:
            phase = ENDED[status]
        elif membership is not None and len(approvals) < len(membership.members):
            phase = "approving"
        elif membership is None and phase == "ready":
            phase = "enrolling"
        return CoordinatorFacts(
            study_name=study.name,
            study_hash=study.study_hash,
            software_version=__version__,
            time=datetime.now(UTC),
            phase=phase,
            run=self.run_path.name,
            run_status=status,
            round=current,
            num_rounds=0 if study.survey else study.federation.rounds,
            membership=membership,
            approvals=approvals,
        )

    def seen(self) -> dict[str, Seen]:
        """The sites that ever spoke."""
        files = sorted((self.path / "seen").glob("*.json"))
        found = [Seen.model_validate_json(file.read_bytes()) for file in files]
        return {seen.site: seen for seen in found}

    def certificate_days_left(self) -> int:
        """Days until the server's certificate is refused."""
        return days_left((self.enrolments.office / SERVER_CERTIFICATE).read_bytes())

    def remember(self, said: SiteFacts, time_s: float) -> None:
        """Keeps what a site said, unless it was signed before what it said last: a request that is sent again changes nothing.

        Raises:
            TrustError: an approval in it does not hold.
        """
        path = private_folder(self.path / "seen") / f"{said.site}.json"
        if path.exists() and Seen.model_validate_json(path.read_bytes()).time >= time_s:
            return
        membership, approval = self.enrolments.membership(), said.approval
        is_current = membership and approval and approval.membership_hash == membership.membership_hash  # else it asks its people
        is_same_version = said.software_version == __version__  # else no run begins with it
        if approval is not None and is_current and is_same_version and approval not in self.enrolments.approvals():
            self.enrolments.record(approval)
        seen = Seen(site=said.site, time=time_s, software_version=said.software_version)
        write_json(path, seen.model_dump(mode="json"))

    def _run_status(self) -> tuple[str, int]:
        """Status of the report, empty where there is none, as before a finished run wrote it; and the number of rounds done."""
        current = max((event.round for event in finished_rounds(self.events())), default=0)
        with suppress(FileNotFoundError):
            return str(json.loads((self.run_path / report_name(self.study)).read_text())["status"]), current
        return "", current

    def events(self) -> list[Event]:
        """The events of the run so far."""
        return event_log(self.run_path).read()
