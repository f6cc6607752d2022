"""Is it healthy? Failures and their limits, servers, timeouts, and the run's own checks."""

from tools.grafana.dashboard import WINDOW
from tools.grafana.looks import BLUE, GREEN, ORANGE, PURPLE, RED, TURQUOISE, YELLOW, Look, looks
from tools.grafana.panels import Graph
from tools.grafana.queries import by, of_run, one, reported_of_run

HEALTH = (
    Graph("Failures against their limits", "none", width=12, steps=True, decimals=0)
    .styled(*looks({"application": RED, "disruption": ORANGE}))
    .styled(Look("limit, application", RED, dashed=True), Look("limit, disruption", ORANGE, dashed=True))
    .healthy("Failures since the last progress stay below their limits; exceeding a limit ends the run.")
    .query("{{class}}", f"max by (class) ({reported_of_run('seele_run_failures')})")
    .query("limit, {{class}}", f"max by (class) ({reported_of_run('seele_run_failures_limit')})")
    .query("attempt", one("seele_attempt"), BLUE),
    Graph("Rollout servers", "none", width=12, stacked=True, steps=True, decimals=0)
    .styled(*looks({"ready": GREEN, "starting": YELLOW, "down": RED}))
    .healthy("None is down. A run continues with the remaining servers, and waits without any.")
    .query("{{state}}", by("state", "seele_rollout_servers")),
    Graph("Requests to rollout servers", "reqps")
    .styled(*looks({"ok": GREEN, "retried": ORANGE, "failed": RED}))
    .healthy("Nearly all are ok. Retries cost time; a request that finally fails ends the attempt.")
    .query("{{outcome}}", f"sum by (outcome) (rate({of_run('seele_rollout_requests_total')}[{WINDOW}]))"),
    Graph("Verifier timeouts", "none")
    .healthy("None. Rollouts whose answers cannot be checked in time are discarded.")
    .query("timeouts", f"sum(increase({of_run('seele_verifier_timeouts_total')}[{WINDOW}]))", RED)
    .limit(1, ORANGE),
    Graph("Truncated completions", "percentunit", highest=1)
    .healthy("Few. A completion that reaches the length limit has no answer and counts as wrong.")
    .query("truncated", one("seele_truncated_completions_ratio"), YELLOW)
    .limit(0.2, ORANGE),
    Graph("Canary after a weight sync", "suffix: nats")
    .healthy("Servers and trainer agree on the canary's log-probabilities up to rounding.")
    .query("mean difference", one("seele_weight_sync_canary_difference"), PURPLE),
    Graph("Weight syncs that the canary leaves open", "none")
    .healthy("None in float32. In half precision a step may change less than rounding; the proof is then repeated.")
    .query("unproven", f"sum(increase({of_run('seele_weight_syncs_unproven_total')}[{WINDOW}]))", YELLOW),
    Graph("Fitting curves", "s")
    .healthy("A small part of a step's time.")
    .query("seconds a step", one("seele_irt_fit_seconds"), TURQUOISE),
    Graph("Curve fits that failed", "none", width=12)
    .healthy("Almost none. Each used a fallback, which knows less about the problem.")
    .query("fallbacks", f"sum(increase({of_run('seele_irt_fit_fallbacks_total')}[{WINDOW}]))", ORANGE),
    Graph("Steps since the last checkpoint", "none", width=12, steps=True, decimals=0)
    .healthy("A saw-tooth: the steps that a restart would repeat. It never exceeds checkpoints.everySteps.")
    .query("steps at risk", f"clamp_min({one('seele_training_step')} - {one('seele_checkpoint_step')}, 0)", YELLOW),
)
