"""The alerts: promtool's checks, when they fire, and that each has a runbook."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import REPOSITORY
from tests.support.prometheus_server import RULES, promtool
from tools.metrics_page import operator_rows, trainer_rows

FILES = sorted((REPOSITORY / "tests" / "prometheus").glob("*.yaml"))
RUNBOOKS = REPOSITORY / "docs" / "runbooks.md"
RULE_LIST: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULE_LIST if "alert" in rule}


def cases(alert: str) -> list[dict[str, Any]]:
    """The test cases of an alert: a time, and the expected alerts."""
    return [
        case
        for file in FILES
        for test in yaml.safe_load(file.read_text())["tests"]
        for case in test.get("alert_rule_test", ())
        if case["alertname"] == alert
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_alerts_fire_when_they_should_and_only_then(file: Path) -> None:
    tested = promtool("test", "rules", file)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_promtool_accepts_the_rules() -> None:
    checked = promtool("check", "rules", "--lint-fatal", RULES)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(RULE_LIST)} rules found" in checked.stdout


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_tested_firing_and_silent(alert: str) -> None:
    assert {bool(case.get("exp_alerts")) for case in cases(alert)} == {True, False}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_a_summary_a_description_and_a_runbook(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("warning", "critical")
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert not re.search(r"\s$|\n", notes["summary"] + notes["description"])
    assert notes["runbook_url"].endswith(f"/docs/runbooks.md#{alert.lower()}")


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    sections = re.split(r"^## ", RUNBOOKS.read_text(), flags=re.MULTILINE)[1:]
    assert [section.splitlines()[0] for section in sections] == list(ALERTS)
    for section in sections:
        assert re.findall(r"^\*\*(.*?)\*\*", section, flags=re.MULTILINE) == ["Means", "Look at", "Do"]


def test_rules_use_existing_metrics() -> None:
    exported = {row.name for row in (*trainer_rows(), *operator_rows())}
    used = {name for rule in RULE_LIST for name in re.findall(r"(?<![:\w])seele_\w+", rule["expr"])}
    assert used
    assert used <= exported
