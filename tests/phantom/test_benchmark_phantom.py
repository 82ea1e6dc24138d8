"""The benchmark federation: splits named in the manifests, classes as rare as promised, and as hard as its card says."""

import csv
import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import csasn
from csasn.commands.cli import main
from csasn.data.cases import SPLITS, TEST, load_site_data
from csasn.errors import ConfigurationError
from csasn.phantom.benchmark import phantom_settings
from csasn.phantom.dataset import read_settings, redraw_case, write_phantom
from csasn.phantom.nodule import CLASSES, Nodule, draw_nodule
from csasn.phantom.settings import PhantomSettings, SiteMix, case_plans
from csasn.platform.randomness import generator
from csasn.site import read_site
from csasn.study import read_study

BENCHMARK = phantom_settings(1, None, benchmark=True)
SMALL_MIXES = (
    SiteMix("centerA", splits=((3, 4, 1, 1), (1, 1, 1, 0), (1, 1, 1, 1))),
    SiteMix("centerC", splits=((2, 2, 1, 0), (1, 1, 0, 0), (1, 1, 1, 1))),
)
SMALL = dataclasses.replace(BENCHMARK, image_px=48, mixes=SMALL_MIXES, num_workers=1)
DEFAULT_RECORD = {
    "image_px": 192,
    "mixes": [
        {"shares": [0.48, 0.32, 0.1, 0.1], "site": "centerA"},
        {"shares": [0.32, 0.48, 0.08, 0.12], "site": "centerB"},
        {"shares": [0.56, 0.3, 0.14, 0.0], "site": "centerC"},
        {"shares": [0.42, 0.32, 0.1, 0.16], "site": "centerD"},
    ],
    "num_cases": 240,
    "seed": 1,
    "version": 1,
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmark") / "benchmark"
    return out, write_phantom(out, SMALL)


def plans() -> Counter[tuple[str, str]]:
    """Cases of the whole benchmark by split and class."""
    return Counter((plan.split, plan.label) for mix in BENCHMARK.mixes for plan in case_plans(BENCHMARK, mix.site))


def test_the_record_of_the_default_phantom_is_the_one_it_always_had():
    assert PhantomSettings().bits() == DEFAULT_RECORD
    assert phantom_settings(1, None, benchmark=False) == PhantomSettings()
    assert phantom_settings(3, 24, benchmark=False) == PhantomSettings(3, 24)


def test_every_class_has_three_hundred_test_cases_and_as_many_at_each_site():
    assert [plans()["test", label] for label in CLASSES] == [300] * 4
    for mix in BENCHMARK.mixes:
        assert len(set(mix.splits[TEST])) == 1


def test_carcinomas_are_as_rare_in_training_as_in_hospitals():
    counted = Counter({label: sum(plans()[split, label] for split in SPLITS[:TEST]) for label in CLASSES})
    carcinomas = counted.total() - counted["benign"]
    assert 1050 <= counted.total() <= 1150
    assert 0.85 <= counted["PTC"] / carcinomas <= 0.89
    assert 0.05 <= counted["FTC"] / carcinomas <= 0.10
    assert 0.017 <= counted["MTC"] / carcinomas <= 0.04
    assert all(plans()["validation", label] >= 5 for label in CLASSES)  # or the dynamic weighting leaves a class alone


def test_sites_differ_in_size_and_in_mix():
    trained = [mix.splits[0] for mix in BENCHMARK.mixes]
    sizes = [sum(part) for part in trained]
    shares = [part[CLASSES.index("PTC")] / sum(part) for part in trained]
    assert max(sizes) > 2.5 * min(sizes)
    assert max(shares) - min(shares) > 0.15
    assert [mix.site for mix in BENCHMARK.mixes if mix.splits[0][CLASSES.index("MTC")] == 0] == ["centerC"]


def test_manifests_name_the_splits_and_training_reads_them(small):
    out, summary = small
    study = read_study(out / "study.yaml")
    assert study.name == "thyroid-benchmark"
    for mix, counts in zip(SMALL.mixes, summary.sites, strict=True):
        data = load_site_data(study, read_site(out / "sites" / f"{mix.site}.yaml"), 48)
        for number, cases in enumerate(mix.splits):
            assert np.bincount(data.class_C[data.cases(number)], minlength=4).tolist() == list(cases)
        assert list(counts.cases.values()) == [sum(column) for column in zip(*mix.splits, strict=True)]
        assert {path.suffix for path in (out / mix.site / "images").iterdir()} == {".png"}


def test_the_card_says_what_the_benchmark_cannot_prove_and_counts_by_split(small):
    card = (small[0] / "CARD.md").read_text(encoding="utf-8")
    assert "what it can never prove" in card
    assert "| centerA | train | 3 | 4 | 1 | 1 | 9 |" in card
    assert "FTC and MTC are as rare in training as in practice" in card


def test_the_default_phantom_names_no_split_and_promises_no_ranking(tmp_path):
    write_phantom(tmp_path / "demo", PhantomSettings(num_cases=1, image_px=48, num_workers=1))
    with (tmp_path / "demo/centerC/manifest.csv").open(encoding="utf-8") as file:
        assert "split" not in next(csv.reader(file))
    card = (tmp_path / "demo/CARD.md").read_text(encoding="utf-8")
    assert "FTC and MTC are enriched" in card
    assert "never prove" not in card
    assert "by split" not in card


def test_the_record_gives_the_settings_back_and_a_case_is_redrawn_from_it(small):
    out, _ = small
    settings = read_settings(out)
    assert settings == SMALL
    assert json.loads((out / "phantom.json").read_text())["study"] == "benchmark.yaml"
    assert case_plans(settings, "centerA") == case_plans(SMALL, "centerA")
    assert redraw_case(settings, "centerC", "C0001").views[0].drawing.mask.shape == (48, 48)
    assert not write_phantom(out, SMALL).written


def test_a_demo_phantom_is_not_overwritten_by_a_benchmark(tmp_path):
    write_phantom(tmp_path / "demo", PhantomSettings(num_cases=1, image_px=48, num_workers=1))
    with pytest.raises(ConfigurationError, match="other settings"):
        write_phantom(tmp_path / "demo", SMALL)


def test_the_study_of_the_benchmark_fits_its_sites():
    study = read_study(Path(csasn.__file__).parent / "phantom/benchmark.yaml")
    assert study.federation.sites == tuple(mix.site for mix in BENCHMARK.mixes)
    assert (study.classes, study.model.profile) == (CLASSES, "csasn-lite")


@pytest.mark.parametrize(
    "mix",
    [
        SiteMix("centerA"),
        SiteMix("centerA", splits=((1, 1, 1, 1), (1, 1, 1, 1))),
        SiteMix("centerA", splits=((1, 1, 1), (1, 1, 1), (1, 1, 1))),
        SiteMix("centerA", splits=((0,) * 4,) * 3),
        SiteMix("centerA", splits=((1, 1, 1, -1),) * 3),
        SiteMix("centerA", (0.25,) * 4, splits=((1, 1, 1, 1),) * 3),
    ],
    ids=["nothing", "two splits", "three classes", "no case", "negative", "shares too"],
)
def test_impossible_splits_are_refused(mix):
    with pytest.raises(ConfigurationError, match="centerA"):
        dataclasses.replace(BENCHMARK, mixes=(mix,))


def test_the_command_refuses_a_number_of_cases_for_the_benchmark(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["csasn", "phantom", "--benchmark", "--cases", "5", "--out", str(tmp_path / "b")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == ConfigurationError.exit_code
    assert "expected none with --benchmark" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_no_picture_can_make_it_too_easy_to_rank_methods():
    """An observer who knows the attributes, and how often each class has them, is the best that any picture could make."""
    rng, edges = generator(1, "observer"), np.array([0.7, 1.0, 1.4, 1.9, 2.5, 3.2])

    def attributes(nodule: Nodule) -> tuple[object, ...]:
        words = (nodule.composition, nodule.echogenicity, nodule.shape, nodule.margin, nodule.foci, nodule.halo)
        return (*words, int(np.searchsorted(edges, nodule.size_cm)))

    known = [Counter(attributes(draw_nodule(rng, label)) for _ in range(12000)) for label in CLASSES]
    seen = [(number, attributes(draw_nodule(rng, label))) for number, label in enumerate(CLASSES) for _ in range(1500)]
    likelihood_NK = np.array([[counts[what] + 0.05 for counts in known] for _, what in seen])
    share_NK = likelihood_NK / likelihood_NK.sum(axis=1, keepdims=True)
    truth_N = np.array([number for number, _ in seen])
    auroc = {label: roc_auc_score(truth_N == index, share_NK[:, index]) for index, label in enumerate(CLASSES)}
    assert 0.88 < auroc["FTC"] < 0.95, auroc
    assert 0.80 < auroc["MTC"] < 0.90, auroc
