"""csasn/platform/backup.py, and the commands around it: what comes back is what was there, or nothing."""

import errno
import hashlib
import io
import json
import os
import shutil
import stat
import tarfile
from pathlib import Path

import pytest

from client.trust.approval import read_approved
from csasn.errors import StorageError
from csasn.platform.backup import restore_backup, write_backup
from csasn.trust.enrolment import read_kit
from server.office.enrolment import Enrolments


def test_two_names_of_one_file_come_back_as_two_files(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    (folder / "latest").write_bytes(b"weights")
    (folder / "best").hardlink_to(folder / "latest")
    assert write_backup(tmp_path / "b.tar", {"runs": folder}) == 2
    assert restore_backup(tmp_path / "b.tar", {"runs": tmp_path / "back"}) == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()} == {"latest": b"weights", "best": b"weights"}


def test_a_backup_comes_back_under_an_early_python(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/file").write_bytes(b"x")
    write_backup(tmp_path / "b.tar", {"runs": tmp_path / "runs"})
    monkeypatch.delattr(tarfile, "tar_filter")
    extract = tarfile.TarFile.extract

    def early(archive, member, path):  # knows no filter=
        return extract(archive, member, path)

    monkeypatch.setattr(tarfile.TarFile, "extract", early)
    assert restore_backup(tmp_path / "b.tar", {"runs": tmp_path / "back"}) == 1


def test_a_coordinators_folder_moves_to_another_machine_by_backup_restore_and_renewal(federation):
    membership = federation.enroll_all()
    federation.run("server", "backup", "c.tar")
    assert stat.S_IMODE((federation.path / "c.tar").stat().st_mode) == 0o600
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in (federation.path / "c.tar").read_bytes()
    federation.run("server", "restore", "c.tar", "--folder", "moved")
    moved = federation.path / "moved"
    assert tree(moved) == tree(federation.folder)
    federation.run("server", "renew", "--folder", "moved", "--address", "10.1.2.3:9443", "--passphrase-file", "passphrase")
    assert Enrolments.open(moved).membership() == membership
    federation.run("client", "install", "--site", "centerA", "moved/kits/centerA.kit.zip")
    assert read_kit(federation.site("centerA").kit_folder)[0].address == "10.1.2.3:9443"
    assert "is there and not empty" in federation.run("server", "restore", "c.tar", code=9)


def test_a_sites_keys_kit_and_state_come_back_without_what_shows_patients(federation):
    membership = federation.enroll_all()
    federation.approve("centerA", membership)
    site = federation.site("centerA")
    shows_patients = ("cache/pixels", "report/report.html", "fingerprint.png")
    for name in shows_patients:
        (Path(site.state) / name).parent.mkdir(exist_ok=True)
        (Path(site.state) / name).write_bytes(b"pixels")
    (Path(site.state) / "run").mkdir()
    (Path(site.state) / "run" / "memory").write_bytes(b"memory")
    federation.run("client", "backup", "--site", "centerA", "a.tar")
    assert b"pixels" not in (federation.path / "a.tar").read_bytes()
    before = tree(Path(site.state), leave_out={"cache", "report", "fingerprint.png"})
    assert "is there and not empty" in federation.run("client", "restore", "--site", "centerA", "a.tar", code=9)
    shutil.rmtree(site.state)
    federation.run("client", "restore", "--site", "centerA", "a.tar")
    assert tree(Path(site.state)) == before
    assert read_approved(site)[1] == membership


@pytest.mark.parametrize("unreadable", ["run", "run/memory"])
def test_what_cannot_be_read_is_named_and_not_taken_for_a_fault_of_the_backup(tmp_path, monkeypatch, unreadable):
    (tmp_path / "state/run").mkdir(parents=True)
    (tmp_path / "state/run/memory").write_bytes(b"memory")

    def refuse(read):  # as root, whom a test may run as, nothing is unreadable
        def reading(path, *arguments):
            if path == tmp_path / "state" / unreadable:
                raise PermissionError(errno.EACCES, "")
            return read(path, *arguments)

        return reading

    monkeypatch.setattr(Path, "open", refuse(Path.open))
    monkeypatch.setattr(Path, "iterdir", refuse(Path.iterdir))
    with pytest.raises(StorageError, match=r"cannot read state.* to back it up: permission denied") as caught:
        write_backup(tmp_path / "b.tar", {"state": tmp_path / "state"})
    assert "the service's own user" in caught.value.hint
    assert not (tmp_path / "b.tar").exists()


def tree(folder, leave_out=frozenset()):
    """Name and content of all that is in a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if not leave_out & set(path.relative_to(folder).parts)
    }


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("cut", "damaged, cut short, or no backup"),
        ("changed", "damaged, cut short, or no backup"),
        ("link", "holds what is no file of coordinator"),
        ("above", "holds what is no file of coordinator"),
        ("another", "holds what is no file of coordinator"),
        ("missing", "cannot read c.tar: no such file"),
    ],
)
def test_an_archive_that_is_no_backup_restores_nothing(federation, fault, says):
    federation.initialise()
    federation.run("server", "backup", "c.tar")
    path = federation.path / "c.tar"
    if fault == "cut":
        with tarfile.open(path) as archive:
            size = archive.getmembers()[-2].offset  # between two files, where tar itself takes it for the end
        path.write_bytes(path.read_bytes()[:size])
    elif fault == "changed":
        path.write_bytes(path.read_bytes().replace(b"localhost:9443", b"attackers:9443"))
    elif fault == "missing":
        path.unlink()
    else:
        with tarfile.open(path, "w") as archive:
            member = tarfile.TarInfo({"link": "coordinator/link", "above": "coordinator/../../x", "another": "state/x"}[fault])
            member.type, member.linkname = (tarfile.SYMTYPE, "/etc/passwd") if fault == "link" else (tarfile.REGTYPE, "")
            archive.addfile(member)
            hashes = tarfile.TarInfo("sha256.json")
            hashes.size = 2
            archive.addfile(hashes, io.BytesIO(b"{}"))
    assert says in federation.run("server", "restore", "c.tar", "--folder", "back", code=9)
    assert not list(federation.path.glob("*back*"))


def test_nothing_to_back_up_is_said_and_leaves_no_file(tmp_path):
    from csasn.platform.backup import write_backup

    with pytest.raises(StorageError, match="nothing to back up"):
        write_backup(tmp_path / "x.tar", {"keys": tmp_path / "none"})
    assert not list(tmp_path.iterdir())


def plant(path, members):
    """A backup whose members have the modes in `members`: (name, mode, content), None for a folder."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, _, content in members if content is not None}
    with tarfile.open(path, "w") as archive:
        for name, mode, content in (*members, ("sha256.json", 0o644, json.dumps(hashes).encode())):
            info = tarfile.TarInfo(name)
            info.mode, info.type = mode, tarfile.REGTYPE if content is not None else tarfile.DIRTYPE
            info.size = len(content or b"")
            archive.addfile(info, io.BytesIO(content or b""))


@pytest.mark.parametrize("early", [False, True])
def test_what_comes_back_is_for_its_owner_alone_whatever_the_archive_says(tmp_path, monkeypatch, early):
    members = [
        ("keys", 0o755, None),
        ("keys/identity.key", 0o644, b"key"),
        ("keys/tool", 0o4755, b"tool"),
        ("keys/locked", 0o000, b"locked"),
        ("keys/open", 0o777, None),
        ("keys/open/shared", 0o2666, b"shared"),
        ("keys/unnamed/deep/file", 0o666, b"deep"),  # of folders that the archive does not name
    ]
    plant(tmp_path / "b.tar", members)
    if early:
        monkeypatch.delattr(tarfile, "tar_filter")
        extract = tarfile.TarFile.extract

        def without_filters(archive, member, path):
            return extract(archive, member, path)

        monkeypatch.setattr(tarfile.TarFile, "extract", without_filters)
    old = os.umask(0o002)
    try:
        assert restore_backup(tmp_path / "b.tar", {"keys": tmp_path / "keys"}) == 5
    finally:
        os.umask(old)
    for path in (tmp_path / "keys", *(tmp_path / "keys").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path.name
