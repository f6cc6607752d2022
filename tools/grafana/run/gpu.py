"""The run's GPUs, from NVIDIA's DCGM exporter."""

from __future__ import annotations

from tools.grafana.panels import Graph
from tools.grafana.queries import Query

_PODS = "$run-(trainer|rollout)-[0-9]+"
_LEGEND = "{{pod}}, GPU {{gpu}}"


def _of_gpus(metric: str) -> str:
    """Without `honor_labels`, the pod that has the GPU is in `exported_pod`, and `pod` is the exporter's."""
    renamed = f'{metric}{{exported_namespace="$namespace", exported_pod=~"{_PODS}"}}'
    return (
        f'max by (pod, gpu) (label_replace({renamed}, "pod", "$1", "exported_pod", "(.+)")'
        f' or {metric}{{namespace="$namespace", pod=~"{_PODS}"}})'
    )


GPU = (
    Graph(
        title="GPU utilisation",
        description="Rollout GPUs are busy during sampling, trainer GPUs during training.",
        unit="percent",
        queries=(Query(_of_gpus("DCGM_FI_DEV_GPU_UTIL"), _LEGEND),),
        width=12,
        highest=100,
    ),
    Graph(
        title="GPU memory in use",
        description="Steady; a trainer's peak leaves some room. vLLM allocates its memory when it starts.",
        unit="mbytes",
        queries=(Query(_of_gpus("DCGM_FI_DEV_FB_USED"), _LEGEND),),
        width=12,
    ),
    Graph(
        title="SMs active",
        description="Above half while a GPU works. DCGM_FI_PROF_SM_ACTIVE must be enabled in the exporter.",
        unit="percentunit",
        queries=(Query(_of_gpus("DCGM_FI_PROF_SM_ACTIVE"), _LEGEND),),
        width=12,
        highest=1,
    ),
    Graph(
        title="GPU power",
        description="Close to the limit of the GPU while it works; the best indicator of real use.",
        unit="watt",
        queries=(Query(_of_gpus("DCGM_FI_DEV_POWER_USAGE"), _LEGEND),),
        width=12,
    ),
)
