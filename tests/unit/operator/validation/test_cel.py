"""The rules in CEL and in Python agree: on a case for each rule, and on random runs."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

import cel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seele_operator.api.types import BadRunError
from seele_operator.validation.crd import crd
from seele_operator.validation.load import parse_run
from seele_operator.validation.rules import RULES, VALIDATIONS, check_cluster, check_run
from seele_operator.validation.schema import Schema
from seele_trainer.methods import StrategyName
from tests.support.spec_data import CEL_CASES, full_run, good_run, patched

SCHEMA: Schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
IN_CEL = [rule for rule in RULES if rule.cel]
compiled = cache(cel.compile)


def as_served(schema: Schema, value: Any) -> Any:
    """A value as the API server passes it to a rule: with defaults, without nulls, and with numbers of one type."""
    if isinstance(value, dict) and "properties" in schema:
        defaults = {name: field["default"] for name, field in schema["properties"].items() if "default" in field}
        nullable = {name for name, field in schema["properties"].items() if field.get("nullable")}
        given = {name: entry for name, entry in value.items() if entry is not None or name in nullable}
        known = {name: entry for name, entry in (defaults | given).items() if entry is not None}
        return {name: as_served(schema["properties"].get(name, {}), entry) for name, entry in known.items()}
    if isinstance(value, dict) and "additionalProperties" in schema:
        return {name: as_served(schema["additionalProperties"], entry) for name, entry in value.items()}
    if isinstance(value, list) and "items" in schema:
        return [as_served(schema["items"], entry) for entry in value]
    return float(value) if schema.get("type") == "number" else value


def broken(schema: Schema, value: Any) -> Iterator[str]:
    """The messages of all rules that a value breaks."""
    if rules := schema.get(VALIDATIONS):
        context = cel.Context({"self": value})
        yield from (rule["message"] for rule in rules if compiled(rule["rule"]).execute(context) is not True)
    if isinstance(value, dict):
        for name, entry in value.items():
            inner = schema.get("properties", {}).get(name) or schema.get("additionalProperties") or {}
            yield from broken(inner, entry)
    if isinstance(value, list):
        for entry in value:
            yield from broken(schema.get("items", {}), entry)


def by_cel(body: dict[str, Any]) -> list[str]:
    return list(broken(SCHEMA, as_served(SCHEMA, body)))


def by_python(body: dict[str, Any]) -> list[str]:
    try:
        run = parse_run(body)
    except BadRunError as error:
        return error.problems
    return [*check_run(run), *check_cluster(run)]


def fields(lines: list[str]) -> set[str]:
    """The field of each line, without the place in a list."""
    return {re.sub(r"\[\d*\]", "", line.split(": ")[0]) for line in lines}


def test_a_good_run_breaks_no_rule() -> None:
    for body in (good_run(), full_run()):
        assert by_cel(body) == []
        assert by_python(body) == []


@pytest.mark.parametrize(("body", "field"), CEL_CASES.values(), ids=CEL_CASES)
def test_a_bad_run_is_refused_by_both_for_the_same_field(body: dict[str, Any], field: str) -> None:
    in_cel, in_python = by_cel(body), by_python(body)
    assert len(in_cel) == 1, in_cel
    assert fields(in_cel) == fields(in_python) == {field}
    # The values are filled in, and nothing is left of the notation of a rule.
    assert not re.search(r"[{}|]", "".join([*in_cel, *in_python]))


def test_each_rule_has_a_case() -> None:
    def without_field(message: str) -> str:
        return re.sub("(nvidia|amd).com/gpu", "GPU", message.split(": ", 1)[1])

    # The same rule about another field needs no case of its own.
    covered = {without_field(message) for body, _ in CEL_CASES.values() for message in by_cel(body)}
    assert [rule.field for rule in IN_CEL if without_field(rule.general_message) not in covered] == []


def test_no_rule_compares_with_the_previous_spec() -> None:
    """A rule about a change would refuse the repair of a run that an old server accepted."""
    assert not any("oldSelf" in rule.cel for rule in IN_CEL)


def test_a_rule_needs_nothing_newer_than_kubernetes_1_25() -> None:
    for rule in IN_CEL:
        assert not re.search(r"quantity\(|\.split\(|\.join\(|optional|format\.|url\(|\?\.|ip\(", rule.cel)
        assert "\n" not in rule.general_message
        assert len(rule.general_message) <= 2048
        assert re.match(r"(spec\.|metadata\.name)\S*: ", rule.general_message)


BOUNDS: dict[str, tuple[dict[str, Any], str]] = {
    "variables": (
        {"trainer": {"env": [{"name": f"A{index}"} for index in range(201)]}},
        "spec.trainer.env: has too many entries; give at most 200",
    ),
    "pull secrets": (
        {"scheduling": {"imagePullSecrets": [{"name": f"a{index}"} for index in range(65)]}},
        "spec.scheduling.imagePullSecrets: has too many entries; give at most 64",
    ),
    "benchmarks": (
        {"evaluation": {"benchmarks": [{"title": f"b{index}", "path": "b.json"} for index in range(65)]}},
        "spec.evaluation.benchmarks: has too many entries; give at most 64",
    ),
    "name of a variable": ({"trainer": {"env": [{"name": "A" * 254}]}}, "has 254 characters; use at most 253"),
    "name of a claim": (
        {"storage": {"run": {"persistentVolumeClaim": {"claimName": "a" * 254}}}},
        "has 254 characters; use at most 253",
    ),
    "path of a data set": ({"dataset": {"path": "a" * 4092 + ".json"}}, "has 4097 characters; use at most 4096"),
    "title of a benchmark": (
        {"evaluation": {"benchmarks": [{"title": "b" * 64, "path": "b.json"}]}},
        "at most 63 letters",
    ),
}


@pytest.mark.parametrize("case", BOUNDS)
def test_bounds_that_keep_rules_cheap_hold_in_python_too(case: str) -> None:
    spec, words = BOUNDS[case]
    body = patched(good_run(), {"spec": spec})

    (line,) = by_python(body)
    assert words in line
    assert list(too_large(SCHEMA, body)), "the schema lets it through"


def too_large(schema: Schema, value: Any) -> Iterator[str]:
    """Bounds of the schema that a value exceeds."""
    for bound in ("maxItems", "maxLength"):
        if isinstance(value, (str, list)) and len(value) > schema.get(bound, len(value)):
            yield bound
    if isinstance(value, dict):
        for name, entry in value.items():
            yield from too_large(schema.get("properties", {}).get(name, {}), entry)
    if isinstance(value, list):
        for entry in value:
            yield from too_large(schema.get("items", {}), entry)


# Random runs

few = st.integers(1, 5)
optional_length = st.none() | st.integers(1, 40)
SPECS = st.fixed_dictionaries(
    {
        "training": st.fixed_dictionaries(
            {
                "strategy": st.sampled_from(get_args(StrategyName)),
                "steps": few,
                "sftThenGrpo": st.fixed_dictionaries({"sftShare": st.integers(1, 9).map(lambda tenths: tenths / 10)}),
                "prefixRft": st.fixed_dictionaries(
                    {"firstLowerBound": st.sampled_from([0, 0.95, 1]), "longestPrefix": st.sampled_from([0.9, 1])}
                ),
                "problemsPerStep": few,
                "problemsPerUpdate": few,
                "warmupUpdates": st.integers(0, 9),
                "advantageGroup": st.sampled_from(["problem", "round"]),
            }
        ),
        "hints": st.fixed_dictionaries(
            {
                "rounds": few,
                "rolloutsPerRound": few,
                # Some products are halves, which both must round alike.
                "unhintedShare": st.just(0) | st.integers(0, 19).map(lambda twentieths: twentieths / 20),
            }
        ),
        "model": st.fixed_dictionaries({"contextLength": optional_length}),
        "dataset": st.fixed_dictionaries(
            {
                "maxPromptTokens": st.integers(1, 12),
                "maxSolutionTokens": st.integers(1, 12),
                "format": st.sampled_from(["generic", "gsm8k"]),
                "fields": st.fixed_dictionaries(
                    {"solution": st.none() | st.just("solution"), "steps": st.none() | st.just("steps")}
                ),
            }
        ),
        "rollout": st.fixed_dictionaries(
            {
                "engine": st.sampled_from(["vllm", "transformers"]),
                "replicas": st.integers(1, 2),
                "tensorParallelSize": st.integers(1, 2),
                "maxCompletionTokens": st.integers(1, 12),
                "maxModelLen": optional_length,
                "resources": st.fixed_dictionaries(
                    {"limits": st.dictionaries(st.just("nvidia.com/gpu"), st.sampled_from([0, 1, "2", "01"]))}
                ),
            }
        ),
        "evaluation": st.fixed_dictionaries({"maxCompletionTokens": st.none() | st.integers(1, 30)}),
        "trainer": st.fixed_dictionaries(
            {
                "replicas": few,
                "processesPerReplica": few,
                "deepspeed": st.fixed_dictionaries({"zeroStage": st.integers(0, 3)}),
            }
        ),
        "scheduling": st.fixed_dictionaries(
            {
                "gang": st.sampled_from(["none", "kueue", "volcano", "coscheduling"]),
                "queueName": st.none() | st.just("team"),
            }
        ),
        "storage": st.fixed_dictionaries(
            {"run": st.sampled_from([{"emptyDir": {}}, {"persistentVolumeClaim": {"claimName": "runs"}}])}
        ),
    }
)


@settings(max_examples=100, deadline=None)
@given(SPECS)
def test_both_refuse_the_same_fields(spec: dict[str, Any]) -> None:
    body = good_run()
    body["spec"] = {**patched(body["spec"], spec), "storage": spec["storage"]}

    assert fields(by_cel(body)) == fields(by_python(body))


names = st.text(alphabet="aZ0_-. /", min_size=1, max_size=6) | st.sampled_from(["SEELE_X", "RANK", "seele", "a.b-c"])


@settings(max_examples=100, deadline=None)
@given(names, names, st.sampled_from(["8Gi", "8 Gi", ".5", "1.", "", "1e3", "1e333", "-1", "5m", "5K", 7, -7]), names)
def test_both_refuse_the_same_names(variable: str, claim: str, size: str | int, path: str) -> None:
    changes = {
        "trainer": {"env": [{"name": variable}]},
        "storage": {
            "run": {"persistentVolumeClaim": {"claimName": claim}},
            "sharedMemory": size,
            "huggingFaceCache": {"hostPath": {"path": f"/data/{path}"}},
        },
    }
    body = patched(good_run(), {"spec": changes})

    assert fields(by_cel(body)) == fields(by_python(body))


@settings(max_examples=100, deadline=None)
@given(
    st.text(alphabet="a./", max_size=6), st.sampled_from(["", ".json", ".jsonl", ".parquet", ".csv", ".json/", "/."])
)
def test_both_refuse_the_same_files(stem: str, ending: str) -> None:
    body = patched(good_run(), {"spec": {"dataset": {"path": stem + ending}}})

    assert fields(by_cel(body)) == fields(by_python(body))
