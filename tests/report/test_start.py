"""What is shown of a finished run is there at once: nothing that trains is loaded for it."""

import subprocess
import sys

import pytest

HEAVY = "{'torch', 'timm', 'flwr', 'matplotlib', 'jinja2', 'scipy', 'pydicom'}"


@pytest.mark.parametrize(
    "modules",
    [
        "server.commands.coordinator, csasn.report.survey, csasn.report.tables, csasn.report.types, "
        "server.office.study_folder, server.office.enrolment",  # server report
        "client.commands.agent, client.service.status",  # client status
    ],
)
def test_server_report_and_client_status_load_nothing_heavy(modules):
    program = f"import sys, {modules}; print(*sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
