"""The Python interface: light to import, the same figures as the commands, flat rows, and SPEC.md's example as it stands."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import csasn
from command_line import run_quietly
from csasn import api
from csasn.errors import ConfigurationError, ModelError
from csasn.finished.prediction import load_classifier
from server.run.outcome import write_outcome, write_report

EXAMPLE = (
    (Path(csasn.__file__).parent / "SPEC.md")
    .read_text()
    .partition("\n## Python\n")[2]
    .partition("```python\n")[2]
    .partition("```")[0]
)


def python(*words, **options):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300, check=False, **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory, write_small_hospitals, local_federation):
    """Hospitals, and a finished run over them."""
    folder = tmp_path_factory.mktemp("api")
    write_small_hospitals(folder / "demo", federation={"rounds": 1})
    federation = local_federation(folder / "demo", folder / "run")
    write_outcome(federation.directory, federation.contract, federation.network, federation.run())
    write_report(federation.directory, "local")
    return folder


def test_importing_csasn_loads_neither_torch_nor_numpy():
    told = python(
        "-c", "import csasn, sys; print(*sorted({'torch', 'numpy', 'pydantic', 'flwr'} & set(sys.modules)), csasn.NOTICE)"
    )
    assert told.stdout.strip() == csasn.NOTICE, told.stderr


def test_the_package_shows_the_interface_and_nothing_else():
    assert (csasn.load, csasn.simulate, csasn.Model, csasn.Run) == (api.load, api.simulate, api.Model, api.Run)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        csasn.lode  # noqa: B018


def test_predictions_are_those_of_the_command_in_flat_rows(run):
    images = run / "demo/centerA/images"
    (images / "notes.txt").write_text("no image")
    found = csasn.load(run / "run").predict(images)
    told = json.loads(run_quietly("csasn", "predict", run / "run", images, "--json").stdout)["predictions"]
    assert len(found) == len(told) > 10
    for one, other in zip(found, told, strict=True):
        assert one.row["image"] == other["image"]
        assert (one.row["decision"], one.row["error"]) == (other.get("decision"), other.get("error"))
        assert {name: one.row[f"p_{name}"] for name in other.get("probabilities", ())} == other.get("probabilities", {})
    assert sum(one.row["error"] is not None for one in found) == 1
    named = csasn.load(run / "run").predict([str(images / "000-0.png")])
    assert [one.row for one in named] == [one.row for one in found if one.path.name == "000-0.png"]
    (images / "notes.txt").unlink()


def test_metrics_are_those_of_the_command_with_a_flat_row_a_class(run):
    model = csasn.load(run / "run")
    told = run_quietly(
        "csasn", "evaluate", run / "run", "--sites", run / "demo/sites", "--site", "centerB", "--split", "train", "--json"
    )
    result = model.evaluate(str(run / "demo/sites"), ["centerB"], "train")
    facts = json.loads(told.stdout)
    assert result.as_json() == {key: value for key, value in facts.items() if key not in ("sites", "split")}
    for row, (name, rates) in zip(result.rows, facts["per_class"].items(), strict=True):
        assert row["class"] == name
        assert all(value is None or isinstance(value, str | int | float) for value in row.values())
        assert {key: row[key] for key in ("recall", "auroc", "support")} == {
            key: rates[key] for key in ("recall", "auroc", "support")
        }
        assert [row["recall_low"], row["recall_high"]] == (rates["recall_ci95"] or [None, None])
    assert len(model.evaluate(run / "demo/sites").rows) == 3


def test_what_predicts_alone_does_not_evaluate(run):
    class Other:
        subtype_logits = None

    model = api.Model(Other(), load_classifier(run / "run")[1].model_copy(update={"format": "onnx"}))
    with pytest.raises(ModelError, match=r"for predicting alone \(format onnx\)"):
        model.evaluate(run / "demo/sites")


def test_where_no_package_simulates_it_says_so(run, monkeypatch):
    monkeypatch.setattr(api, "entry_points", lambda group: ())
    with pytest.raises(ConfigurationError, match=r"entry point 'server' of csasn\.simulations"):
        csasn.simulate(run / "demo/study.yaml")


def test_the_example_of_the_documentation_runs_as_it_stands(run, tmp_path):
    (tmp_path / "demo").symlink_to(run / "demo")
    (tmp_path / "example.py").write_text(EXAMPLE)
    done = python("example.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    report = json.loads((tmp_path / "runs/python/report.json").read_text())
    assert said[0] == f"complete {report['final']['macro_auroc']}"
    assert [line.split()[0] for line in said[1:4]] == ["benign", "PTC", "FTC"]
    assert len(said) == 4 + len(list((run / "demo/centerA/images").iterdir()))
    assert "macro AUROC" in done.stderr
