"""Study and site files: every fault names file, key, value and what was expected."""

from pathlib import Path

import pytest
import yaml

from csasn.configuration import MAX_FILE_BYTES, read_yaml
from csasn.errors import ConfigurationError
from csasn.site import find_site, read_site
from csasn.study import Study, read_study

STUDY = {
    "name": "small",
    "classes": ["benign", "PTC"],
    "malignant": ["PTC"],
    "federation": {"sites": ["centerA", "centerB"], "rounds": 3},
}


def written(tmp_path, **changes):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | changes))
    return path


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"colour": "red"}, r"study\.yaml: colour is not a known key"),
        ({"federation": {"sites": ["a"], "mu": 1}}, r"federation\.mu is not a known key"),
        ({"federation": {"sites": ["a", "b"], "min_sites": 3}}, r"min_sites 3 is above the number of sites 2"),
        ({"federation": {"sites": ["a", "a"]}}, r"names a site twice"),
        ({"federation": {"sites": []}}, r"federation\.sites"),
        ({"federation": {"sites": ["a"], "rounds": "many"}}, r"federation\.rounds is 'many': input should be a valid integer"),
        ({"federation": {"sites": ["a"], "rounds": 0}}, r"federation\.rounds is 0: input should be greater than or equal to 1"),
        ({"federation": {"sites": ["a"], "rounds": 2.5}}, r"federation\.rounds is 2\.5"),
        ({"federation": {"sites": ["../a"]}}, r"federation\.sites\.0"),
        ({"federation": {"sites": ["a"], "upload_bits": 12}}, r"federation\.upload_bits is 12: input should be 8, 16 or 32"),
        ({"federation": {"sites": ["a"], "secure_aggregation": True}}, r"secure_aggregation true is not available in this version"),
        ({"classes": ["benign"]}, r"classes is \['benign'\]"),
        ({"classes": ["benign", "benign"]}, r"names a class twice"),
        ({"malignant": ["FTC"]}, r"malignant \['FTC'\] is not among classes"),
        ({"tasks": {"malignancy": {}}}, r"tasks has no subtype"),
        ({"tasks": {"subtype": {"values": ["a", "b"]}}}, r"task subtype takes its values from classes"),
        ({"tasks": {"subtype": {}, "shape": {}}}, r"task shape has values \[\], expected two or more"),
        ({"tasks": {"subtype": {}, "view": {"values": ["a", "b"]}}}, r"task view has the name of a manifest column"),
        ({"tasks": {"subtype": {}, "malignancy": {}}, "malignant": []}, r"task malignancy needs malignant and benign classes"),
        ({"model": {"efficientnet": False, "vit": False}}, r"the model has no branch left"),
        ({"model": {"initial_weights": {"vit": {"source": "file"}}}}, r"source file needs path and sha256"),
        ({"optimiser": {"learning_rate": -1.0}}, r"optimiser\.learning_rate is -1\.0: input should be greater than 0"),
        ({"optimiser": {"learning_rate": float("nan")}}, r"optimiser\.learning_rate"),
        ({"seed": True}, r"seed is True"),
    ],
)
def test_a_fault_names_key_value_and_expectation(tmp_path, changes, says):
    with pytest.raises(ConfigurationError, match=says) as caught:
        read_study(written(tmp_path, **changes))
    assert caught.value.hint
    assert "study.yaml" in caught.value.message


def test_all_faults_are_listed_at_once(tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        read_study(written(tmp_path, colour="red", seed=-1))
    assert "colour" in caught.value.message
    assert "seed is -1" in caught.value.message


def test_the_hash_depends_on_values_and_not_on_formatting(tmp_path):
    plain = read_study(written(tmp_path))
    other = tmp_path / "other.yaml"
    other.write_text("# a comment\n" + yaml.safe_dump(dict(reversed(STUDY.items())), default_flow_style=True))
    assert read_study(other).study_hash == plain.study_hash
    assert read_study(written(tmp_path, seed=2)).study_hash != plain.study_hash


def test_a_default_written_out_gives_the_same_hash(tmp_path):
    plain = read_study(written(tmp_path))
    assert read_study(written(tmp_path, class_weighting={"mode": "dynamic"}, seed=1)).study_hash == plain.study_hash


def test_set_changes_a_value_and_the_hash(tmp_path):
    path = written(tmp_path)
    changed = read_study(path, ("federation.rounds=7", "class_weighting.mode=none"))
    assert (changed.federation.rounds, changed.class_weighting.mode) == (7, "none")
    assert changed.study_hash != read_study(path).study_hash


@pytest.mark.parametrize("rate", ["1e-4", "1E-4", "0.0001", "1.0e-04"])
def test_a_number_may_be_written_with_an_exponent(tmp_path, rate):
    path = written(tmp_path)
    assert read_study(path, (f"optimiser.learning_rate={rate}",)).optimiser.learning_rate == 1e-4
    path.write_text(path.read_text() + f"optimiser: {{learning_rate: {rate}}}\n")
    assert read_study(path).optimiser.learning_rate == 1e-4


@pytest.mark.parametrize("change", ["rounds", "=3", "name.first=3", "federation.rounds=[", "federation.turns=3"])
def test_a_set_that_cannot_be_is_refused(tmp_path, change):
    with pytest.raises(ConfigurationError):
        read_study(written(tmp_path), (change,))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"name: a\nname: b\n", "key 'name' is repeated"),
        (b"a: [", "not valid YAML at line"),
        (b"- a\n- b\n", "holds list, expected keys and values"),
        (b"", "holds NoneType"),
        (b"\xff\xfe\x00", "not"),
        (b"a: !!timestamp x\n", "aliases and tags are not used"),
        (b"name: &a [*a]\n", "aliases and tags are not used"),
        (b"a: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
        (b"a: " + b"[" * 5000, "not"),
        (b"x" * (MAX_FILE_BYTES + 1), "larger than"),
    ],
)
def test_a_file_that_is_no_yaml_of_ours_is_refused(tmp_path, text, says):
    path = tmp_path / "study.yaml"
    path.write_bytes(text)
    with pytest.raises(ConfigurationError, match=says):
        read_yaml(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"cannot read .*study\.yaml: No such file"):
        read_study(tmp_path / "study.yaml")


def test_a_study_cannot_be_changed_after_it_was_read(tmp_path):
    study = read_study(written(tmp_path))
    with pytest.raises(ValueError, match="frozen"):
        study.seed = 5


def site_file(folder, name="centerA", **changes):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"site": name, "manifest": "m.csv", "images": "../images", "state": "state"} | changes))
    return path


def test_paths_of_a_site_are_relative_to_its_file(tmp_path):
    site = read_site(site_file(tmp_path / "sites"))
    assert Path(site.manifest) == tmp_path / "sites" / "m.csv"
    assert Path(site.images) == tmp_path / "images"


def test_a_site_file_is_looked_for_where_the_help_says(tmp_path):
    site_file(tmp_path / "sites")
    assert find_site("centerA", folder=tmp_path / "sites").site == "centerA"
    assert find_site("centerA", config=site_file(tmp_path / "elsewhere")).site == "centerA"
    with pytest.raises(ConfigurationError, match=r"looked for .*centerB\.yaml and /etc/csasn/centerB\.yaml"):
        find_site("centerB", folder=tmp_path / "sites")


def test_another_sites_file_is_refused(tmp_path):
    site_file(tmp_path / "sites", "centerA").rename(tmp_path / "sites" / "centerB.yaml")
    with pytest.raises(ConfigurationError, match=r"centerB\.yaml: site is 'centerA', expected 'centerB'"):
        find_site("centerB", folder=tmp_path / "sites")


def test_an_unknown_key_of_a_site_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"centerA\.yaml: gpu is not a known key"):
        read_site(site_file(tmp_path / "sites", gpu=1))


def test_every_number_of_classes_is_a_study():
    for number in (2, 3, 10, 100):
        study = Study.model_validate_json(
            '{"name": "x", "classes": [' + ",".join(f'"c{k}"' for k in range(number)) + '], "federation": {"sites": ["a"]}}'
        )
        assert len(study.classes) == number
