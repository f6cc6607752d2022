"""docs/metrics.md tells of everything that is exported and used."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from seele_operator.controller.metrics import OperatorMetrics
from tests.support import REPOSITORY
from tests.support.dashboard_queries import series_names
from tools.metrics_page import operator_rows, page, trainer_rows, vllm_rows

pytestmark = pytest.mark.unit

ROWS = [*trainer_rows(), *vllm_rows(), *operator_rows()]


def test_every_metric_is_on_the_page_once_with_a_type_a_unit_and_a_meaning() -> None:
    listed = re.findall(
        r"^\| `([a-z0-9_:]+)` \| (gauge|counter|histogram) \| .* \| .+ \| .+\. \|$", page(), re.MULTILINE
    )
    assert listed == [(row.name, row.kind) for row in ROWS]
    assert len(set(listed)) == len(listed)


def test_the_operator_leaves_no_metric_out_that_it_exports() -> None:
    metrics = OperatorMetrics()
    metrics.watch_runs(lambda: [], lambda: 0)
    exported = {family.name for family in metrics.registry.collect() if family.name.startswith("seele_")}
    assert {row.name.removesuffix("_total") for row in operator_rows()} == exported


def test_what_the_page_calls_vllms_is_in_vllms_source() -> None:
    # It is read and not imported, which takes seconds.
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    source = (Path(spec.origin).parent / "v1" / "metrics" / "loggers.py").read_text()
    made = re.findall(r"self\._(gauge|counter|histogram)_cls\(\s*name=\"(vllm:\w+)\"", source)
    exported = {(f"{name}_total" if kind == "counter" else name, kind) for kind, name in made}

    assert {(row.name, row.kind) for row in vllm_rows()} <= exported


def test_what_dashboards_show_is_on_the_page() -> None:
    for dashboard in (REPOSITORY / "manifests" / "grafana").glob("*.json"):
        shown = set(re.findall(r"(?:\bseele_|\bvllm:)[a-z0-9_]+", dashboard.read_text()))
        assert shown
        assert shown <= series_names(), dashboard.name
