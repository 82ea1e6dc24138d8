"""Decoded images of a site on disk, so that a second start decodes nothing.

The folder (mode 0700) holds pixels: `images-<random>.npy`, uint8 (N, size, size), and `index.json`, which tells what each of its
rows came from (hashes of names and contents, sizes and times) and what was measured of it; no name and no case. Whatever does not
fit together is rebuilt. An image that is gone from the manifest is gone from disk after the next load. What was computed of the
pixels (`beside.py`) lies there too, and goes with them.
"""

import hashlib
import io
import os
import secrets
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from csasn.data.beside import SUFFIX
from csasn.data.faults import Fault
from csasn.data.left_out import NONE, Tolerance, Unread, require_few
from csasn.errors import AwayError, DataError, StorageError
from csasn.pictures.images import PREPROCESSING_VERSION, check_file, hash_file, letterbox, read_image
from csasn.pictures.picture import no_memory
from csasn.pictures.picture_facts import ImageFacts, measure
from csasn.platform.configuration import Configuration
from csasn.platform.locks import open_locked
from csasn.platform.storage import TEMPORARY, atomic_writer, file_sha256, private_folder, write_json

INDEX = "index.json"
Advance = Callable[[int, int], None]
_NUM_THREADS = 4  # decoders let go of the interpreter's lock: 1.5 to 3 times as fast as one
_BLOCK = 64


@dataclass(frozen=True)
class Source:
    """One image to load: its row of the manifest, its path, its frame, what tells it from the others, and what is known to be wrong
    with its name."""

    row: int
    path: Path = field(repr=False)
    frame: int | None
    name: str = field(repr=False)
    misnamed: Fault | None = None


@dataclass(frozen=True)
class Images:
    """Letterboxed images, uint8 (N, size, size), memory-mapped; `digests` and `facts` (N) are of the pixels before letterboxing.

    `readable` (N) are their numbers among the images that were asked for; `faults` tells of the others.
    """

    images_NHW: np.ndarray
    digests: tuple[str, ...]
    facts: tuple[ImageFacts, ...]
    readable: tuple[int, ...]
    faults: tuple[Fault, ...] = ()


class _Entry(Configuration):
    """Where a row of the cache came from, texts as SHA-256 in hex; and what was measured of it."""

    name: str
    content: str
    pixels: str
    size: int
    mtime_ns: int
    ctime_ns: int
    facts: ImageFacts


class _Index(Configuration):
    preprocessing: int
    image_size: int
    file: str
    sha256: str
    entries: tuple[_Entry, ...]


class _Cache:
    """What is on disk: an index, the pixels (N, size, size) it describes, and where to find what in them."""

    def __init__(self, index: _Index, images_NHW: np.ndarray) -> None:
        self.index = index
        self.images_NHW = images_NHW
        self.by_name = {entry.name: row for row, entry in enumerate(index.entries)}
        self.by_content = {entry.content: row for row, entry in enumerate(index.entries)}


@dataclass(frozen=True)
class _Job:
    """What a new cache shall hold; `known` are the rows of `old` whose files did not change."""

    sources: Sequence[Source]
    image_size: int
    old: _Cache | None
    known: Sequence[int | None]
    tolerance: Tolerance


def load_images(
    folder: Path, sources: Sequence[Source], image_size: int, tolerance: Tolerance = NONE, advance: Advance | None = None
) -> Images:
    """The images of `sources` (at least one), in their order; only files that are new or changed since the last load are decoded.

    Unreadable ones are left out, as many as `tolerance` allows. `advance(done, total)` is called as images become ready. A second
    process that loads the same folder waits for the first.

    Raises:
        AwayError: it is not files that are broken; what was in the cache stays.
        DataError: too many images are at fault; up to ten rows are named at once.
        StorageError: the cache cannot be written; nothing half-written is left.
    """
    private_folder(folder)
    with _locked(folder):
        cache = _open_cache(folder, image_size)
        known, missing = _known_rows(cache, sources)
        job = _Job(sources, image_size, cache, known, tolerance)
        if len(missing) > tolerance.num_allowed(len(sources)):
            _require_few(job, missing)  # before anything is decoded
        unread = _unread_of_unchanged(job)
        if cache is None or unread is None:
            unread = []
            with closing(_readable(job, unread, advance)) as images:  # ends its threads where the disk is full
                cache = _write(folder, image_size, len(sources), images)
        else:
            _require_few(job, unread)
            if advance:
                advance(len(sources), len(sources))
        _clean(folder, cache.index.file)
    entries, left_out = cache.index.entries, {image.number for image in unread}
    return Images(
        cache.images_NHW,
        digests=tuple(entry.pixels for entry in entries),
        facts=tuple(entry.facts for entry in entries),
        readable=tuple(number for number in range(len(sources)) if number not in left_out),
        faults=tuple(image.fault for image in unread),
    )


def forget_images(folder: Path, names: Collection[str]) -> int:
    """Takes images out of a cache, by what tells them from others; how many it held. A process that trains on it goes on until it
    loads it again.

    Raises:
        StorageError: the cache cannot be written; what was there stays.
    """
    if not folder.exists():
        return 0
    gone = {_hash(name) for name in names}
    with _locked(folder):
        cache = _open_cache(folder)
        entries = cache.index.entries if cache else ()
        kept = [row for row, entry in enumerate(entries) if entry.name not in gone]
        if not cache or not kept:
            (folder / INDEX).unlink(missing_ok=True)
            _clean(folder, "")
        elif len(kept) < len(entries):
            pairs = ((entries[row], cache.images_NHW[row]) for row in kept)
            _clean(folder, _write(folder, cache.index.image_size, len(kept), pairs).index.file)
    return len(entries) - len(kept)


def _known_rows(cache: _Cache | None, sources: Sequence[Source]) -> tuple[list[int | None], list[Unread]]:
    """The cache's row of each image, None where the file is new, changed or missing, and the missing; by sizes and times alone."""
    known: list[int | None] = []
    missing: list[Unread] = []
    for number, source in enumerate(sources):
        try:
            status = check_file(source.path)
        except DataError as error:
            missing.append(_unread(number, source, error))
            known.append(None)
            continue
        row = cache.by_name.get(_hash(source.name)) if cache else None
        known.append(row if cache and row is not None and _matches(cache.index.entries[row], status) else None)
    return known, missing


def _unread_of_unchanged(job: _Job) -> list[Unread] | None:
    """What cannot be read, where the cache holds exactly what can; None where it has to be written anew."""
    if job.old is None or [row for row in job.known if row is not None] != list(range(len(job.old.index.entries))):
        return None
    others = [number for number, row in enumerate(job.known) if row is None]
    if len(others) > job.tolerance.num_allowed(len(job.sources)):
        return None
    unread: list[Unread] = []
    for number in others:
        result = _read_one(job, number)
        if not isinstance(result, Unread):
            return None
        unread.append(result)
    return unread


def _require_few(job: _Job, unread: Sequence[Unread]) -> None:
    require_few(unread, len(job.sources), job.tolerance, partial(_read_one, job))


def _readable(job: _Job, unread: list[Unread], advance: Advance | None) -> Generator[tuple[_Entry, np.ndarray], None, None]:
    """Entry and pixels of each image that can be read; the others are added to `unread`, and stop it where they are too many."""
    for done, result in enumerate(_read_all(job), 1):
        if isinstance(result, Unread):
            unread.append(result)
        else:
            yield result
        if advance:
            advance(done, len(job.sources))
    _require_few(job, unread)


def _write(folder: Path, image_size: int, most: int, images: Iterable[tuple[_Entry, np.ndarray]]) -> _Cache:
    """Writes the pixels of `images`, at most `most`, and then the index, each atomically."""
    path = folder / f"images-{secrets.token_hex(8)}.npy"
    entries: list[_Entry] = []
    with atomic_writer(path, 0o600) as file:
        file.write(_header(most, image_size))
        for entry, pixels_HW in images:
            entries.append(entry)
            file.write(pixels_HW.data)
        file.seek(0)
        file.write(_header(len(entries), image_size))
    index = _Index(
        preprocessing=PREPROCESSING_VERSION,
        image_size=image_size,
        file=path.name,
        sha256=file_sha256(path),
        entries=tuple(entries),
    )
    write_json(folder / INDEX, index.model_dump(mode="json"), 0o600)
    return _Cache(index, np.load(path, mmap_mode="r"))


def _header(num_images: int, size: int) -> bytes:
    """That of a file of NumPy; as long for any number of images, so that it can be written again at the end."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (num_images, size, size)})
    return header.getvalue()


def _read_all(job: _Job) -> Iterator[tuple[_Entry, np.ndarray] | Unread]:
    """Entry and pixels of each image, in order, or what is wrong with it; a block at a time, so that memory stays small."""
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        for start in range(0, len(job.sources), _BLOCK):
            yield from pool.map(partial(_read_one, job), range(start, min(start + _BLOCK, len(job.sources))))


def _read_one(job: _Job, number: int) -> tuple[_Entry, np.ndarray] | Unread:
    source, old, known = job.sources[number], job.old, job.known[number]
    if old and known is not None:
        return old.index.entries[known], old.images_NHW[known]
    try:
        status = check_file(source.path)  # before the content: a file that changes meanwhile is read again next time
        content = _hash(f"{hash_file(source.path)} {source.frame}")
        row = old.by_content.get(content) if old else None
        if old and row is not None:
            same = old.index.entries[row]
            pixels, facts, pixels_HW = same.pixels, same.facts, old.images_NHW[row]
        else:
            picture = read_image(source.path, source.frame)
            picture_HW = picture.pixels_HW
            pixels = hashlib.sha256(f"{picture_HW.shape}".encode() + picture_HW.tobytes()).hexdigest()
            facts, pixels_HW = measure(picture), letterbox(picture_HW, job.image_size)
    except DataError as error:
        return _unread(number, source, error)
    except MemoryError:  # in what is measured of it, too
        return _unread(number, source, no_memory())
    times = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns}
    return _Entry(name=_hash(source.name), content=content, pixels=pixels, facts=facts, **times), pixels_HW


def _open_cache(folder: Path, wanted: int | None = None) -> _Cache | None:
    """The cache on disk, or None where it is missing, damaged, or of another image size or version than `wanted`, if any is."""
    try:
        index = _Index.model_validate_json((folder / INDEX).read_bytes())
        size = index.image_size
        if wanted is not None and (index.preprocessing, size) != (PREPROCESSING_VERSION, wanted):
            return None
        if Path(index.file).name != index.file:
            return None
        if file_sha256(folder / index.file) != index.sha256:
            return None
        images_NHW = np.load(folder / index.file, mmap_mode="r")
    except (OSError, ValueError):  # pydantic's ValidationError is a ValueError
        return None
    return _Cache(index, images_NHW) if images_NHW.shape == (len(index.entries), size, size) else None


def _clean(folder: Path, keep: str) -> None:
    """Removes pixels that no index names, what was computed of them, and what killed processes left; the lock is held, so nobody is
    writing pixels."""
    for path in folder.iterdir():
        is_kept = bool(keep) and path.name.startswith(Path(keep).stem)
        if path.name.endswith(TEMPORARY) or (path.suffix in (".npy", SUFFIX) and not is_kept):
            with suppress(OSError):
                path.unlink()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps other processes out of `folder` until the block ends; the system frees it when a process dies."""
    try:
        lock = open_locked(folder / "lock")
    except OSError:
        hint = "check disk space, who owns the state folder, and that its file system knows locks"
        raise StorageError("the image cache cannot be locked", hint) from None
    try:
        yield
    finally:
        os.close(lock)


def _matches(entry: _Entry, status: os.stat_result) -> bool:
    return (entry.size, entry.mtime_ns, entry.ctime_ns) == (status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _unread(number: int, source: Source, error: DataError) -> Unread:
    fault = source.misnamed or Fault(source.row, "image", error.message, error.hint)
    return Unread(number, fault, isinstance(error, AwayError))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
