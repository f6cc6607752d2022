"""Measures the hint controller: speed of a fit, cost of a training step, and accuracy in simulated training runs.

    python -m benchmarks.hint_controller [--only NAME ...] [--seeds N]

The paper's estimator makes 5,000 to 8,000 least-squares fits in each simulated run. The whole table takes about ten minutes
on two cores, `--only "getting easier"` two.
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product

import numpy as np

from benchmarks import hint_simulation as simulation
from seele_trainer.hints import irt
from seele_trainer.hints.controller import EstimatorName, HintController

ESTIMATORS: tuple[EstimatorName, ...] = ("paper", "shared-ability")


def fit_speed(problems: int = 256, observations: int = 5) -> None:
    """Compare the batched fit with a loop over scipy's: CPU time, and 4a(1-a) at the chosen rates."""
    random = np.random.default_rng(0)
    true = irt.Curve(
        np.clip(np.exp(random.normal(np.log(12.0), 0.5, (problems, 1))), 3.0, 50.0),
        -random.uniform(0.2, 0.9, (problems, 1)),
        np.where(random.random((problems, 1)) < 0.3, random.uniform(0.0, 0.25, (problems, 1)), 0.0),
    )
    rates = random.uniform(0.0, 1.0, (problems, observations))
    accuracies = random.binomial(8, true.accuracy(rates)) / 8
    trials = np.full(rates.shape, 8.0)
    irt.fit(rates, accuracies, trials)
    irt.fit_paper(rates[:1], accuracies[:1], trials[:1])
    print(f"Fits of {problems} problems x {observations} observations (CPU time, 4a(1-a) at the chosen rates)")
    seconds = {}
    for name, estimate in (("scipy loop (fit_paper)", irt.fit_paper), ("batched (fit)", irt.fit)):
        start = time.process_time()
        curve = estimate(rates, accuracies, trials)
        seconds[name] = time.process_time() - start
        chosen = true.accuracy(curve.rate_for(0.5)[:, None])
        print(f"  {name:24s}{seconds[name] * 1e3:10.1f} ms   {np.mean(4 * chosen * (1 - chosen)):.3f}")
    slow, fast = seconds.values()
    print(f"  ratio {slow / fast:.0f}\n")


def step_cost(problems: int = 256, rounds: int = 4) -> None:
    """CPU time of the default estimator in a training step, for new problems and for seen ones."""
    random = np.random.default_rng(0)
    controller = HintController(0.5, rounds, 8)
    print(f"Controller, {problems} problems x {rounds} rounds (CPU time)")
    for kind in ("new problems", "seen problems"):
        start = time.process_time()
        for _ in range(rounds):
            for problem in range(problems):
                rate = controller.propose(str(problem))
                controller.observe(str(problem), rate, random.binomial(8, irt.sigmoid(10 * (rate - 0.6))), 8)
        controller.end_step()
        seconds = time.process_time() - start
        print(f"  {kind:16s}{seconds:8.3f} s per step{seconds / problems / rounds * 1e3:8.3f} ms per round")
    print()


def _run(job: tuple[int, EstimatorName, int]) -> simulation.Outcome:
    world, estimator, seed = job
    return simulation.run(simulation.all_worlds(seed)[world], estimator, seed)


def simulated(only: list[str], seeds: int) -> None:
    """Print a line per world and estimator, averaged over seeds."""
    worlds = [index for index, world in enumerate(simulation.all_worlds()) if not only or world.name in only]
    jobs = list(product(worlds, ESTIMATORS, range(seeds)))
    print(
        "Simulated training. 4a(1-a): of all rounds, of first rounds from the second pass on, and the best attainable;"
    )
    print("accuracy of rounds 1 to 4 and distance of their mean from the target: last half, problems that need a hint.")
    print(
        f"{'world':22s}{'estimator':16s}{'4a(1-a)':>8s}{'first':>8s}{'best':>7s}   {'by round':24s}{'off target':>10s}"
    )
    with ProcessPoolExecutor() as pool:
        outcomes = pool.map(_run, jobs)
        for world, estimator in product(worlds, ESTIMATORS):
            runs = [next(outcomes) for _ in range(seeds)]
            by_round = np.mean([run.by_round for run in runs], axis=0)
            first = np.mean([run.first_efficiency for run in runs])
            scenario = simulation.all_worlds()[world]
            print(
                f"{scenario.name:22s}{estimator:16s}{np.mean([run.efficiency for run in runs]):8.3f}"
                f"{'–' if np.isnan(first) else f'{first:.3f}':>8s}{simulation.attainable(scenario):7.3f}   "
                f"{' '.join(f'{a:.3f}' for a in by_round):24s}{np.mean([run.reward_error for run in runs]):10.3f}",
                flush=True,
            )


def main() -> None:
    """Parse the command line and print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [world.name for world in simulation.all_worlds()]
    parser.add_argument("--only", nargs="*", default=[], choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    fit_speed()
    step_cost()
    simulated(arguments.only, arguments.seeds)


if __name__ == "__main__":
    main()
