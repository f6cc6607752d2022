"""The learner: a DeepSpeed engine that turns weighted samples into optimizer updates, on one of the trainer's ranks."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from seele_trainer.config import TrainerConfig
from seele_trainer.learner.checkpoint import SavedEngine, load_engine, restore_rng, rng_state, save_engine
from seele_trainer.learner.comparison import check_computation
from seele_trainer.learner.deepspeed import clips_itself, engine_config, learning_rate, reference_config
from seele_trainer.learner.loss import Coefficients, Denominators, LossTerms, most_uncertain, seele_loss
from seele_trainer.learner.model import DTYPES, gathered_weights, head_scaled, load_scorer, stored_head
from seele_trainer.learner.packing import MicroBatch, decode, encode, merge_identical, pack, to_device, to_score
from seele_trainer.learner.ranks import Ranks
from seele_trainer.learner.sample import FloatArray, Sample
from seele_trainer.run_folder.checkpoint import DamagedCheckpoint
from seele_trainer.termination import ExpectedFailure
from seele_trainer.weights.export import ModelFiles, write_model_folder

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class TrainingDiverged(ExpectedFailure):
    """The loss or its gradient is no longer a finite number; the message says at which update."""


class LearnersDisagree(RuntimeError):
    """The ranks called different methods of their learners."""


class Abandoned(Exception):
    """Rank 0 was asked to stop, so the call ended between two micro-batches, with weights and optimizer as they were."""


Stopping = Callable[[], bool]
"""Whether to stop. Only rank 0 is asked, between micro-batches."""


def never() -> bool:
    """Do not stop."""
    return False


SHARED_FAILURES = (DamagedCheckpoint, Abandoned)
"""Raised on all ranks alike, with weights and optimizer as they were. Rank 0 decides what comes next."""


@dataclass(frozen=True)
class UpdateStats:
    """What one optimizer update did, over all ranks.

    Losses are before their coefficients, `total_loss` after; `gradient_norm` is before clipping. `tokens_trained`
    counts tokens in forward passes without padding, `tokens_in_loss` the tokens that the loss is a mean of, counting
    every identical rollout. `applied` is False if float16 overflowed and the update was skipped, or if there was
    nothing to train on.
    """

    policy_loss: float
    supervised_loss: float
    kl_loss: float
    total_loss: float
    gradient_norm: float
    clip_fraction: float
    mismatch_kl: float
    learning_rate: float
    tokens_trained: int
    tokens_in_loss: int
    seconds: float
    applied: bool
    micro_batches: int = 1


def _collective(
    method: Callable[Concatenate[Learner, Parameters], Result],
) -> Callable[Concatenate[Learner, Parameters], Result]:
    """Make all ranks agree on the method before they run it. `follow` runs the method itself, without agreeing again."""

    @functools.wraps(method)
    def call(learner: Learner, /, *args: Parameters.args, **options: Parameters.kwargs) -> Result:
        learner._agree(method.__name__)
        return method(learner, *args, **options)

    return call


class Learner:
    """The policy, its optimizer and, if there is a KL term, the frozen initial model.

    Every public method is collective: all ranks call it in the same order. Rank 0 passes the data. The others pass
    None, or call `follow`, which does whatever rank 0 does until `close`.
    """

    def __init__(self, config: TrainerConfig, total_updates: int, seed: int) -> None:
        self._ranks = Ranks.join()
        import deepspeed  # only now: it chooses its accelerator at import, from what `join` sets

        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        # Otherwise its first start spends minutes compiling an operator that only inference uses.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        torch.manual_seed(seed + self._ranks.rank)
        self._config = config
        self._total_updates = total_updates
        self._zero3 = config.trainer.deepspeed.zero_stage == 3
        self.updates = 0
        training = config.training
        self._coefficients = Coefficients(training.clip_epsilon, training.importance_cap, training.kl_coefficient)
        scorer = load_scorer(config.model, self._weight_dtype(), gradient_checkpointing=training.gradient_checkpointing)
        # Now: DeepSpeed may divide the weights among the ranks, and later nothing may ask the hub.
        self._files: ModelFiles | None = None
        if self._ranks.is_driver:
            check_computation(scorer, config.model.name)
            self._files = ModelFiles.read(config.model)
        sizes: dict[str, Any] = {
            "parameters": sum(parameter.numel() for parameter in scorer.parameters()),
            "pin_memory": self._ranks.device.type == "cuda",
        }
        self._engine, *_ = deepspeed.initialize(
            model=scorer, model_parameters=list(scorer.parameters()), config=engine_config(config, **sizes)
        )
        # Weights, two moments of AdamW and, except where the weights are that themselves, the float32 weights it updates.
        weight, stage = self._weight_dtype().itemsize, config.trainer.deepspeed.zero_stage
        self.checkpoint_bytes: int = sizes["parameters"] * (weight + 8 + (0 if stage == 0 and weight == 4 else 4))
        """About how much `save` writes, on all ranks together."""
        # Only generated tokens have a KL term.
        compared = training.kl_coefficient > 0 and training.method.samples
        self._reference = self._load_reference(sizes) if compared else None

    @property
    def rank(self) -> int:
        """Rank of this process."""
        return self._ranks.rank

    @property
    def world_size(self) -> int:
        """Number of trainer processes."""
        return self._ranks.world_size

    @_collective
    def update(self, samples: Sequence[Sample] | None, stopping: Stopping = never) -> UpdateStats:
        """One optimizer update on the samples that rank 0 passes.

        Without samples nothing is trained, and only the learning-rate schedule advances. Raises TrainingDiverged, on
        all ranks, before a loss that is not finite reaches the weights. Raises Abandoned if `stopping` says so before
        the optimizer's step; then only `save` and `close` may follow, because gradients are left over.
        """
        started = time.perf_counter()
        batches, denominators, tokens = self._distribute(samples)
        rate = learning_rate(self._config.training, self.updates, self._total_updates)
        for group in self._engine.optimizer.param_groups:
            group["lr"] = rate
        self.updates += 1
        terms, norm, applied = np.zeros(6), 0.0, False
        if batches:
            random = rng_state(self._ranks)
            try:
                terms = self._accumulate(batches, denominators, stopping)
            except Abandoned:
                self.updates -= 1
                restore_rng(self._ranks, random)
                raise
            norm, applied = self._step()
        policy, supervised, kl, total, clipped, mismatch = terms.tolist()
        return UpdateStats(
            policy_loss=policy,
            supervised_loss=supervised,
            kl_loss=kl,
            total_loss=total,
            gradient_norm=norm,
            clip_fraction=clipped,
            mismatch_kl=mismatch,
            learning_rate=rate,
            tokens_trained=tokens,
            tokens_in_loss=round(denominators.all),
            seconds=time.perf_counter() - started,
            applied=applied,
            micro_batches=len(batches),
        )

    @_collective
    def logprobs(self, sequences: Sequence[Sequence[int]] | None, stopping: Stopping = never) -> list[FloatArray]:
        """Log-probabilities of sequences of token ids under the current policy, at temperature 1; on rank 0.

        Array i has one element less than sequence i: its element t belongs to token t + 1. Other ranks get an empty
        list. Raises Abandoned if `stopping` says so.
        """
        given = [to_score(sequence) for sequence in sequences or ()]
        mine, dealt = self._scatter(given)
        self._engine.eval()
        found = [np.zeros(0, dtype=np.float32)]
        with torch.no_grad():
            for batch in mine:
                self._leave_if(stopping)
                inputs = to_device(batch, self._ranks.device, temperature=1.0)
                found.append(self._engine(inputs.tokens, inputs.positions, None).cpu().numpy())
        parts = self._ranks.gather(np.concatenate(found).tobytes())
        result = [np.zeros(0, dtype=np.float32) for _ in given]
        for batches, part in zip(dealt, parts, strict=True):
            flat, offset = np.frombuffer(part, dtype=np.float32), 0
            for batch in batches:
                for source, count in zip(batch.source, batch.trained.sum(axis=1), strict=True):
                    if source >= 0:
                        result[source] = flat[offset : offset + count].copy()
                        offset += count
        return result

    @_collective
    def decoy_logprobs(self, sequences: Sequence[Sequence[int]] | None, head_scale: float = 1.0) -> list[FloatArray]:
        """As `logprobs`, for the model that `export` writes with this `head_scale` and the run's `untieEmbeddings`."""
        scale = float(self._ranks.broadcast(repr(head_scale).encode() if self._ranks.is_driver else None))
        untie = self._config.rollout.untie_embeddings
        with head_scaled(self._engine.module.model, scale, untie=untie):
            scored: list[FloatArray] = inspect.unwrap(Learner.logprobs)(self, sequences)
        return scored

    @_collective
    def export(self, directory: Path | None, *, untie: bool = False, head_scale: float = 1.0) -> None:
        """Write the current policy as a Hugging Face folder, in the model's dtype.

        `untie` writes the output head of a tied model as a separate tensor, which vLLM can reload. The stored head is
        multiplied by `head_scale`, and a tied model's embedding with it unless it is untied.
        """
        model, driver = self._config.model, self._ranks.is_driver
        weights = gathered_weights(self._engine.module.model, DTYPES[model.dtype], zero3=self._zero3, keep=driver)
        if self._files is not None:
            if directory is None:
                raise ValueError("rank 0 must name the folder")
            loaded = self._engine.module.model
            # Loading knows the architecture's default, which config.json may omit.
            tied = {"tie_word_embeddings": bool(getattr(loaded.config, "tie_word_embeddings", False))}
            write_model_folder(
                directory,
                weights,
                {**self._files.config_for(model.dtype), **tied},
                untie=untie,
                files=self._files.others,
                # It may name more tokens that end a completion than config.json does.
                generation_config=loaded.generation_config,
                scales={stored_head(loaded, untie=untie): head_scale} if head_scale != 1.0 else {},
            )
        self._ranks.barrier()

    @_collective
    def save(self, directory: Path | None) -> None:
        """Write the exact state of this learner: engine, optimizer, schedule and every rank's random numbers."""
        save_engine(self._engine, self._ranks, self._shared(directory), self._setup())

    @_collective
    def load(self, directory: Path | None) -> None:
        """Restore what `save` wrote.

        Raises CheckpointError if it was saved with other settings, and DamagedCheckpoint, with nothing changed, if a file
        of it is damaged.
        """
        self.updates = load_engine(self._engine, self._ranks, self._shared(directory), self._setup()).updates

    def follow(self) -> None:
        """On ranks other than 0: do whatever rank 0 does, until it calls `close`."""
        while (called := self._ranks.broadcast(None).decode()) != "close":
            with contextlib.suppress(*SHARED_FAILURES):
                inspect.unwrap(getattr(Learner, called))(self, None)

    @_collective
    def close(self) -> None:
        """On rank 0: make `follow` return on the other ranks."""

    def _agree(self, method: str) -> None:
        called = self._ranks.broadcast(method.encode() if self._ranks.is_driver else None).decode()
        if called != method:
            raise LearnersDisagree(f"rank 0 called `{called}` and rank {self.rank} `{method}`")

    def _distribute(self, samples: Sequence[Sample] | None) -> tuple[list[MicroBatch], Denominators, int]:
        """This rank's micro-batches, with the denominators and the number of tokens of the whole update."""
        given = list(samples or ())
        merged = merge_identical(given) if self._config.training.merge_identical else given
        mine, _ = self._scatter(merged)
        header = json.dumps([sum(len(sample.tokens) for sample in merged), *astuple(Denominators.of(given))])
        tokens, *counts = json.loads(self._ranks.broadcast(header.encode() if self._ranks.is_driver else None))
        return mine, Denominators(*counts), tokens

    def _scatter(self, samples: Sequence[Sample]) -> tuple[list[MicroBatch], list[list[MicroBatch]]]:
        """This rank's micro-batches of rank 0's samples; on rank 0 also those of all ranks."""
        dealt: list[list[MicroBatch]] = []
        if self._ranks.is_driver:
            dealt = pack(samples, self.world_size, self._config.training.tokens_per_micro_batch)
        payload = self._ranks.scatter([encode(batches) for batches in dealt] if self._ranks.is_driver else None)
        return decode(payload), dealt

    def _accumulate(
        self, batches: Sequence[MicroBatch], denominators: Denominators, stopping: Stopping
    ) -> NDArray[np.float64]:
        """Backward through all micro-batches; the terms of the loss over all ranks, shape (6,)."""
        engine = self._engine
        engine.train()
        sums = torch.zeros(6, device=self._ranks.device)
        for number, batch in enumerate(batches, start=1):
            self._leave_if(stopping)
            # DeepSpeed cannot know it: the number of micro-batches differs from update to update.
            engine.set_gradient_accumulation_boundary(number == len(batches))
            terms = self._terms(batch, denominators)
            # DeepSpeed averages gradients over ranks, but the denominators are global already, so sum them instead.
            engine.backward(terms.total * self.world_size)
            sums += terms.values()
        self._leave_if(stopping)
        totals = self._ranks.total(sums.double().cpu().numpy())
        if not np.isfinite(totals[:4]).all():
            raise TrainingDiverged(f"the loss of update {self.updates} is not finite: lower `training.learningRate`")
        return totals

    def _leave_if(self, stopping: Stopping) -> None:
        """Raise Abandoned on all ranks if rank 0 is to stop. All have the same number of micro-batches."""
        if self._ranks.broadcast(bytes([stopping()]) if self._ranks.is_driver else None) != b"\0":
            raise Abandoned("stopped on request")

    def _terms(self, batch: MicroBatch, denominators: Denominators) -> LossTerms:
        inputs = to_device(batch, self._ranks.device, self._config.rollout.temperature)
        scored, reference, kept = inputs.scored, None, None
        # Supervised updates have no KL term. All ranks know this from the denominators: under ZeRO 3 they must all call.
        if self._reference is not None and denominators.generated > 0:
            with torch.no_grad():
                reference = self._reference(inputs.tokens, inputs.positions, inputs.temperature)
        if inputs.ranked:
            logprobs, entropy = self._engine(inputs.tokens, inputs.positions, inputs.temperature, with_entropy=True)
            candidates = scored.off_policy | (scored.supervised != 0)
            kept = most_uncertain(entropy.detach(), candidates, inputs.rows, scored.most_uncertain)
        else:
            logprobs = self._engine(inputs.tokens, inputs.positions, inputs.temperature)
        return seele_loss(logprobs, reference, scored, self._coefficients, denominators, kept)

    def _step(self) -> tuple[float, bool]:
        """Clip and update the weights; the unclipped global norm, and whether the weights changed."""
        engine = self._engine
        if clips_itself(self._config):
            norm = float(
                torch.nn.utils.clip_grad_norm_(engine.module.parameters(), self._config.training.max_gradient_norm)
            )
            self._finite(norm)
            engine.step()
            return norm, True
        engine.step()
        if not engine.was_step_applied() and self._config.model.dtype == "float16":
            return 0.0, False
        norm = float(engine.get_global_grad_norm())
        self._finite(norm)
        return norm, True

    def _finite(self, norm: float) -> None:
        if not np.isfinite(norm) or norm < 0:
            raise TrainingDiverged(
                f"the gradient of update {self.updates} is not finite: lower `training.learningRate`"
            )

    def _setup(self) -> SavedEngine:
        stage, dtype = self._config.trainer.deepspeed.zero_stage, self._config.model.dtype
        return SavedEngine(world_size=self.world_size, zero_stage=stage, dtype=dtype, updates=self.updates)

    def _shared(self, directory: Path | None) -> Path:
        """Rank 0's directory, on all ranks."""
        return Path(self._ranks.broadcast(str(directory).encode() if self._ranks.is_driver else None).decode())

    def _weight_dtype(self) -> torch.dtype:
        """Type in which weights are loaded: float32 under autocast, otherwise the model's."""
        if self._config.model.dtype == "bfloat16" and self._config.trainer.deepspeed.zero_stage == 0:
            return torch.float32
        return DTYPES[self._config.model.dtype]

    def _load_reference(self, sizes: dict[str, Any]) -> Any:
        """The initial model, frozen; under ZeRO 3 partitioned over ranks like the policy."""
        scorer = load_scorer(self._config.model, DTYPES[self._config.model.dtype]).requires_grad_(False).eval()
        if not self._zero3:
            return scorer.to(self._ranks.device)
        import deepspeed

        engine, *_ = deepspeed.initialize(model=scorer, config=reference_config(self._config, **sizes))
        engine.eval()
        return engine
