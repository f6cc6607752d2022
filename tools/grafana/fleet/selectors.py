"""Series about many runs, each told once however many operators and attempts there are."""

from __future__ import annotations

RUN_URL = (
    "/d/seele-run?var-datasource=${datasource}"
    "&var-namespace=${__data.fields.namespace}&var-run=${__data.fields.run}&${__url_time_range}"
)
LEADING = 'and on (instance) (seele_operator_leader{job="seele-operator"} == 1)'
"""Only what the operator says that leads: a standby may be behind."""


def told(metric: str, *labels: str, condition: str = "") -> str:
    """What the operator says of each run, by namespace, run and these labels; the run's namespace is its own label there."""
    kept = ", ".join(("namespace", "run", *labels))
    series = f'{metric}{{run_namespace=~"$namespace"}}{condition}'
    return f'max by ({kept}) (label_replace({series} {LEADING}, "namespace", "$1", "run_namespace", "(.+)"))'


def measured(metric: str) -> str:
    """The mean of what each run's trainer said last, also after it has ended; what was not measured is NaN and left out."""
    said = f"last_over_time({of_trainers(metric)}[$__range]) >= 0"
    attempts = f"last_over_time({of_trainers('seele_attempt')}[$__range])"
    # Earlier attempts within the time range have said something last, too.
    latest = f"({attempts} == on (namespace, run) group_left () max by (namespace, run) ({attempts}))"
    return f"avg by (namespace, run) ({said} and on (namespace, run, attempt) {latest})"


def live(metric: str) -> str:
    """The mean of what the trainer of each run at work says; what was not measured is NaN and left out."""
    return f"avg by (namespace, run) ({of_trainers(metric)} >= 0)"


def of_trainers(metric: str) -> str:
    """A series of the trainers of all chosen runs, as they export it."""
    return f'{metric}{{namespace=~"$namespace"}}'


def in_phase(*phases: str) -> str:
    """How many runs are in one of these phases; 0 where none is."""
    wanted = "|".join(phases)
    series = f'seele_run_phase{{run_namespace=~"$namespace", phase=~"{wanted}"}}'
    return f"count(max by (run_namespace, run) ({series} {LEADING})) or on() vector(0)"


def of_operator(metric: str, **labels: str) -> str:
    """A series of the operator itself."""
    matchers = "".join(f', {name}="{value}"' for name, value in labels.items())
    return f'{metric}{{job="seele-operator"{matchers}}}'


def restarts(window: str) -> str:
    """Restarts of gangs by class within a window."""
    return f"sum by (class) (increase({of_operator('seele_operator_restarts_total')}[{window}]))"


def operator_quantile(share: float, histogram: str, window: str, *labels: str) -> str:
    """A quantile of what all operators have observed within a window."""
    buckets = of_operator(f"{histogram}_bucket")
    return f"histogram_quantile({share:g}, sum by ({', '.join(('le', *labels))}) (rate({buckets}[{window}])))"
