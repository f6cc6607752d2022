"""Make the quickstart's problems and base model: `python -m seele_trainer.quickstart --out .cache/quickstart`."""

from __future__ import annotations

import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from seele_trainer.data.problem import Problem
from seele_trainer.quickstart import chains

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is made; a cached result is used only where its recipe is the same."""

    training_problems: int = 1024
    test_problems: int = 256
    seed: int = 0
    updates: int = 2000
    batch: int = 128
    learning_rate: float = 3e-3
    right_step: float = chains.RIGHT_STEP
    version: int = 1


def make(out: Path, recipe: Recipe) -> None:
    """Write train.jsonl, test.jsonl and base/ (a Hugging Face model folder), unless the same recipe made them before.

    The three sets of questions are disjoint: the base model never sees a problem of reinforcement learning, and neither
    ever sees a test problem.
    """
    stamp = out / "recipe.json"
    if stamp.is_file() and json.loads(stamp.read_text()) == asdict(recipe):
        logger.info("using the quickstart's base model and problems in %s", out)
        return
    from seele_trainer.quickstart.base_model import train_base_model

    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    test = chains.sample_problems(recipe.test_problems, recipe.seed + 1)
    train = chains.sample_problems(recipe.training_problems, recipe.seed, frozenset(p.question for p in test))
    held_out = frozenset(problem.question for problem in (*train, *test))
    _write(partial / "test.jsonl", test)
    _write(partial / "train.jsonl", train)
    excess = train_base_model(
        partial / "base",
        held_out,
        updates=recipe.updates,
        batch=recipe.batch,
        learning_rate=recipe.learning_rate,
        seed=recipe.seed,
        right_step=recipe.right_step,
    )
    logger.info("base model ready; its loss is %.4f nats a step above what its training text allows", excess)
    (partial / stamp.name).write_text(json.dumps(asdict(recipe), indent=2) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def _write(path: Path, problems: list[Problem]) -> None:
    with path.open("w") as stream:
        for problem in problems:
            row = {
                "id": problem.id,
                "problem": problem.question,
                "solution": problem.solution,
                "answer": problem.answer,
            }
            stream.write(json.dumps(row) + "\n")


def main(
    out: Annotated[Path, typer.Option(help="Folder for base/, train.jsonl and test.jsonl.")] = Path(
        ".cache/quickstart"
    ),
    updates: Annotated[
        int, typer.Option(help="Updates of the base model; fewer make a worse one.", min=1)
    ] = Recipe.updates,
    seed: Annotated[int, typer.Option(help="Seed of problems and model.", min=0)] = Recipe.seed,
    right_step: Annotated[
        float, typer.Option(help="How often a step of the base model's text is right.", min=0.01, max=0.99)
    ] = Recipe.right_step,
) -> None:
    """Make the quickstart's problems and base model (about five minutes on two cores), or reuse them."""
    # Threads that wait actively starve each other when the machine is shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    make(out, Recipe(updates=updates, seed=seed, right_step=right_step))


if __name__ == "__main__":
    typer.run(main)
