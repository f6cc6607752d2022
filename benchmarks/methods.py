"""Compares all methods, and SEELE's settings, on the quickstart's problem: `python -m benchmarks.methods`.

Every training is a real `seele run` (vLLM server, DeepSpeed trainer) in its own folder. Finished runs are reused and stopped
ones resumed, so Ctrl-C is safe at any time: repeat the command. Delete --out after changes to the trainer itself.
docs/benchmarks.md says what is compared, and how learning rates are chosen.
"""

import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.methods_study.carry_out import NoProblems, Place, carry_out, collected, duration, expected, seconds_of
from benchmarks.methods_study.design import PARTS, TINY, Part, Scale
from benchmarks.methods_study.results import BadResults, Study, load, save
from benchmarks.methods_study.training import REPOSITORY, BadOption, Stopped, TrainingFailed
from seele_operator.api.types import BadRunError
from seele_operator.validation.load import check_run, parse_run
from seele_trainer.run_folder.journal import JournalError

RESULTS = REPOSITORY / "benchmarks" / "results" / "methods.json"
SHOWN = (RESULTS, RESULTS.with_name("longer_chains.json"))
"""The results behind docs/benchmarks.md; the second file is written by `make bench-targets`."""
FULL = Scale()


def parts_of(text: str) -> list[Part]:
    """The named parts in the study's order. Raises BadOption."""
    named = [name.strip() for name in text.split(",")]
    unknown = [name for name in named if name not in PARTS]
    if unknown:
        raise BadOption(f"--only: there is no part {unknown[0]!r}; use some of {','.join(PARTS)}")
    return [part for part in PARTS if part in named]


def rates_of(text: str) -> tuple[float, ...]:
    """Learning rates, without repeats. Raises BadOption."""
    try:
        rates = tuple(dict.fromkeys(float(rate) for rate in text.split(",")))
    except ValueError as error:
        raise BadOption(
            f"--learning-rates: {text!r} is not a list of numbers: write, for example, 1e-4,3e-4"
        ) from error
    if not all(0 < rate < 1 for rate in rates):
        raise BadOption(f"--learning-rates: {text!r} has a rate that is not between 0 and 1")
    return rates


def earlier_results(file: Path, place: Place) -> Study | None:
    """Earlier results of the same study, if any. Raises BadOption if the file is from another study."""
    if not file.is_file():
        return None
    study = load(file)
    if not study.trained(place.scale, place.recipe()):
        raise BadOption(
            f"--results-file: {file} has results for other problems or another scale: name another file, or delete this one"
        )
    return study


def main(
    only: Annotated[str, typer.Option(help="Parts of the study, separated by commas.")] = ",".join(PARTS),
    steps: Annotated[int | None, typer.Option(help="Training steps of each run.", min=2, show_default="40")] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds 0, 1, …", min=1, show_default="3")] = None,
    learning_rates: Annotated[
        str | None,
        typer.Option(
            help="Candidates, tried by each method on seed 0; a single one is used as it is.",
            show_default="1e-4,3e-4,1e-3",
        ),
    ] = None,
    problems: Annotated[
        Path, typer.Option(help="Folder written by `python -m seele_trainer.quickstart --out`.")
    ] = Path(".cache/quickstart"),
    out: Annotated[Path, typer.Option(help="Folder for the runs.")] = Path(".cache/bench-methods"),
    results_file: Annotated[
        Path | None,
        typer.Option(
            help="JSON file for the results; its other parts are kept.",
            show_default="benchmarks/results/methods.json",
        ),
    ] = None,
    at_once: Annotated[int, typer.Option(help="Runs trained side by side; each keeps one core busy.", min=1)] = 1,
    tiny: Annotated[bool, typer.Option("--tiny", help="Two steps without vLLM, to see that the script works.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the runs and their duration.")] = False,
) -> None:
    """Train every method on every seed, and save the results for docs/benchmarks.md."""
    command = "python -m " + shlex.join(["benchmarks.methods", *sys.argv[1:]])
    base = TINY if tiny else FULL
    try:
        parts = parts_of(only)
        rates = base.learning_rates if learning_rates is None else rates_of(learning_rates)
        scale = replace(base, steps=steps or base.steps, seeds=seeds or base.seeds, learning_rates=rates)
        file = results_file or (None if tiny else RESULTS)
        place = Place(problems, out, scale)
        earlier = None if file is None else earlier_results(file, place)
        place = replace(place, chosen=() if earlier is None else earlier.rates)
        jobs = expected(place, parts)
        for job in jobs:
            wrong = check_run(parse_run(job.manifest))
            if wrong:
                raise BadRunError([f"{job.title}: {line}" for line in wrong])
        if dry_run:
            left = [job for job in jobs if job.state != "finished"]
            for job in jobs:
                print(f"{job.folder.name}  {job.state:11}  {job.title}")
            print(
                f"{len(jobs)} runs, {len(left)} of them not finished: about {duration(seconds_of(scale, left))} on two cores, "
                "one at a time. If a method's learning rate is not chosen yet, the middle candidate is listed."
            )
            return
        carry_out(place, parts, say=lambda line: print(line, flush=True), clock=time.monotonic, at_once=at_once)
        study = collected(place, parts, command, at_once)
    except (Stopped, KeyboardInterrupt):
        print(f"Stopped; nothing is lost. To resume: {command}", file=sys.stderr)
        raise SystemExit(130) from None
    except (BadOption, BadResults, BadRunError, JournalError, NoProblems, TrainingFailed) as error:
        raise SystemExit(f"error: {error}") from None
    if file is None:
        print(f"All {len(jobs)} runs are finished. A tiny study saves no results.")
        return
    if earlier is not None:
        study = study.beside(earlier)
    save(study, file)
    done = ", ".join(part for part in PARTS if study.part(part))
    print(f"{file}: {done}")
    if file.resolve() in SHOWN:
        print("Run `make generated` for the tables and plots of docs/benchmarks.md, and check its text.")


if __name__ == "__main__":
    typer.run(main)
