"""The run's GPUs, as NVIDIA's DCGM exporter tells them."""

from __future__ import annotations

from tools.grafana.panels import Graph
from tools.grafana.queries import Query

_PODS = "$run-(trainer|rollout)-[0-9]+"
_LEGEND = "{{pod}}, GPU {{gpu}}"


def _of_gpus(metric: str) -> str:
    """Where Prometheus does not honour labels, the pod that has the GPU is in `exported_pod`, and `pod` is the exporter's."""
    renamed = f'{metric}{{exported_namespace="$namespace", exported_pod=~"{_PODS}"}}'
    return (
        f'max by (pod, gpu) (label_replace({renamed}, "pod", "$1", "exported_pod", "(.+)")'
        f' or {metric}{{namespace="$namespace", pod=~"{_PODS}"}})'
    )


GPU = (
    Graph(
        title="GPU utilisation",
        description="Rollout GPUs are busy while the step samples, trainer GPUs while it learns.",
        unit="percent",
        queries=(Query(_of_gpus("DCGM_FI_DEV_GPU_UTIL"), _LEGEND),),
        width=12,
        highest=100,
    ),
    Graph(
        title="GPU memory in use",
        description="Steady; a trainer's peak leaves some room. What vLLM takes is decided when it starts.",
        unit="mbytes",
        queries=(Query(_of_gpus("DCGM_FI_DEV_FB_USED"), _LEGEND),),
        width=12,
    ),
    Graph(
        title="SMs active",
        description="Above half while a GPU works. The exporter has to be told to collect DCGM_FI_PROF_SM_ACTIVE.",
        unit="percentunit",
        queries=(Query(_of_gpus("DCGM_FI_PROF_SM_ACTIVE"), _LEGEND),),
        width=12,
        highest=1,
    ),
    Graph(
        title="GPU power",
        description="Close to the card's limit while it works: power tells best whether a GPU is really used.",
        unit="watt",
        queries=(Query(_of_gpus("DCGM_FI_DEV_POWER_USAGE"), _LEGEND),),
        width=12,
    ),
)
