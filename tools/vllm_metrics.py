"""vLLM's metrics that matter to a run, with their names and types in vLLM and their meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class VllmMetric:
    """A metric of vLLM that the trainer exports."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()
    """In addition to those of all metrics."""


VLLM_METRICS = (
    VllmMetric("vllm:num_requests_running", "gauge", "requests", "Requests that are being processed."),
    VllmMetric("vllm:num_requests_waiting", "gauge", "requests", "Requests that are waiting to be scheduled."),
    VllmMetric("vllm:kv_cache_usage_perc", "gauge", "0 to 1", "Share of the KV cache in use."),
    VllmMetric("vllm:prompt_tokens_total", "counter", "tokens", "Prompt tokens processed, hints included."),
    VllmMetric("vllm:generation_tokens_total", "counter", "tokens", "Tokens generated."),
    VllmMetric("vllm:prefix_cache_queries_total", "counter", "tokens", "Prompt tokens looked up in the prefix cache."),
    VllmMetric("vllm:prefix_cache_hits_total", "counter", "tokens", "Prompt tokens found in the prefix cache."),
    VllmMetric(
        "vllm:num_preemptions_total", "counter", "requests", "Requests preempted because the KV cache was full."
    ),
    VllmMetric(
        "vllm:request_success_total",
        "counter",
        "requests",
        "Finished requests, by reason.",
        ("finished_reason",),
    ),
    VllmMetric("vllm:e2e_request_latency_seconds", "histogram", "seconds", "Duration of a request."),
    VllmMetric("vllm:request_queue_time_seconds", "histogram", "seconds", "Time that a request waited in the queue."),
    VllmMetric("vllm:time_to_first_token_seconds", "histogram", "seconds", "Time to the first token of a completion."),
    VllmMetric(
        "vllm:request_time_per_output_token_seconds", "histogram", "seconds", "Mean time per token of a completion."
    ),
)
