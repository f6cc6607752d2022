"""Is it fast? Where a step's time goes, and the rollout servers' own metrics."""

from tools.grafana.dashboard import RATE, WINDOW
from tools.grafana.looks import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, YELLOW, looks
from tools.grafana.panels import Graph
from tools.grafana.queries import by, of_run, one, quantile

_TOKEN = "vllm:request_time_per_output_token_seconds"


def _of_servers(metric: str) -> str:
    return f"sum by (server) ({of_run(metric)})"


def _rate_of_servers(metric: str) -> str:
    return f"sum by (server) (rate({of_run(metric)}[{RATE}]))"


_PHASES = looks({"rollout": BLUE, "verify": PURPLE, "train": GREEN, "sync": ORANGE, "eval": YELLOW, "checkpoint": GREY})

SPEED = (
    Graph("Where a step's time goes", "s", height=9, stacked=True)
    .styled(*_PHASES)
    .healthy("Sampling and training take most of it. Evaluations and checkpoints count for the step after them.")
    .query("{{phase}}", by("phase", "seele_phase_seconds")),
    Graph("Share of all time", "percentunit", height=9, highest=1, stacked=True)
    .styled(*_PHASES)
    .healthy("Mostly sampling and training. The rest up to 100 % is spent outside of steps.")
    .query("{{phase}}", f"sum by (phase) (rate({of_run('seele_phase_time_seconds_total')}[{WINDOW}]))"),
    Graph("Seconds per step", "s", height=9)
    .healthy("Steady, or falling as hints and completions get shorter.")
    .query("last step", one("seele_step_seconds"), GREY)
    .query("mean", f"avg(avg_over_time({of_run('seele_step_seconds')}[{WINDOW}]))", BLUE),
    Graph("Tokens per second", "short", fill=0)
    .styled(*looks({"generated": BLUE, "trained": GREEN, "prompt": GREY, "hint": YELLOW}))
    .healthy("Mostly generated tokens. Trained tokens are fewer if identical rollouts were merged.")
    .query("{{kind}}", f"sum by (kind) (rate({of_run('seele_tokens_total')}[{WINDOW}]))"),
    Graph("Generation throughput by server", "short")
    .healthy("About the same for all servers during sampling, and zero while the trainer computes.")
    .query("server {{server}}", _rate_of_servers("vllm:generation_tokens_total")),
    Graph("Weight sync", "s")
    .healthy("A small part of a step. It grows with the model and the number of servers, not with the run's age.")
    .query("weight sync", one("seele_weight_sync_seconds"), ORANGE),
    Graph("Requests at the rollout servers", "none")
    .healthy("Many are running and few waiting. If many wait, more servers or cache would help.")
    .query("running, server {{server}}", _of_servers("vllm:num_requests_running"))
    .query("waiting, server {{server}}", _of_servers("vllm:num_requests_waiting")),
    Graph("KV cache in use", "percentunit", highest=1)
    .healthy("Below 90 %. If the cache is full, requests wait or are preempted.")
    .query("server {{server}}", by("server", "vllm:kv_cache_usage_perc"))
    .limit(0.9, RED),
    Graph("Prefix cache hits", "percentunit", highest=1)
    .healthy("High: completions share their prompt and hint. Zero if these are shorter than a cache block.")
    .query(
        "server {{server}}",
        f"{_rate_of_servers('vllm:prefix_cache_hits_total')}"
        f" / ({_rate_of_servers('vllm:prefix_cache_queries_total')} > 0)",
    ),
    Graph("Time per output token", "s")
    .healthy("Low and steady; it grows with the number of requests that share a batch.")
    .query("99 % faster than", quantile(0.99, _TOKEN, RATE), RED)
    .query("half faster than", quantile(0.5, _TOKEN, RATE), BLUE),
    Graph("Preempted requests", "ops")
    .healthy("None. Preempted requests compute their tokens twice: increase the KV cache.")
    .query("server {{server}}", _rate_of_servers("vllm:num_preemptions_total"))
    .limit(0.1, ORANGE),
    Graph("Time in the queue", "s")
    .healthy("Near zero. A queue means that the servers are overloaded.")
    .query(
        "mean, server {{server}}",
        f"{_rate_of_servers('vllm:request_queue_time_seconds_sum')}"
        f" / ({_rate_of_servers('vllm:request_queue_time_seconds_count')} > 0)",
    ),
)
