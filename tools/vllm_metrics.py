"""Which of vLLM's metrics matter to a run: vLLM's own names and types, and what they mean here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class VllmMetric:
    """A metric that the trainer passes on."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()
    """Beyond those that all have."""


VLLM_METRICS = (
    VllmMetric("vllm:num_requests_running", "gauge", "requests", "Requests that the engine works on."),
    VllmMetric("vllm:num_requests_waiting", "gauge", "requests", "Requests that wait for a place in a batch."),
    VllmMetric("vllm:kv_cache_usage_perc", "gauge", "0 to 1", "Share of the KV cache in use."),
    VllmMetric("vllm:prompt_tokens_total", "counter", "tokens", "Prompt tokens processed, hints included."),
    VllmMetric("vllm:generation_tokens_total", "counter", "tokens", "Tokens generated."),
    VllmMetric("vllm:prefix_cache_queries_total", "counter", "tokens", "Prompt tokens looked up in the prefix cache."),
    VllmMetric("vllm:prefix_cache_hits_total", "counter", "tokens", "Prompt tokens that the prefix cache had."),
    VllmMetric(
        "vllm:num_preemptions_total", "counter", "requests", "Requests put back for want of room in the KV cache."
    ),
    VllmMetric(
        "vllm:request_success_total",
        "counter",
        "requests",
        "Requests answered, by why they ended.",
        ("finished_reason",),
    ),
    VllmMetric("vllm:e2e_request_latency_seconds", "histogram", "seconds", "Time of a whole request."),
    VllmMetric("vllm:request_queue_time_seconds", "histogram", "seconds", "Time that a request waited."),
    VllmMetric("vllm:time_to_first_token_seconds", "histogram", "seconds", "Time to the first token of an answer."),
    VllmMetric(
        "vllm:request_time_per_output_token_seconds", "histogram", "seconds", "Mean time a token of an answer took."
    ),
)
