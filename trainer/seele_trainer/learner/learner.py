"""The learner: a DeepSpeed engine that turns weighted samples into optimizer updates, on one rank of a ranks."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoTokenizer

from seele_trainer.config import TrainerConfig
from seele_trainer.learner.checkpoint import SavedEngine, load_engine, save_engine
from seele_trainer.learner.deepspeed import clips_itself, engine_config, reference_config
from seele_trainer.learner.device_batch import to_device
from seele_trainer.learner.loss import Coefficients, Denominators, LossTerms, most_uncertain, seele_loss
from seele_trainer.learner.model import DTYPES, gathered_weights, load_scorer
from seele_trainer.learner.packing import (
    MicroBatch,
    decode,
    encode,
    generated_tokens,
    merge_identical,
    off_policy_tokens,
    pack,
    supervised_tokens,
    to_score,
)
from seele_trainer.learner.ranks import join
from seele_trainer.learner.sample import FloatArray, Sample
from seele_trainer.learner.schedule import learning_rate
from seele_trainer.methods import WITHOUT_ROLLOUTS
from seele_trainer.weights.export import write_model_folder


class TrainingDiverged(RuntimeError):
    """The loss or its gradient is no longer a finite number; the message says at which update."""


class LearnersDisagree(RuntimeError):
    """The ranks of a ranks called different methods of their learners."""


@dataclass(frozen=True)
class UpdateStats:
    """What one optimizer update did, over all ranks.

    Losses are before their coefficients, `total_loss` after; `gradient_norm` is before clipping; `tokens_trained`
    counts real tokens in forward passes, `tokens_in_loss` those that the loss is a mean of, with every identical rollout.
    `applied` is False where float16 overflowed and the update was skipped, or where there was nothing to train on.
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


class Learner:
    """The policy, its optimizer and, where there is a KL term, the frozen initial model.

    Every public method is collective: all ranks call it in the same order. Rank 0 passes the data, the others pass
    None, or sit in `follow`, which does whatever rank 0 does until `close`.
    """

    def __init__(self, config: TrainerConfig, total_updates: int, seed: int) -> None:
        self._gang = join()
        import deepspeed  # only now: its accelerator is chosen at import, from what `join` sets

        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        # Otherwise its first start compiles an operator for minutes that only inference would use.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        torch.manual_seed(seed + self._gang.rank)
        self._config = config
        self._total_updates = total_updates
        self._zero3 = config.trainer.deepspeed.zero_stage == 3
        self.updates = 0
        training = config.training
        self._coefficients = Coefficients(training.clip_epsilon, training.importance_cap, training.kl_coefficient)
        scorer = load_scorer(config.model, self._weight_dtype(), gradient_checkpointing=training.gradient_checkpointing)
        sizes: dict[str, Any] = {
            "parameters": sum(parameter.numel() for parameter in scorer.parameters()),
            "pin_memory": self._gang.device.type == "cuda",
        }
        self._engine, *_ = deepspeed.initialize(
            model=scorer, model_parameters=list(scorer.parameters()), config=engine_config(config, **sizes)
        )
        # The KL term is one of generated tokens.
        compared = training.kl_coefficient > 0 and training.strategy not in WITHOUT_ROLLOUTS
        self._reference = self._load_reference(sizes) if compared else None

    @property
    def rank(self) -> int:
        """Rank of this process in the ranks."""
        return self._gang.rank

    @property
    def world_size(self) -> int:
        """Number of trainer processes."""
        return self._gang.world_size

    def update(self, samples: Sequence[Sample] | None) -> UpdateStats:
        """One optimizer update on the samples that rank 0 passes.

        Without any sample nothing is trained, and only the learning-rate schedule moves on. Raises TrainingDiverged,
        on all ranks, before a loss that is not finite reaches the weights.
        """
        self._agree("update")
        return self._update(samples)

    def logprobs(self, sequences: Sequence[Sequence[int]] | None) -> list[FloatArray]:
        """Log-probabilities of sequences of token ids under the current policy, at temperature 1; on rank 0.

        Array i has one element less than sequence i: its element t belongs to token t + 1. Other ranks get an empty
        list.
        """
        self._agree("logprobs")
        return self._logprobs(sequences)

    def export(self, directory: Path | None, *, untie: bool = False) -> None:
        """Write the current policy as a Hugging Face folder, in the model's dtype.

        `untie` writes the output head of a tied model as a tensor of its own, which is what vLLM can reload.
        """
        self._agree("export")
        self._export(directory, untie=untie)

    def save(self, directory: Path | None) -> None:
        """Write the exact state of this learner: engine, optimizer, schedule and every rank's random numbers."""
        self._agree("save")
        self._save(directory)

    def load(self, directory: Path | None) -> None:
        """Restore what `save` wrote. Raises CheckpointError where it is damaged or of another set-up."""
        self._agree("load")
        self._load(directory)

    def follow(self) -> None:
        """On ranks other than 0: do whatever rank 0 does, until it calls `close`."""
        methods: dict[str, Callable[[None], object]] = {
            "update": self._update,
            "logprobs": self._logprobs,
            "export": self._export,
            "save": self._save,
            "load": self._load,
        }
        while (called := self._gang.broadcast(None).decode()) != "close":
            methods[called](None)

    def close(self) -> None:
        """On rank 0: let the other ranks out of `follow`."""
        self._agree("close")

    def _agree(self, method: str) -> None:
        called = self._gang.broadcast(method.encode() if self._gang.is_driver else None).decode()
        if called != method:
            raise LearnersDisagree(f"rank 0 called `{called}` and rank {self.rank} `{method}`")

    def _update(self, samples: Sequence[Sample] | None) -> UpdateStats:
        started = time.perf_counter()
        batches, denominators, tokens = self._distribute(samples)
        rate = learning_rate(self._config.training, self.updates, self._total_updates)
        for group in self._engine.optimizer.param_groups:
            group["lr"] = rate
        self.updates += 1
        terms, norm, applied = np.zeros(6), 0.0, False
        if batches:
            terms = self._accumulate(batches, denominators)
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
        )

    def _distribute(self, samples: Sequence[Sample] | None) -> tuple[list[MicroBatch], Denominators, int]:
        """This rank's micro-batches, with the denominators and the number of tokens of the whole update."""
        payloads, header = None, None
        if self._gang.is_driver:
            given = [] if samples is None else list(samples)
            denominators = Denominators(generated_tokens(given), off_policy_tokens(given), supervised_tokens(given))
            merged = merge_identical(given) if self._config.training.merge_identical else given
            payloads = self._packed(merged)
            tokens = sum(len(sample.tokens) for sample in merged)
            header = json.dumps([tokens, *astuple(denominators)]).encode()
        mine = decode(self._gang.scatter(payloads))
        tokens, *counts = json.loads(self._gang.broadcast(header))
        return mine, Denominators(*counts), tokens

    def _packed(self, samples: Sequence[Sample]) -> list[bytes]:
        dealt = pack(samples, self.world_size, self._config.training.tokens_per_micro_batch)
        return [encode(batches) for batches in dealt]

    def _accumulate(self, batches: Sequence[MicroBatch], denominators: Denominators) -> NDArray[np.float64]:
        """Backward through all micro-batches; the terms of the loss over all ranks, shape (6,)."""
        engine = self._engine
        engine.train()
        sums = torch.zeros(6, device=self._gang.device)
        for number, batch in enumerate(batches, start=1):
            # Ours to say, because the number of micro-batches differs from update to update.
            engine.set_gradient_accumulation_boundary(number == len(batches))
            terms = self._terms(batch, denominators)
            # DeepSpeed averages gradients over ranks; the denominators are global already, so they have to be summed.
            engine.backward(terms.total * self.world_size)
            sums += terms.values()
        totals = self._gang.total(sums.double().cpu().numpy())
        if not np.isfinite(totals[:4]).all():
            raise TrainingDiverged(f"the loss of update {self.updates} is not finite: lower `training.learningRate`")
        return totals

    def _terms(self, batch: MicroBatch, denominators: Denominators) -> LossTerms:
        inputs = to_device(batch, self._gang.device, self._config.rollout.temperature)
        reference = None
        # Supervised updates have no KL term. All ranks know it, as they have to where ZeRO 3 has spread the reference.
        if self._reference is not None and denominators.generated > 0:
            with torch.no_grad():
                reference = self._reference(inputs.tokens, inputs.positions, inputs.temperature)
        weights, uncertain = inputs.weights, inputs.uncertain
        if uncertain is None:
            logprobs = self._engine(inputs.tokens, inputs.positions, inputs.temperature)
        else:
            scores = self._engine(inputs.tokens, inputs.positions, inputs.temperature, with_entropy=True)
            logprobs, entropy = scores[0], scores[1].detach()
            weights = weights.learning_only(
                most_uncertain(entropy, uncertain.candidates, uncertain.rows, uncertain.counts)
            )
        return seele_loss(logprobs, reference, weights, self._coefficients, denominators)

    def _step(self) -> tuple[float, bool]:
        """Clip, update the weights, and return the unclipped global norm and whether weights changed."""
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

    def _logprobs(self, sequences: Sequence[Sequence[int]] | None) -> list[FloatArray]:
        given = [to_score(sequence) for sequence in sequences or ()]
        dealt: list[list[MicroBatch]] = []
        if self._gang.is_driver:
            dealt = pack(given, self.world_size, self._config.training.tokens_per_micro_batch)
        mine = decode(self._gang.scatter([encode(batches) for batches in dealt] if self._gang.is_driver else None))
        self._engine.eval()
        found = []
        with torch.no_grad():
            for batch in mine:
                inputs = to_device(batch, self._gang.device, temperature=1.0)
                found.append(self._engine(inputs.tokens, inputs.positions, None).cpu().numpy())
        parts = self._gang.gather(np.concatenate([*found, np.zeros(0, dtype=np.float32)]).tobytes())
        result = [np.zeros(0, dtype=np.float32) for _ in given]
        for batches, part in zip(dealt, parts, strict=False):
            flat, offset = np.frombuffer(part, dtype=np.float32), 0
            for batch in batches:
                for source, count in zip(batch.source, batch.trained.sum(axis=1), strict=True):
                    if source >= 0:
                        result[source] = flat[offset : offset + count].copy()
                        offset += count
        return result

    def _export(self, directory: Path | None, *, untie: bool = False) -> None:
        model, driver = self._config.model, self._gang.is_driver
        weights = gathered_weights(self._engine.module.model, DTYPES[model.dtype], zero3=self._zero3, keep=driver)
        if driver:
            if directory is None:
                raise ValueError("rank 0 has to name the folder")
            origin: dict[str, Any] = {"revision": model.revision, "trust_remote_code": model.trust_remote_code}
            described = AutoConfig.from_pretrained(model.name, **origin)
            # Whoever loads the folder takes the type from here, and would round the weights to what the model came in.
            described.dtype = DTYPES[model.dtype]
            write_model_folder(
                directory,
                weights,
                described,
                AutoTokenizer.from_pretrained(model.name, **origin),
                untie=untie,
                # It may name more tokens that end a completion than config.json does.
                generation_config=self._engine.module.model.generation_config,
            )
        self._gang.barrier()

    def _save(self, directory: Path | None) -> None:
        save_engine(self._engine, self._gang, self._same(directory), self._manifest())

    def _load(self, directory: Path | None) -> None:
        self.updates = load_engine(self._engine, self._gang, self._same(directory), self._manifest()).updates

    def _manifest(self) -> SavedEngine:
        stage, dtype = self._config.trainer.deepspeed.zero_stage, self._config.model.dtype
        return SavedEngine(world_size=self.world_size, zero_stage=stage, dtype=dtype, updates=self.updates)

    def _same(self, directory: Path | None) -> Path:
        return Path(self._gang.broadcast(str(directory).encode() if self._gang.is_driver else None).decode())

    def _weight_dtype(self) -> torch.dtype:
        """Type in which weights are loaded: float32 where autocast or nothing makes the forward pass cheaper."""
        if self._config.model.dtype == "bfloat16" and self._config.trainer.deepspeed.zero_stage == 0:
            return torch.float32
        return DTYPES[self._config.model.dtype]

    def _load_reference(self, sizes: dict[str, Any]) -> Any:
        """The initial model, frozen; spread over ranks like the policy under ZeRO 3."""
        scorer = load_scorer(self._config.model, DTYPES[self._config.model.dtype]).requires_grad_(False).eval()
        if not self._zero3:
            return scorer.to(self._gang.device)
        import deepspeed

        engine, *_ = deepspeed.initialize(model=scorer, config=reference_config(self._config, **sizes))
        engine.eval()
        return engine
