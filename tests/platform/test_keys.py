"""csasn/platform/keys.py by its two commands: a template with every key of study and site file, and what one of them is."""

import re
from typing import get_args

import pytest

from client.commands.keys import HEAD as SITE_HEAD
from command_line import run_quietly
from csasn.commands.keys import HEAD as STUDY_HEAD
from csasn.platform import keys
from csasn.platform.configuration import Configuration
from csasn.site import Site, read_site
from csasn.study import Federation, Study, read_study

COMMANDS = {Study: ("csasn", "study"), Site: ("client", "site")}
DEFAULT = Study(
    name="my-study",
    classes=("benign", "PTC", "FTC", "MTC"),
    federation=Federation(sites=("centerA", "centerB", "centerC", "centerD")),
)


def models_in(annotation):
    return [part for part in (annotation, *get_args(annotation)) if isinstance(part, type) and issubclass(part, Configuration)]


def names_in(model, before=""):
    """Dotted names of all keys, by a way of its own."""
    for name, field in model.model_fields.items():
        yield f"{before}{name}"
        free = "NAME." if str(field.annotation).startswith("dict") else ""
        for below in models_in(field.annotation):
            yield from names_in(below, f"{before}{name}.{free}")


ALL = [(model, name) for model in COMMANDS for name in names_in(model)]


def written(model, folder):
    done = run_quietly(*COMMANDS[model], "--template")
    assert (done.returncode, done.stderr) == (0, "")
    path = folder / "file.yaml"
    path.write_text(done.stdout)
    return path


def in_force(text):
    """A template in which the keys that are comments count."""
    return re.sub(r"(?m)^( *)#(?=[a-z_]+:)", r"\1", text)


def without(text, *groups):
    """`text` without these keys and what is below them."""
    for name in groups:
        text = re.sub(rf"(?m)^( *){name}:.*\n(\1 +.*\n)*", "", text)
    return text


def test_there_are_keys_on_three_floors():
    assert len(ALL) > 100
    assert (Study, "model.initial_weights.vit.sha256") in ALL
    assert (Study, "tasks.NAME.values") in ALL
    assert (Site, "policy.training_hours") in ALL


@pytest.mark.parametrize(("model", "name"), ALL)
def test_each_key_is_explained_with_its_meaning_and_what_it_may_be(model, name):
    done = run_quietly(*COMMANDS[model], "--explain", name)
    assert (done.returncode, done.stderr) == (0, "")
    first, *more = done.stdout.splitlines()
    assert re.fullmatch(rf"{re.escape(name)}: .*\w\w\w+ .*", first)
    assert more
    assert "something else" not in done.stdout


def test_the_template_of_a_study_is_the_default_study(tmp_path):
    path = written(Study, tmp_path)
    assert read_study(path) == DEFAULT
    assert read_study(path).model_fields_set == {"name", "classes", "federation"}
    path.write_text(without(in_force(path.read_text()), "about", "continues", "personal_lambda"))
    full = read_study(path)
    assert full == DEFAULT
    assert full.model_fields_set == set(Study.model_fields) - {"about", "continues"}
    assert full.federation.model_fields_set == set(Federation.model_fields) - {"personal_lambda"}


def test_the_template_of_a_site_file_is_the_default_site(tmp_path):
    path = written(Site, tmp_path)
    site = read_site(path)
    assert site.model_fields_set == {"site", "manifest", "images", "state"}
    path.write_text(without(in_force(path.read_text()), "studies"))
    assert read_site(path) == site
    assert read_site(path).model_fields_set == set(Site.model_fields) - {"studies"}


@pytest.mark.parametrize(("model", "head"), [(Study, STUDY_HEAD), (Site, SITE_HEAD)])
def test_a_template_holds_each_key_once_where_it_belongs(model, head):
    shown = [line for line in keys.template(model, head) if re.match(r" *#?\w+:", line)]
    expected = [name for of, name in ALL if of is model]
    assert [re.sub(r"\W", "", line.partition(":")[0]) for line in shown if not re.search("subtype:|NAME:", line)] == [
        name.rpartition(".")[2] for name in expected
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("csasn", "study", "--explain", "rounds"), "a whole number, 1 or more, 10000 or less; default 10"),
        (("csasn", "study", "--explain", "answer_deadline_s"), "a number of seconds, more than 0; default 3600.0"),
        (("csasn", "study", "--explain", "federation.upload_bits"), "8, 16 or 32; default 16"),
        (("csasn", "study", "--explain", "profile"), "csasn-b2-vitb, csasn-lite, csasn-small or csasn-test; default csasn-lite"),
        (
            ("csasn", "study", "--explain", "name"),
            "1 to 63 plain letters, digits, - and _, with a letter or digit first; no default",
        ),
        (("csasn", "study", "--explain", "tasks.margin.weight"), "tasks.NAME.weight: weight of this head"),
        (("csasn", "study", "--explain", "classes"), "a list, 2 or more entries, 256 or fewer entries, each: 1 to 63"),
        (("csasn", "study", "--explain", "server_options"), "server_rule fedadam: learning_rate 0.01, beta1 0.9, tau 0.001, beta2"),
        (("csasn", "study", "--explain", "model"), "  model.dropout: share of values"),
        (("client", "site", "--explain", "policy.min_image_px"), "a whole number of pixels, 1 or more, or null; default null"),
        (("client", "site", "--explain", "coordinator"), "HOST:PORT, or null"),
    ],
)
def test_what_is_said_of_a_key(words, says):
    assert says in run_quietly(*words).stdout


@pytest.mark.parametrize(
    ("program", "command", "wanted", "hint"),
    [
        ("csasn", "study", "federation.roundz", "is it federation.rounds"),
        ("csasn", "study", "modle", "or model or"),
        ("client", "site", "minimum_case", "is it policy.minimum_cases"),
        ("client", "site", "quux", "all keys: --template"),
    ],
)
def test_an_unknown_key_is_refused_and_near_ones_are_named(program, command, wanted, hint):
    done = run_quietly(program, command, "--explain", wanted)
    assert done.returncode == 3
    assert f"{wanted!r} is no key of " in done.stderr
    assert hint in done.stderr
    assert not done.stdout
