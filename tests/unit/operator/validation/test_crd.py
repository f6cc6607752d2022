"""The CustomResourceDefinition is structural and matches the models; tests/integration asks an API server."""

import json
from collections.abc import Iterator

import pytest
import yaml
from typer.testing import CliRunner

from seele_operator.api.seelerun import SeeleRunSpec
from seele_operator.cli import app
from seele_operator.validation.crd import crd
from seele_operator.validation.rules import VALIDATIONS
from seele_operator.validation.schema import PRESERVE, Schema, structural

INT_OR_STRING = "x-kubernetes-int-or-string"
# The part of OpenAPI v3.0 that we use and apiextensions v1 supports; it refuses or drops `$ref`, `const` and others.
ALLOWED = {
    *("type", "format", "description", "default", "nullable", "enum", "properties", "required", "items"),
    *("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "minItems", "maxItems", "minLength", "maxLength"),
    *("additionalProperties", "anyOf", PRESERVE, INT_OR_STRING, VALIDATIONS),
    *("x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
}


def root() -> Schema:
    (version,) = crd()["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key], f"{path}[{key}]")


NODES = dict(nodes(root()))
SPEC = NODES[".spec"]["properties"]


def test_every_node_is_structural() -> None:
    assert len(NODES) > 150
    for path, schema in NODES.items():
        assert set(schema) <= ALLOWED, path
        open_ended = schema.get(INT_OR_STRING) or schema.get(PRESERVE)
        assert schema.get("type") in {"string", "integer", "number", "boolean", "array", "object"} or open_ended, path
        assert ("items" in schema) == (schema.get("type") == "array"), path
        assert not ("properties" in schema and "additionalProperties" in schema), path
        if "anyOf" in schema:
            assert schema["anyOf"] == [{"type": "integer"}, {"type": "string"}], path
            assert schema[INT_OR_STRING] is True, path
            assert "type" not in schema, path
        for bound in ("exclusiveMinimum", "exclusiveMaximum"):
            assert schema.get(bound, True) is True, path
            assert bound not in schema or bound.removeprefix("exclusive").lower() in schema, path
        assert set(schema.get("required", ())) <= set(schema.get("properties", {})), path
        assert schema.get("default", 0) is not None, path


def test_the_schema_holds_every_field_of_the_spec() -> None:
    assert list(SPEC) == [field.alias for field in SeeleRunSpec.model_fields.values()]
    assert NODES[".spec"]["required"] == ["model", "dataset"]


def test_every_field_is_described() -> None:
    undescribed = [
        path
        for path, schema in NODES.items()
        if not path.endswith("]") and path != ".metadata" and "description" not in schema
    ]
    assert undescribed == []


def test_optional_fields_may_be_null() -> None:
    assert SPEC["model"]["properties"]["contextLength"] == {
        "description": "Longest prompt plus completion, in tokens. The model's own limit if unset.",
        "type": "integer",
        "minimum": 1,
        "nullable": True,
    }
    size = SPEC["storage"]["properties"]["run"]["properties"]["emptyDir"]["properties"]["sizeLimit"]
    assert size["nullable"] is True
    assert size[INT_OR_STRING] is True


def test_free_objects_are_preserved() -> None:
    assert SPEC["trainer"]["properties"]["podTemplate"][PRESERVE] is True
    assert SPEC["scheduling"]["properties"]["tolerations"]["items"][PRESERVE] is True
    assert SPEC["rollout"]["properties"]["engineArgs"]["additionalProperties"] == {PRESERVE: True}


def test_the_definition_has_its_names_and_columns() -> None:
    definition = crd()
    assert definition["apiVersion"] == "apiextensions.k8s.io/v1"
    assert definition["metadata"]["name"] == "seeleruns.seele.dev"
    assert definition["spec"]["names"]["shortNames"] == ["srun"]
    assert definition["spec"]["names"]["kind"] == "SeeleRun"
    (version,) = definition["spec"]["versions"]
    assert (version["name"], version["served"], version["storage"]) == ("v1alpha1", True, True)
    assert version["subresources"] == {"status": {}}
    columns = version["additionalPrinterColumns"]
    shown = [column["name"] for column in columns if not column.get("priority")]
    assert shown == ["Phase", "Step", "Accuracy", "Hint", "Age"]
    for column in columns:
        path = column["jsonPath"]
        assert path == ".metadata.creationTimestamp" or NODES[path]["type"] == column["type"], column["name"]


def test_the_definition_is_small_enough_for_plain_apply() -> None:
    # kubectl stores it in an annotation, and all annotations together may have 262,144 bytes.
    assert len(json.dumps(crd()).encode()) < 100_000
    text = yaml.safe_dump(crd(), sort_keys=False)
    assert "&id" not in text
    assert yaml.safe_load(text) == crd()


UNITS = {
    "Seconds": "second",
    "Tokens": "token",
    "Length": "token",
    "Len": "token",
    "Steps": "step",
    "Updates": "update",
    "Size": "GPU",
    "size": "500Gi",
    "Share": "Share",
    "Ratio": "share",
    "Rate": "",
}


def test_a_field_names_its_unit() -> None:
    for path, schema in NODES.items():
        field = path.rsplit(".", 1)[-1]
        unit = next((unit for ending, unit in UNITS.items() if field.endswith(ending)), "")
        assert unit.lower() in schema.get("description", "").lower(), path
    assert sum(path.endswith("Seconds") for path in NODES) > 8


def test_a_description_ends_with_the_default() -> None:
    assert SPEC["hints"]["properties"]["targetAccuracy"]["description"].endswith(" Default: 0.5.")
    assert SPEC["runPolicy"]["properties"]["suspend"]["description"].endswith(" Default: false.")
    assert SPEC["model"]["properties"]["dtype"]["description"].endswith(' Default: "bfloat16".')
    plain = {path: schema for path, schema in NODES.items() if isinstance(schema.get("default"), (int, float, str))}
    assert len(plain) > 50
    for path, schema in plain.items():
        assert schema["default"] == "" or json.dumps(schema["default"]) in schema["description"], path


def test_an_optional_field_says_what_happens_if_it_is_unset() -> None:
    silent = [
        path
        for path, schema in NODES.items()
        if path.startswith(".spec") and schema.get("nullable") and "default" not in schema
        if not any(words in schema["description"] for words in ("if unset", "Defaults to", "null for", "Set either"))
        # One of several kinds, and features that their section enables.
        if not any(path.startswith(f".spec.storage.{volume}.") for volume in ("run", "huggingFaceCache"))
        if path not in {".spec.observability.wandb", ".spec.observability.mlflow"}
    ]
    assert silent == []


# The status

STATUS = {path.removeprefix(".status"): schema for path, schema in NODES.items() if path.startswith(".status")}


def test_a_status_may_lack_anything() -> None:
    for path, schema in STATUS.items():
        assert "default" not in schema, path
        assert schema.get("required", []) == (["type", "status"] if path == ".conditions[items]" else []), path


def test_conditions_are_merged_by_type() -> None:
    conditions = STATUS[".conditions"]
    assert (conditions["x-kubernetes-list-type"], conditions["x-kubernetes-list-map-keys"]) == ("map", ["type"])


def test_times_of_a_status_are_checked() -> None:
    times = {path for path, schema in STATUS.items() if schema.get("format") == "date-time"}
    assert {".startTime", ".lastFailure.time", ".conditions[items].lastTransitionTime"} <= times
    assert all(path.endswith(("Time", ".time", "Since", "notBefore")) for path in times)


# What is written


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["crd", *arguments])
    assert result.exit_code == 0
    return result.output


def test_rules_in_cel_can_be_left_out() -> None:
    assert yaml.safe_load(printed()) == crd()
    assert yaml.safe_load(printed("--no-cel")) == crd(cel=False)
    assert VALIDATIONS in json.dumps(crd())
    assert VALIDATIONS not in json.dumps(crd(cel=False))


def test_callers_may_change_their_copy() -> None:
    crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"].clear()
    assert "spec" in root()["properties"]


def test_a_union_that_kubernetes_cannot_express_is_an_error() -> None:
    with pytest.raises(ValueError, match="no structural schema"):
        structural({"anyOf": [{"type": "string"}, {"type": "object"}]}, {})
