"""Write the quickstart's problems and base model: `python -m seele_trainer.quickstart --out .cache/quickstart`.

Those of the default recipe ship with this package, in `shipped/`, and are only copied, so they are the same on every
machine. They were made by `python -m seele_trainer.quickstart --train --out trainer/seele_trainer/quickstart/shipped`.
"""

import filecmp
import json
import logging
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from seele_trainer.data.problem import Problem
from seele_trainer.quickstart import chains

logger = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent / "shipped"
STAMP = "recipe.json"
LEARNED = 0.05
"""Nats per step above the floor of the loss; a base model that is further away confuses some labels with others."""


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the problems and the base model, except the machine that trains it."""

    training_problems: int = 1024
    test_problems: int = 256
    seed: int = 0
    updates: int = 2000
    batch: int = 128
    learning_rate: float = 3e-3
    right_step: float = chains.RIGHT_STEP
    longest: int = chains.LONGEST
    version: int = 1

    @property
    def layers(self) -> int:
        """Depth of the base model. Two layers learn every step of chains of up to eight operations, but not of longer ones."""
        return 2 if self.longest <= chains.LONGEST else 3

    @property
    def stamp(self) -> dict[str, Any]:
        """Content of recipe.json."""
        return asdict(self) | {"layers": self.layers}

    def problems(self) -> tuple[list[Problem], list[Problem]]:
        """Training and test problems, which have no question in common."""
        test = chains.sample_problems(self.test_problems, self.seed + 1, longest=self.longest)
        known = frozenset(problem.question for problem in test)
        return chains.sample_problems(self.training_problems, self.seed, known, self.longest), test


def make(out: Path, recipe: Recipe, *, retrain: bool = False) -> None:
    """Fill the folder `out` with train.jsonl, test.jsonl, base/ (a Hugging Face model folder) and recipe.json.

    Those of the default recipe are copied from `SHIPPED`, others are trained. What is already there is kept, unless `retrain`.
    `out` is never left half written.
    """
    if not retrain and _is_made(out, recipe):
        logger.info("the quickstart's base model and problems are in %s", out)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        if recipe == Recipe() and not retrain:
            shutil.copytree(SHIPPED, staged, dirs_exist_ok=True)
        else:
            _train(staged, recipe)
        # Containers read the files as another user.
        for path in (staged, *staged.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        try:
            staged.rename(out)
        except OSError:  # `out` exists; if another process has just made it, it may be in use
            if retrain or not _is_made(out, recipe):
                shutil.rmtree(out)
                staged.rename(out)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _is_made(folder: Path, recipe: Recipe) -> bool:
    if recipe == Recipe():
        names = [str(path.relative_to(SHIPPED)) for path in SHIPPED.rglob("*") if path.is_file()]
        _, *different = filecmp.cmpfiles(SHIPPED, folder, names, shallow=False)
        return not any(different)
    stamp = folder / STAMP
    return stamp.is_file() and json.loads(stamp.read_text()) == recipe.stamp


def _train(folder: Path, recipe: Recipe) -> None:
    from seele_trainer.quickstart.base_model import Size, train_base_model  # imports torch

    training, test = recipe.problems()
    chains.write_problems(folder / "train.jsonl", training)
    chains.write_problems(folder / "test.jsonl", test)
    excess = train_base_model(
        folder / "base",
        frozenset(problem.question for problem in (*training, *test)),
        updates=recipe.updates,
        batch=recipe.batch,
        learning_rate=recipe.learning_rate,
        seed=recipe.seed,
        right_step=recipe.right_step,
        longest=recipe.longest,
        size=Size(layers=recipe.layers),
    )
    logger.info("base model ready; its loss is %.4f nats per step above the floor of its training text", excess)
    if excess > LEARNED:
        logger.warning(
            "it confuses some steps with others, so few problems can be solved whole: try more --updates or another --seed"
        )
    (folder / STAMP).write_text(json.dumps(recipe.stamp, indent=2) + "\n")


def main(
    out: Annotated[Path, typer.Option(help="Folder for base/, train.jsonl and test.jsonl.")] = Path(
        ".cache/quickstart"
    ),
    retrain: Annotated[
        bool, typer.Option("--train", help="Train even if the result ships with Seele or is already in --out.")
    ] = False,
    updates: Annotated[
        int, typer.Option(help="Updates of the base model; fewer make a worse one.", min=1)
    ] = Recipe.updates,
    seed: Annotated[int, typer.Option(help="Seed of problems and model.", min=0)] = Recipe.seed,
    right_step: Annotated[
        float, typer.Option(help="How often a step of the base model's text is right.", min=0.01, max=0.99)
    ] = Recipe.right_step,
    longest: Annotated[
        int,
        typer.Option(
            help="Operations of the longest chains. Beyond eight the base model gets a third layer and trains longer.",
            min=2,
            max=len(chains.LABELS),
        ),
    ] = Recipe.longest,
) -> None:
    """Write the quickstart's problems and base model.

    Without options they are copied from this package. Other recipes are trained, in about five minutes on two cores.
    """
    # Threads that wait actively starve each other when the machine is shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    make(out, Recipe(updates=updates, seed=seed, right_step=right_step, longest=longest), retrain=retrain)


if __name__ == "__main__":
    typer.run(main)
