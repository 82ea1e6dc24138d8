"""Pages and cards from the Jinja templates, which stand in files of their own beside the code that fills them."""

import json
from collections.abc import Iterable
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

import csasn

ROOMS = ("csasn/report", "server/page", "client/report", "client/page")


def render(template: str, **facts: object) -> str:
    """A template with what it shows; in one of HTML no text becomes markup."""
    return _environment().get_template(template).render(facts)


def render_parts(template: str, names: Iterable[str], **facts: object) -> dict[str, Markup]:
    """The macros of these names, each without arguments, by themselves: such as the sections of a page that goes on."""
    module = _environment().get_template(template).make_module(facts)
    return {name: getattr(module, name)() for name in names}


@cache
def _environment() -> Environment:
    folders = [_root() / room / "templates" for room in ROOMS]
    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=select_autoescape(("html", "css"), ("txt", "md"), default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _root() -> Path:
    """The folder of the packages. Flower's packer takes no .html, so that code of `flwr run .` has no templates beside it: there
    it is the folder of the installed distribution, or the one that it is installed from for editing."""
    here = Path(csasn.__file__).parent.parent
    if (here / ROOMS[0] / "templates").exists():
        return here
    installed = distribution("csasn-federated")
    source = json.loads(installed.read_text("direct_url.json") or "{}")
    if source.get("dir_info", {}).get("editable"):
        return Path(unquote(urlsplit(source["url"]).path))
    return Path(str(installed.locate_file("")))
