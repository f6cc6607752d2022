"""How the operator's figures grow with the number of runs, on a real API server; pods' phases are played.

    python -m benchmarks.operator_scale [--runs 10,100,1000] [--quick]

For each number of runs, a control plane of its own is started (etcd, kube-apiserver, kube-controller-manager, as in the
tests), with the operator as a process of its own and no more rights than manifests/rbac.yaml. Runs have two to four pods.
Another process plays scheduler, kubelets and trainers: each pod is bound, runs, and goes at once when it is deleted; the
trainers answer /progress. Ctrl-C leaves nothing running.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.scale.measure import Effort, Figures, measure
from benchmarks.scale.report import save, show

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results" / "operator_scale.json"
THOROUGH = Effort(probes=100, failures=20, idle_seconds=60.0)
QUICK = Effort(probes=10, failures=3, idle_seconds=10.0)


async def run(counts: list[int], effort: Effort, out: Path | None) -> list[Figures]:
    """Measure with each number of runs; what is found is written after each."""
    found: list[Figures] = []
    for count in counts:
        print(f"{count} runs", flush=True)
        found.append(await measure(count, effort, lambda said: print(f"  {said}", flush=True)))
        found.sort(key=lambda figures: figures.runs)
        if out:
            save(found, out, sys.argv)
    return found


def main() -> None:
    """Measure, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", default="", help="numbers of runs, separated by commas (10,100,1000)")
    parser.add_argument("--quick", action="store_true", help="10 and 50 runs, and fewer of everything")
    parser.add_argument("--probes", type=int, help="runs applied one by one while the others are there")
    parser.add_argument(
        "--out", type=Path, help=f"where to write the figures as JSON ({RESULTS.name}; --quick: nowhere)"
    )
    arguments = parser.parse_args()
    effort = QUICK if arguments.quick else THOROUGH
    if arguments.probes:
        effort = replace(effort, probes=arguments.probes)
    counts = [int(count) for count in (arguments.runs or ("10,50" if arguments.quick else "10,100,1000")).split(",")]
    out = arguments.out or (None if arguments.quick else RESULTS)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        found = asyncio.run(run(counts, effort, out))
    except KeyboardInterrupt:
        sys.exit("interrupted; nothing is left running")
    show(found)


if __name__ == "__main__":
    main()
