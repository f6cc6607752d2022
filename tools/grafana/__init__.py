"""The Grafana dashboards, built from typed panels: `run` is about one run, `fleet` about all runs and their operator.

`make generated` writes them to manifests/grafana. Queries are PromQL text, and the same text is executed by the tests
against a real Prometheus.
"""

from __future__ import annotations

import importlib
import json


def text(name: str) -> str:
    """The file of a dashboard, as it is committed; its content is `DASHBOARD` of the module `tools.grafana.<name>`."""
    dashboard = importlib.import_module(f"tools.grafana.{name}").DASHBOARD
    return json.dumps(dashboard.json(), indent=2, ensure_ascii=False) + "\n"
