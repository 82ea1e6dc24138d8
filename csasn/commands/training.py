"""`csasn phantom`, `csasn train`, `csasn evaluate`: synthetic hospitals, and training without a federation."""

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from csasn.errors import ConfigurationError
from csasn.platform.terminal import argument, console, option, progress_bars, say, say_json

if TYPE_CHECKING:
    from csasn.site import Site

SiteNames = Annotated[list[str] | None, option("--site NAME", "a site; repeat for several (default: all of the study)")]


def phantom(
    out: Annotated[Path | None, option("--out DIR", "folder to write: study.yaml, sites/, centerA/ ... centerD/, CARD.md")] = None,
    cases: Annotated[int | None, option("--cases N", "cases of each site (default 240)")] = None,
    benchmark: Annotated[
        bool,
        option(
            "--benchmark",
            "the federation that methods are ranked on: 2,318 cases, carcinomas as rare as in hospitals, splits in the manifests",
        ),
    ] = False,
    seed: Annotated[int, option("--seed SEED", "the same seed gives the same files (default 1)")] = 1,
    workers: Annotated[int, option("--workers N", "processes (default: one a core)")] = 0,
    replace: Annotated[bool, option("--replace", "replace a phantom of other settings in DIR")] = False,
    contact_sheet: Annotated[
        Path | None, option("--contact-sheet FILE", "draw a picture (PNG) of every class at every site")
    ] = None,
) -> None:
    """Draw four hospitals' folders of synthetic ultrasound, with a study file."""
    from csasn.phantom.benchmark import phantom_settings
    from csasn.phantom.contact_sheet import draw_contact_sheet
    from csasn.phantom.dataset import write_phantom

    if not (out or contact_sheet):
        raise ConfigurationError("phantom has nothing to write", "give --out DIR, --contact-sheet FILE, or both")
    settings = phantom_settings(seed, cases, benchmark=benchmark, num_workers=workers, replace=replace)
    if out:
        with progress_bars() as bars:
            task = bars.add_task("drawing cases", total=settings.total_cases)
            summary = write_phantom(out, settings, lambda number: bars.advance(task, number))
        done = "wrote" if summary.written else "found"
        say(f"{done} {summary.num_images} images of {len(summary.sites)} sites; what they are: {out}/CARD.md")
    if contact_sheet:
        draw_contact_sheet(contact_sheet, settings.seed)
        say(f"contact sheet: {contact_sheet}")


def train(
    study: Annotated[Path, argument("STUDY", "study.yaml")],
    out: Annotated[Path, option("--out DIR", "folder for model.safetensors and model.json")],
    sites: Annotated[Path | None, option("--sites DIR", "folder of <site>.yaml files (default: sites/ beside STUDY)")] = None,
    site: SiteNames = None,
    changes: Annotated[list[str] | None, option("--set KEY=VALUE", "change a value of the study")] = None,
) -> None:
    """Train without a federation, on one site's cases or on several sites' together."""
    from csasn.data.cases import load_site_data
    from csasn.finished.weights import save_model
    from csasn.learning.central import federation_steps, pool, train_centrally
    from csasn.model.packages import random_warnings
    from csasn.model.profiles import image_size
    from csasn.model.settling import settle
    from csasn.platform.storage import writable_folder
    from csasn.study import read_study

    wanted = settle(read_study(study, tuple(changes or ())))
    say(*random_warnings(wanted))
    found = _find_sites(sites or study.parent / "sites", site or wanted.federation.sites)
    folder = writable_folder(out)
    data = {name: load_site_data(wanted, one, image_size(wanted.model)) for name, one in found.items()}
    steps = federation_steps(wanted, data)
    with progress_bars() as bars:
        task = bars.add_task("training", total=steps * wanted.federation.rounds)
        trained = train_centrally(wanted, pool(data), "+".join(sorted(data)), steps, lambda: bars.advance(task))
    statistics = "of the training cases"
    save_model(folder, wanted, trained.network, trained.round, trained.adjustment_K, statistics, temperature=trained.temperature)
    auroc = trained.validation[trained.round].macro_auroc
    shown = "unknown" if auroc is None else f"{auroc:.3f}"
    say(f"model of round {trained.round}, macro AUROC {shown} on its validation cases: {folder}")


def evaluate(
    model: Annotated[Path, argument("MODEL", "run directory, or folder with model.safetensors and model.json")],
    sites: Annotated[Path, option("--sites DIR", "folder of <site>.yaml files")],
    site: SiteNames = None,
    split: Annotated[Literal["test", "validation", "train"], option("--split", "which cases (default test)")] = "test",
    cases: Annotated[Path | None, option("--cases FILE", "also write a CSV of every case: about patients, keep it on site")] = None,
    json: Annotated[bool, option("--json", "print JSON instead of a table")] = False,
) -> None:
    """Metrics of a model on the cases of one or more sites."""
    from csasn.finished.prediction import case_table, evaluate_sites
    from csasn.finished.weights import load_model
    from csasn.platform.storage import write_atomically
    from csasn.report.report import final_metrics
    from csasn.report.tables import metrics_tables

    network, info = load_model(model)
    found = _find_sites(sites, site or info.study.federation.sites)
    final = final_metrics(info.study, evaluate_sites(network, info, found, split), info.round)
    if cases:
        text = StringIO()
        csv.writer(text).writerows(case_table(network, info, found, split))
        write_atomically(cases, text.getvalue().encode(), mode=0o600)
    if json:
        say_json({"sites": list(found), "split": split, **final.as_json()})
    else:
        console().print(metrics_tables(final, f"{split} cases of {', '.join(found)}"))


def _find_sites(folder: Path, names: Sequence[str]) -> dict[str, "Site"]:
    from csasn.site import find_site

    return {name: find_site(name, folder=folder) for name in names}
