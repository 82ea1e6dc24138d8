"""tests/evidence/decisions.md is what its script makes of the predictions that are kept."""

import subprocess
import sys
from pathlib import Path

EVIDENCE = Path(__file__).parent


def test_the_table_follows_from_the_kept_predictions():
    files = sorted((EVIDENCE / "recipe/predictions").glob("lr_002-*-own.npz"))
    assert files
    command = [sys.executable, "-P", EVIDENCE / "decisions.py", *files]
    made = subprocess.run(command, capture_output=True, check=True, timeout=120, encoding="utf-8")
    assert made.stdout == (EVIDENCE / "decisions.md").read_text(encoding="utf-8")
