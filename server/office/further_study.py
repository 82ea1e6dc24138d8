"""A further study of a coordinator: the same address, keys and hospitals, so that these read it and approve it, and no more."""

import shutil
from pathlib import Path

from csasn import __version__
from csasn.errors import ConfigurationError
from csasn.platform.configuration import validate
from csasn.platform.storage import new_folder, private_folder
from csasn.study import Study
from server.office.authority import BALANCER_AUTHORITY, Settings, check_behind_balancer, write_study
from server.office.enrolment import STUDIES, Enrolments


def begin_further_study(first: Enrolments, study: Study, *, start: Path | None = None, rehearsal: bool = False) -> Enrolments:
    """Makes the folder of a further study beside those that the coordinator of `first` has, and proposes its membership.

    The hospitals that it names, and whose keys are accepted in any study, are enrolled in it with the number of training cases that
    they signed last; a survey asks for none.

    Raises:
        ConfigurationError: a study of this name is there, or a balancer would see what each site sends.
        StorageError: the folder cannot be written.
    """
    if study.name in {each.study.name for each in first.all_studies() if not each.study.survey}:
        raise ConfigurationError(f"there is a study {study.name} already", "give the new one another name, in its study.yaml")
    if (first.office / BALANCER_AUTHORITY).exists():
        check_behind_balancer(study)
    settings = Settings(
        address=first.settings.address, study_hash=study.study_hash, software_version=__version__, rehearsal=rehearsal
    )
    private_folder(first.office / STUDIES)
    with new_folder(folder := first.office / STUDIES / study.name) as staged:
        private_folder(staged / "sites")
        trained = [each for each in first.all_studies() if not each.study.survey]
        requests = [each.request_file(site) for each in trained for site in each.sites() if site in study.federation.sites]
        for request in sorted(requests, key=lambda file: file.stat().st_mtime_ns):  # of one site the newest comes last
            shutil.copy2(request, staged / "sites")
        write_study(staged, study, settings, start)
    begun = Enrolments.open(folder)
    for site in begun.sites():
        begun.write_kit(site)
    begun.propose()
    return begun


def rehearsal_of(study: Study) -> Study:
    """One round of a study, from random weights."""
    said = study.model_dump(mode="json") | {"name": f"{study.name}-rehearsal", "continues": None}
    said["federation"] |= {"rounds": 1}
    said["optimiser"] |= {"warmup_rounds": 0}
    said["model"] |= {"initial_weights": {branch: {"source": "random"} for branch in ("efficientnet", "vit")}}
    return validate(Study, said, "server rehearse")
