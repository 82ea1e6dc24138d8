"""The command `csasn`: phantom data, training without a federation, and the use of a model."""

import argparse
import csv
import json
import sys
from importlib.metadata import entry_points
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from csasn.commands.explain import add_explain
from csasn.commands.export import add_export
from csasn.commands.predict import add_predict
from csasn.platform.command import EXIT_CODES, progress_bars, run_command

if TYPE_CHECKING:
    from csasn.site import Site

Parser = argparse.ArgumentParser


def main() -> None:
    """Entry point of the command."""
    arguments = _parser().parse_args()
    sys.exit(run_command(lambda: arguments.command(arguments)))


def _parser() -> Parser:
    parser = Parser(
        prog="csasn",
        description="CSASN for thyroid ultrasound: phantom data, training, use of a model. For research, not for diagnosis.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, about, add in (
        ("phantom", "draw four hospitals' folders of synthetic ultrasound, with a study file", _add_phantom),
        ("train", "train without a federation, on one site's cases or on several sites' together", _add_train),
        ("evaluate", "metrics of a model on the cases of one or more sites", _add_evaluate),
        ("predict", "probabilities of each class for images or folders of images", add_predict),
        ("export", "a model as ONNX for other programs, or its safetensors with their description", add_export),
        ("explain", "pictures of where a model looks: Grad-CAM and attention rollout", add_explain),
        *((entry.name, *entry.load()) for entry in entry_points(group="csasn.commands")),
    ):
        add(commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".", epilog=EXIT_CODES,
                                formatter_class=argparse.RawDescriptionHelpFormatter))  # fmt: skip
    return parser


def _add_phantom(parser: Parser) -> None:
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder to write: study.yaml, sites/, centerA/ ... centerD/, CARD.md"
    )
    parser.add_argument("--cases", type=int, metavar="N", help="cases of each site (default 240)")
    parser.add_argument(
        "--benchmark", action="store_true",
        help="the federation that methods are ranked on: 2,318 cases, carcinomas as rare as in hospitals, splits in the manifests",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same files (default 1)")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes (default: one a core)")
    parser.add_argument("--replace", action="store_true", help="replace a phantom of other settings in DIR")
    parser.add_argument("--contact-sheet", type=Path, metavar="FILE", help="draw a picture (PNG) of every class at every site")
    parser.set_defaults(command=_phantom)


def _add_sites(parser: Parser, default: str) -> None:
    parser.add_argument("--sites", type=Path, metavar="DIR", help=f"folder of <site>.yaml files (default: {default})")
    parser.add_argument("--site", action="append", metavar="NAME", help="a site; repeat for several (default: all of the study)")


def _add_train(parser: Parser) -> None:
    parser.add_argument("study", type=Path, metavar="STUDY", help="study.yaml")
    _add_sites(parser, "sites/ beside STUDY")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for model.safetensors and model.json")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a value of the study")
    parser.set_defaults(command=_train)


def _add_evaluate(parser: Parser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="run directory, or folder with model.safetensors and model.json")
    parser.add_argument("--sites", type=Path, required=True, metavar="DIR", help="folder of <site>.yaml files")
    parser.add_argument("--site", action="append", metavar="NAME", help="a site; repeat for several (default: all of the study)")
    parser.add_argument("--split", choices=("test", "validation", "train"), default="test", help="which cases (default test)")
    parser.add_argument(
        "--cases", type=Path, metavar="FILE", help="also write a CSV of every case: about patients, keep it on site"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(command=_evaluate)


def _phantom(arguments: argparse.Namespace) -> None:
    from csasn.errors import ConfigurationError
    from csasn.phantom.benchmark import phantom_settings
    from csasn.phantom.contact_sheet import draw_contact_sheet
    from csasn.phantom.dataset import write_phantom

    if not (arguments.out or arguments.contact_sheet):
        raise ConfigurationError("phantom has nothing to write", "give --out DIR, --contact-sheet FILE, or both")
    settings = phantom_settings(
        arguments.seed, arguments.cases, benchmark=arguments.benchmark, num_workers=arguments.workers, replace=arguments.replace
    )
    if arguments.out:
        with progress_bars() as bars:
            task = bars.add_task("drawing cases", total=settings.total_cases)
            summary = write_phantom(arguments.out, settings, lambda number: bars.advance(task, number))
        done = "wrote" if summary.written else "found"
        sys.stdout.write(
            f"{done} {summary.num_images} images of {len(summary.sites)} sites; what they are: {arguments.out}/CARD.md\n"
        )
    if arguments.contact_sheet:
        draw_contact_sheet(arguments.contact_sheet, settings.seed)
        sys.stdout.write(f"contact sheet: {arguments.contact_sheet}\n")


def _train(arguments: argparse.Namespace) -> None:
    from csasn.data.cases import load_site_data
    from csasn.finished.weights import save_model
    from csasn.learning.central import federation_steps, pool, train_centrally
    from csasn.model.network import image_size
    from csasn.platform.storage import writable_folder
    from csasn.study import read_study

    study = read_study(arguments.study, tuple(arguments.set))
    sites = _find_sites(arguments.sites or arguments.study.parent / "sites", arguments.site or study.federation.sites)
    folder = writable_folder(arguments.out)
    data = {name: load_site_data(study, site, image_size(study.model)) for name, site in sites.items()}
    steps = federation_steps(study, data)
    with progress_bars() as bars:
        task = bars.add_task("training", total=steps * study.federation.rounds)
        trained = train_centrally(study, pool(data), "+".join(sorted(data)), steps, lambda: bars.advance(task))
    save_model(folder, study, trained.network, trained.round, trained.adjustment_K, "of the training cases")
    auroc = trained.validation[trained.round].macro_auroc
    shown = "unknown" if auroc is None else f"{auroc:.3f}"
    sys.stdout.write(f"model of round {trained.round}, macro AUROC {shown} on its validation cases: {folder}\n")


def _evaluate(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from csasn.finished.prediction import case_table, evaluate_sites
    from csasn.finished.weights import load_model
    from csasn.platform.storage import write_atomically
    from csasn.report.report import final_metrics
    from csasn.report.tables import metrics_tables

    network, info = load_model(arguments.model)
    sites = _find_sites(arguments.sites, arguments.site or info.study.federation.sites)
    final = final_metrics(info.study, evaluate_sites(network, info, sites, arguments.split), info.round)
    if arguments.cases:
        text = StringIO()
        csv.writer(text).writerows(case_table(network, info, sites, arguments.split))
        write_atomically(arguments.cases, text.getvalue().encode(), mode=0o600)
    if arguments.json:
        sys.stdout.write(json.dumps({"sites": list(sites), "split": arguments.split, **final.as_json()}, indent=1) + "\n")
    else:
        Console().print(metrics_tables(final, f"{arguments.split} cases of {', '.join(sites)}"))


def _find_sites(folder: Path, names: list[str] | tuple[str, ...]) -> dict[str, "Site"]:
    from csasn.site import find_site

    return {name: find_site(name, folder=folder) for name in names}
