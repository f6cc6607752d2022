"""docs/metrics.md has all metrics that are exported and used."""

import importlib.util
import re
from pathlib import Path

from seele_operator.controller.metrics import OperatorMetrics
from tests.support import REPOSITORY
from tests.support.dashboard_queries import series_names
from tools.metrics_page import VLLM_ROWS, operator_rows, page, trainer_rows

ROWS = [*trainer_rows(), *VLLM_ROWS, *operator_rows()]


def test_every_metric_is_on_the_page_once_with_type_unit_and_meaning() -> None:
    listed = re.findall(
        r"^\| `([a-z0-9_:]+)` \| (gauge|counter|histogram) \| .* \| .+ \| .+\. \|$", page(), re.MULTILINE
    )
    assert listed == [(row.name, row.kind) for row in ROWS]
    assert len(set(listed)) == len(listed)


def test_the_page_has_all_metrics_of_the_operator() -> None:
    metrics = OperatorMetrics()
    metrics.watch_runs(lambda: [], lambda: 0)
    exported = {family.name for family in metrics.registry.collect() if family.name.startswith("seele_")}
    assert {row.name.removesuffix("_total") for row in operator_rows()} == exported


def test_vllm_metrics_on_the_page_are_in_its_source() -> None:
    # Read instead of imported, which would take seconds.
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    source = (Path(spec.origin).parent / "v1" / "metrics" / "loggers.py").read_text()
    made = re.findall(r"self\._(gauge|counter|histogram)_cls\(\s*name=\"(vllm:\w+)\"", source)
    exported = {(f"{name}_total" if kind == "counter" else name, kind) for kind, name in made}

    assert {(row.name, row.kind) for row in VLLM_ROWS} <= exported


def test_metrics_in_dashboards_are_on_the_page() -> None:
    for dashboard in (REPOSITORY / "manifests" / "grafana").glob("*.json"):
        shown = set(re.findall(r"(?:\bseele_|\bvllm:)[a-z0-9_]+", dashboard.read_text()))
        assert shown
        assert shown <= series_names(), dashboard.name
