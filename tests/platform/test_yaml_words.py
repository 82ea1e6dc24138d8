"""Words of YAML in study and site files: told by key and line, in our own words, with what to write instead."""

import re
from pathlib import Path

import pytest

from csasn.errors import ConfigurationError
from csasn.platform.configuration import read_yaml
from csasn.site import Site, read_site
from csasn.study import read_study

FOREIGN = re.compile(
    r"pydantic|yaml\.|Scanner|Parser|Constructor|Reader|Error|[Ii]nput should|[Ss]tring should|block (end|mapping)|tag:yaml"
)


def study_file(folder: Path, *lines: str, name: str = "my-study", classes: str = "[benign, PTC]") -> Path:
    path = folder / "study.yaml"
    text = [f"name: {name}", f"classes: {classes}", "federation: {sites: [centerA, centerB]}", *lines]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path


def site_file(folder: Path, *lines: str, manifest: str = "m.csv") -> Path:
    path = folder / "centerA.yaml"
    path.write_text("\n".join(["site: centerA", f"manifest: {manifest}", "images: i", "state: s", *lines]) + "\n")
    return path


def said(path: Path) -> str:
    """Message and hint of what is refused; none of it is a library's."""
    with pytest.raises(ConfigurationError) as caught:
        read_study(path) if path.name == "study.yaml" else read_site(path)
    text = f"{caught.value.message} | {caught.value.hint}"
    assert not FOREIGN.search(text), text
    assert caught.value.hint
    return text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"classes": "[no, yes]"},
            'classes.0 is no, which YAML takes for false: write it in quotes, "no" (line 2); classes.1 is yes,',
        ),
        ({"classes": "[On, OFF]"}, 'classes.0 is On, which YAML takes for true: write it in quotes, "On" (line 2)'),
        ({"classes": "[0, 1]"}, 'classes.0 is 0, which YAML takes for a number: write it in quotes, "0" (line 2)'),
        ({"classes": "[~, PTC]"}, "classes.0 is empty, expected text: write ~ in quotes (line 2)"),
        ({"name": "1e3"}, 'name is 1e3, which YAML takes for a number: write it in quotes, "1e3" (line 1)'),
        ({"name": "0x1F"}, 'name is 0x1F, which YAML takes for a number: write it in quotes, "0x1F" (line 1)'),
        ({"name": ""}, "name is empty, expected text (line 1)"),
        ({"name": "2024-01-01"}, "study.yaml line 1: name is 2024-01-01, which YAML takes for a date: write it in quotes"),
        ({"name": "2024-13-01"}, "study.yaml line 1: name is 2024-13-01, which YAML takes for a date: write it in quotes"),
        ({"name": "010"}, "study.yaml line 1: name is 010, which YAML takes for a number counted in eights: write it in quotes"),
        ({"name": "1:30"}, "study.yaml line 1: name is 1:30, which YAML takes for a number counted in sixties: write it in quotes"),
        ({"name": "1:30.5"}, "study.yaml line 1: name is 1:30.5, which YAML takes for a number counted in sixties"),
        ({"name": "="}, "study.yaml line 1: name is =, which means something else to YAML: write it in quotes"),
        ({"name": "“my-study”"}, "its quotes are those of a word processor"),
    ],
)
def test_a_word_where_text_is_expected_is_told_by_key_and_line(tmp_path: Path, change: dict[str, str], message: str) -> None:
    text = said(study_file(tmp_path, **change))
    assert message in text
    assert "entries" not in text  # that a list is too short follows from what is wrong in it


@pytest.mark.parametrize("name", ["no", "0", "1e3", "2024-01-01", "010", "1:30"])
def test_in_quotes_each_is_what_it_looks_like(tmp_path: Path, name: str) -> None:
    assert read_study(study_file(tmp_path, classes=f'["{name}", PTC]')).classes[0] == name


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("optimiser: {learning_rate: 0,001}", "study.yaml line 4: a number is written with a comma: write 0.001"),
        ("class_weighting: {tau: 0,5, beta: 0.9}", "study.yaml line 4: a number is written with a comma: write 0.5"),
        (
            "optimiser:\n  learning_rate: 0,001",
            "optimiser.learning_rate is '0,001': expected a number with a decimal point, 0.001 (line 5)",
        ),
        ("seed: 010", "study.yaml line 4: seed is 010, which YAML takes for a number counted in eights"),
        ("seed: 1:30", "study.yaml line 4: seed is 1:30, which YAML takes for a number counted in sixties"),
        ("seed: '5'", "seed is '5': expected a whole number, without quotes and letters (line 4)"),
        ("seed: 1.5", "seed is 1.5: expected a whole number (line 4)"),
        ("seed: [1]", "seed is [1]: expected a whole number (line 4)"),
        ("deterministic: ja", "deterministic is 'ja': expected true or false (line 4)"),
        ("malignant: PTC", "malignant is 'PTC': expected a list, such as [a, b] (line 4)"),
        ("optimiser: fast", "optimiser is 'fast': expected keys and values (line 4)"),
        ("model: {image_size: 20}", "model.image_size is 20: expected 32 or more (line 4)"),
        ("model: {vit: 3}", "model.vit is 3: expected true, false, or the name of a network of timm, such as resnet18 (line 4)"),
        ("model: {efficientnet: ../x}", "model.efficientnet is '../x': expected true, false, or the name of a network of timm"),
        (
            "model: {profile: big}",
            "model.profile is 'big': expected 'csasn-b2-vitb', 'csasn-lite', 'csasn-small' or 'csasn-test' (line 4)",
        ),
        (
            "augmentation: {frozen_views: 2}",
            "augmentation.frozen_views 2 and no branch in model.frozen, expected 0, or one frozen",
        ),
        ("split: {test: 0.7}", "split.test is 0.7: expected less than 0.5 (line 4)"),
        ("optimiser: {learning_rate: .inf}", "optimiser.learning_rate is "),
        (
            "tasks: {subtype: {}, halo: {values: [off, on]}}",
            'tasks.halo.values.0 is off, which YAML takes for false: write it in quotes, "off"',
        ),
        ("on: 5", "study.yaml line 4: on is a key that YAML does not take for text: write it in quotes"),
        ("7: 5", "study.yaml line 4: 7 is a key that YAML does not take for text"),
        ("seed: 1\nseed: 2", "study.yaml line 5: key 'seed' is repeated"),
        ("colour: red", "colour is not a known key (line 4)"),
    ],
)
def test_other_values_are_told_by_key_and_line(tmp_path: Path, line: str, message: str) -> None:
    assert message in said(study_file(tmp_path, line))


@pytest.mark.parametrize(
    ("lines", "where", "what"),
    [
        ("tasks:\n\tsubtype: {}", "at line 5", "a tab stands where blanks are expected"),
        ("seed: 1: 2", "at line 4", "a colon stands where none is expected"),
        ('seed: "C:\\data"', "at line 4", "a backslash in double quotes"),
        ("seed: [1, 2", "at line", "a comma or closing bracket is missing"),
        ("model:\n    vit: true\n  efficientnet: true", "at line 6", "an indentation that does not fit"),
        ("seed: 'a", "at line", "a quote that is not closed"),
        ("seed: @a", "at line 4", "a value that begins with @"),
        ("---\nseed: 1", "at line 4", "a second document"),
        ("seed: \x07", "at all", "it holds a character that no text has"),
        ("seed: *a", "at line 4", "aliases and tags are not used here"),
        ("nocolon\nseed: 1", "at line", "a line without the colon that a key needs"),
    ],
)
def test_what_is_no_yaml_is_told_by_line_in_our_words(tmp_path: Path, lines: str, where: str, what: str) -> None:
    text = said(study_file(tmp_path, lines))
    assert f"study.yaml is not valid YAML {where}" in text
    assert what in text


def test_a_change_on_the_command_line_is_told_without_a_line(tmp_path: Path) -> None:
    for change, message in {
        "name=no": 'name is no, which YAML takes for false: write it in quotes, "no"',
        "name=2024-01-01": "--set name: the value is 2024-01-01, which YAML takes for a date: write it in quotes",
        "optimiser.learning_rate=0,5": "optimiser.learning_rate is '0,5': expected a number with a decimal point, 0.5",
    }.items():
        with pytest.raises(ConfigurationError, match=re.escape(message) + "$"):
            read_study(study_file(tmp_path), (change,))


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_of_editors_are_read(tmp_path: Path, codec: str) -> None:
    path = study_file(tmp_path, classes="[Schilddr\u00fcse, PTC]")
    expected = read_study(path)
    path.write_bytes(path.read_text(encoding="utf-8").replace("\n", "\r\n").encode(codec))
    assert read_study(path) == expected


def test_another_encoding_is_told_by_its_line(tmp_path: Path) -> None:
    path = study_file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"benign", "g\u00fctig".encode("latin-1")))
    assert "study.yaml line 2: is not UTF-8 text | save it as UTF-8 text" in said(path)


# The site file


@pytest.mark.parametrize("path", ["C:\\data\\m.csv", "C:/data/m.csv", "\\\\server\\share\\m.csv", "sub\\m.csv"])
def test_a_path_of_windows_is_refused_by_key_and_line(tmp_path: Path, path: str) -> None:
    text = said(site_file(tmp_path, manifest=path))
    assert "expected a path of this machine, with / between folders, not one of Windows (line 2)" in text


def test_hours_need_no_quotes_and_one_hour_is_told(tmp_path: Path) -> None:
    assert read_site(site_file(tmp_path, "policy: {training_hours: 20:00-06:00}")).policy.training_hours == "20:00-06:00"
    assert "policy.training_hours is 20:00, which YAML takes for a number" in said(
        site_file(tmp_path, "policy: {training_hours: 20:00}")
    )
    assert "expected hours as in 20:00-06:00 (line 5)" in said(site_file(tmp_path, "policy: {training_hours: 8-18}"))


def test_a_label_map_is_read_as_it_stands(tmp_path: Path) -> None:
    site = read_site(site_file(tmp_path, "labels: {papillary carcinoma: PTC, '0': benign}"))
    assert site.labels == {"papillary carcinoma": "PTC", "0": "benign"}
    assert Site(site="a", manifest="m", images="i", state="s").labels == {}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("labels: {SECRETWORD: no}", "labels: entry 1: expected a word and a class of the study, both as text"),
        ("labels: {a: PTC, SECRETWORD: [x]}", "labels: entry 2: expected a word and a class of the study, both as text"),
        ("labels: {a: PTC, SECRETWORD: }", "labels: entry 2: expected a word and a class of the study, both as text"),
        ("labels: [SECRETWORD, PTC]", "labels: expected words and classes, such as {papillary carcinoma: PTC}"),
        ("labels: SECRETWORD", "labels: expected words and classes"),
        ("labels: {SECRETWORD: PTC, SECRETWORD: benign}", "line 5: a key is repeated"),
        ("labels: {2024-01-01: PTC, SECRETWORD: benign}", "line 5: a key is there that YAML does not take for text"),
        ("labels: {SECRETWORD: 2024-01-01}", "line 5: labels is 2024-01-01, which YAML takes for a date"),
    ],
)
def test_no_word_of_a_label_map_is_ever_shown(tmp_path: Path, lines: str, message: str) -> None:
    text = said(site_file(tmp_path, lines))
    assert message in text
    assert "SECRET" not in text
    assert "2024-01-01: PTC" not in text


def test_a_mapping_knows_where_its_values_stand(tmp_path: Path) -> None:
    document = read_yaml(study_file(tmp_path, "tasks:\n  subtype: {weight: 2}"))
    assert {key: mark.line for key, mark in document.marks.items() if key[:1] == ("tasks",)} == {
        ("tasks",): 4,
        ("tasks", "subtype"): 5,
        ("tasks", "subtype", "weight"): 5,
    }
