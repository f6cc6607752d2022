"""Is it fast? Where a step's time goes, and what the rollout servers say about themselves."""

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
        description="Sampling and training fill it. What is missing to 100 % is spent outside of steps.",
        unit="percentunit",
        queries=(Query(f"sum by (phase) (rate({of_run('seele_phase_time_seconds_total')}[{WINDOW}]))", "{{phase}}"),),
        height=9,
        highest=1,
        stacked=True,
        looks=_PHASES,
    ),
    Graph(
        title="Seconds a step",
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
        title="Tokens a second",
        description="Generated tokens make up most of it. Trained tokens are fewer where identical rollouts were merged.",
        unit="short",
        queries=(Query(f"sum by (kind) (rate({of_run('seele_tokens_total')}[{WINDOW}]))", "{{kind}}"),),
        fill=0,
        looks=looks({"generated": BLUE, "trained": GREEN, "prompt": GREY, "hint": YELLOW}),
    ),
    Graph(
        title="Generation throughput by server",
        description="All servers generate about the same while a step samples; it is zero while the trainer computes.",
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
        description="Many run and few wait. Waiting requests mean that more servers or more cache would be used.",
        unit="none",
        queries=(
            Query(_of_servers("vllm:num_requests_running"), "running, server {{server}}"),
            Query(_of_servers("vllm:num_requests_waiting"), "waiting, server {{server}}"),
        ),
    ),
    Graph(
        title="KV cache in use",
        description="Below 90 %. A full cache makes requests wait, or stops them to begin again later.",
        unit="percentunit",
        queries=(Query(by("server", "vllm:kv_cache_usage_perc"), "server {{server}}"),),
        highest=1,
        limits=(Limit(0.9, RED),),
    ),
    Graph(
        title="Prefix cache hits",
        description="High: completions share their prompt and hint. Zero where those are shorter than a block of the cache.",
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
        title="Requests that were stopped and began again",
        description="None. Preempted requests compute their tokens twice: give the KV cache more memory.",
        unit="ops",
        queries=(Query(_rate_of_servers("vllm:num_preemptions_total"), "server {{server}}"),),
        limits=(Limit(0.1, ORANGE),),
    ),
    Graph(
        title="Time that requests wait in the queue",
        description="Near zero. A queue means that the servers are asked for more than they can run at once.",
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
