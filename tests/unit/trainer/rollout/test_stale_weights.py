"""An engine that answers that it has loaded weights and keeps the old ones, at the learning rates of real runs."""

import copy
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from seele_trainer.config import RolloutOptions
from seele_trainer.learner.model import DTYPES, head_scaled, stored_head
from seele_trainer.learner.thread import make_decoy
from seele_trainer.rollout.canary import default_tolerance
from seele_trainer.rollout.protocol import Canary, Decoy, WeightSync, WeightSyncError
from seele_trainer.rollout.transformers_engine import TransformersEngine
from seele_trainer.rollout.weight_proof import MAX_UNPROVEN
from seele_trainer.weights.export import write_model_folder
from tests.support.small_models import VOCABULARY, save_llama

SEQUENCES = tuple(tuple(random.Random(number).choices(range(2, VOCABULARY), k=100)) for number in range(4))


class SmallTrainer:
    """Trains a tiny Llama in float32 with AdamW, and exports and scores it in `dtype`, as the learner does.

    Its attention is another implementation than the engine's, so that both round differently.
    """

    def __init__(self, folder: Path, dtype: str, rate: float, *, tied: bool = False, untie: bool = True) -> None:
        self.folder, self.dtype, self.untie = folder, dtype, untie
        self.tolerance = default_tolerance(dtype)
        save_llama(folder / "initial", seed=0, tied=tied, dtype=DTYPES[dtype])
        self.model = LlamaForCausalLM.from_pretrained(folder / "initial", dtype="float32", attn_implementation="eager")
        self.decoy: Decoy | None = None
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=rate)
        self._updates = 0

    def update(self) -> None:
        self._updates += 1
        drawn = random.Random(-self._updates)
        tokens = torch.tensor([drawn.choices(range(VOCABULARY), k=40) for _ in range(4)])
        self._optimizer.zero_grad()
        self.model(input_ids=tokens, labels=tokens).loss.backward()
        self._optimizer.step()

    async def decoy_logprobs(self, sequences: Sequence[Sequence[int]], head_scale: float = 1.0) -> list[list[float]]:
        rounded = copy.deepcopy(self.model).to(DTYPES[self.dtype])
        with torch.inference_mode(), head_scaled(rounded, head_scale, untie=self.untie):
            ids = torch.tensor(sequences)
            table = rounded(input_ids=ids).logits[:, :-1].float().log_softmax(-1)
            found: list[list[float]] = table.gather(2, ids[:, 1:, None])[..., 0].tolist()
            return found

    async def export(self, directory: Path, *, untie: bool, head_scale: float = 1.0) -> None:
        weights = {name: value.detach().to(DTYPES[self.dtype]) for name, value in self.model.named_parameters()}
        scales = {stored_head(self.model, untie=untie): head_scale}
        described = copy.deepcopy(self.model.config)
        described.dtype = DTYPES[self.dtype]
        write_model_folder(directory, weights, described, untie=untie, scales=scales)

    async def push(self, engine: TransformersEngine, version: int) -> WeightSync:
        """Push the current weights as the loop does."""
        logprobs = tuple(map(tuple, await self.decoy_logprobs(SEQUENCES)))
        canary = Canary(SEQUENCES, logprobs, self.tolerance, self.decoy)
        if self.decoy is None:
            self.decoy = await make_decoy(self, canary, self.folder / "decoy", untie=self.untie)  # type: ignore[arg-type]
            canary = Canary(SEQUENCES, logprobs, self.tolerance, self.decoy)
        await self.export(self.folder / "version", untie=self.untie)
        return await engine.update_weights(self.folder / "version", version, canary)


class ForgetfulEngine(TransformersEngine):
    """Loads nothing when `ignores` says so of a number of a load, from 0 for the start. `noise` is added to its scores."""

    def __init__(self, folder: Path, ignores: Callable[[int], bool], noise: float = 0.0) -> None:
        super().__init__(folder, RolloutOptions(engine="transformers"))
        self._ignores = ignores
        self._noise = noise
        self._drawn = random.Random(0)
        self.loads = 0

    def _load(self, folder: Path) -> Any:
        found = self._model if self._ignores(self.loads) else super()._load(folder)
        self.loads += 1
        return found

    def _score(self, tokens: Sequence[int]) -> list[float]:
        return [one + self._drawn.gauss(0.0, self._noise) for one in super()._score(tokens)]


async def started(
    trainer: SmallTrainer, ignores: Callable[[int], bool] = lambda _: False, noise: float = 0.0
) -> ForgetfulEngine:
    engine = ForgetfulEngine(trainer.folder / "initial", ignores, noise)
    await engine.start()
    return engine


async def steps(trainer: SmallTrainer, engine: ForgetfulEngine, count: int) -> list[WeightSync]:
    """The syncs of a run: before its first step, and after each."""
    syncs = [await trainer.push(engine, 0)]
    for step in range(1, count + 1):
        trainer.update()
        syncs.append(await trainer.push(engine, step))
    return syncs


@pytest.mark.parametrize(
    ("dtype", "rate"),
    [("float32", 1e-6), ("float32", 1e-5), ("float32", 1e-4), ("bfloat16", 1e-5), ("bfloat16", 1e-4)],
)
@pytest.mark.parametrize("step", [1, 2, 5])
async def test_an_engine_that_ignores_a_push_is_detected_at_that_push(
    tmp_path: Path, dtype: str, rate: float, step: int
) -> None:
    trainer = SmallTrainer(tmp_path, dtype, rate)
    # The start, the decoy and version 0 are loads 0, 1 and 2.
    engine = await started(trainer, lambda load: load == step + 2)
    with pytest.raises(WeightSyncError, match=f"was given the weights of version {step} "):
        await steps(trainer, engine, 6)


@pytest.mark.parametrize("step", [1, 2, 5])
async def test_where_hardly_a_token_changes_a_push_that_is_ignored_is_at_least_unproven(
    tmp_path: Path, step: int
) -> None:
    # In half precision such a step changes a few hundred of this model's weights.
    trainer = SmallTrainer(tmp_path, "bfloat16", 1e-6)
    engine = await started(trainer, lambda load: load == step + 2)
    try:
        unproven = (await steps(trainer, engine, step))[step].unproven
    except WeightSyncError:
        unproven = 1
    assert unproven == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_an_engine_that_loads_nothing_is_detected_before_the_first_step(tmp_path: Path, dtype: str) -> None:
    trainer = SmallTrainer(tmp_path, dtype, 1e-6)
    engine = await started(trainer, lambda load: load > 0)
    with pytest.raises(WeightSyncError, match="does not serve the weights that it is given"):
        await steps(trainer, engine, 0)


@pytest.mark.parametrize(
    ("tied", "untie", "count"), [(False, True, 50), (True, True, 5), (True, False, 5)], ids=["untied", "freed", "tied"]
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_an_honest_engine_never_fails(tmp_path: Path, dtype: str, tied: bool, untie: bool, count: int) -> None:
    trainer = SmallTrainer(tmp_path, dtype, 1e-5, tied=tied, untie=untie)
    engine = await started(trainer)
    syncs = await steps(trainer, engine, count)
    assert all(sync.canary_difference < trainer.tolerance / 2 for sync in syncs)
    assert syncs[0].unproven == 0
    if dtype == "float32":
        assert [sync.unproven for sync in syncs] == [0] * (count + 1)


@pytest.mark.parametrize(("rate", "noise"), [(1e-6, 3e-2), (1e-5, 1e-2), (1e-4, 1e-3)])
async def test_an_honest_engine_that_never_scores_twice_the_same_does_not_fail(
    tmp_path: Path, rate: float, noise: float
) -> None:
    trainer = SmallTrainer(tmp_path, "bfloat16", rate)
    await steps(trainer, await started(trainer, noise=noise), 50)


async def test_after_some_unproven_syncs_the_decoy_is_shown_again(tmp_path: Path) -> None:
    trainer = SmallTrainer(tmp_path, "bfloat16", 1e-6)
    engine = await started(trainer, noise=0.03)
    syncs = await steps(trainer, engine, MAX_UNPROVEN + 2)
    assert [sync.unproven for sync in syncs] == [0, *[1] * MAX_UNPROVEN, 0, 1]
    assert engine.loads == 1 + len(syncs) + 2


async def test_an_engine_that_stops_loading_within_the_noise_is_detected_by_the_decoy(tmp_path: Path) -> None:
    trainer = SmallTrainer(tmp_path, "bfloat16", 1e-6)
    engine = await started(trainer, lambda load: load > 3, noise=0.03)
    with pytest.raises(WeightSyncError, match="does not serve the weights that it is given"):
        await steps(trainer, engine, MAX_UNPROVEN + 1)


async def test_weights_that_have_not_changed_are_not_unproven(tmp_path: Path) -> None:
    trainer = SmallTrainer(tmp_path, "float32", 1e-4)
    engine = await started(trainer)
    for version in range(MAX_UNPROVEN + 2):
        assert (await trainer.push(engine, version)).unproven == 0
    assert engine.loads == 1 + 1 + MAX_UNPROVEN + 2
