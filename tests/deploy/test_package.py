"""What `make wheelhouse` hands over: named after what its wheels need, whole or refused, and checked where it is installed."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from typer.main import get_command

from command_line import PROGRAMS, run_quietly
from csasn.site import read_site
from csasn.study import read_study
from wheelhouse import MadeFor, made_for

ROOT = Path(__file__).parents[2]
HERE = f"cp{sys.version_info.major}{sys.version_info.minor}"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def make_wheel(folder, content, licence="MIT", tag="py3-none-any", package="tiny_thing"):
    """A package of one file, as small as pip takes it."""
    said = f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: 1.0\nLicense: {licence}\n"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{package}-1.0-{tag}.whl", "w") as archive:
        archive.writestr(f"{package}.py", content)
        archive.writestr(f"{package}-1.0.dist-info/METADATA", said)
        archive.writestr(f"{package}-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{package}-1.0.dist-info/RECORD", "")


def make_package(folder):
    command = [sys.executable, ROOT / "deploy/wheelhouse.py", folder / "package", folder / "wheelhouse"]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A package of two wheels, and what was said of it."""
    folder = tmp_path_factory.mktemp("made")
    make_wheel(folder / "package/wheels", "said = 1\n")
    make_wheel(folder / "package/wheels", "", tag=f"{HERE}-{HERE}-manylinux_2_17_x86_64.manylinux2014_x86_64", package="coded")
    done = make_package(folder)
    assert done.returncode == 0, done.stderr
    return (folder / "wheelhouse").resolve(), done.stdout


@pytest.fixture
def package(made, tmp_path):
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(made[0], tmp_path / "package"))


def install(folder, target):
    offline = [
        "--no-index",
        "--find-links",
        "wheels",
        "--require-hashes",
        "-r",
        "requirements.txt",
        "--no-deps",
        "--target",
        target,
    ]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *offline]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder)


# the name


def wheels(*names):
    return [Path(f"{name}.whl") for name in names]


@pytest.mark.parametrize(
    ("names", "needed"),
    [
        (("a-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", "b-1-py3-none-any"), MadeFor("3.11", "x86_64", "2.17")),
        (("a-1-cp312-cp312-manylinux2014_aarch64", "b-1-cp312-cp312-manylinux_2_28_aarch64"), MadeFor("3.12", "aarch64", "2.28")),
        (
            ("a-1-cp311-cp311-manylinux_2_9_x86_64", "b-1-cp39-abi3-manylinux_2_34_x86_64", "c-1-py2.py3-none-any"),
            MadeFor("3.11", "x86_64", "2.34"),
        ),
        (("a-1-cp311-cp311-manylinux_2_26_x86_64.manylinux_2_28_x86_64",), MadeFor("3.11", "x86_64", "2.26")),
        (("a-1-cp311-cp311-manylinux1_x86_64", "b-1-py3-none-manylinux2010_x86_64"), MadeFor("3.11", "x86_64", "2.12")),
    ],
)
def test_the_package_is_for_the_newest_glibc_that_one_of_its_wheels_asks_for(names, needed):
    assert made_for(wheels(*names)) == needed


@pytest.mark.parametrize(
    "names",
    [
        ("a-1-cp311-cp311-manylinux2014_x86_64", "b-1-cp312-cp312-manylinux2014_x86_64"),
        ("a-1-cp311-cp311-manylinux2014_x86_64", "b-1-cp311-cp311-manylinux2014_aarch64"),
    ],
)
def test_wheels_that_no_machine_can_install_are_no_package(names):
    with pytest.raises(SystemExit, match="expected one of each"):
        made_for(wheels(*names))


def test_the_name_says_what_it_is_for_and_the_link_leads_to_it(made):
    place, said = made
    assert place.name == f"wheelhouse-{HERE}-x86_64-glibc2.17"
    assert said.startswith(f"{place.parent / place.name}: 2 wheels, ")
    assert f"for CPython {PYTHON}, x86_64, glibc 2.17 or newer" in said


# what is in it


def test_the_sums_are_over_every_file_and_their_own_hash_is_said(made):
    place, said = made
    sums = (place / "SHA256SUMS").read_text()
    files = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    assert {line.split("  ")[1] for line in sums.splitlines()} == files - {"SHA256SUMS"}
    subprocess.run(["sha256sum", "--quiet", "--check", "SHA256SUMS"], check=True, cwd=place)
    assert said.splitlines()[-1].strip() == hashlib.sha256(sums.encode()).hexdigest()


def test_it_holds_what_a_hospital_reads_and_fills_in_and_nothing_for_the_source_alone(made):
    place, _ = made
    assert {path.name for path in place.iterdir()} == {
        "wheels", "deploy", "csasn", "share", "requirements.txt", "SHA256SUMS", "INSTALL.md", "check.sh", "study.yaml", "site.yaml",
    }  # fmt: skip
    assert read_study(place / "study.yaml").federation.sites[0] == read_site(place / "site.yaml").site
    assert {path.suffix for path in (place / "deploy").rglob("*") if path.is_file()}.isdisjoint({".py", ".sh", ".png", ".pyc"})
    assert (place / "deploy/systemd/csasn-client@.service").exists()


def test_each_page_points_to_files_that_are_in_it(made):
    place, _ = made
    pages = [path for path in place.rglob("*.md") if path.parent.name != "csasn"]
    assert {page.name for page in pages} == {"INSTALL.md", "README.md", "DATA_PROTECTION.md"}
    for page in pages:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / link).exists(), (page.name, link)
    named = re.findall(r"`((?:deploy|csasn)/[\w./@-]+|\w+\.(?:yaml|md|sh))`", (place / "INSTALL.md").read_text())
    assert "deploy/DATA_PROTECTION.md" in named
    assert not [name for name in named if not (place / name).exists()]


def test_the_page_to_begin_with_says_what_to_type_one_after_another(made):
    text = (made[0] / "INSTALL.md").read_text()
    commands = "".join(re.findall(r"(?ms)^```sh\n(.*?)^```", text))
    order = (
        "sha256sum SHA256SUMS",
        "sh check.sh",
        "-m venv /opt/csasn",
        "pip install --no-index",
        "cp -r deploy",
        "useradd",
        "runuser",
    )
    assert sorted(map(commands.index, order)) == [commands.index(step) for step in order]
    assert f"/usr/bin/python{PYTHON} -m venv" in commands


def test_each_command_has_a_man_page_with_the_words_of_its_help(made):
    folder = made[0] / "share/man/man1"
    commands = {f"{program}-{name}": (program, name) for program, app in PROGRAMS.items() for name in get_command(app).commands}
    assert {path.name for path in folder.iterdir()} == {f"{name}.1" for name in (*PROGRAMS, *commands)}
    page = (folder / "client-doctor.1").read_text()
    assert {line.partition(" ")[0] for line in page.splitlines()} - {".TH", ".SH", ".nf", ".fi"} == {
        line.partition(" ")[0] for line in page.splitlines() if line.startswith("\\&")
    }
    plain = page.replace("\\&", "").replace("\\-", "-")
    assert plain.startswith('.TH "CLIENT-DOCTOR" 1 "" "csasn ')
    for line in run_quietly("client", "doctor", "--help").stdout.removeprefix("Usage: ").splitlines():
        assert f"\n{line}\n" in plain


def test_it_installs_without_an_index_and_a_changed_wheel_is_refused(package, tmp_path):
    assert re.search(r"(?m)^tiny-thing==1\.0 --hash=sha256:[0-9a-f]{64}$", (package / "requirements.txt").read_text())
    done = install(package, tmp_path / "here")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here/tiny_thing.py").exists()
    make_wheel(package / "wheels", "said = 2\n")
    changed = install(package, tmp_path / "there")
    assert changed.returncode != 0
    assert "DO NOT MATCH THE HASHES" in changed.stderr


def test_no_package_is_made_with_a_copyleft_licence(tmp_path):
    make_wheel(tmp_path / "package/wheels", "said = 1\n", licence="GPL V3.0")
    done = make_package(tmp_path)
    assert done.returncode == 1
    assert "tiny-thing is gpl v3.0, which is not known as permissive" in done.stderr
    assert not (tmp_path / "wheelhouse").exists()


# check.sh


def check(folder, *words, **commands):
    """check.sh with these commands in the place of the system's; each is what a script does."""
    fakes = folder.parent / "fakes"
    fakes.mkdir(exist_ok=True)
    for name, does in commands.items():
        (fakes / name).write_text(f"#!/bin/sh\n{does}\n")
        (fakes / name).chmod(0o755)
    path = f"{fakes}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", folder / "check.sh", *words], check=False, capture_output=True, text=True, env=os.environ | {"PATH": path}
    )


def test_a_machine_that_can_install_it_is_told_to_go_on(package):
    done = check(package, uname="echo x86_64", getconf="echo glibc 2.17")
    assert (done.returncode, done.stderr) == (0, "")
    said = f"made for CPython {PYTHON}, x86_64, glibc 2.17 or newer; this machine has CPython {PYTHON}, x86_64, glibc 2.17\n"
    assert done.stdout.startswith(said)
    assert "go on with INSTALL.md" in done.stdout


@pytest.mark.parametrize(
    ("words", "commands", "error", "hint"),
    [
        ((), {"uname": "echo aarch64"}, "the CPU is aarch64, expected x86_64", "made on a machine like this one"),
        ((), {"getconf": "echo glibc 2.9"}, "the system has glibc 2.9, expected 2.17 or newer", "use a newer Linux"),
        ((), {"getconf": "exit 1"}, "this system has no glibc", "use a Linux with glibc 2.17"),
        (
            ("old",),
            {"old": "echo CPython 3.9"},
            f"old is CPython 3.9, expected CPython {PYTHON}",
            f"apt install python{PYTHON}-venv",
        ),
        (("none",), {}, f"none is no Python, expected CPython {PYTHON}", f"dnf install python{PYTHON}"),
        (
            ("bare",),
            {"bare": f'case "$2" in *ensurepip*) exit 1;; esac; echo CPython {PYTHON}'},
            "bare has no venv",
            f"apt install python{PYTHON}-venv",
        ),
    ],
)
def test_a_machine_that_cannot_is_told_what_it_has_and_what_to_do(words, commands, error, hint, package):
    done = check(package, *words, **({"uname": "echo x86_64", "getconf": "echo glibc 2.36"} | commands))
    assert done.returncode == 1
    assert f"error: {error}" in done.stderr
    assert hint in done.stderr
    assert done.stderr.count("error: ") == 1
    assert "this machine has" in done.stdout
    assert "go on" not in done.stdout


def change(package):
    (package / "deploy/systemd/csasn-client@.service").write_text("[Service]\nUser=root\n")


def take(package):
    (package / "site.yaml").unlink()


def add(package):
    (package / "deploy/systemd/more.service").write_text("[Service]\nUser=root\n")


def unseal(package):
    (package / "SHA256SUMS").unlink()


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (change, "not as SHA256SUMS says: ./deploy/systemd/csasn-client@.service"),
        (take, "not as SHA256SUMS says: ./site.yaml"),
        (add, "1 files are not of this package"),
        (unseal, "SHA256SUMS is missing"),
    ],
)
def test_a_package_that_is_not_whole_is_refused(damage, error, package):
    damage(package)
    done = check(package, uname="echo x86_64", getconf="echo glibc 2.36")
    assert done.returncode == 1
    assert error.replace("./", "") in done.stderr.replace("./", "")
    assert "hint: " in done.stderr
