"""The run's GPUs, from NVIDIA's DCGM exporter."""

from tools.grafana.panels import Graph

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
    Graph("GPU utilisation", "percent", width=12, highest=100)
    .healthy("Rollout GPUs are busy during sampling, trainer GPUs during training.")
    .query(_LEGEND, _of_gpus("DCGM_FI_DEV_GPU_UTIL")),
    Graph("GPU memory in use", "mbytes", width=12)
    .healthy("Steady; a trainer's peak leaves some room. vLLM allocates its memory when it starts.")
    .query(_LEGEND, _of_gpus("DCGM_FI_DEV_FB_USED")),
    Graph("SMs active", "percentunit", width=12, highest=1)
    .healthy("Above half while a GPU works. DCGM_FI_PROF_SM_ACTIVE must be enabled in the exporter.")
    .query(_LEGEND, _of_gpus("DCGM_FI_PROF_SM_ACTIVE")),
    Graph("GPU power", "watt", width=12)
    .healthy("Close to the limit of the GPU while it works; the best indicator of real use.")
    .query(_LEGEND, _of_gpus("DCGM_FI_DEV_POWER_USAGE")),
)
