"""The site file: what stays at a hospital. Paths in it are relative to the file."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from csasn.configuration import Configuration, read_yaml, validate
from csasn.errors import ConfigurationError
from csasn.study import Name

FilePath = Annotated[str, Field(pattern=r"^[^\x00]+$")]


class Policy(Configuration):
    """Where the site is stricter than the study, the site wins."""

    minimum_cases: Annotated[int, Field(ge=1)] = 1


class Site(Configuration):
    """site.yaml. `state` holds the image cache (pixels, mode 0700) and what the site keeps of a run."""

    site: Name
    manifest: FilePath
    images: FilePath
    state: FilePath
    device: Literal["auto", "cpu", "cuda"] = "auto"
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    policy: Policy = Policy()


def read_site(path: Path) -> Site:
    """The site file at `path`, its paths made absolute.

    Raises:
        ConfigurationError: see `csasn.configuration`.
    """
    site = validate(Site, read_yaml(path), path.name)
    folder = path.resolve().parent
    places = {key: os.path.realpath(folder / getattr(site, key)) for key in ("manifest", "images", "state")}  # loops of links pass
    return site.model_copy(update=places)


def find_site(name: str, config: Path | None = None, folder: Path = Path("sites")) -> Site:
    """The site file of `name`: `config` if given, else `folder/<name>.yaml`, else `/etc/csasn/<name>.yaml`.

    Raises:
        ConfigurationError: none exists, or the file found is another site's.
    """
    places = [config] if config else [folder / f"{name}.yaml", Path("/etc/csasn") / f"{name}.yaml"]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        looked = " and ".join(str(place) for place in places)
        raise ConfigurationError(f"no site file for {name!r}, looked for {looked}", "name the file with --config")
    site = read_site(found)
    if site.site != name:
        raise ConfigurationError(f"{found.name}: site is {site.site!r}, expected {name!r}", "is this another site's file?")
    return site
