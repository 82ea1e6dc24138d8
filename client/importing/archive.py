"""An archive that speaks DICOMweb (DICOM PS3.18): QIDO finds the studies that the list names, and WADO hands out their pictures.

What comes is held in memory alone: no file of an archive touches the disk. Addresses of requests hold UIDs, and what others say
of a fault may quote them, so neither is shown or logged.
"""

import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydicom.datadict import tag_for_keyword

from client.importing.folder import DAMAGED
from client.importing.login import BEARER, Access
from client.importing.objects import ELEMENTS, Advance, Listed, Listing, file_in_memory
from client.importing.pathology import Diagnosis
from csasn.errors import ConfigurationError, CsasnError, DataError, NetworkError, TrustError, causes_of

if TYPE_CHECKING:
    import requests

PAUSES_S = (1.0, 2.0, 4.0, 8.0)  # between tries while the archive is away or busy
TIMEOUT_S = (10.0, 120.0)  # to connect, and between two pieces of an answer
PAGE = 500
SEARCH, OBJECT = "search", "object"
AGAIN = "once it is there, the same command goes on where this one stopped"
_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED)
_CERTIFICATE = {10: "has expired", 62: "is of another name", 18: "is signed by itself", 64: "is of another address"}
_UNKNOWN_AUTHORITY = "is of an authority that is not known here"
_FIELDS = ["SOPClassUID", "Modality", "SeriesInstanceUID"]
_OF_STUDY = ("study", "patient", "accession")  # what an object's own entry may lack
T = TypeVar("T")
Entry = Mapping[str, object]


class Archive:
    """An archive of which one list's studies are wanted."""

    def __init__(self, access: Access) -> None:
        """Raises:
        ConfigurationError: the packages of the extra `archive` are not installed.
        """
        try:
            from dicomweb_client.web import DICOMwebClient
        except ImportError:
            raise ConfigurationError("not installed: dicomweb-client", "pip install 'csasn-federated[archive]'") from None
        self._name = access.name
        self._client = DICOMwebClient(access.url, _session(access), permissive_uid=True, timeout=TIMEOUT_S)
        self._client.set_http_retry_params(retry=False)  # here, so that a broken connection counts as well

    def list(self, diagnoses: Sequence[Diagnosis], advance: Advance) -> Listing:
        """The objects of every study that a row names; studies that no row names are not asked for."""
        questions = sorted({_question(diagnosis) for diagnosis in diagnoses})
        studies: dict[str, Entry] = {}
        for done, (keyword, number) in enumerate(questions, 1):
            for study in self._pages(self._client.search_for_studies, search_filters={keyword: number}):
                # an archive may overlook a filter that it does not know
                if _value(study, keyword) == number:
                    studies[_value(study, ELEMENTS["study"])] = study
            advance(done, 2 * len(questions))
        objects: dict[str, Listed] = {}
        for done, (uid, study) in enumerate(sorted(studies.items()), 1):
            for entry in self._pages(self._client.search_for_instances, study_instance_uid=uid, fields=_FIELDS):
                listed = _listed(entry, study)
                objects.setdefault(listed.uid, listed)
            advance(len(studies) + done, 2 * len(studies))
        return Listing(tuple(objects[uid] for uid in sorted(objects)), Counter())

    @contextmanager
    def fetch(self, listed: Listed) -> Iterator[Path]:
        """The object as it is stored, as a file in memory."""
        kinds = (("application/dicom", "*"),)
        retrieve = partial(self._client.retrieve_instance, listed.study, listed.series, listed.uid, media_types=kinds)
        with ExitStack() as stack:
            try:
                path = stack.enter_context(file_in_memory(self._ask(retrieve, OBJECT)))
            except DAMAGED:
                raise DataError("the archive sends no DICOM object", "look at it in the archive") from None
            yield path

    def _pages(self, search: Callable[..., Sequence[Entry]], **what: object) -> Iterator[Entry]:
        """All that a search finds: an archive hands out a part at a time, of whatever size, or ignores that and hands out all."""
        seen: set[tuple[str, str]] = set()
        while True:
            page = self._ask(partial(search, **what, limit=PAGE, offset=len(seen)), SEARCH)
            if not (isinstance(page, list) and all(isinstance(entry, dict) for entry in page)):
                raise self._foreign()
            new = {(_value(entry, ELEMENTS["study"]), _value(entry, ELEMENTS["uid"])): entry for entry in page}
            new = {key: entry for key, entry in new.items() if key not in seen}
            if not new:
                return
            seen |= set(new)
            yield from new.values()

    def _ask(self, request: Callable[[], T], what: str) -> T:
        """The answer to a request, which is tried again while the archive is away or busy.

        Raises:
            NetworkError: it stays away, or does not answer as DICOMweb.
            TrustError: it refuses the login, or its certificate is not good.
            ConfigurationError: nothing of DICOMweb is at its address.
            DataError: it does not hand out an object.
        """
        import requests

        away = requests.exceptions.ConnectionError, requests.exceptions.Timeout, requests.exceptions.ChunkedEncodingError
        for pause_s in (*PAUSES_S, None):
            try:
                return request()
            except requests.exceptions.SSLError as error:
                fault, again = self._untrusted(error), False
            except requests.exceptions.HTTPError as error:
                status = error.response.status_code if error.response is not None else 0
                fault, again = self._refused(status, what), status in _BUSY
            except away:
                hint = f"is it up, and --dicomweb right? {AGAIN}"
                fault, again = NetworkError(f"the archive {self._name} cannot be reached", hint), True
            except requests.exceptions.RequestException:
                fault, again = self._foreign(), False
            if not again or pause_s is None:
                raise fault
            time.sleep(pause_s)
        raise AssertionError

    def _untrusted(self, error: BaseException) -> CsasnError:
        cause = next((cause for cause in causes_of(error) if isinstance(cause, ssl.SSLCertVerificationError)), None)
        if cause is None:
            return NetworkError(f"the archive {self._name} and this machine agree on no TLS", "does its port speak HTTPS?")
        problem = _CERTIFICATE.get(cause.verify_code, _UNKNOWN_AUTHORITY)
        return TrustError(
            f"the certificate of the archive {self._name} {problem}", "give --ca the hospital's CA certificate, in PEM"
        )

    def _refused(self, status: int, what: str) -> CsasnError:
        if status in _REFUSED:
            return TrustError(f"the archive {self._name} refuses the login ({status})", "see --login, and what the login may read")
        if what == OBJECT:
            return DataError(f"the archive does not hand it out (status {status})", "look at it in the archive")
        if status == HTTPStatus.NOT_FOUND:
            return ConfigurationError(f"{self._name} has no DICOMweb at this address (404)", "Orthanc has it at /dicom-web")
        return NetworkError(f"the archive {self._name} answers a search with status {status}", f"see its log; {AGAIN}")

    def _foreign(self) -> CsasnError:
        return NetworkError(f"{self._name} does not answer as DICOMweb does", "see what address the archive's manual names")


def _session(access: Access) -> "requests.Session":
    import requests

    session = requests.Session()
    session.trust_env = False  # no proxy, no .netrc: an archive is in the house
    session.verify = str(access.ca) if access.ca else True
    if access.login.startswith(BEARER):
        session.headers["Authorization"] = access.login
    elif access.login:
        name, _, password = access.login.partition(":")
        session.auth = requests.auth.HTTPBasicAuth(name.encode(), password.encode())
    return session


def _question(diagnosis: Diagnosis) -> tuple[str, str]:
    return ("AccessionNumber", diagnosis.accession) if diagnosis.accession else ("PatientID", diagnosis.patient)


def _listed(entry: Entry, study: Entry) -> Listed:
    """An object, by its entry and its study's."""
    values = {name: _value(study if name in _OF_STUDY else entry, keyword) for name, keyword in ELEMENTS.items()}
    return Listed(**values, path=None)


def _value(entry: Entry, keyword: str) -> str:
    """The first value of an element in DICOM's JSON (PS3.18 annex F), as text."""
    element = entry.get(f"{tag_for_keyword(keyword):08X}")
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]).strip() if isinstance(values, list) and values and values[0] is not None else ""
