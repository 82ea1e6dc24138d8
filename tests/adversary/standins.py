"""What stands for files, signatures and key exchange where a hundred thousand sequences are tried: in memory, made of hashes."""

import fnmatch
import hashlib
import io
from types import SimpleNamespace

import client.worker.diary
import client.worker.kept
import client.worker.worker
from adversary.light import NAMES, LightSites
from csasn.errors import ModelError, TrustError
from csasn.federated.secagg import keys, sealing
from csasn.platform.configuration import validate


class MemoryPath:
    """A file or folder among `files`, by its whole name."""

    def __init__(self, files, name):
        self.files, self.full = files, name

    def __truediv__(self, part):
        return MemoryPath(self.files, f"{self.full}/{part}")

    def __eq__(self, other):
        return isinstance(other, MemoryPath) and self.full == other.full

    def __hash__(self):
        return hash(self.full)

    @property
    def name(self):
        return self.full.rpartition("/")[2]

    def exists(self):
        return self.full in self.files

    def stat(self):
        return SimpleNamespace(st_ino=id(self.files[self.full]), st_mtime_ns=0)

    def unlink(self, missing_ok=False):
        self.files.pop(self.full, None)

    def glob(self, pattern):
        return [MemoryPath(self.files, name) for name in self.files if fnmatch.fnmatch(name, f"{self.full}/{pattern}")]

    def mkdir(self, **_):
        return None

    def write_text(self, text):
        self.files[self.full] = text

    def open(self, _):
        return io.BytesIO(self.files[self.full].encode())

    def __str__(self):
        return self.full


def _save(path, arrays, facts, mode):
    path.files[path.full] = {name: array.copy() for name, array in arrays.items()}, dict(facts)


def _load(path):
    if not path.exists():
        raise ModelError(f"{path.name} does not exist", "")
    arrays, facts = path.files[path.full]
    return {name: array.copy() for name, array in arrays.items()}, facts


def _write(path, value, mode):
    path.files[path.full] = value


def _read(path):
    return validate(client.worker.diary.Contents, path.files[path.full], path.name) if path.exists() else None


def files_in_memory(monkeypatch):
    monkeypatch.setattr(client.worker.kept, "private_folder", lambda path: path)
    monkeypatch.setattr(client.worker.kept, "save_arrays", _save)
    monkeypatch.setattr(client.worker.kept, "load_arrays", _load)
    monkeypatch.setattr(client.worker.diary, "write_json", _write)
    monkeypatch.setattr(client.worker.diary, "read_diary", _read)
    monkeypatch.setattr(client.worker.worker, "manifest_sha256", lambda _: "0" * 64)


# ---- signatures and key exchange: no security, but a signature says who signed what, and two private keys share one secret


def _mac(whose, purpose, data):
    return (hashlib.sha256(f"{whose} {purpose} ".encode() + data).hexdigest()) * 2


def hash_sign(key, purpose, data):
    return _mac(_publics(key), purpose, data)


def hash_verify(identity, purpose, data, signature, whose):
    if signature != _mac(identity, purpose, data):
        raise TrustError(f"the {purpose} signature of {whose} is not valid", "")


_known = {}


def _publics(key):
    if id(key) not in _known:
        _known[id(key)] = key.public_key().public_bytes_raw().hex()
    return _known[id(key)]


class _Public:
    def __init__(self, data):
        self.data = data

    @classmethod
    def from_public_bytes(cls, data):
        return cls(data)

    def public_bytes_raw(self):
        return self.data


class _Private:
    def __init__(self, data):
        self.data = data

    @classmethod
    def from_private_bytes(cls, data):
        return cls(data)

    def public_key(self):
        return _Public(hashlib.sha256(b"public" + self.data).digest())

    def exchange(self, other):
        return hashlib.sha256(b"".join(sorted((self.public_key().data, other.data)))).digest()


def hashes_for_keys(monkeypatch):
    monkeypatch.setattr(keys, "verify", hash_verify)
    monkeypatch.setattr(sealing, "verify", hash_verify)
    monkeypatch.setattr(keys, "X25519PrivateKey", _Private)
    monkeypatch.setattr(keys, "X25519PublicKey", _Public)
    monkeypatch.setattr(keys, "_derive", lambda secret, context: hashlib.sha256(secret + keys.canonical(context)).digest())


class MemorySites(LightSites):
    """`LightSites` whose folders are in memory; a copy of a folder can be brought back."""

    def __init__(self, num, sign):
        self.files = {name: {} for name in NAMES}
        super().__init__(num, None, sign=sign)

    def folder_of(self, name):
        return MemoryPath(self.files[name], name)

    def copy_of(self, name):
        return dict(self.files[name])

    def bring_back(self, name, copy):
        self.kill(name)
        self.files[name].clear()
        self.files[name].update(copy)


# ---- what is computed again and again


def remembered(monkeypatch):
    """Hashes of the study and of each question are computed once for each object."""
    transcripts, plain = {}, client.worker.worker.transcript

    def transcript(question, carried=False):
        place = id(question), carried
        if place not in transcripts:
            transcripts[place] = question, plain(question, carried)
        return transcripts[place][1]

    monkeypatch.setattr(client.worker.worker, "transcript", transcript)
    return transcripts
