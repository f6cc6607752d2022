"""docs/metrics.md, from the very definitions that are exported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prometheus_client.metrics_core import Metric as Family

from seele_operator.controller.metrics import OperatorMetrics
from seele_trainer.telemetry.definitions import (
    EVALUATION_METRICS,
    MOMENT_METRICS,
    RUN_METRICS,
    STEP_METRICS,
    TIME_METRICS,
)
from seele_trainer.telemetry.metric import HISTOGRAM_METRICS
from tools.vllm_metrics import VLLM_METRICS

TEXT = """\
<!-- Written by `make generated` from the definitions in the code; change those. -->
# Metrics

What Prometheus can scrape, and what it means. The dashboards in `manifests/grafana/` and the alerts in
`manifests/prometheus/rules.yaml` are made of these ([runbooks](runbooks.md)).

## Where they are

| what | where | job |
|---|---|---|
| trainer | port 9400 of the pod `<run>-trainer-0`, `/metrics` | `seele-trainer` |
| vLLM | the same port, `/rollout/metrics` | `seele-rollout` |
| operator | port 9401 of its pod, `/metrics` | `seele-operator` |

Prometheus cannot reach the rollout servers: the run's NetworkPolicy keeps everybody but its trainers away from their control
routes. So the first trainer fetches the servers' metrics when it is scraped, keeps those of vLLM itself, and adds the label
`server`, the place of the server in the list. It asks them at most every three seconds, however many scrape it, and waits
eight seconds for them: leave the job's scrape timeout at ten.

On a cluster the Helm chart's `monitoring.podMonitor.enabled` and `monitoring.serviceMonitor.enabled` have the Prometheus
operator scrape all of them; without Helm `manifests/prometheus/podmonitor.yaml`, `servicemonitor.yaml` and
`prometheusrule.yaml` do. For a plain Prometheus there is `manifests/prometheus/scrape-config.yaml`, and for `seele run` on this
machine `manifests/prometheus/local.yaml`.

Every series of a trainer and of its servers gets the labels `namespace`, `run`, `attempt` and `pod` from where it was scraped;
those of the operator get `namespace` and `pod`. Counters and histograms of a run go on where an earlier attempt left them. No
label has a value for each problem; curves by problem are in the run's folder.

A value that was not measured in the last step, such as the accuracy of a round that was not played, is NaN.

## Questions and queries

How long since the run got any further, in seconds?

```promql
time() - seele_last_progress_timestamp_seconds
```

How far from the target is the accuracy of hinted rollouts? The comparison leaves out rounds that were not played.

```promql
avg without (round) (seele_rollout_accuracy >= 0) - seele_target_accuracy
```

How were the hint rates of the last five minutes distributed? As a heat map, one row a bucket.

```promql
sum by (le) (increase(seele_hint_rate_bucket[5m]))
```

What was the median ability of the fitted curves? Its histogram has negative buckets, and so neither a sum nor a count.

```promql
histogram_quantile(0.5, sum by (namespace, run, le) (rate(seele_irt_ability_bucket[5m])))
```

Which share of the time goes into which phase? From the totals: the gauge `seele_phase_seconds` is that of the last step alone.

```promql
sum by (phase) (rate(seele_phase_time_seconds_total[5m]))
  / on () group_left sum (rate(seele_phase_time_seconds_total[5m]))
```

How many tokens a second are generated, as the trainer counts them and as the servers do?

```promql
sum by (namespace, run) (rate(seele_tokens_total{{kind="generated"}}[5m]))
```

```promql
sum by (namespace, run) (rate(vllm:generation_tokens_total[5m]))
```

How often is a request answered only by another try?

```promql
sum by (namespace, run) (rate(seele_rollout_requests_total{{outcome="retried"}}[5m]))
  / sum by (namespace, run) (rate(seele_rollout_requests_total[5m]))
```

## Of a trainer

A trainer ends soon after its last step, perhaps between two scrapes. What its run came to is with the operator, in
`seele_run_step` and `seele_run_accuracy`.

{trainer}

## Of vLLM

vLLM exports more than these; here are those that matter to a run. All have the labels `server`, `engine` and
`model_name`.

{vllm}

## Of the operator

One pass over the statuses answers a scrape. `run_namespace` and `run` name a SeeleRun; `namespace` is the operator's own. There
are also the usual `process_` and `python_` metrics. Only the operator that leads tells of runs.

{operator}
"""

HEAD = ("name", "type", "labels", "unit", "meaning")


@dataclass(frozen=True)
class Row:
    """A metric as the page has it."""

    name: str
    kind: str
    labels: Sequence[str]
    unit: str
    meaning: str


def page() -> str:
    """The whole page."""
    return TEXT.format(trainer=_table(trainer_rows()), vllm=_table(vllm_rows()), operator=_table(operator_rows()))


def trainer_rows() -> list[Row]:
    """In the order of the tables in the code."""
    tables = (*RUN_METRICS, *MOMENT_METRICS, *STEP_METRICS, *TIME_METRICS, *EVALUATION_METRICS, *HISTOGRAM_METRICS)
    return [Row(one.name, one.kind, [one.label] if one.label else [], one.unit, one.help) for one in tables]


def vllm_rows() -> list[Row]:
    """Those of vLLM that matter to a run."""
    return [Row(one.name, one.kind, one.labels, one.unit, one.meaning) for one in VLLM_METRICS]


def operator_rows() -> list[Row]:
    """Read off an operator that has seen one of everything."""
    metrics = OperatorMetrics()
    status = {"phase": "Running", "lastCheckpoint": {"step": 1}, "step": 1, "steps": 1, "accuracy": 0.5}
    metrics.watch_runs(lambda: [{"metadata": {"namespace": "lab", "name": "run"}, "status": status}], lambda: 0)
    metrics.request_seen("GET", 200, 0.1)
    families = [family for family in metrics.registry.collect() if family.name.startswith("seele_")]
    return [_row(family) for family in sorted(families, key=lambda family: family.name.startswith("seele_run_"))]


def _row(family: Family) -> Row:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    labels = dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le")
    return Row(name, family.type, list(labels), _unit(name), family.documentation)


def _unit(name: str) -> str:
    """Of a metric of the operator: its name says it, as Prometheus' conventions have it."""
    units = {
        "_seconds": "seconds",
        "_errors_total": "passes",
        "_restarts_total": "restarts",
        "_runs": "runs",
        "_depth": "runs",
        "_phase": "1",
        "_leader": "0 or 1",
        "_attempt": "attempts",
        "_failures": "failures",
        "_limit": "failures",
        "_step": "steps",
        "_planned": "steps",
        "_accuracy": "0 to 1",
    }
    return next(unit for ending, unit in units.items() if name.endswith(ending))


def _table(rows: Iterable[Row]) -> str:
    lines = [HEAD, tuple("---" for _ in HEAD)]
    for row in rows:
        labels = ", ".join(f"`{label}`" for label in row.labels)
        meaning = re.sub(r"([|<>])", r"\\\1", row.meaning)
        lines.append((f"`{row.name}`", row.kind, labels, row.unit, meaning))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
