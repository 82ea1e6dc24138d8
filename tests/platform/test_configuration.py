"""Study and site files: every fault names file, key, value and what was expected."""

import csv
import hashlib
import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from csasn.data.manifest import read_manifest
from csasn.errors import ConfigurationError, DataError
from csasn.federated.quantise import WEIGHT_UNITS
from csasn.platform.configuration import MAX_FILE_BYTES, read_yaml, write_yaml
from csasn.site import find_site, read_site
from csasn.study import Augmentation, Federation, Label, Name, Optimiser, Study, Task, read_study
from csasn.trust.membership import Member, Membership
from server.run.run_directory import RunDirectory

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
        ({"federation": {"sites": ["a"], "rounds": "many"}}, r"federation\.rounds is 'many': expected a whole number"),
        ({"federation": {"sites": ["a"], "rounds": 0}}, r"federation\.rounds is 0: expected 1 or more"),
        ({"federation": {"sites": ["a"], "rounds": 2.5}}, r"federation\.rounds is 2\.5"),
        ({"federation": {"sites": ["../a"]}}, r"federation\.sites\.0"),
        ({"federation": {"sites": ["a"], "upload_bits": 12}}, r"federation\.upload_bits is 12: expected 8, 16 or 32"),
        ({"federation": {"sites": ["a"], "secure_aggregation": True}}, r"secure_aggregation true with 1 sites, expected 3 to 16"),
        ({"federation": {"sites": [f"s{k}" for k in range(17)]}}, r"secure_aggregation true with 17 sites, expected 3 to 16; say"),
        ({"federation": {"sites": list("abcd"), "min_sites": 3}}, r"min_sites 3 and max_partial_rounds 0\.0 with secure"),
        (
            {"federation": {"sites": list("abcd"), "max_partial_rounds": 0.1}},
            r"min_sites 4 and max_partial_rounds 0\.1 with secure_aggregation, expected 4 and 0: a sum over fewer sites",
        ),
        ({"federation": {"sites": list("abc"), "min_sites": 4}}, r"min_sites 4 is above the number of sites 3"),
        ({"federation": {"sites": list("abc"), "loss_guard": 1.0}}, r"federation\.loss_guard is 1\.0: expected more than 1"),
        ({"federation": {"sites": list("abc"), "upload_bits": 32}}, r"upload_bits 32 is for comparisons, expected 16 or 8"),
        ({"federation": {"sites": list("abc"), "on_loss": "reveal"}}, r"on_loss reveal shows counts of fewer than all sites"),
        (
            {"federation": {"sites": ["a"], "server_rule": "fedadam", "server_options": {"beta1": 1, "beta3": 0.5}}},
            r"study\.yaml: federation\.server_options\.beta1 is 1\.0: expected less than 1.*beta3 is not a known key",
        ),
        (
            {"federation": {"sites": ["a"], "server_options": {"momentum": 0.5}}},
            r"study\.yaml: federation\.server_options\.momentum is not a known key \(line [0-9]+\)$",  # and nothing that follows
        ),
        (
            {"federation": {"sites": ["a"], "local_options": {"nu": 0.5}}},
            r"study\.yaml: federation\.local_options\.nu is not a known key",
        ),
        (
            {"federation": {"sites": ["a"], "local_options": {"proximal_mu": 0.5}}},
            r"federation\.local_options holds proximal_mu, which the federation has as a key of its own: write it there",
        ),
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
        ({"optimiser": {"learning_rate": -1.0}}, r"optimiser\.learning_rate is -1\.0: expected more than 0"),
        ({"optimiser": {"learning_rate": float("nan")}}, r"optimiser\.learning_rate"),
        ({"seed": True}, r"seed is True"),
    ],
)
def test_a_fault_names_key_value_and_expectation(tmp_path, changes, says):
    with pytest.raises(ConfigurationError, match=says) as caught:
        read_study(written(tmp_path, **changes))
    assert caught.value.hint
    assert "study.yaml" in caught.value.message


@pytest.mark.parametrize(
    ("sites", "secure"), [(["a", "b"], None), (["a", "b", "c"], None), (["a", "b", "c"], False), (["a", "b", "c", "d"], True)]
)
def test_where_sums_are_masked_every_site_is_in_every_round_unless_the_study_says_plain(tmp_path, sites, secure):
    more = {} if secure is None else {"secure_aggregation": secure}
    federation = read_study(written(tmp_path, federation={"sites": sites} | more)).federation
    masked = len(sites) > 2 if secure is None else secure
    assert federation.secure_aggregation == masked
    assert (federation.min_sites, federation.max_partial_rounds) == ((len(sites), 0) if masked else (1, 0.1))
    said = {"min_sites": federation.min_sites, "max_partial_rounds": federation.max_partial_rounds}
    again = read_study(written(tmp_path, federation={"sites": sites} | more | said))
    assert again.federation == federation


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


def test_a_study_that_says_nothing_about_itself_has_the_hash_that_it_had_before_there_was_a_word_for_it(tmp_path):
    plain = read_study(written(tmp_path))
    every_other = plain.model_dump(mode="json")
    assert "about" not in every_other
    text = json.dumps(every_other, sort_keys=True, separators=(",", ":"))
    assert plain.study_hash == hashlib.sha256(text.encode()).hexdigest()
    about = read_study(written(tmp_path, about={"organ": "thyroid", "intended_use": "research; on phantoms, at first"}))
    assert about.study_hash != plain.study_hash
    assert about.about.intended_use == "research; on phantoms, at first"
    path = tmp_path / "again.yaml"
    path.write_text(write_yaml(about), encoding="utf-8")
    assert read_study(path) == about


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({"organ": ""}, "about.organ"),
        ({"organ": "thyroid\nand more"}, "a character that is not seen"),
        ({"intended_use": "=1+1"}, "begins as a formula"),
        ({"diagnosis": "yes"}, "diagnosis is not a known key"),
    ],
)
def test_what_a_study_says_about_itself_is_plain_text_under_known_keys(tmp_path, about, says):
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        read_study(written(tmp_path, about=about))


def valid(kind, text):
    try:
        return TypeAdapter(kind).validate_python(text) == text
    except ValidationError:
        return False


TRICKY = st.sampled_from(
    ["1e5", "12e03", "yes", "null", "0x1F", "1_0", "12:30", "2026-01-01", "a: b", "a #b", "~", "<<", "=", "\u200c"]
)
LABELS = st.one_of(TRICKY, st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)).filter(lambda text: valid(Label, text))
NAMES = st.one_of(TRICKY, st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True)).filter(lambda text: valid(Name, text))
STUDIES = st.builds(
    Study,
    name=NAMES,
    classes=st.lists(LABELS, min_size=2, max_size=5, unique=True).map(tuple),
    tasks=st.builds(
        lambda weight, values: {"subtype": Task(weight=weight), "halo": Task(values=tuple(values))},
        st.floats(1e-300, 1e300),
        st.lists(LABELS, min_size=2, max_size=4, unique=True),
    ),
    federation=st.builds(
        lambda sites, mu: Federation(sites=tuple(sites), proximal_mu=mu),
        st.lists(NAMES, min_size=1, max_size=4, unique=True),
        st.floats(0, 1e300),
    ),
    optimiser=st.builds(Optimiser, learning_rate=st.floats(1e-300, 1e300)),
    augmentation=st.builds(Augmentation, flip=st.booleans(), shift=st.floats(0, 0.5)),
    seed=st.integers(0, 2**31 - 1),
)
ANYWHERE = settings(suppress_health_check=list(HealthCheck), deadline=None, max_examples=60)


@ANYWHERE
@given(study=STUDIES)
def test_a_study_written_and_read_again_is_the_same(tmp_path, study):
    path = tmp_path / "study.yaml"
    path.write_text(write_yaml(study), encoding="utf-8")
    assert read_study(path) == study
    assert read_study(path).study_hash == study.study_hash


def test_a_run_of_a_study_with_names_that_look_like_numbers_can_be_opened_again(tmp_path):
    study = Study(name="1e5", classes=("2e0", "PTC"), federation=Federation(sites=("12e03",)))
    membership = Membership(study_hash=study.study_hash, members=(Member(site="12e03", weight_units=WEIGHT_UNITS),))
    RunDirectory.create(tmp_path / "run", study, membership)
    assert read_study(tmp_path / "run" / "study.yaml") == study


@ANYWHERE
@given(study=STUDIES)
def test_every_label_of_a_study_can_be_written_in_a_manifest(tmp_path, study):
    with (tmp_path / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [("case_id", "image", "label"), *((label, f"{n}.png", label) for n, label in enumerate(study.classes))]
        )
    assert read_manifest(tmp_path / "manifest.csv", study).classes == {label: n for n, label in enumerate(study.classes)}


@pytest.mark.parametrize("label", ["PTC ", "\x00", "a\x1b[31m", "a\x85", "a\u2028b", " a", "a,b", "x" * 64])
def test_a_label_that_no_manifest_could_hold_is_refused(tmp_path, label):
    with pytest.raises(ConfigurationError, match=r"study\.yaml: classes\.1 is "):
        read_study(written(tmp_path, classes=["benign", label], malignant=[]))


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


@pytest.mark.parametrize(
    "change",
    [
        *("rounds", "=3", "name.first=3", "federation.rounds=[", "federation.turns=3"),
        *("name=2026-13-45", "seed=0x" + "F" * 5000, "seed=" + "[" * 5000),
    ],
)
def test_a_set_that_cannot_be_is_refused(tmp_path, change):
    with pytest.raises(ConfigurationError):
        read_study(written(tmp_path), (change,))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"name: a\nname: b\n", "key 'name' is repeated"),
        (b"a: [", "not valid YAML at line"),
        (b"- a\n- b\n", "holds a list, expected keys and values"),
        (b"", "holds nothing, expected keys and values"),
        (b"\xff\xfe\x00", "line 1: is not UTF-8 text"),
        (b"a: !!timestamp x\n", "aliases and tags are not used"),
        (b"name: &a [*a]\n", "aliases and tags are not used"),
        (b"a: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
        (b"a: " + b"[" * 5000, "nested too deeply"),
        (b"a: " + b"0x" + b"F" * 5000, "holds a number that cannot be"),  # YAML reads it, but nothing can write it down
        (b"a: 1" + b":59" * 5000, "line 1: a is 1:59.*, which YAML takes for a number counted in sixties"),
        (b"a: 2026-13-45", "line 1: a is 2026-13-45, which YAML takes for a date: write it in quotes"),
        (b"x" * (MAX_FILE_BYTES + 1), "larger than"),
    ],
)
def test_a_file_that_is_no_yaml_of_ours_is_refused(tmp_path, text, says):
    path = tmp_path / "study.yaml"
    path.write_bytes(text)
    with pytest.raises(ConfigurationError, match=says):
        read_yaml(path)


@pytest.mark.parametrize("key", ["\\x1b[31m", "\\ud800", "\\u2028", "a\\nb", "\\ufeff", "x" * 50_000])
@pytest.mark.parametrize("text", ['"{}": 1', 'federation: {{"{}": 1}}', '"{0}": 1\n"{0}": 2', '"{0}": [', 'name: "{}"'])
def test_what_a_terminal_cannot_show_in_a_line_is_written_out(tmp_path, key, text):
    path = tmp_path / "study.yaml"
    path.write_text(text.format(key))
    with pytest.raises(ConfigurationError) as caught:
        read_study(path)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 1000


def test_ten_faults_are_listed_and_the_rest_counted(tmp_path):
    with pytest.raises(ConfigurationError, match=r"; and 15 more$") as caught:
        read_study(written(tmp_path, **{f"key{number}": 1 for number in range(25)}))
    assert caught.value.message.count("is not a known key") == 10


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


def test_a_place_that_cannot_be_followed_is_left_to_its_reader(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    site = read_site(site_file(tmp_path, manifest="loop/manifest.csv", images="x" * 5000))
    assert Path(site.images).name == "x" * 5000
    with pytest.raises(DataError, match=r"^manifest\.csv cannot be read$"):
        read_manifest(Path(site.manifest), read_study(written(tmp_path)))


@pytest.mark.parametrize("key", ["manifest", "images", "state"])
def test_a_nul_byte_in_a_path_of_a_site_is_refused(tmp_path, key):
    path = site_file(tmp_path, **{key: "folder/\0secret"})
    assert rb"\0" in path.read_bytes()  # YAML writes it escaped; as it is, no YAML may hold it
    with pytest.raises(ConfigurationError, match=rf"^centerA\.yaml: {key} is 'folder/\\x00secret': expected a path"):
        read_site(path)
    path.write_bytes(path.read_bytes().replace(rb"\0", b"\0"))
    with pytest.raises(ConfigurationError, match=r"^centerA\.yaml is not valid YAML"):
        read_site(path)


def test_a_site_file_is_looked_for_where_the_help_says(tmp_path, monkeypatch):
    site_file(tmp_path / "sites")
    assert find_site("centerA", folder=tmp_path / "sites").site == "centerA"
    assert find_site("centerA", config=site_file(tmp_path / "elsewhere")).site == "centerA"
    monkeypatch.chdir(tmp_path)
    assert find_site("centerA").site == "centerA"
    with pytest.raises(ConfigurationError, match=r"looked for sites/centerB\.yaml and /etc/csasn/centerB\.yaml$") as caught:
        find_site("centerB")
    assert "--config" in caught.value.hint


def test_a_folder_of_sites_that_is_named_is_the_only_place(tmp_path):
    """A simulation does not take a hospital's real site, whatever is in /etc/csasn."""
    with pytest.raises(ConfigurationError, match=r"looked for [^ ]*/phantom/centerB\.yaml$") as caught:
        find_site("centerB", folder=tmp_path / "phantom")
    assert "--sites" in caught.value.hint
    with pytest.raises(ConfigurationError) as caught:
        find_site("centerB", folder=tmp_path / "phantom", option="--phantom")
    assert "--phantom" in caught.value.hint


SECRET = "pa55word"


@pytest.mark.parametrize(
    "proxy",
    [
        *(f"http://user:{SECRET}@proxy:3128", f"user:{SECRET}@proxy:3128", f"http://user:{SECRET}//@proxy"),
        *(f"http://user:a@{SECRET}@proxy", f"http://user:{SECRET}{'x' * 100}@proxy", f"http://user:{SECRET} @proxy"),
        *([f"http://user:{SECRET}@proxy"], {"url": f"http://user:{SECRET}@proxy"}, {f"http://user:{SECRET}@proxy": 3128}),
    ],
)
def test_a_password_in_a_refused_value_is_not_shown(tmp_path, proxy):
    with pytest.raises(ConfigurationError, match=r"proxy is .*\*\*\*@proxy") as caught:
        read_site(site_file(tmp_path, proxy=proxy))
    assert SECRET not in caught.value.message + caught.value.hint
    assert "user" not in caught.value.message


def test_a_proxy_with_a_password_is_sent_to_the_file_for_it(tmp_path):
    says = r"^centerA\.yaml: proxy is 'http://\*\*\*@proxy:3128': expected an address without a login: .* proxy_login"
    with pytest.raises(ConfigurationError, match=says):
        read_site(site_file(tmp_path, proxy=f"http://user:{SECRET}@proxy:3128"))


@pytest.mark.parametrize(
    "proxy", ["http://wpad.hospital/proxy.pac", "pac+http://p/x", "file:///etc/proxy.pac", "http://wpad/WPAD.DAT"]
)
def test_a_pac_file_is_refused_by_name(tmp_path, proxy):
    says = r"^centerA\.yaml: proxy is '.*': that is a PAC file, expected the proxy's own address: your IT reads it from that file"
    with pytest.raises(ConfigurationError, match=says):
        read_site(site_file(tmp_path, proxy=proxy))


@pytest.mark.parametrize(
    "proxy", ["proxy:3128", "http://proxy:port", "http://proxy:0", "http://proxy:65536", "http://[::::]:1", "http://:80", "ftp://p"]
)
def test_a_proxy_that_cannot_be_is_refused(tmp_path, proxy):
    with pytest.raises(ConfigurationError, match=r"centerA\.yaml: proxy is "):
        read_site(site_file(tmp_path, proxy=proxy))


@pytest.mark.parametrize("proxy", ["http://proxy:3128", "https://my_proxy.example.org/", "http://10.0.0.1", "http://[::1]:3128"])
def test_a_proxy_that_can_be_is_taken(tmp_path, proxy):
    assert read_site(site_file(tmp_path, proxy=proxy)).proxy == proxy


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
