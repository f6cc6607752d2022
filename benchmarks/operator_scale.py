"""Measures how the operator scales with the number of runs, on a real API server with simulated pods.

    python -m benchmarks.operator_scale [--runs 10,100,1000] [--quick]

Each number of runs gets its own control plane (etcd, kube-apiserver, kube-controller-manager, as in the tests), and the
operator as a separate process with only the rights of manifests/rbac.yaml. Runs have two to four pods. Another process
simulates the scheduler, kubelets and trainers: each pod is bound, runs, and is gone as soon as it is deleted; trainers answer
/progress. Ctrl-C leaves nothing running.
"""

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
    """Measure with each number of runs, and save the figures after each."""
    found: list[Figures] = []
    for count in counts:
        print(f"{count} runs", flush=True)
        found.append(await measure(count, effort, lambda line: print(f"  {line}", flush=True)))
        found.sort(key=lambda figures: figures.runs)
        if out:
            save(found, out, sys.argv)
    return found


def main() -> None:
    """Measure, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", default="", help="numbers of runs, separated by commas (10,100,1000)")
    parser.add_argument("--quick", action="store_true", help="10 and 50 runs, with fewer tries")
    parser.add_argument("--probes", type=int, help="runs applied one by one while the others exist")
    parser.add_argument(
        "--out", type=Path, help=f"JSON file for the figures (default: {RESULTS.name}; none with --quick)"
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
