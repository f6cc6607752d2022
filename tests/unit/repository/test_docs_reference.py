"""docs/seelerun.md says whether each field may change; this is compared with what the operator does."""

import json
from collections.abc import Mapping
from typing import Any

from seele_operator.decide.accept import EditScope, accept
from seele_operator.validation.schema import run_schema
from tests.support.spec_data import patched, small_run
from tools import seelerun_page

TEXTS = {"dataset.path": "other.jsonl", "storage.huggingFaceTokenSecret.name": "token"}
"""Values for fields of text that do not accept any text."""
RUN: dict[str, Any] = patched(small_run(), {"spec": {"storage": {"run": {"hostPath": {"path": "/srv/run"}}}}})


def leaves(section: Mapping[str, Any], path: str = "") -> dict[str, Mapping[str, Any]]:
    """Every field below a section that holds a value rather than fields."""
    found = {}
    for name, schema in section["properties"].items():
        here = f"{path}{name}"
        found |= leaves(schema, f"{here}.") if "properties" in schema else {here: schema}
    return found


def another(path: str, schema: Mapping[str, Any]) -> Any:
    """A value other than the field's default, or None if this test knows none."""
    default = schema.get("default")
    if "enum" in schema:
        return next((value for value in schema["enum"] if value != default), None)
    match schema.get("type"):
        case "boolean":
            return not default
        case "integer":
            return (default or schema.get("minimum", 0)) + 1
        case "number":
            return default * 0.75 if default else 0.25
        case "string":
            return TEXTS.get(path, "other")
        case "object" if "additionalProperties" in schema:
            return {"cpu": "3"}
        case _:
            return "9Gi" if "x-kubernetes-int-or-string" in schema else None


def with_field(path: str, value: Any) -> dict[str, Any]:
    for name in reversed(path.split(".")):
        value = {name: value}
    return patched(RUN, {"spec": value})


def reaction(body: Mapping[str, Any], scope: EditScope) -> str:
    outcome = accept(body, json.dumps(RUN["spec"]), scope)
    return "Respawn" if outcome.respawn and scope == "live" else outcome.reason


def applied(path: str, value: Any) -> str | None:
    """When the operator applies an edit of this field, or None if the edit alone is invalid."""
    body = with_field(path, value)
    if reaction(body, "all") == "Invalid":
        return None
    if reaction(body, "live") == "Accepted":
        return "always"
    return "suspended" if reaction(body, "resumable") == "Accepted" else "no"


def test_the_operator_applies_exactly_the_changes_that_the_page_allows() -> None:
    promised, found = {}, {}
    for path, schema in leaves(run_schema()["properties"]["spec"]).items():
        value = another(path, schema)
        outcome = None if value is None or path.startswith("storage.run.") else applied(path, value)
        if outcome is not None:
            promised[path], found[path] = seelerun_page.may_change(path), outcome

    assert promised == found
    assert len(found) > 70
    assert set(found.values()) == {"always", "suspended", "no"}


def test_every_field_of_the_spec_has_a_row_with_its_description() -> None:
    page = seelerun_page.page()
    rows = list(seelerun_page.fields())

    for path in leaves(run_schema()["properties"]["spec"]):
        covered = [field for field in rows if path == field.path or path.startswith(f"{field.path}.")]
        assert covered, path
    for field in rows:
        assert field.schema["description"].replace("|", "\\|") in page, field.path
