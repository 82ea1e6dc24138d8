"""A site's way into a study: its request, and the coordinator's kit."""

import tempfile
import zipfile
import zlib
from pathlib import Path

from client.trust.coordinator_link import ask_facts
from csasn.data.cases import count_training_cases
from csasn.errors import ConfigurationError, TrustError
from csasn.platform.storage import new_folder, private_folder, write_atomically, write_json
from csasn.site import Site, SiteOfStudy
from csasn.study import Study, read_study
from csasn.trust.enrolment import (
    AUTHORITY,
    KIT,
    KIT_FILES,
    KIT_HINT,
    STUDY,
    Enrolment,
    EnrolmentRequest,
    Kit,
    make_kit,
    read_kit,
    sign_enrolment,
)
from csasn.trust.facts import SiteFacts
from csasn.trust.identity import load_identity, read_public_keys

MAX_KIT_FILE_BYTES = 1 << 20


def request_enrolment(site: Site, study: Study, *, join: bool = False) -> EnrolmentRequest:
    """The request of a site: public halves of its keys, and the number of its training cases; for a survey 1, since it has no
    weights. With `join` the study need not name the site.

    Raises:
        ConfigurationError: see `check_is_site`.
        TrustError: a key is missing or open to others.
        DataError: the manifest cannot be used.
    """
    if not join:
        check_is_site(site, study)
    public, num_cases = read_public_keys(site.keys_folder), count_training_cases(study, site)
    enrolment = Enrolment(
        site=site.site,
        identity=public.identity,
        node_key=public.node_key,
        num_training_cases=1 if study.survey else num_cases,
        study_hash=study.study_hash,
    )
    return sign_enrolment(enrolment, load_identity(site.keys_folder))


def check_is_site(site: Site, study: Study) -> None:
    """Refuses a study that has no such site.

    Raises:
        ConfigurationError: it has not.
    """
    if site.site not in study.federation.sites:
        sites = ", ".join(study.federation.sites)
        raise ConfigurationError(
            f"{site.site} is no site of study {study.name}, which has {sites}", "ask the coordinator; to join it, give --join"
        )


def install_kit(site: Site, path: Path, replace: bool = False) -> Kit:
    """Unpacks a kit into the site's folder for it; kit.json last, so that a kit cut short is refused as changed.

    Raises:
        TrustError: it is damaged, another site's, or of another authority than the one installed and `replace` is not set.
    """
    with tempfile.TemporaryDirectory() as name:
        unpacked = Path(name)
        _unpack(path, unpacked)
        kit, _ = read_kit(unpacked)
        if kit.site != site.site:
            raise TrustError(f"{path.name} is the kit of {kit.site}, expected {site.site}", "ask the coordinator for your own")
        folder = private_folder(site.kit_folder)
        authority = folder / AUTHORITY
        if authority.exists() and authority.read_bytes() != (unpacked / AUTHORITY).read_bytes() and not replace:
            raise TrustError(
                f"{path.name} is of another authority than the kit installed in {folder}",
                "have the coordinator read out its fingerprint by telephone; if that is right, give --replace",
            )
        for file in (*KIT_FILES, KIT):
            write_atomically(folder / file, (unpacked / file).read_bytes())
    return kit


def open_kit(site: Site) -> tuple[Kit, Study]:
    """The installed kit and its study. Where none is installed, that of a further study is fetched from the coordinator of the
    first one, under the authority that is trusted for that.

    Raises:
        ConfigurationError, TrustError, NetworkError: a kit is missing or changed, the coordinator does not answer, or has no such
            study for this site.
    """
    if isinstance(site, SiteOfStudy) and not (site.kit_folder / KIT).exists():
        _fetch_kit(site)
    return read_kit(site.kit_folder)


def _fetch_kit(site: SiteOfStudy) -> None:
    first_folder = Path(site.first_kit)
    first, _ = read_kit(first_folder)
    said = SiteFacts(site=site.site, study_hash=first.study_hash, wants=site.study)
    facts = ask_facts(site.model_copy(update={"kit": site.first_kit}), first, said)
    if not facts.wanted:
        offered = ", ".join(facts.further_studies) or "none"
        raise TrustError(
            f"the coordinator has no study {site.study} for {site.site}; those it has: {offered}", "is the name right?"
        )
    private_folder(Path(site.state))
    with new_folder(site.kit_folder) as staged:
        files = {AUTHORITY: (first_folder / AUTHORITY).read_bytes(), STUDY: facts.wanted.encode()}
        for name, content in files.items():
            write_atomically(staged / name, content)
        study_hash = read_study(staged / STUDY).study_hash
        kit = make_kit(site.site, first.address, study_hash, files, behind_balancer=first.behind_balancer)
        write_json(staged / KIT, kit.model_dump(mode="json"))


def _unpack(path: Path, folder: Path) -> None:
    """The three files of a kit, and no other, each of a bounded size."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in (*KIT_FILES, KIT):
                with archive.open(name) as file:
                    content = file.read(MAX_KIT_FILE_BYTES + 1)
                if len(content) > MAX_KIT_FILE_BYTES:
                    raise TrustError(f"{name} in {path.name} is larger than {MAX_KIT_FILE_BYTES} bytes", KIT_HINT)
                write_atomically(folder / name, content)
    except (KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error):
        raise TrustError(f"{path.name} is damaged, or no kit", KIT_HINT) from None
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {(error.strerror or 'error').lower()}", "check the path") from None
