"""The three commands as people run them: help, errors with hints, exit codes."""

import csv
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest
from PIL import Image
from rich.console import Console
from typer.main import get_command

from client.doctor import context
from client.doctor.training_probe import Measured
from command_line import PROGRAMS, arguments, run_here, run_quietly
from csasn import __version__
from csasn.errors import CsasnError, DataError, Stopped, StorageError
from csasn.platform.command import EXIT_CODES, run_command
from csasn.platform.terminal import confirm, console, progress_bars

COMMAND = Path(sys.prefix) / "bin"


def run(*arguments, **options):
    first, *rest = map(str, arguments)
    return subprocess.run([COMMAND / first, *rest], capture_output=True, text=True, timeout=240, check=False, **options)


def test_exit_codes_are_distinct_and_documented():
    own = [kind for kind in CsasnError.__subclasses__() if kind.__module__ == "csasn.errors"]
    codes = [kind.exit_code for kind in own]
    assert len(set(codes)) == len(codes)
    assert all(f"{code} " in EXIT_CODES for code in codes)


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_says_what_each_exit_code_means_and_that_of_a_command_where_this_stands(program):
    assert EXIT_CODES.splitlines()[-1] in run(program, "--help").stdout
    for name in get_command(PROGRAMS[program]).commands:
        said = run_quietly(program, name, "--help").stdout
        assert said.endswith(f"exit codes: {program} --help\n")
        assert EXIT_CODES.splitlines()[-1] not in said


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_program_tells_its_version(program):
    done = run_quietly(program, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{program} {__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("client do", ["doctor"]),
        ("client doctor --only ", ["data", "machine", "network"]),
        ("server enroll --jo", ["--join"]),
        ("csasn study --", ["--explain", "--help", "--template"]),
    ],
)
def test_a_shell_completes_commands_options_and_words(words, expected):
    program, *rest = words.split(" ")
    asked = {f"_{program.upper()}_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(rest))}
    assert sorted(run(program, env=os.environ | asked).stdout.split()) == expected


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_runs_as_a_module_too(program):
    done = subprocess.run(
        [sys.executable, "-P", "-m", f"{program}.commands.cli", "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"{program} {__version__}\n")


COMMANDS = [(program, name) for program, app in PROGRAMS.items() for name in get_command(app).commands]


@pytest.mark.parametrize(("program", "name"), COMMANDS)
def test_help_shows_each_argument_with_its_words_in_plain_text(program, name, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert run_here(program, name, "-h") == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "\\[" not in said
    assert said.count("rguments:") <= 1  # click's own list beside that of typer
    taken = get_type_hints(get_command(PROGRAMS[program]).commands[name].callback, include_extras=True)
    words = [hint.__metadata__[0].help for hint in taken.values() if hasattr(hint, "__metadata__")]
    assert len(words) == len(taken) - 1  # what it returns
    told = "".join(said.split())
    assert all("".join(word.split()) in told for word in words)


def test_help_lists_each_command_with_its_summary(capsys):
    for program, app in PROGRAMS.items():
        assert run_here(program, "--help") == 0
        told = " ".join(capsys.readouterr().out.split())
        for name, command in get_command(app).commands.items():
            assert f"{name} {command.short_help}" in told


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("server", "status", "--json", "--check"), "argument --check: not allowed with argument --json"),
        (("server", "simulate", "study.yaml", "--resume", "--anew"), "argument --anew: not allowed with argument --resume"),
        (("server", "survey", "study.yaml"), "one of the arguments --sites, --address is required"),
        (
            ("server", "survey", "study.yaml", "--sites", "s", "--address", "a:1"),
            "argument --address: not allowed with argument --sites",
        ),
        (("client", "status", "--site", "centerA", "--check", "--json"), "argument --check: not allowed with argument --json"),
        (
            ("client", "import", "--site", "centerA"),
            "one of the arguments --dicom, --dicomweb, --approve, --discard, --pseudonyms is required",
        ),
        (
            ("client", "import", "--site", "centerA", "--approve", "--discard"),
            "argument --discard: not allowed with argument --approve",
        ),
        (("client", "import", "--site", "centerA", "--dicom", "d", "--frames", "0"), "0 is not in the range 1<=x<=100"),
        (("csasn", "predict", "model", "a.png", "--csv", "--json"), "argument --csv: not allowed with argument --json"),
        (("csasn", "ablate", "grid.yaml", "--dry-run", "--report"), "argument --report: not allowed with argument --dry-run"),
        (("csasn", "export", "model", "--out", "o", "--format", "pdf"), "'pdf' is not one of 'onnx', 'safetensors'"),
        (("csasn", "train", "study.yaml"), "Missing option '--out'"),
        (("client", "install", "--site", "centerA"), "Missing argument 'KIT'"),
        (("client", "--fly"), "--fly"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_done(words, says, capsys):
    assert run_here(*words) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert f"Try '{words[0]}" in said.err
    assert not said.out


def test_several_seeds_follow_one_option_or_several():
    for words in (("grid.yaml", "--seeds", 1, 2, 3), ("grid.yaml", "--seeds", 1, "--seeds", 2, "--seeds", 3)):
        taken = arguments("csasn", "ablate", *words)
        assert [*taken["seeds"], *(taken["more_seeds"] or ())] == [1, 2, 3]


def test_a_site_takes_part_without_a_command_and_commands_name_their_own_site(capsys):
    assert arguments("client", "--site", "centerA") == {"site": "centerA", "config": None, "health": ""}
    assert run_here("client", "--site", "centerA", "status") == 2
    assert "Missing option '--site'" in capsys.readouterr().err


def test_a_table_in_a_pipe_is_wide_and_without_colours(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    console().print("[red]" + "x" * 159)
    assert capsys.readouterr().out == "x" * 159 + "\n"


def test_a_dumb_terminal_gets_no_bars(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert progress_bars(Console(force_terminal=True)).disable
    monkeypatch.setenv("TERM", "xterm")
    assert not progress_bars(Console(force_terminal=True)).disable


def test_help_does_not_load_torch():
    """Help answers at once: heavy libraries are imported by the work, not by the parser."""
    commands = "csasn.commands.cli, server.commands.cli, client.commands.cli"
    program = f"import sys, {commands}; sys.exit(bool({{'torch', 'flwr', 'starlette', 'uvicorn'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-P", "-c", program], check=False).returncode == 0


def test_a_study_with_options_of_a_rule_of_the_server_is_read_without_torch(tmp_path):
    (tmp_path / "study.yaml").write_text(
        "{name: a, classes: [b, c], federation: {sites: [d], server_rule: fedadam, server_options: {tau: 0.01}}}"
    )
    program = (
        "import sys, csasn.study, pathlib; before = 'numpy' in sys.modules; csasn.study.read_study(pathlib.Path(sys.argv[1]));"
        "sys.exit(before or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program, tmp_path / "study.yaml"], check=False).returncode == 0


def test_server_start_and_status_do_without_torch():
    """`server start` stays in memory for weeks, beside a run that needs it."""
    program = (
        "import sys, server.office.service, server.office.status, server.office.trouble_calls;"
        "sys.exit(bool({'torch', 'starlette', 'uvicorn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-P", "-c", program], check=False).returncode == 0


def test_a_page_beside_server_start_does_without_torch_and_what_draws_pictures():
    program = (
        "import sys, server.page.sources, csasn.report.page_server;"
        "sys.exit(bool({'torch', 'flwr', 'scipy', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-P", "-c", program], check=False).returncode == 0


def test_a_coordinators_processes_load_no_library_that_only_pictures_need():
    program = "import sys, server.flower.app, server.office.service; sys.exit(bool({'scipy', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-P", "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("server", "simulate", "missing.yaml"), 3, "cannot read"),
        (("client", "doctor", "--site", "centerZ", "--study", "study.yaml"), 3, "no site file for 'centerZ'"),
        (("client", "report", "--site", "centerA"), 3, "centerA has no finished model"),
        (("csasn", "phantom"), 3, "nothing to write"),
        (("csasn", "phantom", "--out", "p", "--cases", "0"), 3, "num_cases is 0"),
        (("csasn", "predict", "nowhere", "x.png"), 5, "no model.json"),
        (("server", "simulate", "study.yaml", "--set", "federation.rounds=0"), 3, "federation.rounds is 0"),
        (("server", "simulate", "study.yaml", "--resume"), 10, "holds no run to resume"),
        (("server", "simulate"), 2, "Usage"),
        (("server", "fly"), 2, "No such command"),
    ],
)
def test_a_mistake_ends_with_its_code_and_a_hint(tmp_path, write_small_hospitals, arguments, code, says):
    write_small_hospitals(tmp_path / "h")
    done = run(*arguments, cwd=tmp_path / "h")
    assert done.returncode == code, done.stderr
    assert says in done.stdout + done.stderr
    assert "hint: " in done.stderr or code == 2
    assert "Traceback" not in done.stderr


def test_a_foreign_error_shows_its_type_and_our_line_but_never_its_text(capsys):
    def fail():
        raise ValueError("patient Mustermann")

    assert run_command(fail) == 1
    shown = capsys.readouterr().err
    assert "unexpected ValueError" in shown
    assert "Mustermann" not in shown


def test_who_may_not_open_a_file_is_told_as_whom_to_run_it_and_not_the_name_of_the_file(capsys):
    def fail():
        raise PermissionError(13, "Permission denied", "images/Mustermann.png")

    assert run_command(fail) == StorageError.exit_code
    shown = capsys.readouterr().err
    assert "permission denied to user " in shown
    assert "hint: run it as the service's own user" in shown
    assert "Mustermann" not in shown


def test_an_end_of_input_in_place_of_a_yes_confirms_nothing(monkeypatch):
    def end(_):
        raise EOFError

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", end)
    with pytest.raises(Stopped, match="not confirmed, nothing was changed"):
        confirm("does centerA take part?", "--yes PREFIX")


def test_a_folder_that_cannot_be_written_is_refused_before_any_data_are_loaded(tmp_path, write_small_hospitals):
    write_small_hospitals(tmp_path / "h")
    (tmp_path / "h/centerA/manifest.csv").unlink()  # which is looked for first thing after that
    (tmp_path / "file").touch()
    done = run("csasn", "train", "study.yaml", "--site", "centerA", "--out", tmp_path / "file/model", cwd=tmp_path / "h")
    assert done.returncode == StorageError.exit_code, done.stderr
    assert "file/model: not a directory" in done.stderr


def test_an_error_of_ours_shows_message_and_hint(capsys):
    def fail():
        raise DataError("manifest.csv row 7 is empty", "fill it")

    assert run_command(fail) == 4
    assert capsys.readouterr().err == "error: manifest.csv row 7 is empty\nhint: fill it\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, write_small_hospitals):
    folder = tmp_path_factory.mktemp("cli")
    write_small_hospitals(folder / "h")
    done = run("csasn", "train", folder / "h/study.yaml", "--site", "centerA", "--out", folder / "model")
    assert done.returncode == 0, done.stderr
    return folder


def test_train_writes_a_model_and_says_how_good_it_is(trained):
    assert set(os.listdir(trained / "model")) == {"model.safetensors", "model.json"}


def test_evaluate_counts_the_cases_of_the_split(trained):
    done = run_quietly(
        "csasn", "evaluate", trained / "model", "--sites", trained / "h/sites", "--site", "centerB", "--split", "train", "--json"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["sites"] == ["centerB"]
    assert sum(row["support"] for row in found["per_class"].values()) == sum(map(sum, found["confusion"])) > 0


def test_evaluate_writes_a_row_a_case_for_the_site_alone(trained, tmp_path):
    table = tmp_path / "cases.csv"
    done = run_quietly(
        "csasn", "evaluate", trained / "model", "--sites", trained / "h/sites", "--split", "validation", "--cases", table, "--json"
    )
    assert done.returncode == 0, done.stderr
    with table.open() as file:
        rows = list(csv.DictReader(file))
    confusion = json.loads(done.stdout)["confusion"]
    classes = ["benign", "PTC", "FTC"]
    assert len(rows) == sum(map(sum, confusion))
    for true, counts in zip(classes, confusion, strict=True):
        assert [sum(row["label"] == true and row["decision"] == other for row in rows) for other in classes] == counts
    assert all(abs(sum(float(row[f"p_{name}"]) for name in classes) - 1) < 1e-5 for row in rows)
    assert table.stat().st_mode & 0o077 == 0


def test_predict_draws_the_most_and_least_certain_images(trained, tmp_path):
    picture = tmp_path / "grid.png"
    done = run_quietly("csasn", "predict", trained / "model", trained / "h/centerA/images", "--grid", picture, "--json")
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(picture.stat().st_mode) == 0o600  # it shows patients
    with Image.open(picture) as image:
        assert image.size[0] > 1000


def test_predict_takes_images_and_folders_and_goes_on_after_a_broken_one(trained, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG")
    images = trained / "h/centerB/images"
    done = run_quietly("csasn", "predict", trained / "model", images, broken, "--json")
    assert done.returncode == 4
    assert "1 of" in done.stderr
    rows = json.loads(done.stdout)["predictions"]
    assert len(rows) == len(os.listdir(images)) + 1
    assert all(abs(sum(row["probabilities"].values()) - 1) < 1e-9 for row in rows[:-1])
    assert rows[-1]["error"]


def test_predict_shows_a_table_that_says_what_it_is_not_for(trained):
    done = run_quietly("csasn", "predict", trained / "model", trained / "h/centerA/images", env={"COLUMNS": "160"})
    assert done.returncode == 0, done.stderr
    assert "not for diagnosis" in done.stdout


@pytest.fixture
def no_step(monkeypatch):
    """The training step, which tests/doctor takes, is left out of `client doctor`."""
    monkeypatch.setattr(context, "measure_training", lambda site, study, wanted: Measured("CPU", 1.0, 1 << 30, wanted))


def test_doctor_says_what_a_site_holds(trained, no_step, monkeypatch):
    monkeypatch.chdir(trained / "h")
    done = run_quietly("client", "doctor", "--site", "centerA", "--study", trained / "h/study.yaml")
    assert done.returncode == 0, done.stderr
    assert "train cases: benign" in done.stdout
    assert "18 cases read" in done.stdout


def test_doctor_names_the_row_of_a_wrong_label(tmp_path, write_small_hospitals, no_step, monkeypatch):
    write_small_hospitals(tmp_path / "h")
    manifest = tmp_path / "h/centerA/manifest.csv"
    manifest.write_text(manifest.read_text().replace("FTC", "FTX", 1))
    monkeypatch.chdir(tmp_path / "h")
    done = run_quietly("client", "doctor", "--site", "centerA", "--study", "study.yaml")
    assert done.returncode == 4
    assert "✗ labels: manifest.csv row" in done.stdout
    assert "column label: is not a class of the study" in done.stdout
    assert "FTX" not in done.stdout + done.stderr


def test_a_site_does_not_take_part_with_another_sites_file(tmp_path):
    (tmp_path / "centerB.yaml").write_text("{site: centerB, manifest: m.csv, images: i, state: state}\n")
    done = run("client", "--site", "centerA", "--config", "centerB.yaml", cwd=tmp_path)
    assert done.returncode == 3
    assert "site is 'centerB', expected 'centerA'" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["centerB.yaml"]
