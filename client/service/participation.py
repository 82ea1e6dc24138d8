"""A site in one study: what people here approved, what the coordinator says of it, and whether work on it may go on."""

import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from client.service.status import CONNECTING, STALE_S, WAITING, silence_s, why_idle
from client.trust.approval import keep_approvals, read_approved
from client.trust.coordinator_link import ask_facts, check_clock, check_same_version, check_study
from client.worker.notes import DOING, Doing, find_disk_trouble, in_turn, note, read_note
from csasn.errors import CsasnError, NetworkError, StorageError, TrustError
from csasn.platform.storage import private_folder
from csasn.site import Site
from csasn.trust.enrolment import Kit, read_kit
from csasn.trust.facts import CoordinatorFacts, SiteFacts
from csasn.trust.membership import Approval, Membership

ASK_S = 5.0


@dataclass
class Participation:
    """One study of a site. `agreed` while every member approved what people here did; `changed` once they approved another
    membership since, so that what goes by the old one has to be started anew; `facts` are what the coordinator said last, and
    `refusal` is why this site cannot take part by them, as long as that is so."""

    site: Site
    kit: Kit = field(init=False)
    membership: Membership = field(init=False)
    approval: Approval = field(init=False)
    facts: CoordinatorFacts | None = None
    refusal: CsasnError | None = None
    trouble: str = ""
    agreed: bool = False
    changed: bool = False
    disk_trouble: str = ""
    _asked: float = 0.0
    _looked: float = 0.0

    def __post_init__(self) -> None:
        self.kit, _ = read_kit(self.site.kit_folder)
        self._take_up()
        self.state = private_folder(Path(self.site.state))

    @property
    def is_finished(self) -> bool:
        """Whether the coordinator says that the study has come to its end."""
        return not self.refusal and self.facts is not None and self.facts.phase == "finished"

    def turn(self) -> None:
        """Looks and asks, where it is time."""
        if time.monotonic() - self._looked > ASK_S:
            self._looked, self.disk_trouble = time.monotonic(), find_disk_trouble(self.state)
        if time.monotonic() - self._asked > ASK_S:
            self._asked, self.refusal = time.monotonic(), None
            try:
                self._ask()
            except CsasnError as error:  # another clock, version or certificate may be mended there
                self.refusal, self.trouble, self.agreed = error, error.message, False

    def line(self) -> str:
        """What this site is doing in the study, on one line."""
        if reason := why_idle(self.site):
            return reason
        if self.disk_trouble:
            return self.disk_trouble
        if self.trouble:
            return self.trouble
        if silence_s(self.site) > STALE_S:
            return CONNECTING
        doing = read_note(self.state / DOING, Doing)
        return in_turn(self.site, doing.doing if doing else WAITING)

    def forget_doing(self, *, finished: bool = False) -> None:
        """Drops what a worker that is gone noted last; that the study has ended stays, unless that is `finished` to be dropped."""
        doing = read_note(self.state / DOING, Doing)
        if bool(doing and doing.finished) is finished:
            with suppress(OSError):  # a disk that was made read-only after an error: it is said as such
                (self.state / DOING).unlink(missing_ok=True)

    def note_finished(self) -> str:
        """Notes that the study has come to its end; the line that says so."""
        assert self.facts is not None
        line = f"the study is finished: {self.facts.run_status}"
        note(self.state / DOING, Doing(doing=line, time=time.time(), finished=self.facts.study_hash))
        return line

    def _ask(self) -> None:
        """Tells the coordinator of this site's approval, and keeps what others approved, where it all holds.

        Raises:
            TrustError: the coordinator does not have the kit's study, or has a membership without this site, or another clock.
            ProtocolError: its version is another.
        """
        try:
            self._take_up()
        except (TrustError, StorageError) as error:  # of what lies here; it may be brought back
            self.trouble, self.agreed = error.message, False
            return
        if self.changed:
            self._asked = 0.0
            return  # what goes by the old one ends before the coordinator hears of the approval
        said = SiteFacts(site=self.site.site, study_hash=self.kit.study_hash, approval=self.approval)
        try:
            self.facts = ask_facts(self.site, self.kit, said)
            self.trouble = ""
        except NetworkError as error:
            self.trouble = f"the coordinator does not answer: {error.message}"
            return
        check_study(self.facts, self.kit)
        check_clock(self.facts)
        check_same_version(self.facts)
        if self.facts.phase != "finished":
            self.forget_doing(finished=True)  # of an earlier run
        self.trouble = self._agree(self.facts)
        self.agreed = not self.trouble

    def _take_up(self) -> None:
        """Goes by the membership that people here approved last."""
        _, membership, approval = read_approved(self.site)
        if self.agreed and membership.membership_hash != self.membership.membership_hash:
            self.agreed, self.changed = False, True
        self.membership, self.approval = membership, approval

    def _agree(self, facts: CoordinatorFacts) -> str:
        """Keeps what all approved; why not all of the proposed membership did, empty where they did.

        Raises:
            TrustError: this site is no member any more.
        """
        proposed = facts.membership
        if proposed is None:
            return "waiting until every site is enrolled"
        if self.site.site not in proposed.sites:
            raise TrustError(
                f"membership {proposed.membership_hash[:12]}, which the coordinator proposes, is without {self.site.site}",
                "it left or was revoked; ask the coordinator, and enrol again: client enroll, with new keys if it was revoked",
            )
        if proposed.membership_hash != self.membership.membership_hash:
            return (
                f"the coordinator proposes membership {proposed.membership_hash[:12]} of {', '.join(proposed.sites)}, this site "
                f"approved {self.membership.membership_hash[:12]}: read it and sign it, client approve --site {self.site.called}"
            )
        try:
            keep_approvals(self.site, self.membership, facts.approvals)
        except (TrustError, StorageError) as error:
            return f"waiting: {error.message}"
        return ""
