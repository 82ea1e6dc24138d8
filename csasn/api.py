"""The Python interface: a finished model on images or on sites' cases, and a simulation; `import csasn` shows it.

It does what `csasn predict`, `csasn evaluate` and `server simulate` do, and raises what they report (csasn/errors.py). An example:
csasn/SPEC.md, "Python".
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal

from csasn.errors import ConfigurationError, ModelError
from csasn.finished.description import ModelInfo
from csasn.finished.prediction import ImagePrediction, evaluate_sites, find_images, load_classifier, predict_images
from csasn.finished.weights import Classifier
from csasn.model.network import Csasn
from csasn.report.report import final_metrics
from csasn.report.types import Report, Result
from csasn.site import find_site

Place = str | os.PathLike[str]
SIMULATIONS = "csasn.simulations"  # the group of entry points; the core knows no server


@dataclass(frozen=True)
class Model:
    """A finished model, and what its model.json says of it."""

    classifier: Classifier
    info: ModelInfo

    def predict(self, paths: Place | Iterable[Place]) -> list[ImagePrediction]:
        """A prediction for each image named, and for each file in the folders named; one that cannot be read says why.

        As a table: `pandas.DataFrame(one.row for one in model.predict("images"))`.

        Raises:
            ConfigurationError: a path does not exist, or nothing is found.
        """
        named = [paths] if isinstance(paths, str | os.PathLike) else paths
        return predict_images(self.classifier, self.info, find_images(map(Path, named)))

    def evaluate(self, sites: Place, names: Sequence[str] = (), split: Literal["test", "validation", "train"] = "test") -> Result:
        """Metrics on the cases of a split over sites, `names` or all of the study; `sites` is the folder of <site>.yaml files.

        As a table with a row a class: `pandas.DataFrame(model.evaluate("demo/sites").rows)`.

        Raises:
            ModelError: the model is for predicting alone (ONNX).
            CsasnError: a site file or a site's data cannot be read.
        """
        if not isinstance(self.classifier, Csasn):
            raise ModelError(f"this is a model for predicting alone (format {self.info.format})", "load its run directory")
        found = {name: find_site(name, folder=Path(sites)) for name in names or self.info.study.federation.sites}
        return final_metrics(self.info.study, evaluate_sites(self.classifier, self.info, found, split), self.info.round)


@dataclass(frozen=True)
class Run:
    """A finished run: its directory, as which it may be given to `load`, and its report (csasn/SPEC.md, "report.json")."""

    path: Path
    report: Report

    def __fspath__(self) -> str:
        return str(self.path)


def load(run: Place) -> Model:
    """The finished model of a run directory, or of a folder that `csasn train` or `csasn export` wrote.

    Raises:
        ModelError: a file is missing, changed, or does not fit the others.
        ConfigurationError: it is ONNX, and onnxruntime is not installed.
    """
    return Model(*load_classifier(Path(run)))


def simulate(
    study: Place,
    sites: Place | None = None,
    out: Place | None = None,
    *,
    changes: Iterable[str] = (),
    baselines: bool = False,
    resume: bool = False,
    anew: bool = False,
    quiet: bool = False,
) -> Run:
    """Runs a study over the sites' folders on this machine, as `server simulate` does with the options of the same names.

    `sites` is the folder of <site>.yaml files (default: sites/ beside the study), `out` the run directory (default: runs/<name of
    the study>), each of `changes` a `key=value` of the study. Its progress is on standard error, unless `quiet`. Worker processes
    read the script that calls this once more: there it stands under `if __name__ == "__main__":`.

    Raises:
        Stopped: Ctrl-C; `resume` goes on with the run.
        CsasnError: whatever keeps the run from going on.
    """
    found = {entry.name: entry for entry in entry_points(group=SIMULATIONS)}
    if "server" not in found:
        raise ConfigurationError(f"no package has an entry point 'server' of {SIMULATIONS}", "install csasn-federated again")
    run: Callable[..., tuple[Report, Path]] = found["server"].load()
    study_file = Path(study)
    report, path = run(
        study_file,
        Path(sites) if sites else study_file.parent / "sites",
        Path(out) if out else None,
        changes=tuple(changes),
        baselines=baselines,
        resume=resume,
        anew=anew,
        quiet=quiet,
    )
    return Run(path, report)
