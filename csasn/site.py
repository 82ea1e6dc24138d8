"""The site file: what stays at a hospital. Paths in it are relative to the file. The text below a key is what `client site` says of
it."""

import os
import re
from contextlib import suppress
from datetime import time
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from csasn.errors import ConfigurationError
from csasn.platform.configuration import Configuration, pattern, read_yaml, unshown, validate
from csasn.study import Name

STUDIES, RUN = "studies", "run"  # of the state folder: further studies, a folder each; ledgers and states of runs
_NAME = TypeAdapter(Name)
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9]"


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`; an IPv6 address stands in brackets."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _port_exists(address: str) -> str:
    if not 0 < split_address(address)[1] < 1 << 16:
        raise ValueError("expected a port from 1 to 65535")
    return address


def _check_proxy(proxy: str) -> str:
    """Refuses what is no address of a proxy, by name; a password in it is not shown (csasn/platform/configuration.py)."""
    if "@" in proxy:
        raise ValueError("expected an address without a login: write that into a file, named by proxy_login")
    if re.search(r"^(pac\+|file:)|\.(pac|dat)$", proxy, re.IGNORECASE):
        raise ValueError("that is a PAC file, expected the proxy's own address: your IT reads it from that file")
    if not re.fullmatch(rf"https?://({_PROXY_HOST})(:[0-9]{{1,5}})?/?", proxy):
        raise ValueError("expected http://HOST:PORT")
    try:
        place = urlsplit(proxy)
        if ":" in (place.hostname or ""):
            ip_address(place.hostname or "")
        port = place.port  # raises above 65535
    except ValueError:
        raise ValueError("expected a host, and a port from 1 to 65535, that can be") from None
    if port == 0:
        raise ValueError("expected a port from 1 to 65535")
    return proxy


def _unix_path(path: str) -> str:
    if "\\" in path or re.match(r"[A-Za-z]:/", path):
        raise ValueError("expected a path of this machine, with / between folders, not one of Windows")
    if not path or "\0" in path:
        raise ValueError("expected a path")
    return path


def _label_map(value: object) -> object:
    if not isinstance(value, dict):
        raise unshown("expected words and classes, such as {papillary carcinoma: PTC}")
    for number, (word, name) in enumerate(value.items(), 1):
        if not (isinstance(word, str) and word.strip() and isinstance(name, str) and name):
            raise unshown(f"entry {number}: expected a word and a class of the study, both as text; write them in quotes")
    return value


FilePath = Annotated[str, AfterValidator(_unix_path)]
LabelMap = Annotated[dict[str, str], BeforeValidator(_label_map)]
_HOST = r"\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?"
Address = Annotated[str, pattern(rf"^({_HOST}):[0-9]{{1,5}}$", "HOST:PORT"), AfterValidator(_port_exists)]
_PROXY_HOST = r"\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}"
Proxy = Annotated[str, AfterValidator(_check_proxy)]


class Policy(Configuration):
    """Where the site is stricter than the study, the site wins."""

    minimum_cases: Annotated[int, Field(ge=1)] = 1
    """training cases, or patients where the manifest names them: with fewer the site does not train"""
    max_unreadable_share: Annotated[float, Field(ge=0, le=0.5)] = 0.02
    """share of the images that may be unreadable: these are left out, and named by row to the site; with more the site stops"""
    smallest_cell: Annotated[int, Field(ge=0)] = 5
    """in a survey, counts of fewer cases stay here, and what would give them away; 0: all are counted"""
    upload_budget_mib: Annotated[float, Field(gt=0)] | None = None
    """what may leave in a round, all attempts together; null: no bound but the study's own shapes"""
    require_secure_aggregation: bool = False
    """refuse a study in which the coordinator sees this site's own update"""
    keep_for_replay: bool = True
    """keep the last round's model here for `client audit --replay`, which takes as much disk as the model"""
    min_image_px: Annotated[int, Field(ge=1)] | None = None
    """refuse images whose longer side is shorter; null: all are taken, and enlarged to the model's input"""
    training_hours: Annotated[str, pattern(f"^{_CLOCK}-{_CLOCK}$", "hours as in 20:00-06:00")] | None = None
    """local time, also over midnight; outside of it the site takes no work, and a round waits until its deadline; null: always"""

    @model_validator(mode="after")
    def _some_hours(self) -> Self:
        if self.training_hours and len(set(self.training_hours.split("-"))) == 1:
            raise ValueError(f"training_hours {self.training_hours} begin when they end, expected for example 20:00-06:00")
        return self

    def may_train_at(self, now: time) -> bool:
        """Whether `now`, local time, lies in the training hours."""
        if self.training_hours is None:
            return True
        begin, end = (time.fromisoformat(clock) for clock in self.training_hours.split("-"))
        return begin <= now < end if begin < end else now >= begin or now < end


class Further(Configuration):
    """What is otherwise in a further study than in the site file; what it does not name is the same."""

    manifest: FilePath | None = None
    """the manifest of this study"""
    images: FilePath | None = None
    """folder that its image paths are relative to"""
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    """images in memory at once"""
    policy: Policy | None = None
    """the whole policy for this study, but for training_hours, which are the site's"""
    labels: LabelMap | None = None
    """words of its column label, and classes of this study"""

    def places(self) -> dict[str, str]:
        """Paths that it names, by key."""
        return {key: place for key, place in (("manifest", self.manifest), ("images", self.images)) if place}

    @model_validator(mode="after")
    def _no_hours(self) -> Self:
        if self.policy and self.policy.training_hours:
            raise ValueError("training_hours are those of the site in every study, expected none here")
        return self


class Site(Configuration):
    """site.yaml: what stays at a hospital."""

    site: Name = Field(examples=["centerA"])
    """the name by which the study knows this hospital"""
    manifest: FilePath = Field(examples=["/srv/ultrasound/manifest.csv"])
    """one row an image: case_id,image,label and optional columns; deploy/README.md, section 2b"""
    images: FilePath = Field(examples=["/srv/ultrasound/images"])
    """folder that the manifest's image paths are relative to; read, never written"""
    state: FilePath = Field(examples=["/var/lib/csasn/centerA"])
    """folder of all that is written: image cache (pixels, mode 0700), ledger, logs, keys and kit"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU where there is one; cuda: a GPU or an error"""
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    """images in memory at once; fewer give the same gradient in less memory; null: the study's batch"""
    keys: FilePath | None = None
    """folder of the private keys; null: keys/ in state"""
    kit: FilePath | None = None
    """folder of what came from the coordinator; null: kit/ in state"""
    coordinator: Address | None = None
    """instead of the kit's address, where the coordinator is reached another way from here"""
    proxy: Proxy | None = None
    """an HTTP proxy that passes CONNECT to the coordinator, as http://HOST:PORT: its own address, not that of a PAC file"""
    proxy_login: FilePath | None = None
    """file of mode 0600 with one line, USER:PASSWORD, where the proxy wants them"""
    policy: Policy = Policy()
    labels: LabelMap = Field(default_factory=dict)
    """words of the manifest's column label and the classes that they mean, such as {papillary carcinoma: PTC}; capitals and blanks
    around words do not count, and they reach no message and no log"""
    studies: dict[Name, Further] = Field(default_factory=dict)
    """what is otherwise in further studies of the same coordinator, by their names, such as {more: {manifest: other.csv}}; where
    nothing is, an approval is enough: client approve --site SITE/STUDY"""

    @property
    def called(self) -> str:
        """What `--site` is given for it."""
        return self.site

    @property
    def service_folder(self) -> Path:
        """Where the notes of the one service are that takes part in all studies."""
        return Path(self.state)

    @property
    def keys_folder(self) -> Path:
        """Where the site's private keys are."""
        return Path(self.keys or Path(self.state) / "keys")

    @property
    def run_folder(self) -> Path:
        """Where ledger and state of runs are."""
        return Path(self.state) / RUN

    @property
    def kit_folder(self) -> Path:
        """Where what came from the coordinator is, and what this site approved."""
        return Path(self.kit or Path(self.state) / "kit")

    def in_study(self, name: str) -> "SiteOfStudy":
        """This site in a further study, which has an approval, a state, a budget and a ledger of its own."""
        kept = self.model_dump(exclude={"studies", "kit"})
        otherwise = self.studies.get(name, Further()).model_dump(exclude_none=True)
        if "policy" in otherwise:
            otherwise["policy"]["training_hours"] = self.policy.training_hours
        state = {"state": str(self.service_folder / STUDIES / name), "keys": str(self.keys_folder)}
        of_first = {"study": name, "service": str(self.service_folder), "first_kit": str(self.kit_folder)}
        return SiteOfStudy.model_validate(kept | otherwise | state | of_first)

    def all_studies(self) -> "list[Site]":
        """This site in each study of which something lies in its state folder, the first one before the further ones."""
        names = sorted(folder.name for folder in (self.service_folder / STUDIES).glob("*/") if _is_name(folder.name))
        return [self, *map(self.in_study, names)]

    @property
    def run_folders(self) -> list[Path]:
        """Where ledgers and states of runs are, of all studies."""
        return [self.service_folder / RUN, *sorted((self.service_folder / STUDIES).glob(f"*/{RUN}"))]


class SiteOfStudy(Site):
    """A site in a further study, `study`, beside the first one, whose state folder is `service`, and whose kit `first_kit`."""

    study: Name
    """the name of the further study"""
    service: FilePath
    """the state folder of the site file"""
    first_kit: FilePath
    """folder of the first study's kit"""

    @property
    def called(self) -> str:
        """What `--site` is given for it."""
        return f"{self.site}/{self.study}"

    @property
    def service_folder(self) -> Path:
        """Where the notes of the one service are that takes part in all studies."""
        return Path(self.service)

    def all_studies(self) -> list[Site]:
        """This one alone."""
        return [self]


def _is_name(text: str) -> bool:
    with suppress(ValidationError):
        return bool(_NAME.validate_python(text))
    return False


def read_site(path: Path) -> Site:
    """The site file at `path`, its paths made absolute.

    Raises:
        ConfigurationError: see `csasn.platform.configuration`.
    """
    site = validate(Site, read_yaml(path), path.name)
    folder = path.resolve().parent
    keys = [key for key in ("manifest", "images", "state", "keys", "kit", "proxy_login") if getattr(site, key)]
    places: dict[str, object] = {key: os.path.realpath(folder / getattr(site, key)) for key in keys}  # loops of links pass
    further = {
        name: each.model_copy(update={key: os.path.realpath(folder / place) for key, place in each.places().items()})
        for name, each in site.studies.items()
    }
    return site.model_copy(update=places | ({"studies": further} if further else {}))


def find_site(name: str, config: Path | None = None, folder: Path | None = None, option: str = "--sites") -> Site:
    """The site file of `name`, which `find_site_file` finds: SITE, or SITE/STUDY for a further study.

    Raises:
        ConfigurationError: none exists, the file found is another site's, or the study has no name.
    """
    name, slash, study = name.partition("/")
    path = find_site_file(name, config, folder, option)
    site = read_site(path)
    if site.site != name:
        raise ConfigurationError(f"{path.name}: site is {site.site!r}, expected {name!r}", "is this another site's file?")
    if slash and not _is_name(study):
        raise ConfigurationError(f"{study[:60]!r} is no name of a study", "give --site SITE/STUDY, with the name in its study.yaml")
    return site.in_study(study) if slash else site


def find_site_file(name: str, config: Path | None = None, folder: Path | None = None, option: str = "--sites") -> Path:
    """`config` if given, else `folder/<name>.yaml` if given, else `sites/<name>.yaml`, else `/etc/csasn/<name>.yaml`.

    A folder that the caller names, by the command line's `option`, is the only place: /etc/csasn holds a hospital's real site.

    Raises:
        ConfigurationError: none exists.
    """
    folders = [folder] if folder else [Path("sites"), Path("/etc/csasn")]
    places = [config] if config else [place / f"{name}.yaml" for place in folders]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        looked = " and ".join(str(place) for place in places)
        hint = f"name its folder with {option}" if folder and not config else "name the file with --config"
        raise ConfigurationError(f"no site file for {name!r}, looked for {looked}", hint)
    return found
