"""All studies of one coordinator, which have its address, its certificate and its two processes in common."""

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from csasn.errors import ProtocolError, TrustError
from csasn.trust.enrolment import STUDY, Enrolment
from csasn.trust.facts import SiteFacts
from server.front.site_signature import Signer
from server.office.enrolment import Enrolments, study_folders
from server.office.study_folder import StudyFolder


@dataclass
class Studies:
    """The coordinator's folder; a study that is added is seen at the next look."""

    folder: Path
    _opened: dict[Path, StudyFolder] = field(default_factory=dict)

    def all(self) -> list[StudyFolder]:
        """The studies, the first one before the further ones."""
        folders = study_folders(self.folder)
        self._opened = {path: self._opened.get(path) or StudyFolder(Enrolments.open(path)) for path in folders}
        return list(self._opened.values())

    def sites(self) -> dict[str, Enrolment]:
        """Sites whose keys are accepted, of all studies."""
        found = [each.enrolments.sites() for each in self.all()]
        return {site: enrolment for sites in reversed(found) for site, enrolment in sites.items()}

    def answer_site(self, body: bytes, signer: Signer) -> dict[str, object]:
        """Takes what a site says of itself in a study, and answers with that study; the first one of the site where it runs no such
        study here, or says nothing. The site also hears of which further studies it is, and what one says that it asks for.

        Raises:
            ProtocolError: it is not what a site says.
            TrustError: it is of another site than signed, of one in no study, or an approval in it does not hold.
        """
        said = _read_facts(body, signer) if body else None
        own = [each for each in self.all() if signer.site in each.enrolments.sites()]
        if not own:
            raise TrustError(f"{signer.site} is in no study", "server enroll")
        study_folder = next((each for each in own if said and each.study.study_hash == said.study_hash), own[0])
        if said:
            study_folder.remember(said, signer.time_s)
        further = {each.study.name: each for each in own if each.path != self.folder}
        wanted = further.get(said.wants or "") if said else None
        told = {
            "further_studies": tuple(name for name, each in further.items() if each is not study_folder and not each.is_over),
            "wanted": (wanted.path / STUDY).read_text(encoding="utf-8") if wanted else "",
        }
        return study_folder.facts().model_copy(update=told).model_dump(mode="json")


def _read_facts(body: bytes, signer: Signer) -> SiteFacts:
    try:
        said = SiteFacts.model_validate_json(body)
    except ValidationError:
        raise ProtocolError("a site's facts cannot be read") from None
    if said.site != signer.site or (said.approval is not None and said.approval.site != signer.site):
        raise TrustError(f"{signer.site} signed facts of another site", "each site speaks for itself alone")
    return said
