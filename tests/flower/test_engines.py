"""Which node is which site on Flower's own runtime, and what is said where it cannot start."""

import subprocess
import sys

import pytest

import server.flower.app
from csasn import wire
from csasn.errors import ProtocolError, QuorumError
from csasn.federated.messages import Absence, Reason
from server.flower.app import ask_places
from server.flower.runtime import FIRST_NODE, LocalGrid


@pytest.fixture
def nodes():
    """nodes(node configuration, ...) -> a grid of real client apps."""
    grids = []

    def start(*configs):
        grids.append(LocalGrid("client.flower.app:app", configs, 1))
        return grids[-1]

    yield start
    for grid in grids:
        grid.close()


def test_a_site_is_the_node_at_its_place_of_the_roster_whatever_the_order_of_nodes(nodes):
    grid = nodes({"partition-id": 2}, {"partition-id": 0}, {"partition-id": 1})
    assert ask_places(grid, ["north", "south", "west"]) == {"north": FIRST_NODE + 1, "south": FIRST_NODE + 2, "west": FIRST_NODE}


def test_a_hospitals_node_has_no_place_and_the_site_is_named(nodes):
    with pytest.raises(QuorumError, match="at the place of south"):
        ask_places(nodes({"partition-id": 0}, {"site-file": "south.yaml"}), ["north", "south"])


@pytest.mark.parametrize("number", [1, 3])
def test_more_or_fewer_nodes_than_sites_is_an_error_that_names_the_option(nodes, monkeypatch, number):
    monkeypatch.setattr(server.flower.app, "NODES_WITHIN_S", 0.1)
    grid = nodes(*({"partition-id": place} for place in range(number)))
    with pytest.raises(QuorumError, match=f"has {number} nodes, expected 2") as error:
        ask_places(grid, ["north", "south"])
    assert "num-supernodes=2" in error.value.hint


def test_a_place_reads_back_and_anything_else_is_refused():
    assert wire.place_from_records(wire.place_to_records(63)) == 63
    for records in (wire.place_to_records(-1), wire.answer_to_records(Absence(Reason.CONTENTS))):
        with pytest.raises(ProtocolError):
            wire.place_from_records(records)


def test_without_ray_the_flower_engine_says_what_to_install_and_writes_nothing(tmp_path, write_small_hospitals):
    write_small_hospitals(tmp_path / "h")
    program = (
        "import sys; sys.modules['ray'] = None; from server.commands.cli import main; main()"  # so that Ray cannot be imported
    )
    command = [sys.executable, "-P", "-c", program, "simulate", "study.yaml", "--out", "run", "--engine", "flower"]
    done = subprocess.run(command, cwd=tmp_path / "h", capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 3
    assert "engine 'flower' needs Ray" in done.stderr
    assert "hint: pip install 'csasn-federated[flower]'" in done.stderr
    assert not (tmp_path / "h/run").exists()
