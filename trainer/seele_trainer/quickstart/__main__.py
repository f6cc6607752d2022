"""Make the quickstart's problems and base model: `python -m seele_trainer.quickstart --out .cache/quickstart`."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from seele_trainer.quickstart import chains

logger = logging.getLogger(__name__)

STAMP = "recipe.json"
"""Written last: a folder that has it is whole."""
LEARNT = 0.05
"""Nats a step above the floor of the loss; a base model with more confuses some labels with others."""


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
    longest: int = chains.LONGEST
    version: int = 1

    @property
    def layers(self) -> int:
        """Depth of the base model: two layers learn every step of chains of up to eight operations, and confuse some of longer
        ones."""
        return 2 if self.longest <= chains.LONGEST else 3

    @property
    def stamp(self) -> dict[str, Any]:
        """What is written down of it. The depth is, too: a model of an earlier version has another for the same chains."""
        return asdict(self) | {"layers": self.layers}


def make(out: Path, recipe: Recipe, cache: Path | None = None) -> None:
    """Write train.jsonl, test.jsonl and base/ (a Hugging Face model folder), unless the same recipe made them before.

    What is made is kept in `cache` as well, from where another checkout takes it. Checkouts that make it at once keep what the
    first one made. A copy that cannot be taken or kept costs time and no more. The three sets of questions are disjoint:
    the base model never sees a problem of reinforcement learning, and neither ever sees a test problem.
    """
    if _made(out, recipe):
        logger.info("using the quickstart's base model and problems in %s", out)
        return
    kept = None if cache is None else cache / _name(recipe)
    if kept is not None and _made(kept, recipe):
        logger.info("taking the quickstart's base model and problems from %s", kept)
        try:
            _put(out, recipe, partial(_copy, kept))
            return
        except OSError as error:
            # Somebody may empty the cache just now.
            logger.warning("what is in %s cannot be copied and is made anew: %s", kept, error)
    _put(out, recipe, partial(_train, recipe=recipe))
    if kept is not None and not _made(kept, recipe):
        try:
            _put(kept, recipe, partial(_copy, out))
        except OSError as error:
            logger.warning("no copy is kept in %s: %s", kept, error)


def _train(folder: Path, recipe: Recipe) -> None:
    from seele_trainer.quickstart.base_model import Size, train_base_model

    test = chains.sample_problems(recipe.test_problems, recipe.seed + 1, longest=recipe.longest)
    known = frozenset(problem.question for problem in test)
    train = chains.sample_problems(recipe.training_problems, recipe.seed, known, recipe.longest)
    held_out = frozenset(problem.question for problem in (*train, *test))
    chains.write_problems(folder / "test.jsonl", test)
    chains.write_problems(folder / "train.jsonl", train)
    excess = train_base_model(
        folder / "base",
        held_out,
        updates=recipe.updates,
        batch=recipe.batch,
        learning_rate=recipe.learning_rate,
        seed=recipe.seed,
        right_step=recipe.right_step,
        longest=recipe.longest,
        size=Size(layers=recipe.layers),
    )
    logger.info("base model ready; its loss is %.4f nats a step above what its training text allows", excess)
    if excess > LEARNT:
        logger.warning(
            "it confuses some steps with others, so few problems can be solved whole: try more --updates or another --seed"
        )
    (folder / STAMP).write_text(json.dumps(recipe.stamp, indent=2) + "\n")
    # Weights are written for their owner alone; containers read them as another user.
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o644))


def _made(folder: Path, recipe: Recipe) -> bool:
    stamp = folder / STAMP
    return stamp.is_file() and json.loads(stamp.read_text()) == recipe.stamp


def _name(recipe: Recipe) -> str:
    return hashlib.sha256(json.dumps(recipe.stamp, sort_keys=True).encode()).hexdigest()[:16]


def _copy(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True)


def _put(target: Path, recipe: Recipe, fill: Callable[[Path], None]) -> None:
    """Have a folder filled and put it in the place of `target`, whole or not at all.

    Where another process was quicker its folder stays, for a third one may be copying it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        fill(staged)
        try:
            staged.rename(target)
        except OSError:
            # Something is there already.
            if not _made(target, recipe):
                shutil.rmtree(target, ignore_errors=True)
                staged.rename(target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


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
    longest: Annotated[
        int,
        typer.Option(
            help="Operations of the longest chains; beyond eight the base model gets a third layer, and takes longer.",
            min=2,
            max=len(chains.LABELS),
        ),
    ] = Recipe.longest,
) -> None:
    """Make the quickstart's problems and base model (about five minutes on two cores), or reuse them.

    A copy stays in SEELE_CACHE, else ~/.cache/seele, for other checkouts.
    """
    # Threads that wait actively starve each other when the machine is shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = Path(os.environ.get("SEELE_CACHE") or home / "seele") / "quickstart"
    make(out, Recipe(updates=updates, seed=seed, right_step=right_step, longest=longest), cache)


if __name__ == "__main__":
    typer.run(main)
