"""What a site and the coordinator tell each other beside the rounds: POST /csasn/facts, a small JSON either way.

Only an enrolled site is answered, whose identity signed the request (csasn/trust/request_signature.py), and its word counts for
itself alone. `GET /csasn/facts` tells anybody the coordinator's version and clock, `Hello`.
"""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from csasn import __version__
from csasn.platform.configuration import Configuration, Sha256
from csasn.study import Name
from csasn.trust.enrolment import SoftwareVersion
from csasn.trust.membership import Approval, Membership

FACTS_ROUTE, ECHO_ROUTE = "/csasn/facts", "/csasn/echo"
MAX_FACTS_BYTES = 8 << 10  # of what a site says
MAX_CLOCK_ERROR_S = 240.0  # of a site's clock against the coordinator's, which refuses a signature that is 300 s off
EXPIRES_SOON_DAYS = 14  # of a certificate
Shown = Annotated[str, Field(max_length=255, pattern=r"^[^\p{C}\p{Zl}\p{Zp}]*$")]  # printed as it is; a file's name is no longer
Phase = Literal["enrolling", "approving", "ready", "running", "finished", "failed"]


class SiteFacts(Configuration):
    """What a site says of itself in a study; `wants` is the name of a further one whose study.yaml it asks for."""

    site: Name
    software_version: SoftwareVersion = __version__
    study_hash: Sha256
    approval: Approval | None = None
    wants: Name | None = None


class Hello(Configuration):
    """What the coordinator tells anybody."""

    software_version: str
    time: AwareDatetime


class CoordinatorFacts(Configuration):
    """What the coordinator answers. `run_status` is report.json's status once the run has ended; `further_studies` are those that
    the site may take part in beside this one, `wanted` is the study.yaml that it asked for, empty where it has none such."""

    study_name: Name
    study_hash: Sha256
    software_version: SoftwareVersion
    time: AwareDatetime
    phase: Phase
    run: Shown = ""
    run_status: Shown = ""
    round: int = 0
    num_rounds: int = 0
    membership: Membership | None = None
    approvals: tuple[Approval, ...] = ()
    further_studies: tuple[Name, ...] = ()
    wanted: str = ""
