"""What the report says of the released model is what anybody finds who evaluates the released files on the same cases."""

import json

import pytest

from command_line import run_quietly
from server.run.outcome import write_outcome, write_report

FIGURES = ("macro_auroc", "balanced_accuracy", "macro_f1", "malignancy_auroc", "ece")


@pytest.mark.parametrize("batchnorm", ["fixbn", "silo", "shared", "frozen", "group"])
def test_the_headline_of_the_report_is_what_the_released_files_reach(federate, batchnorm):
    federation = federate("run", num_cases=40, federation={"batchnorm": batchnorm})
    write_outcome(federation.directory, federation.contract, federation.network, federation.run())
    final = write_report(federation.directory, "local").as_json()["final"]
    found = run_quietly("csasn", "evaluate", federation.path, "--sites", federation.sites_folder, "--json")
    assert found.returncode == 0, found.stderr
    evaluated = json.loads(found.stdout)
    assert sum(map(sum, evaluated["confusion"])) == sum(map(sum, final["confusion"])) > 20
    assert {name: evaluated[name] for name in FIGURES} == pytest.approx({name: final[name] for name in FIGURES}, abs=1e-6)
    assert (evaluated["confusion"], evaluated["round"]) == (final["confusion"], final["round"])
