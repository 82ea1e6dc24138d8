"""tests/evidence/decisions.md is what its script makes of the predictions that are kept."""

import subprocess
import sys
from pathlib import Path

EVIDENCE = Path(__file__).parent


def test_the_table_follows_from_the_kept_predictions():
    command = [sys.executable, "-P", EVIDENCE / "decisions.py", EVIDENCE / "recipe/predictions.npz", "lr_002"]
    made = subprocess.run(command, capture_output=True, check=True, timeout=300, encoding="utf-8")
    assert made.stdout == (EVIDENCE / "decisions.md").read_text(encoding="utf-8")
