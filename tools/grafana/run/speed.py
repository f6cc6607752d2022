"""Is it fast? Where a step's time goes, and the rollout servers' own metrics."""

from __future__ import annotations

from tools.grafana.dashboard import RATE, WINDOW
from tools.grafana.looks import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, YELLOW, Limit, Look, looks
from tools.grafana.panels import Graph
from tools.grafana.queries import Query, by, of_run, one, quantile

_TOKEN = "vllm:request_time_per_output_token_seconds"


def _of_servers(metric: str) -> str:
    return f"sum by (server) ({of_run(metric)})"


def _rate_of_servers(metric: str) -> str:
    return f"sum by (server) (rate({of_run(metric)}[{RATE}]))"


_PHASES = looks({"rollout": BLUE, "verify": PURPLE, "train": GREEN, "sync": ORANGE, "eval": YELLOW, "checkpoint": GREY})

SPEED = (
    Graph(
        title="Where a step's time goes",
        description="Sampling and training take most of it. Evaluations and checkpoints count for the step after them.",
        unit="s",
        queries=(Query(by("phase", "seele_phase_seconds"), "{{phase}}"),),
        height=9,
        stacked=True,
        looks=_PHASES,
    ),
    Graph(
        title="Share of all time",
        description="Mostly sampling and training. The rest up to 100 % is spent outside of steps.",
        unit="percentunit",
        queries=(Query(f"sum by (phase) (rate({of_run('seele_phase_time_seconds_total')}[{WINDOW}]))", "{{phase}}"),),
        height=9,
        highest=1,
        stacked=True,
        looks=_PHASES,
    ),
    Graph(
        title="Seconds per step",
        description="Steady, or falling as hints and completions get shorter.",
        unit="s",
        queries=(
            Query(one("seele_step_seconds"), "last step"),
            Query(f"avg(avg_over_time({of_run('seele_step_seconds')}[{WINDOW}]))", "mean"),
        ),
        height=9,
        looks=(Look("last step", GREY), Look("mean", BLUE)),
    ),
    Graph(
        title="Tokens per second",
        description="Mostly generated tokens. Trained tokens are fewer if identical rollouts were merged.",
        unit="short",
        queries=(Query(f"sum by (kind) (rate({of_run('seele_tokens_total')}[{WINDOW}]))", "{{kind}}"),),
        fill=0,
        looks=looks({"generated": BLUE, "trained": GREEN, "prompt": GREY, "hint": YELLOW}),
    ),
    Graph(
        title="Generation throughput by server",
        description="About the same for all servers during sampling, and zero while the trainer computes.",
        unit="short",
        queries=(Query(_rate_of_servers("vllm:generation_tokens_total"), "server {{server}}"),),
    ),
    Graph(
        title="Weight sync",
        description="A small part of a step. It grows with the model and the number of servers, not with the run's age.",
        unit="s",
        queries=(Query(one("seele_weight_sync_seconds"), "weight sync"),),
        looks=looks({"weight sync": ORANGE}),
    ),
    Graph(
        title="Requests at the rollout servers",
        description="Many are running and few waiting. If many wait, more servers or cache would help.",
        unit="none",
        queries=(
            Query(_of_servers("vllm:num_requests_running"), "running, server {{server}}"),
            Query(_of_servers("vllm:num_requests_waiting"), "waiting, server {{server}}"),
        ),
    ),
    Graph(
        title="KV cache in use",
        description="Below 90 %. If the cache is full, requests wait or are preempted.",
        unit="percentunit",
        queries=(Query(by("server", "vllm:kv_cache_usage_perc"), "server {{server}}"),),
        highest=1,
        limits=(Limit(0.9, RED),),
    ),
    Graph(
        title="Prefix cache hits",
        description="High: completions share their prompt and hint. Zero if these are shorter than a cache block.",
        unit="percentunit",
        queries=(
            Query(
                f"{_rate_of_servers('vllm:prefix_cache_hits_total')}"
                f" / ({_rate_of_servers('vllm:prefix_cache_queries_total')} > 0)",
                "server {{server}}",
            ),
        ),
        highest=1,
    ),
    Graph(
        title="Time per output token",
        description="Low and steady; it grows with the number of requests that share a batch.",
        unit="s",
        queries=(
            Query(quantile(0.99, _TOKEN, RATE), "99 % faster than"),
            Query(quantile(0.5, _TOKEN, RATE), "half faster than"),
        ),
        looks=looks({"99 % faster than": RED, "half faster than": BLUE}),
    ),
    Graph(
        title="Preempted requests",
        description="None. Preempted requests compute their tokens twice: increase the KV cache.",
        unit="ops",
        queries=(Query(_rate_of_servers("vllm:num_preemptions_total"), "server {{server}}"),),
        limits=(Limit(0.1, ORANGE),),
    ),
    Graph(
        title="Time in the queue",
        description="Near zero. A queue means that the servers are overloaded.",
        unit="s",
        queries=(
            Query(
                f"{_rate_of_servers('vllm:request_queue_time_seconds_sum')}"
                f" / ({_rate_of_servers('vllm:request_queue_time_seconds_count')} > 0)",
                "mean, server {{server}}",
            ),
        ),
    ),
)
