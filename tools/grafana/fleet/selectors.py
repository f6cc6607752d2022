"""Series of many runs, each once regardless of the number of operators and attempts."""

RUN_URL = (
    "/d/seele-run?var-datasource=${datasource}"
    "&var-namespace=${__data.fields.namespace}&var-run=${__data.fields.run}&${__url_time_range}"
)
LEADING = 'and on (instance) (seele_operator_leader{job="seele-operator"} == 1)'
"""Only series of the leading operator, since others may be outdated."""


def reported(metric: str, *labels: str, condition: str = "") -> str:
    """Series of each run that the operator exports, by namespace, run and other labels."""
    kept = ", ".join(("namespace", "run", *labels))
    series = f'{metric}{{run_namespace=~"$namespace"}}{condition}'
    return f'max by ({kept}) (label_replace({series} {LEADING}, "namespace", "$1", "run_namespace", "(.+)"))'


def measured(metric: str) -> str:
    """The mean of the last value of each run's trainer, even if it has ended, without values that were not measured."""
    values = f"last_over_time({of_trainers(metric)}[$__range]) >= 0"
    attempts = f"last_over_time({of_trainers('seele_attempt')}[$__range])"
    # Earlier attempts in the time range have a last value too.
    latest = f"({attempts} == on (namespace, run) group_left () max by (namespace, run) ({attempts}))"
    return f"avg by (namespace, run) ({values} and on (namespace, run, attempt) {latest})"


def live(metric: str) -> str:
    """The mean of the current value of each run's trainer, without values that were not measured."""
    return f"avg by (namespace, run) ({of_trainers(metric)} >= 0)"


def of_trainers(metric: str) -> str:
    """A series of the trainers of all selected runs."""
    return f'{metric}{{namespace=~"$namespace"}}'


def in_phase(*phases: str) -> str:
    """The number of runs in one of these phases."""
    wanted = "|".join(phases)
    series = f'seele_run_phase{{run_namespace=~"$namespace", phase=~"{wanted}"}}'
    return f"count(max by (run_namespace, run) ({series} {LEADING})) or on() vector(0)"


def of_operator(metric: str, **labels: str) -> str:
    """A series of the operator itself."""
    matchers = "".join(f', {name}="{value}"' for name, value in labels.items())
    return f'{metric}{{job="seele-operator"{matchers}}}'


def restarts(window: str) -> str:
    """Restarts by class within a window."""
    return f"sum by (class) (increase({of_operator('seele_operator_restarts_total')}[{window}]))"


def operator_quantile(share: float, histogram: str, window: str, *labels: str) -> str:
    """A quantile of a histogram of all operators within a window."""
    buckets = of_operator(f"{histogram}_bucket")
    return f"histogram_quantile({share:g}, sum by ({', '.join(('le', *labels))}) (rate({buckets}[{window}])))"
