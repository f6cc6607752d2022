"""The learner against plain PyTorch: gangs of one and two processes, all ZeRO stages, checkpoints and exports."""

import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from seele_trainer.learner.learner import UpdateStats
from tests.integration.learner_cases import SEQUENCES, Case, Outcome, config_of, environment, model_folder
from tests.integration.learner_samples import make_samples
from tests.integration.plain_learner import Plain, plain_pytorch
from tests.support import REPOSITORY
from tests.support.small_models import save_tokenizer, small_qwen2

STAGES = (0, 1, 2, 3)
RANKS = (1, 2)
LOW_THRESHOLD = {"overrides": {"zero_optimization": {"stage3_param_persistence_threshold": 0}}}
"""Makes ZeRO 3 partition parameters that it would keep whole in so small a model."""

GRADIENT_CASES = (
    *(Case(f"zero{stage}", zero_stage=stage, training={"merge_identical": False}) for stage in STAGES),
    *(Case(f"zero{stage}-merged", zero_stage=stage) for stage in STAGES),
    *(Case(f"zero{stage}-few", zero_stage=stage, samples="few") for stage in STAGES),
    Case("zero3-spread", zero_stage=3, deepspeed=LOW_THRESHOLD),
    Case("zero2-overlapped", zero_stage=2, deepspeed={"overrides": {"zero_optimization": {"overlap_comm": True}}}),
    Case("zero3-recomputed", zero_stage=3, deepspeed=LOW_THRESHOLD, training={"gradient_checkpointing": True}),
    Case("zero0-recomputed", training={"gradient_checkpointing": True}),
    Case("zero1-offloaded", zero_stage=1, deepspeed={"offload_optimizer": "cpu"}),
    Case("zero2-offloaded", zero_stage=2, deepspeed={"offload_optimizer": "cpu"}),
    Case("zero3-offloaded", zero_stage=3, deepspeed={"offload_optimizer": "cpu", "offload_parameters": "cpu"}),
    Case("one-micro-batch", training={"tokens_per_micro_batch": 100_000}),
    Case("same-calls-on-all-ranks", zero_stage=2, follow=False),
    Case("no-advantage", samples="no-advantage", zero_stage=1),
    Case("nothing-to-learn", samples="nothing", training={"kl_coefficient": 0.0}),
    # Solutions: by cross-entropy, off-policy with and without shaping, and some only by their most uncertain tokens.
    *(Case(f"solutions-zero{stage}", samples="solutions", zero_stage=stage, temperature=0.7) for stage in (0, 2)),
    Case("solutions-spread", samples="solutions", zero_stage=3, temperature=0.7, deepspeed=LOW_THRESHOLD),
    Case("solutions-alone", samples="solutions-alone", zero_stage=3, deepspeed=LOW_THRESHOLD),
    Case("sft", samples="solutions-alone", zero_stage=1, training={"strategy": "sft"}),
    Case("no-reference", zero_stage=3, training={"kl_coefficient": 0.0}),
    Case("cool", temperature=0.7, zero_stage=2),
    Case("untied", tied=False, zero_stage=1),
    Case("untied-zero3", tied=False, zero_stage=3, deepspeed=LOW_THRESHOLD),
)
OTHER_CASES = (
    Case("empty", samples="empty", zero_stage=2),
    *(Case(f"bf16-zero{stage}", zero_stage=stage, dtype="bfloat16") for stage in STAGES),
)
STRAIGHT = tuple(Case(f"straight-zero{stage}", zero_stage=stage, updates=4, samples="long") for stage in STAGES)


ABANDONED = (
    replace(STRAIGHT[3], name="straight-spread", deepspeed=LOW_THRESHOLD),
    replace(STRAIGHT[2], name="straight-bf16", dtype="bfloat16"),
    replace(STRAIGHT[2], name="straight-offloaded", deepspeed={"offload_optimizer": "cpu"}),
)
"""Further cases that are trained straight, and stopped in the middle of an update and resumed."""

DAMAGED = ("changed", "truncated", "zeroed", "missing", "unfinished", "unreadable")
"""Folders with a damaged copy of a checkpoint."""


def stopped(ranks: int) -> tuple[list[Case], list[Case]]:
    """Two updates, then a third that is stopped after its first backward pass; and the same resumed."""
    first, second = [], []
    for case in (*STRAIGHT, *ABANDONED):
        kept = f"{case.name}-stopped-{ranks}"
        first.append(replace(case, name=f"{case.name}-stopped", updates=2, stop_at=2, save=kept))
        second.append(replace(case, name=f"{case.name}-resumed", updates=2, first_update=2, load=kept))
    return first, second


def halves(ranks: int) -> tuple[list[Case], list[Case]]:
    first = [
        replace(
            case, name=case.name.replace("straight", "first"), updates=2, save=f"checkpoint-{ranks}-{case.zero_stage}"
        )
        for case in STRAIGHT
    ]
    second = [
        replace(case, name=case.name.replace("straight", "second"), updates=2, first_update=2) for case in STRAIGHT
    ]
    return first, [replace(case, load=f"checkpoint-{ranks}-{case.zero_stage}") for case in second]


# --- running gangs ---


def launch(shared: Path, folder: Path, ranks: int, cases: list[Case]) -> None:
    """Run cases in a gang of `ranks` fresh processes."""
    folder.mkdir()
    (folder / "cases").write_bytes(pickle.dumps(cases))
    worker = ["-m", "tests.integration.learner_worker", str(shared), str(folder)]
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [sys.executable, *(torchrun if ranks > 1 else []), *worker]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]


@dataclass(frozen=True)
class Gangs:
    """Results of all gangs, in the folders `gang-<ranks>` and, after a restart, `restarted-<ranks>`."""

    shared: Path

    def folder(self, ranks: int, case: str, *, restarted: bool = False) -> Path:
        return self.shared / f"{'restarted' if restarted else 'gang'}-{ranks}" / case

    def outcome(self, ranks: int, case: str, *, rank: int = 0, restarted: bool = False) -> Outcome:
        folder = self.folder(ranks, case, restarted=restarted)
        outcome: Outcome = pickle.loads(folder.with_name(f"{case}.outcome-{rank}").read_bytes())
        return outcome

    def weights(self, ranks: int, case: str, *, restarted: bool = False) -> dict[str, Tensor]:
        return load_file(self.folder(ranks, case, restarted=restarted) / "model.safetensors")


@pytest.fixture(scope="module")
def gangs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gangs]:
    """All results that the tests need, from four gangs: starting a process takes longer than a case."""
    shared = tmp_path_factory.mktemp("learner")
    for tied in (False, True):
        # The learner disables the dropout.
        model = small_qwen2(1 + tied, tie_word_embeddings=tied, attention_dropout=0.3).eval()
        model.save_pretrained(model_folder(shared, tied=tied))
        save_tokenizer(model_folder(shared, tied=tied))
    for name, samples in make_samples(model).items():
        (shared / f"{name}.samples").write_bytes(pickle.dumps(samples))
    for ranks in RANKS:
        first, _ = halves(ranks)
        launch(
            shared,
            shared / f"gang-{ranks}",
            ranks,
            [*GRADIENT_CASES, *OTHER_CASES, *STRAIGHT, *ABANDONED, *first, *stopped(ranks)[0]],
        )
    damage(shared)
    for ranks in RANKS:
        _, second = halves(ranks)
        launch(shared, shared / f"restarted-{ranks}", ranks, [*second, *broken(ranks), *stopped(ranks)[1]])
    yield Gangs(shared)
    shutil.rmtree(shared)


def damage(shared: Path) -> None:
    """Copies of checkpoints, each with another kind of damage."""
    for ranks in RANKS:
        whole = shared / f"checkpoint-{ranks}-1"
        for kind in DAMAGED:
            shutil.copytree(whole, shared / f"{kind}-{ranks}")
        state = next((shared / f"changed-{ranks}").rglob("*optim_states.pt"))
        content = bytearray(state.read_bytes())
        content[len(content) // 2] ^= 1
        state.write_bytes(content)
        model = next((shared / f"truncated-{ranks}").rglob("*model_states.pt"))
        os.truncate(model, model.stat().st_size // 2)
        state = next((shared / f"zeroed-{ranks}").rglob("*optim_states.pt"))
        state.write_bytes(bytes(state.stat().st_size))
        (shared / f"missing-{ranks}" / f"rng-rank-{ranks - 1}.pt").unlink()
        (shared / f"unfinished-{ranks}" / "learner.json").unlink()
        (shared / f"unreadable-{ranks}" / "learner.json").write_text("{")


def broken(ranks: int) -> list[Case]:
    other = 3 - ranks
    base = Case("", zero_stage=1, updates=0, follow=False)
    return [
        *(replace(base, name=kind, load=f"{kind}-{ranks}") for kind in DAMAGED),
        # The other ranks follow from one to the next.
        replace(
            next(case for case in STRAIGHT if case.zero_stage == 1),
            name="fallback",
            load=" ".join(f"{name}-{ranks}" for name in (*DAMAGED, "checkpoint")) + "-1",
            updates=2,
            first_update=2,
        ),
        replace(base, name="other-world", load=f"checkpoint-{other}-1"),
        replace(base, name="other-stage", load=f"checkpoint-{ranks}-2"),
    ]


@pytest.fixture(scope="module")
def plain(gangs: Gangs) -> dict[str, Plain]:
    """The reference of each case, computed once for cases with the same training."""
    found: dict[tuple[object, ...], Plain] = {}
    results = {}
    for case in GRADIENT_CASES:
        training = config_of(case, gangs.shared).training
        same = training.model_dump() | {"merge_identical": 0, "tokens_per_micro_batch": 0, "gradient_checkpointing": 0}
        key = (case.samples, case.tied, case.temperature, str(same))
        if key not in found:
            found[key] = plain_pytorch(case, gangs.shared)
        results[case.name] = found[key]
    return results


# --- the tests ---


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("case", GRADIENT_CASES, ids=lambda case: case.name)
def test_updates_are_those_of_plain_pytorch(
    gangs: Gangs, plain: dict[str, Plain], case: Case, ranks: int, record_property: Callable[[str, object], None]
) -> None:
    stats: list[UpdateStats] = gangs.outcome(ranks, case.name).stats
    expected, weights = plain[case.name], gangs.weights(ranks, case.name)
    assert len(stats) == len(expected.norms) == 3
    for update, norm, loss in zip(stats, expected.norms, expected.losses, strict=True):
        record_property("relative_difference", abs(update.gradient_norm - norm) / max(norm, 1e-12))
        assert update.gradient_norm == pytest.approx(norm, rel=1e-5, abs=1e-12)
        assert update.total_loss == pytest.approx(loss, rel=1e-4, abs=1e-6)
    assert set(weights) == set(expected.weights)
    for name, tensor in expected.weights.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=2e-6, msg=lambda text, name=name: name + text)


def test_the_cases_do_clip_and_do_differ_from_the_initial_model(gangs: Gangs, plain: dict[str, Plain]) -> None:
    stats: list[UpdateStats] = gangs.outcome(1, "zero1").stats
    assert all(update.gradient_norm > 0.2 for update in stats)
    assert all(0.1 < update.clip_fraction < 0.9 for update in stats)
    assert all(update.mismatch_kl > 0.01 for update in stats)
    assert stats[0].kl_loss == 0.0
    assert stats[2].kl_loss > 0.0
    initial = load_file(model_folder(gangs.shared, tied=True) / "model.safetensors")
    moved = max(float((plain["zero1"].weights[name] - initial[name]).abs().max()) for name in initial)
    assert moved > 1e-3


@pytest.mark.parametrize("ranks", RANKS)
def test_merging_identical_samples_saves_passes(gangs: Gangs, ranks: int) -> None:
    merged, apart = (gangs.outcome(ranks, name).stats[0] for name in ("zero1-merged", "zero1"))
    assert merged.tokens_trained < 0.8 * apart.tokens_trained
    assert merged.tokens_in_loss == apart.tokens_in_loss > 0


@pytest.mark.parametrize("ranks", RANKS)
def test_nothing_to_learn_means_a_gradient_of_zero(gangs: Gangs, ranks: int) -> None:
    stats: list[UpdateStats] = gangs.outcome(ranks, "nothing-to-learn").stats
    assert [update.gradient_norm for update in stats] == [0.0] * 3
    assert all(update.applied for update in stats)


@pytest.mark.parametrize("ranks", RANKS)
def test_an_update_without_samples_leaves_the_weights_alone(gangs: Gangs, ranks: int) -> None:
    stats: list[UpdateStats] = gangs.outcome(ranks, "empty").stats
    assert [update.applied for update in stats] == [True, False, True]
    assert stats[1].gradient_norm == stats[1].total_loss == stats[1].tokens_trained == stats[1].tokens_in_loss == 0
    assert stats[2].learning_rate < stats[1].learning_rate < stats[0].learning_rate


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("stage", STAGES)
def test_bfloat16_stays_near_float32(gangs: Gangs, plain: dict[str, Plain], stage: int, ranks: int) -> None:
    stats: list[UpdateStats] = gangs.outcome(ranks, f"bf16-zero{stage}").stats
    for update, norm in zip(stats, plain["zero0"].norms, strict=True):
        assert update.gradient_norm == pytest.approx(norm, rel=0.05)
    assert all(tensor.dtype == torch.bfloat16 for tensor in gangs.weights(ranks, f"bf16-zero{stage}").values())


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_resumed_in_new_processes_ends_bit_for_bit_the_same(gangs: Gangs, stage: int, ranks: int) -> None:
    straight = gangs.outcome(ranks, f"straight-zero{stage}")
    resumed = gangs.outcome(ranks, f"second-zero{stage}", restarted=True)
    for expected, found in zip(straight.stats[2:], resumed.stats, strict=True):
        assert replace(found, seconds=0.0) == replace(expected, seconds=0.0)
    expected_weights = gangs.weights(ranks, f"straight-zero{stage}")
    halfway = gangs.weights(ranks, f"first-zero{stage}")
    weights = gangs.weights(ranks, f"second-zero{stage}", restarted=True)
    assert set(weights) == set(expected_weights)
    for name, tensor in weights.items():
        assert torch.equal(tensor, expected_weights[name]), name
    assert any(not torch.equal(tensor, halfway[name]) for name, tensor in weights.items())


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("case", [case.name for case in (*STRAIGHT, *ABANDONED)])
def test_a_run_stopped_in_the_middle_of_an_update_ends_bit_for_bit_the_same(
    gangs: Gangs, case: str, ranks: int
) -> None:
    expected, found = gangs.outcome(ranks, case), gangs.outcome(ranks, f"{case}-resumed", restarted=True)
    assert [replace(each, seconds=0.0) for each in found.stats] == [
        replace(each, seconds=0.0) for each in expected.stats[2:]
    ]
    weights = gangs.weights(ranks, f"{case}-resumed", restarted=True)
    for name, tensor in gangs.weights(ranks, case).items():
        assert torch.equal(tensor, weights[name]), name


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("changed", r"DamagedCheckpoint: .*optim_states.pt is damaged"),
        ("truncated", r"DamagedCheckpoint: .*model_states.pt is damaged"),
        ("zeroed", r"DamagedCheckpoint: .*optim_states.pt is damaged"),
        ("missing", r"DamagedCheckpoint: .*rng-rank-\d.pt is missing"),
        ("unfinished", r"DamagedCheckpoint: .*learner.json is missing"),
        ("unreadable", r"DamagedCheckpoint: .*learner.json is damaged"),
        ("other-world", r"CheckpointError: .*was saved with world_size="),
        ("other-stage", r"CheckpointError: .*was saved with zero_stage=2, and this run has zero_stage=1"),
    ],
)
def test_a_checkpoint_that_cannot_be_resumed_is_refused_by_every_rank(
    gangs: Gangs, case: str, message: str, ranks: int
) -> None:
    errors = [gangs.outcome(ranks, case, rank=rank, restarted=True).error for rank in range(ranks)]
    assert re.match(message, str(errors[0]))
    assert errors == [errors[0]] * ranks


@pytest.mark.parametrize("ranks", RANKS)
def test_after_damaged_checkpoints_the_one_before_them_is_resumed_bit_for_bit(gangs: Gangs, ranks: int) -> None:
    expected, found = (gangs.outcome(ranks, name, restarted=True) for name in ("second-zero1", "fallback"))
    assert found.error is None
    assert [replace(each, seconds=0.0) for each in found.stats] == [
        replace(each, seconds=0.0) for each in expected.stats
    ]
    weights = gangs.weights(ranks, "fallback", restarted=True)
    for name, tensor in gangs.weights(ranks, "second-zero1", restarted=True).items():
        assert torch.equal(tensor, weights[name]), name


@pytest.mark.parametrize("ranks", RANKS)
def test_the_initial_model_is_loaded_only_if_there_is_a_kl_term(gangs: Gangs, ranks: int) -> None:
    models = {case: gangs.outcome(ranks, case).models for case in ("zero1", "no-reference", "sft")}
    assert models == {"zero1": 2, "no-reference": 1, "sft": 1}


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("case", ["zero0", "zero1", "zero2", "zero3-spread", "untied", "untied-zero3"])
def test_an_export_scores_as_the_learner_does(gangs: Gangs, case: str, ranks: int) -> None:
    folder = gangs.folder(ranks, case)
    scores_as(folder, gangs.outcome(ranks, case).logprobs, tied="untied" not in case)
    assert (folder / "tokenizer.json").is_file()


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("case", ["zero0", "zero1", "zero2", "zero3-spread", "untied", "untied-zero3"])
def test_a_decoy_scores_as_the_learner_says_and_unlike_the_policy(gangs: Gangs, case: str, ranks: int) -> None:
    outcome = gangs.outcome(ranks, case)
    scores_as(gangs.folder(ranks, f"{case}-decoy"), outcome.decoy_logprobs, tied=False)
    differences = np.concatenate(outcome.decoy_logprobs) - np.concatenate(outcome.logprobs)
    assert np.abs(differences).mean() > 0.04


def scores_as(folder: Path, found: list[Any], *, tied: bool) -> None:
    """Check what the learner says of an export's log-probabilities."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert model.config.tie_word_embeddings == tied
    for sequence, logprobs in zip(SEQUENCES, found, strict=True):
        tokens = torch.tensor(sequence)
        with torch.no_grad():
            expected = model(input_ids=tokens[None]).logits[0, :-1].log_softmax(-1).gather(-1, tokens[1:, None])[:, 0]
        np.testing.assert_allclose(logprobs, expected.numpy(), atol=1e-5)
