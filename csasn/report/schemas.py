"""JSON Schemas of report.json, survey.json and of a line of events.jsonl, for programs of others: schema/*.json holds them.

`python -m csasn.report.schemas` writes them anew, after a change of csasn/report/types.py or events.py.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from csasn.report.events import EVENT
from csasn.report.types import Report, SurveyReport

FOLDER = Path(__file__).parent / "schema"
SCHEMAS: Mapping[str, Callable[[], Mapping[str, object]]] = {
    "report": Report.model_json_schema,
    "survey": SurveyReport.model_json_schema,
    "event": EVENT.json_schema,
}


def schema_text(name: str) -> str:
    """What the file of that name says."""
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **SCHEMAS[name]()}, indent=1) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in SCHEMAS:
        (FOLDER / f"{name}.json").write_text(schema_text(name), encoding="utf-8")
