"""A login that no command line or log shows: one line of a file that only its owner may read, or of the environment."""

import re
from collections.abc import Mapping
from pathlib import Path

from csasn.errors import ConfigurationError
from csasn.trust.identity import read_private

BASIC = r"[^:\x00-\x1f]+:[^\x00-\x1f]+"  # name and password


def read_login(whose: str, form: tuple[str, str], file: Path | None, variable: str, environment: Mapping[str, str]) -> str:
    """The login in `file`, or else in the variable; empty where neither has one.

    `form` is a pattern and its words, `whose` is "the archive's" or the like: the login itself stands in no error.

    Raises:
        ConfigurationError: it has another form.
        TrustError: the file cannot be read, or others may read it.
    """
    regex, words = form
    if file:
        hint = f"write it, {words}, with chmod 600"
        login = read_private(file, hint, "a password", "change the password").decode(errors="replace")
    else:
        login = environment.get(variable, "")
    login = login.strip("\r\n")
    if login and not re.fullmatch(regex, login):
        place = str(file) if file else f"the variable {variable}"
        raise ConfigurationError(f"{whose} login is not of the form that it has to be: {words}", f"mend {place}")
    return login
