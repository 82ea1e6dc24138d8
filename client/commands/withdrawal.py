"""The command `client withdraw`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from client.commands.enrolment import SiteFile, SiteName
from csasn.errors import ConfigurationError, DataError
from csasn.platform.terminal import option, say

if TYPE_CHECKING:
    from client.trust.withdrawal import Done
    from csasn.site import Site


def withdraw(
    site: SiteName,
    patient: Annotated[
        str,
        option(
            "--patient ID",
            "as in column patient_id (case_id where there is none), or the patient number of an import; - reads it from standard "
            "input, so that it stands in no history of commands",
        ),
    ],
    why: Annotated[str, option("--why TEXT", "for the ledger, without a name or number of the patient")],
    study: Annotated[Path | None, option("--study FILE", "study.yaml (default: the installed kit's)")] = None,
    config: SiteFile = None,
) -> None:
    """Take a patient out of the study, and of further ones of this site.

    Takes a patient out of every study at this site: from the next question that it begins to work on, none of their images is in
    a training, a cache or a count; an answer under way is finished as it was begun. A running site finds out by itself. The
    ledger gets a line; the list of withdrawals stays in the state folder and names nobody.

    Leave the patient's rows in manifest.csv until the study ends, so that no other case changes its split; their image files
    may be deleted at once. What was learned before stays in the models of earlier rounds, and in those that begin from them:
    client audit says which these are. The coordinator learns, as a sum over all sites, how many patients withdrew while the
    model was trained.

    A state folder that comes back from a backup does not know of withdrawals after it: say them again.

    example:
      client withdraw --site centerA --patient 4711 --why 'consent withdrawn by letter'
      client withdraw --site centerA --patient - --why 'consent withdrawn' < number.txt
    """
    from client.doctor.context import DoctorContext
    from client.trust.withdrawal import withdraw_patient
    from csasn.data.cases import count_training_cases
    from csasn.trust.enrolment import KIT

    number = (sys.stdin.readline() if patient == "-" else patient).strip()
    if not number:
        raise ConfigurationError("which patient?", "give --patient ID, or the number on standard input with --patient -")
    context = DoctorContext(site, config, study)
    say(*_describe(site, withdraw_patient(context.site, context.study, number, why)))
    for further in context.site.all_studies()[1:]:
        if (further.kit_folder / KIT).exists():
            _in_further_study(further, number, why)
    try:
        count_training_cases(context.study, context.site)
    except DataError as error:
        say(f"this site cannot train any more: {error.message}")


def _in_further_study(site: "Site", patient: str, why: str) -> None:
    """The same in a study whose list of cases may be another."""
    from client.trust.withdrawal import withdraw_patient
    from csasn.trust.enrolment import read_kit

    try:
        done = withdraw_patient(site, read_kit(site.kit_folder)[1], patient, why)
    except DataError as error:
        say(f"{site.called}: {error.message}")
    else:
        say(f"{site.called}: {done.rows} rows, {done.cached} of these images left the cache")


def _describe(site: str, done: "Done") -> list[str]:
    rows = f"{done.rows} row{'s' * (done.rows != 1)} of {done.cases} case{'s' * (done.cases != 1)}"
    lines = [
        f"withdrawn{'' if done.anew else ' before'}: {rows}, in nothing from the next question on that this site begins to work on"
    ]
    if done.cached:
        lines.append(f"{done.cached} of these images left the cache")
    if done.pages:
        lines.append(f"removed, since it may have shown them: {', '.join(done.pages)}")
    lines.append("leave the rows in manifest.csv until the study ends; the image files may be deleted")
    lines.append(f"next: client audit --site {site} says which models were trained with them")
    return lines
