"""The house: what is tested is the built wheel, imports point one way, Flower stays in its files."""

import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import client
import csasn
import house
import server
from house import ROOT

SOURCES = house.sources()
LONGEST_FILE, LONGEST_FUNCTION = 350, 50
FLOWER = {
    "csasn/wire/__init__.py",
    "csasn/wire/answers.py",
    "csasn/wire/loopback.py",
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
PRIVATE = {
    "csasn/wire/loopback.py",
    "server/flower/runtime.py",
    "server/flower/superlink.py",
    "server/front/fleet_guard.py",
    "client/flower/runtime.py",
}
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


def name(path):
    return str(path.relative_to(ROOT))


def running(path):
    """Modules that a file imports when it runs; those for type checking alone do not count."""
    return [one.module for one in house.imports(path) if one.running]


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
    assert (installed / "phantom/study.yaml").exists()
    assert (installed / "phantom/benchmark.yaml").exists()
    assert (installed / "phantom/card.md").exists()
    assert (installed / "report/templates/live.js").exists()
    assert (installed.parent / "server/page/templates/page.html").exists()
    assert (installed.parent / "client/page/templates/site_page.html").exists()


def test_every_room_is_on_a_floor_and_imports_from_those_below_alone():
    assert set(house.room_arrows()) == set(house.FLOORS)
    assert house.upward() == []


def test_core_server_and_client_go_their_own_ways():
    """The core knows neither; server and client do not know each other: the simulation names the client's app, and imports none."""
    tops = {(room.split("/")[0], other.split("/")[0]) for room, used in house.room_arrows().items() for other in used}
    assert {pair for pair in tops if pair[0] != pair[1]} == {("server", "csasn"), ("client", "csasn")}


def test_no_room_and_no_file_is_in_a_circle():
    assert house.circles(house.room_arrows()) == []
    assert house.circles(house.file_arrows()) == []


def test_the_circles_that_it_looks_for_are_found():
    assert house.circles({"a": ["b"], "b": ["c"], "c": ["a", "d"], "d": []}) == [["a", "b", "c"]]


def test_the_map_is_that_of_the_code():
    assert house.map_in(house.MAP.read_text()) == house.draw_map(), "make map"


def test_no_file_and_no_function_is_long():
    assert not [name(path) for path in SOURCES if house.lines_of(path) > LONGEST_FILE]
    assert not [(name(path), what) for path in SOURCES for what, length in house.functions(path) if length > LONGEST_FUNCTION]


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_flower_stays_in_its_files_and_its_private_names_in_one(path):
    used = {module for module in running(path) if module.split(".")[0] == "flwr"}
    if name(path) not in FLOWER:
        assert not used
    elif name(path) not in PRIVATE:
        assert used <= PUBLIC_FLOWER


@pytest.mark.parametrize("path", [path for path in SOURCES if name(path).startswith(PURE)], ids=name)
def test_the_protocol_is_free_of_torch(path):
    assert not [module for module in running(path) if module.split(".")[0] in ("torch", "timm")]


def test_the_rounds_know_neither_flower_nor_modes():
    text = (ROOT / "server/run/rounds.py").read_text()
    assert "flwr" not in text
    assert "secure" not in text


def test_no_module_reads_the_environment_inside_the_core():
    for path in SOURCES:
        if name(path).startswith("csasn/"):
            assert "os.environ" not in path.read_text(), name(path)
