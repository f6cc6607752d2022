"""Is it healthy? Failures and their limits, servers, timeouts, and the run's own checks."""

from __future__ import annotations

from tools.grafana.dashboard import WINDOW
from tools.grafana.looks import BLUE, GREEN, ORANGE, PURPLE, RED, TURQUOISE, YELLOW, Limit, Look, looks
from tools.grafana.panels import Graph
from tools.grafana.queries import Query, by, of_run, one, reported_of_run

HEALTH = (
    Graph(
        title="Failures against their limits",
        description="Failures since the last progress stay below their limits; exceeding a limit ends the run.",
        unit="none",
        queries=(
            Query(f"max by (class) ({reported_of_run('seele_run_failures')})", "{{class}}"),
            Query(f"max by (class) ({reported_of_run('seele_run_failures_limit')})", "limit, {{class}}"),
            Query(one("seele_attempt"), "attempt"),
        ),
        steps=True,
        decimals=0,
        looks=(
            Look("application", RED),
            Look("disruption", ORANGE),
            Look("limit, application", RED, dashed=True),
            Look("limit, disruption", ORANGE, dashed=True),
            Look("attempt", BLUE),
        ),
    ),
    Graph(
        title="Rollout servers",
        description="None is down. A run continues with the remaining servers, and waits without any.",
        unit="none",
        queries=(Query(by("state", "seele_rollout_servers"), "{{state}}"),),
        stacked=True,
        steps=True,
        decimals=0,
        looks=looks({"ready": GREEN, "starting": YELLOW, "down": RED}),
    ),
    Graph(
        title="Requests to rollout servers",
        description="Nearly all are ok. Retries cost time; a request that finally fails ends the attempt.",
        unit="reqps",
        queries=(Query(f"sum by (outcome) (rate({of_run('seele_rollout_requests_total')}[{WINDOW}]))", "{{outcome}}"),),
        looks=looks({"ok": GREEN, "retried": ORANGE, "failed": RED}),
    ),
    Graph(
        title="Verifier timeouts",
        description="None. Rollouts whose answers cannot be checked in time are discarded.",
        unit="none",
        queries=(Query(f"sum(increase({of_run('seele_verifier_timeouts_total')}[{WINDOW}]))", "timeouts"),),
        limits=(Limit(1, ORANGE),),
        looks=looks({"timeouts": RED}),
    ),
    Graph(
        title="Truncated completions",
        description="Few. A completion that reaches the length limit has no answer and counts as wrong.",
        unit="percentunit",
        queries=(Query(one("seele_truncated_completions_ratio"), "truncated"),),
        highest=1,
        limits=(Limit(0.2, ORANGE),),
        looks=looks({"truncated": YELLOW}),
    ),
    Graph(
        title="Canary after a weight sync",
        description="Servers and trainer agree on the canary's log-probabilities up to rounding.",
        unit="suffix: nats",
        queries=(Query(one("seele_weight_sync_canary_difference"), "mean difference"),),
        looks=looks({"mean difference": PURPLE}),
    ),
    Graph(
        title="Fitting curves",
        description="A small part of a step's time.",
        unit="s",
        queries=(Query(one("seele_irt_fit_seconds"), "seconds a step"),),
        looks=looks({"seconds a step": TURQUOISE}),
    ),
    Graph(
        title="Curve fits that failed",
        description="Almost none. Each used a fallback, which knows less about the problem.",
        unit="none",
        queries=(Query(f"sum(increase({of_run('seele_irt_fit_fallbacks_total')}[{WINDOW}]))", "fallbacks"),),
        looks=looks({"fallbacks": ORANGE}),
    ),
    Graph(
        title="Steps since the last checkpoint",
        description="A saw-tooth: the steps that a restart would repeat. It never exceeds checkpoints.everySteps.",
        unit="none",
        queries=(
            Query(f"clamp_min({one('seele_training_step')} - {one('seele_checkpoint_step')}, 0)", "steps at risk"),
        ),
        steps=True,
        decimals=0,
        looks=looks({"steps at risk": YELLOW}),
    ),
)
