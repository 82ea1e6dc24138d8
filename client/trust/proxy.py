"""The proxy on the way to the coordinator, with the user and password that it may want.

They are in the file that the site file names as `proxy_login`, or in the environment: `client --site`, its SuperNode and `client
doctor` read them anew each time that they begin, so that a new password wants no other step. They go to the proxy by HTTP's Basic
method alone, which an http:// proxy shows to whoever listens between this machine and it.
"""

import os
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx

from csasn.site import Site
from csasn.trust.login import BASIC, read_login

VARIABLE = "CSASN_PROXY_LOGIN"
_FORM = (BASIC, "one line, USER:PASSWORD")


def read_proxy_login(site: Site) -> str:
    """USER:PASSWORD, or empty.

    Raises:
        ConfigurationError: it has another form.
        TrustError: the file cannot be read, or others may read it.
    """
    return read_login("the proxy's", _FORM, Path(site.proxy_login) if site.proxy_login else None, VARIABLE, os.environ)


def proxy_with_login(site: Site) -> str | None:
    """The address of the site's proxy, with what it wants in front as in http://USER:PASSWORD@HOST: for no log.

    Raises:
        CsasnError: see `read_proxy_login`.
    """
    if site.proxy is None or not (login := read_proxy_login(site)):
        return site.proxy
    user, _, password = login.partition(":")
    place = urlsplit(site.proxy)
    return f"{place.scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{place.netloc}"


def wants_login(error: BaseException) -> bool:
    """Whether a proxy answered 407: it wants a user and password, or others than it was given."""
    return isinstance(error, httpx.ProxyError) and str(error).startswith(f"{httpx.codes.PROXY_AUTHENTICATION_REQUIRED}")
