"""requirements.lock: it is exactly what our wheel asks for, in the versions that these tests run with."""

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import lock
from installed import OURS, closure

PROJECT = tomllib.loads((lock.ROOT / "pyproject.toml").read_text())["project"]
LOCKED = {canonicalize_name(wanted.name): (wanted, hashes) for wanted, hashes in lock.entries(lock.LOCK.read_text())}
TORCH = {wanted.name: wanted for wanted, _ in lock.entries(lock.TORCH_LOCK.read_text())}


def pinned(name: str) -> Version:
    wanted = TORCH[name] if name in TORCH else LOCKED[name][0]
    (only,) = wanted.specifier
    assert only.operator == "=="
    return Version(only.version)


def asked_for() -> Iterator[tuple[str, Requirement]]:
    """(who asks, for what) in all that is installed with our wheel, as far as it holds here."""
    for asker in (OURS, *closure(OURS, lock.EXTRAS)):
        extras = ("", *lock.EXTRAS) if asker == OURS else ("",)
        for line in distribution(asker).requires or []:
            wanted = Requirement(line)
            if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in extras):
                yield asker, wanted


def test_the_lock_names_what_our_wheel_asks_for_and_nothing_else() -> None:
    needed = {name for name in closure(OURS, lock.EXTRAS) if not lock.OF_TORCH.fullmatch(name)}
    assert set(LOCKED) == needed
    assert set(TORCH) == set(lock.TORCH)


def test_the_locked_versions_are_those_that_are_tested() -> None:
    tested = {name: Version(version(name)).public for name in (*LOCKED, *TORCH)}
    assert {name: str(pinned(name)) for name in tested} == tested


def test_the_locked_versions_are_within_the_bounds_of_all_who_ask_for_them() -> None:
    found = [(asker, wanted) for asker, wanted in asked_for() if canonicalize_name(wanted.name) in {*LOCKED, *TORCH}]
    assert len(found) > len(LOCKED)
    for asker, wanted in found:
        assert wanted.specifier.contains(pinned(canonicalize_name(wanted.name)), prereleases=True), f"{asker} asks for {wanted}"
    for line in PROJECT["dependencies"]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(pinned(canonicalize_name(wanted.name))), line


def test_every_locked_package_has_its_hashes_and_nothing_from_elsewhere() -> None:
    for name, (wanted, hashes) in LOCKED.items():
        assert hashes, name
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", each) for each in hashes), name
        assert wanted.url is None
    assert "://" not in lock.LOCK.read_text()


@pytest.mark.parametrize("line", [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["export"]])
def test_every_dependency_has_a_floor_and_a_ceiling(line: str) -> None:
    assert {each.operator for each in Requirement(line).specifier} == {">=", "<"}


def test_what_is_passed_on_is_installed_by_hashes() -> None:
    rules = (lock.ROOT / "Makefile").read_text()
    assert "$(WHEEL) --no-deps --require-hashes --requirement requirements.lock" in rules
    for name in ("client", "server"):
        image = (lock.ROOT / f"deploy/container/Dockerfile.{name}").read_text()
        installs = [line for line in image.splitlines() if "pip install" in line]
        assert len(installs) == 1
        assert "--no-index" in installs[0]
        assert "--require-hashes -r /wheelhouse/requirements.txt" in installs[0]


def test_packages_of_several_versions_are_not_locked() -> None:
    one, other = Requirement("numpy==1 ; python_version < '3.12'"), Requirement("numpy==2 ; python_version >= '3.12'")
    assert list(lock.for_any([(one, ("sha256:0",))])) == [(Requirement("numpy==1"), ("sha256:0",))]
    with pytest.raises(ValueError, match="numpy has several versions"):
        list(lock.for_any([(one, ()), (other, ())]))


def test_a_lock_is_read_as_it_is_written() -> None:
    entry = (Requirement("numpy==2.4.6"), ("sha256:" + "0" * 64, "sha256:" + "1" * 64))
    text = "# a line about it\n" + lock.shown(*entry)
    assert list(lock.entries(text)) == [entry]
    assert Path(lock.LOCK).name == "requirements.lock"
