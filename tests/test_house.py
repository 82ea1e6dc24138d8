"""The house: what is tested is the built wheel, imports point one way, Flower stays in its files."""

import ast
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import client
import csasn
import server

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for room in ("csasn", "server", "client") for path in (ROOT / room).rglob("*.py"))
FLOWER = {
    "csasn/wire/__init__.py",
    "csasn/wire/answers.py",
    "csasn/wire/payload.py",
    "csasn/wire/requests.py",
    "csasn/wire/values.py",
    "server/flower/app.py",
    "client/flower/app.py",
    "server/simulation/simulate.py",
    "server/flower/runtime.py",
    "client/flower/runtime.py",
    "server/flower/superlink.py",
    "server/front/fleet_guard.py",
}
PRIVATE = {"server/flower/runtime.py", "server/flower/superlink.py", "server/front/fleet_guard.py", "client/flower/runtime.py"}
PUBLIC_FLOWER = {"flwr.app", "flwr.serverapp", "flwr.serverapp.strategy", "flwr.clientapp"}
PURE = (
    "csasn/federated",
    "csasn/federated/weighting.py",
    "csasn/measures/counts.py",
    "csasn/data/survey_tables.py",
    "csasn/measures/curves.py",
    "csasn/measures/intervals.py",
    "csasn/study.py",
    "csasn/site.py",
    "csasn/errors.py",
)
LAYERS = (
    {"errors", "plain_text", "labels"},
    {
        "configuration",
        "yaml_text",
        "study",
        "site",
        "randomness",
        "storage",
        "command",
        "identity",
        "pseudonyms",
        "request_signature",
        "encrypted_key",
        "certificates",
        "backup",
        "supervision",
        "heap",
        "health",
    },
    {"model", "loss", "weighting", "data", "metrics", "histograms", "intervals", "statistics", "federated", "membership"}
    | {"enrolment", "facts", "survey"},
    {
        "training",
        "evaluation",
        "normalisation",
        "contract",
        "central",
        "checkpoint",
        "model_description",
        "model_file",
        "onnx_model",
        "prediction",
        "feature_cache",
        "saliency",
    },
    {"wire", "report", "privacy"},
    {"cli", "ablation", "explain_command", "export_command", "predict_command"},
)


def imports(path):
    """Modules that a file imports when it runs; those for type checking alone do not count."""
    tree = ast.parse(path.read_text())
    typing_only = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
                   for inner in ast.walk(node)}  # fmt: skip
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("module", [csasn, server, client])
def test_the_tests_run_on_the_installed_wheel(module):
    assert Path(module.__file__).is_relative_to(Path(sys.prefix))
    assert "site-packages" in Path(module.__file__).parts


def test_the_wheel_brings_its_three_commands_and_its_files():
    scripts = {
        script.name: script.value
        for script in entry_points(group="console_scripts")
        if script.name in ("csasn", "server", "client")
    }
    assert scripts == {
        "csasn": "csasn.commands.cli:main",
        "server": "server.commands.cli:main",
        "client": "client.commands.cli:main",
    }
    installed = Path(csasn.__file__).parent
    assert (installed / "SPEC.md").read_text().startswith("#")
    assert (installed / "py.typed").exists()
    assert (installed / "data/phantom/study.yaml").exists()
    assert (installed / "data/phantom/benchmark.yaml").exists()


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_imports_point_one_way(path):
    room = path.relative_to(ROOT).parts[0]
    wrong = {"csasn": ("server", "client"), "server": ("client",), "client": ("server",)}[room]
    assert not [module for module in imports(path) if module.split(".")[0] in wrong]


@pytest.mark.parametrize("path", [path for path in SOURCES if name(path).startswith("csasn/")], ids=name)
def test_the_core_imports_only_from_its_own_layer_or_below(path):
    parts = path.relative_to(ROOT / "csasn").with_suffix("").parts
    layer = next((number for number, rooms in enumerate(LAYERS) if parts[0] in rooms), None)
    if parts == ("__init__",):
        return
    assert layer is not None, f"csasn/{parts[0]} has no layer: give it one"
    above = set().union(*LAYERS[layer + 1 :]) if layer + 1 < len(LAYERS) else set()
    assert not [module for module in imports(path) if module.startswith("csasn.") and module.split(".")[1] in above]


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_flower_stays_in_its_files_and_its_private_names_in_one(path):
    used = {module for module in imports(path) if module.split(".")[0] == "flwr"}
    if name(path) not in FLOWER:
        assert not used
    elif name(path) not in PRIVATE:
        assert used <= PUBLIC_FLOWER


@pytest.mark.parametrize("path", [path for path in SOURCES if name(path).startswith(PURE)], ids=name)
def test_the_protocol_is_free_of_torch(path):
    assert not [module for module in imports(path) if module.split(".")[0] in ("torch", "timm")]


def test_the_rounds_know_neither_flower_nor_modes():
    text = (ROOT / "server/run/rounds.py").read_text()
    assert "flwr" not in text
    assert "secure" not in text


def test_no_module_reads_the_environment_inside_the_core():
    for path in SOURCES:
        if name(path).startswith("csasn/"):
            assert "os.environ" not in path.read_text(), name(path)
