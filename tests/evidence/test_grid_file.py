"""Grid files: which cells they stand for, and which are refused before anything trains."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from csasn.errors import ConfigurationError
from evidence.real_sites import write_studies
from grid_scene import GRID, SEEDS, STATIC, write_grid
from server.evidence.campaign import Campaign
from server.evidence.cells import cells_of
from server.evidence.grid import read_grid

EVIDENCE = Path(__file__).parent


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"seeds": [1, 1]}, "names a seed twice"),
     ({"variants": {}}, "variants"),
     ({"comparisons": [{"of": "fedprox", "against": "unheard"}]}, "comparisons name unheard"),
     ({"comparisons": [{"of": "fedprox", "against": "pooled", "metrics": ["accuracy"]}]}, "name the measure accuracy"),
     ({"comparisons": [{"of": "fedprox", "against": "pooled", "at_least": {"luck": 0}}]}, "name the measure luck"),
     ({"comparisons": [{"of": "fedprox", "against": "pooled", "cases": "centerZ"}]}, "the cases of centerZ"),
     ({"rare": [], "comparisons": GRID["comparisons"][:1], "variants": GRID["variants"]}, "at_equal_rare_recall without rare"),
     ({"rare": ["MTC"]}, "rare is MTC"),
     ({"comparisons": [{"of": "without_centerB", "against": "fedprox"}]}, "scored on other cases than all"),
     ({"variants": {"fedprox": {"federation.sites": ["centerA", "centerZ"]}}, "comparisons": []}, "centerZ is no site"),
     ({"variants": {"fedprox": {"changes": {"seed": 3}}}, "comparisons": []}, "changes is not a known key"),
     ({"prevalence": {"benign": 1.0}}, "prevalence names benign"),
     ({"variants": {"fedprox": {"model.chanel_attention": False}}, "comparisons": []},
      "variant fedprox: study.yaml: model.chanel_attention is not a known key"),
     ({"variants": {"fedprox": {"central": "centerZ"}}, "comparisons": []}, "centerZ is no site of the study"),
     ({"variants": {"fedprox": {"central": "pooled", "leave_out": "centerA"}}, "comparisons": []}, "central and leave_out"),
     ({"variants": {"fedprox": {}, "x": {"decided_from": "y"}}, "comparisons": []}, "decided_from names y"),
     ({"variants": {"fedprox": {}, "x": {"decided_from": "fedprox", "central": "pooled"}}, "comparisons": []}, "decided_from with"),
     ({"variants": {"fedprox": {}, "x": {"decided_from": "fedprox"} | STATIC, "y": {"decided_from": "x"} | STATIC},
       "comparisons": []}, "decided_from names x"),
     ({"variants": {"fedprox": {}, "x": {"decided_from": "fedprox", "class_weighting.tau": 0.75}}, "comparisons": []},
      "class_weighting dynamic on the decision cannot be decided"),
     ({"changes": {"calibration": "temperature"}, "variants": {"fedprox": {}, "x": {"decided_from": "fedprox"} | STATIC},
      "comparisons": []}, "where the study calibrates"),
     ({"variants": {"fedprox": {}, "x": {"decided_from": "fedprox", "class_weighting.acts_on": "loss"} | STATIC},
       "comparisons": []}, "class_weighting static on the loss cannot be decided"),
     ({"variants": {"fedprox": {}, "x": {"decided_from": "fedprox", "model.vit": False} | STATIC}, "comparisons": []},
      "other changes than of class_weighting"),
     ({"variants": {"../up": {}}, "comparisons": []}, "variants"),
     ({"statistics": ["own", "released"]}, "statistics"),
     ({"unheard": 1}, "unheard is not a known key")],
)  # fmt: skip
def test_a_grid_that_cannot_be_run_is_refused_before_anything_trains(tmp_path, hospitals, changes, says):
    (tmp_path / "hospitals").mkdir()
    shutil.copy(hospitals / "hospitals/study.yaml", tmp_path / "hospitals/study.yaml")
    with pytest.raises(ConfigurationError) as refused:
        checked(write_grid(tmp_path, **changes))
    assert says in refused.value.message


def checked(path):
    grid = read_grid(path)
    cells = cells_of(grid)
    Campaign.of(grid, path.parent / "grid", "grid", cells)
    return cells


def test_cells_go_seed_by_seed_and_differ_in_study_or_in_the_way_to_train(tmp_path, hospitals):
    (tmp_path / "hospitals").mkdir()
    shutil.copy(hospitals / "hospitals/study.yaml", tmp_path / "hospitals/study.yaml")
    cells = checked(write_grid(tmp_path))
    assert [(cell.variant, cell.seed) for cell in cells] == [(name, seed) for seed in SEEDS for name in GRID["variants"]]
    assert len({(cell.study.study_hash, cell.method) for cell in cells}) == len(cells)
    fedprox, diverging, pooled, without = cells[:4]
    assert diverging.study.optimiser.learning_rate == 1e20
    assert pooled.study == fedprox.study
    assert (pooled.trained_on, pooled.scored_on) == (pooled.study.federation.sites,) * 2
    assert "centerB" not in without.study.federation.sites
    assert (without.trained_on, without.scored_on) == ((), ("centerB",))
    assert {cell.statistics for cell in (fedprox, pooled, without)} == {"released"}
    own = [cell.statistics for cell in checked(write_grid(tmp_path, statistics="own"))]
    assert "own" in own
    assert "released" in own  # of what has none of its own


GRIDS = sorted(path.stem for path in EVIDENCE.glob("*.yaml"))
# measured before keys of the federation came and went, which changed every study's hash and no bit of its model; upload_bits when
# class weights acted on the loss. To run again, as the README of the evidence says
OF_OLD = ("benchmark", "modules", "recipe", "upload_bits")


def cells_of_evidence(name, tmp_path):
    packaged = Path(sys.modules["csasn"].__file__).parent / "phantom"
    for folder, study in (("demo", "study.yaml"), ("benchmark", "benchmark.yaml"), ("tuning", "benchmark.yaml")):
        (tmp_path / folder).mkdir()
        shutil.copy(packaged / study, tmp_path / folder / "study.yaml")
    write_studies(tmp_path / "real")
    (tmp_path / "tests/evidence").mkdir(parents=True)
    return checked(Path(shutil.copy(EVIDENCE / f"{name}.yaml", tmp_path / "tests/evidence")))


@pytest.mark.parametrize("name", GRIDS)
def test_the_grids_of_the_evidence_are_possible(name, tmp_path):
    cells = cells_of_evidence(name, tmp_path)
    assert len({(cell.study.study_hash, cell.method) for cell in cells}) == len(cells)


@pytest.mark.parametrize("name", [name for name in GRIDS if (EVIDENCE / name).exists() and name not in OF_OLD])
def test_kept_results_are_of_the_studies_that_the_grids_name_today(name, tmp_path):
    """A default that changes makes another study: what was measured before it says nothing of the study as it is."""
    cells = {(cell.variant, cell.seed): cell for cell in cells_of_evidence(name, tmp_path)}
    for record in json.loads((EVIDENCE / name / "results.json").read_text())["cells"]:
        cell = cells[record["variant"], record["seed"]]
        assert (record["study_hash"], record["method"]) == (cell.study.study_hash, cell.method), cell.name
