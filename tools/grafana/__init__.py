"""The Grafana dashboards, built from typed panels: `run` shows one run, `fleet` all runs and their operator.

`make generated` writes them to manifests/grafana. Queries are PromQL text, which the tests run against a real Prometheus.
"""

import importlib
import json


def text(name: str) -> str:
    """The JSON file of a dashboard, from `DASHBOARD` in the module `tools.grafana.<name>`."""
    dashboard = importlib.import_module(f"tools.grafana.{name}").DASHBOARD
    return json.dumps(dashboard.json(), indent=2, ensure_ascii=False) + "\n"
