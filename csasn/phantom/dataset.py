"""The phantom as a folder that training can be pointed at: study, site files, manifests, pictures and a data card."""

import csv
import errno
import hashlib
import json
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from PIL import Image

from csasn.errors import ConfigurationError, CsasnError, StorageError
from csasn.phantom.card import SiteCounts, data_card
from csasn.phantom.case import Case, draw_case
from csasn.phantom.dicom import write_dicom
from csasn.phantom.nodule import CLASSES, DESCRIPTORS
from csasn.phantom.settings import DICOM_SITES, STUDY, CasePlan, PhantomSettings, SiteMix, case_plans

RECORD, CARD, SITES = "phantom.json", "CARD.md", "sites"
MANIFEST, IMAGES, STATE = "manifest.csv", "images", "state"
COLUMNS = ("case_id", "image", "label", "split", "view", *DESCRIPTORS, "scanner")
CASES_A_TASK = 8
Row = dict[str, str]


@dataclass(frozen=True)
class PhantomSummary:
    """What lies in `folder`; `written` is false where an equal phantom lay there already."""

    folder: Path
    written: bool
    sites: tuple[SiteCounts, ...]

    @property
    def num_images(self) -> int:
        """Pictures of all sites."""
        return sum(site.num_images for site in self.sites)


@dataclass(frozen=True)
class _Task:
    """A few cases of one site with their numbers, for one process to draw into `images`."""

    images: Path
    settings: PhantomSettings
    site: str
    cases: tuple[tuple[int, CasePlan], ...]


def write_phantom(out: Path, settings: PhantomSettings, advance: Callable[[int], None] | None = None) -> PhantomSummary:
    """Writes the phantom to `out`, or finds it there already; `advance(n)` is called as n more cases are drawn.

    It is drawn into a hidden folder beside `out` and renamed at the end, so that `out` is never half-written. Equal settings give
    equal bytes, whatever the number of workers. Replacing a phantom also removes the sites' state (caches of the old pictures).

    Raises:
        StorageError: `out` holds what is not the phantom's, or cannot be written.
        ConfigurationError: `out` holds a phantom of other settings and `settings.replace` is false.
    """
    out = Path(os.path.abspath(out))
    with _storage_errors(out):
        if _already_there(out, settings):
            return PhantomSummary(out, False, tuple(_count(out, mix.site) for mix in settings.mixes))
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent, ignore_cleanup_errors=True) as hidden:
            new = Path(hidden) / "new"
            _write_all(new, settings, advance or (lambda _: None))
            sites = tuple(_count(new, mix.site) for mix in settings.mixes)
            (new / CARD).write_text(data_card(settings, sites), encoding="utf-8")
            if out.exists():
                out.rename(Path(hidden) / "old")
            new.rename(out)
    return PhantomSummary(out, True, sites)


def redraw_case(settings: PhantomSettings, site: str, case_id: str) -> Case:
    """The case `case_id` of `site` drawn again, with the nodule's mask in each view; view k is the picture `<case_id>-<k>`.

    Masks and pictures are of the region alone: a DICOM file has a frame around it, which cropping to the region takes off.
    """
    plans = case_plans(settings, site)
    number = int(case_id[1:]) if case_id[1:].isdigit() else 0
    if case_id != _case_id(site, number) or not 1 <= number <= len(plans):
        raise ConfigurationError(
            f"the phantom of {site} has no such case", f"cases are {_case_id(site, 1)} to {_case_id(site, len(plans))}"
        )
    return _draw(settings, site, number, plans[number - 1].label)


def read_settings(folder: Path) -> PhantomSettings:
    """The settings of the phantom in `folder`.

    Raises:
        StorageError: there is none, or its record cannot be read.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        mixes = tuple(
            SiteMix(mix["site"], tuple(mix["shares"]), tuple(map(tuple, mix.get("splits", ())))) for mix in record["mixes"]
        )
        files, study = tuple(record.get("dicom_sites", DICOM_SITES)), record.get("study", STUDY)
        return PhantomSettings(record["seed"], record["num_cases"], record["image_px"], mixes, files, study)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{folder / RECORD} is not the record of a phantom", "is this a folder that csasn phantom wrote?"
        ) from error


def _already_there(out: Path, settings: PhantomSettings) -> bool:
    """Whether an equal phantom lies at `out`; raises where what lies there must not be overwritten."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    record = out / RECORD
    if not record.is_file():
        raise StorageError(f"{out} exists and holds no phantom", "choose a folder that does not exist yet with --out")
    if record.read_text(encoding="utf-8") == _record(settings):
        return True
    if not settings.replace:
        problem = f"{out} holds a phantom of other settings or another version"
        raise ConfigurationError(problem, "choose another --out, or replace it with --replace")
    sites = [mix.site for mix in read_settings(out).mixes]
    ours = {Path(name) for name in (RECORD, STUDY, CARD, SITES, *sites)}
    ours |= {Path(SITES, f"{site}.yaml") for site in sites}
    ours |= {Path(site, name) for site in sites for name in (MANIFEST, IMAGES, STATE)}
    for path in (*out.glob("*"), *out.glob("*/*")):
        if path.relative_to(out) not in ours:
            raise StorageError(f"{out} also holds {path.name}, which is not the phantom's", "move it away, or choose another --out")
    return False


def _study(settings: PhantomSettings) -> bytes:
    return files("csasn.phantom").joinpath(settings.study).read_bytes()


def _record(settings: PhantomSettings) -> str:
    """Text of all that decides the bytes in the folder."""
    return json.dumps({**settings.bits(), "study_sha256": hashlib.sha256(_study(settings)).hexdigest()}, sort_keys=True) + "\n"


def _write_all(root: Path, settings: PhantomSettings, advance: Callable[[int], None]) -> None:
    (root / SITES).mkdir(parents=True)
    (root / STUDY).write_bytes(_study(settings))
    (root / RECORD).write_text(_record(settings), encoding="utf-8")
    tasks = []
    for mix in settings.mixes:
        site = mix.site
        images = root / site / IMAGES
        images.mkdir(parents=True)
        places = {"manifest": MANIFEST, "images": IMAGES, "state": STATE}
        lines = [f"site: {site}", *(f"{key}: ../{site}/{name}" for key, name in places.items())]
        (root / SITES / f"{site}.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        cases = list(enumerate(case_plans(settings, site), start=1))
        tasks += [_Task(images, settings, site, tuple(cases[i : i + CASES_A_TASK])) for i in range(0, len(cases), CASES_A_TASK)]
    rows: dict[str, list[Row]] = {mix.site: [] for mix in settings.mixes}
    columns = [name for name in COLUMNS if name != "split" or settings.names_splits]
    with closing(_run(tasks, settings.workers)) as results:
        for task, done in zip(tasks, results, strict=True):
            rows[task.site] += done
            advance(len(task.cases))
    for site, site_rows in rows.items():
        with (root / site / MANIFEST).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(site_rows)


def _run(tasks: list[_Task], workers: int) -> Generator[list[Row], None, None]:
    """The rows of each task in order, drawn by `workers` processes; by this one where it would be alone."""
    if workers == 1 or len(tasks) == 1:
        yield from map(_write_cases, tasks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context, initializer=_leave_interrupts_to_the_parent) as pool:
        try:
            yield from pool.map(_write_cases, tasks)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _write_cases(task: _Task) -> list[Row]:
    """Draws and writes a task's pictures, and returns their rows of the manifest."""
    rows = []
    scanner = task.settings.scanner(task.site).name
    for number, (label, split) in task.cases:
        case_id = _case_id(task.site, number)
        for index, view in enumerate(_draw(task.settings, task.site, number, label).views, start=1):
            name = f"{case_id}-{index}"
            if task.site in task.settings.dicom_sites:
                file = f"{name}.dcm"
                write_dicom(task.images / file, view.drawing, seed=task.settings.seed, site=task.site, name=name, scanner=scanner)
            else:
                file = f"{name}.png"
                Image.fromarray(view.drawing.image).save(task.images / file, compress_level=4)
            of_case = {"case_id": case_id, "label": label, "split": split, "scanner": scanner}
            rows.append({**of_case, "image": file, "view": view.view, **view.descriptors})
    return rows


def _draw(settings: PhantomSettings, site: str, number: int, label: str) -> Case:
    scanner, stacks = settings.scanner(site), site in settings.dicom_sites
    return draw_case(settings.seed, site, number, label, scanner=scanner, size_px=settings.image_px, stacks=stacks)


def _case_id(site: str, number: int) -> str:
    return f"{site[-1]}{number:04d}"


def _count(root: Path, site: str) -> SiteCounts:
    """Cases and pictures of each class, from the manifest."""
    with (root / site / MANIFEST).open(encoding="utf-8", newline="") as file:
        rows = [(row["case_id"], row["label"]) for row in csv.DictReader(file)]
    cases = {label: len({case for case, other in rows if other == label}) for label in CLASSES}
    return SiteCounts(site, cases, {label: sum(other == label for _, other in rows) for label in CLASSES})


@contextmanager
def _storage_errors(out: Path) -> Iterator[None]:
    """Turns what the operating system refuses into an error that a person can act on."""
    try:
        yield
    except BrokenProcessPool as error:
        raise CsasnError(
            "a drawing process ended unexpectedly", "memory may be short: try fewer workers or smaller images"
        ) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "free some space, or choose another disk with --out" if full else "check the path and its permissions"
        raise StorageError(f"cannot write the phantom to {out}: {error.strerror}", hint) from error
