"""The operator's own command, called once for each new trouble, with the trouble as its only argument.

A trouble that went away and comes back is told again, but for a site's version, which is that site's word alone: each is told once,
and no more than three of a site, until the coordinator is started anew.
"""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field

from csasn.errors import ConfigurationError
from csasn.platform.storage import reason_of
from server.office.status import find_troubles, find_version_troubles
from server.office.study_folder import StudyFolder

VERSIONS_TOLD = 3  # of one site


def check_command(command: str) -> None:
    """Refuses what cannot be called.

    Raises:
        ConfigurationError: it is no program.
    """
    if command and shutil.which(command) is None:
        raise ConfigurationError(
            f"--on-trouble is {command!r}, expected the name of a program that may be executed, without arguments",
            "put arguments into a script of your own, make it executable (chmod +x), and name that",
        )


@dataclass
class TroubleCalls:
    """What was told, and to which command; `say` hears why it cannot be called."""

    command: str
    say: Callable[[str], None]
    present: set[str] = field(default_factory=set)
    versions: dict[str, set[str]] = field(default_factory=dict)

    def tell(self, study_folder: StudyFolder) -> None:
        """Calls the command for what is new."""
        troubles, of_versions = set(find_troubles(study_folder)), find_version_troubles(study_folder)
        site_of = {trouble: site for site, trouble in of_versions.items()}
        for trouble in sorted(troubles - self.present):
            if trouble not in site_of or self._is_new(site_of[trouble], trouble):
                self._call(trouble)
        self.present = troubles

    def _is_new(self, site: str, trouble: str) -> bool:
        told = self.versions.setdefault(site, set())
        if trouble in told or len(told) >= VERSIONS_TOLD:
            return False
        told.add(trouble)
        return True

    def _call(self, trouble: str) -> None:
        try:
            subprocess.Popen([self.command, trouble], stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 - the operator's own
        except OSError as error:  # the program went away meanwhile, or there is no process left: the coordinator goes on
            self.say(f"warning: {self.command} cannot be called: {reason_of(error)}")
