"""`server study` and `server rehearse`: further studies of a coordinator that is there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from csasn.platform.terminal import argument, say
from server.commands.enrolment import FOLDER, Continues, Folder, membership_lines, try_network

if TYPE_CHECKING:
    from server.office.enrolment import Enrolments


def study(
    study: Annotated[Path, argument("STUDY", "study.yaml of the further study, under a name of its own")],
    continues: Continues = None,
    folder: Folder = FOLDER,
) -> None:
    """Begin a further study with the hospitals that are enrolled.

    Makes its folder in studies/ of the coordinator's, with the same address, keys and hospitals, weighted by the training
    cases that they signed last. A hospital reads and approves it, client approve --site SITE/STUDY, and does nothing else; a
    running coordinator takes it up, beside its other studies. Every command of a study takes the new one by --folder.

    example:
      server study more-rounds.yaml --continue coordinator/runs/thyroid
      server status --folder coordinator/studies/more-rounds
    """
    from csasn.model.packages import random_warnings
    from csasn.model.settling import settle
    from csasn.study import read_study
    from server.office.enrolment import Enrolments
    from server.office.further_study import begin_further_study
    from server.run.continuation import continued, find_start

    enrolments, wanted = Enrolments.open(folder), read_study(study)
    wanted = settle(continued(wanted, continues) if continues else wanted)
    start = find_start(wanted, study, continues)
    if start is None:
        try_network(wanted)
    say(*random_warnings(wanted))
    _say_begun(begin_further_study(enrolments, wanted, start=start))


def rehearse(folder: Folder = FOLDER) -> None:
    """Have the hospitals of a study make one round, and throw the result away.

    A further study, STUDY-rehearsal: one round of the study in this folder from random weights, over the real way and the
    real images, so that what would hinder the study shows before it begins. What leaves a hospital is as real as in any
    round, so each one approves it. Of the model nothing is kept; the report says what each site did, and how long it took.

    example:
      server rehearse
      server status --folder coordinator/studies/thyroid-rehearsal
    """
    from server.office.enrolment import Enrolments
    from server.office.further_study import begin_further_study, rehearsal_of

    enrolments = Enrolments.open(folder)
    _say_begun(begin_further_study(enrolments, rehearsal_of(enrolments.study), rehearsal=True))


def _say_begun(begun: "Enrolments") -> None:
    say(f"study {begun.study.name} ({begun.study.study_hash[:12]}) is in {begun.folder}", *membership_lines(begun))
    if begun.waiting_for():
        say(f"next: send {begun.folder / 'study.yaml'} to each of these; take its request with --folder {begun.folder}")
    else:
        say(f"next: each hospital says client approve --site SITE/{begun.study.name}")
