"""Probes of a pod, as a kubelet would ask them: when a container counts as started, ready, or hung."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from seele_operator.local.ports import HOST
from seele_operator.names import Manifest


@dataclass(frozen=True)
class Probe:
    """An HTTP probe with Kubernetes' defaults; times in seconds."""

    url: str
    delay: float = 0.0
    period: float = 10.0
    timeout: float = 1.0
    failure_threshold: int = 3
    success_threshold: int = 1


@dataclass(frozen=True)
class Verdict:
    """What a probe has shown so far: answers in a row, and whether the container passes."""

    passing: bool
    successes: int = 0
    failures: int = 0

    def after(self, success: bool, probe: Probe) -> Verdict:
        """The verdict after one more answer."""
        if success:
            successes = self.successes + 1
            return Verdict(self.passing or successes >= probe.success_threshold, successes, 0)
        failures = self.failures + 1
        return replace(
            self, passing=self.passing and failures < probe.failure_threshold, successes=0, failures=failures
        )

    def exhausted(self, probe: Probe) -> bool:
        """Whether as many probes in a row have failed as may."""
        return self.failures >= probe.failure_threshold


def parse_probe(container: Manifest, kind: str, ports: Mapping[int, int]) -> Probe | None:
    """The probe of a container under `kind`, aimed at its local port; None where there is none, or no HTTP one."""
    given = container.get(kind)
    if given is None or "httpGet" not in given:
        return None
    request = given["httpGet"]
    by_name = {port["name"]: port["containerPort"] for port in container.get("ports", ()) if "name" in port}
    declared = by_name.get(request["port"], request["port"])
    return Probe(
        url=f"http://{HOST}:{ports[declared]}{request.get('path', '/')}",
        delay=given.get("initialDelaySeconds", 0),
        period=given.get("periodSeconds", 10),
        timeout=given.get("timeoutSeconds", 1),
        failure_threshold=given.get("failureThreshold", 3),
        success_threshold=given.get("successThreshold", 1),
    )
