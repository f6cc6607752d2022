"""Probes: when a container counts as started, ready or hung; and how it is stopped."""

import math

from seele_operator.api.seelerun import SeeleRun
from seele_operator.plan import names
from seele_operator.plan.names import Manifest

TRAINER_START_SECONDS = 600
"""How long a trainer may take to answer /healthz: it reads a large image from a slow disk and imports its libraries."""
TRAINER_SILENCE_SECONDS = 300
"""How long a trainer may be silent before it counts as hung: a checkpoint of a large model keeps it busy."""
START_PERIOD = 2
"""Seconds between startup probes."""
HUNG_SECONDS = 30
"""Grace period of a pod that hangs or has lost its gang, and so has nothing to save."""
STOP_SECONDS = 5
"""How much of the grace period vLLM gets to stop; it keeps serving for the rest."""
NOTICE_SECONDS = 25
"""How long a server waits for the trainers to say that they are being stopped too."""

# Of Kubernetes 1.25 and later; earlier releases ignore it and allow a pod that hangs the whole grace period.
_HUNG = {"terminationGracePeriodSeconds": HUNG_SECONDS}


def driver_life() -> Manifest:
    """Probes of trainer 0, the driver. The other ranks serve nothing, and the driver notices when one is gone."""
    health = {"httpGet": {"path": "/healthz", "port": "metrics"}, "timeoutSeconds": 10}
    return {
        "startupProbe": {
            **health,
            "periodSeconds": START_PERIOD,
            "failureThreshold": TRAINER_START_SECONDS // START_PERIOD,
            **_HUNG,
        },
        "readinessProbe": {**health, "periodSeconds": 10, "failureThreshold": 3},
        "livenessProbe": {**health, "periodSeconds": 20, "failureThreshold": TRAINER_SILENCE_SECONDS // 20, **_HUNG},
    }


def server_life(run: SeeleRun) -> Manifest:
    """Probes of a rollout server, and a hook that delays its stop."""
    rollout = run.spec.rollout
    health = {"httpGet": {"path": "/health", "port": "http"}}
    return {
        "startupProbe": {
            **health,
            "timeoutSeconds": 5,
            "periodSeconds": START_PERIOD,
            "failureThreshold": math.ceil(rollout.server_start_timeout_seconds / START_PERIOD),
            **_HUNG,
        },
        "readinessProbe": {**health, "timeoutSeconds": 5, "periodSeconds": 10, "failureThreshold": 3},
        # Longer than the trainer waits for a weight sync, so that a server is not killed while it loads weights.
        "livenessProbe": {
            **health,
            "timeoutSeconds": 30,
            "periodSeconds": 30,
            "failureThreshold": math.ceil(rollout.sync_timeout_seconds / 30) + 2,
            **_HUNG,
        },
        "lifecycle": {"preStop": {"exec": {"command": ["python3", "-c", drain(run)]}}},
    }


def drain(run: SeeleRun) -> str:
    """A program that ends when trainer 0 is gone or continues training, or STOP_SECONDS before the grace period is over.

    A trainer that is stopped may finish its step first, for which it needs the servers. vLLM would stop at once: its own
    --shutdown-timeout (since 0.18) waits only for open requests, and a learning trainer has none.
    """
    seconds = max(0, run.spec.run_policy.termination_grace_period_seconds - STOP_SECONDS)
    trainer = (names.host(run.metadata.name, "trainer", 0), names.METRICS_PORT)
    return "\n".join(
        (
            "import http.client, json, time",
            "began, stopping = time.monotonic(), False",
            f"while time.monotonic() < began + ({seconds} if stopping else {min(seconds, NOTICE_SECONDS)}):",
            "    try:",
            f"        connection = http.client.HTTPConnection(*{trainer}, timeout=10)",
            "        connection.request('GET', '/progress')",
            "        stopping = json.load(connection.getresponse())['stopping']",
            "    except TimeoutError:",
            "        pass",
            "    except (OSError, ValueError, KeyError, http.client.HTTPException):",
            "        break",
            "    time.sleep(1)",
        )
    )
