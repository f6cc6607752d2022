"""Measures the learner on this machine's CPU, and the gains from merging identical rollouts and from length bucketing.

    python -m benchmarks.learner_cpu [--updates 9] [--zero-stage 1] [--rows 512]

Trains a small Qwen2 on rollouts like the quickstart's: 512 rows of 12 to 48 tokens, about a third of them distinct. Variants
take turns, so that other load on the machine affects all of them; gains are ratios of median CPU time, which such load
distorts least.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from seele_trainer.config import Dataset, Model, Trainer, TrainerConfig, Training
from seele_trainer.deepspeed_options import DeepSpeed
from seele_trainer.learner.learner import Learner
from seele_trainer.learner.packing import merge_identical, pack
from seele_trainer.learner.sample import Sample
from tests.support.small_models import small_qwen2

VOCABULARY = 32
SIZE = {
    **{"vocab_size": VOCABULARY, "max_position_embeddings": 128, "tie_word_embeddings": True},
    **{"hidden_size": 96, "intermediate_size": 256, "num_key_value_heads": 4},
}
"""What differs from the model of the tests."""


def rollouts(rows: int) -> list[Sample]:
    """Samples in random order, about a third of them distinct."""
    random = np.random.default_rng(0)

    def one() -> Sample:
        length = int(random.integers(12, 49))
        generated = np.arange(length) >= length // 2
        return Sample(
            tokens=random.integers(0, VOCABULARY, length),
            policy_mask=generated,
            advantage=np.where(generated, random.choice([-0.5, 0.5]), 0.0).astype(np.float32),
            supervised=np.float32(0.001) * ((np.arange(length) >= length // 4) & ~generated),
            behaviour_logprobs=np.where(generated, -3.5, 0.0).astype(np.float32),
        )

    different = [one() for _ in range(rows // 3)]
    return [different[index] for index in random.integers(0, len(different), rows)]


def learner(folder: Path, zero_stage: int, *, merge: bool, budget: int) -> Learner:
    """A learner with the options that are compared."""
    return Learner(
        TrainerConfig(
            name="benchmark",
            model=Model(name=str(folder), dtype="float32"),
            dataset=Dataset(path="unused.jsonl"),
            training=Training(learning_rate=1e-4, merge_identical=merge, tokens_per_micro_batch=budget),
            trainer=Trainer(deepspeed=DeepSpeed(zero_stage=zero_stage)),  # type: ignore[arg-type]
        ),
        total_updates=1000,
        seed=0,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=9)
    parser.add_argument("--zero-stage", type=int, default=1, choices=[0, 1, 2, 3])
    parser.add_argument("--rows", type=int, default=512)
    options = parser.parse_args()
    samples = rollouts(options.rows)
    tokens = sum(len(sample.tokens) for sample in samples)
    longest = max(len(sample.tokens) for sample in samples)
    with tempfile.TemporaryDirectory() as folder:
        model = small_qwen2(0, **SIZE)
        model.save_pretrained(folder)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        # With a budget for all rows at once, every row is padded to the longest: no bucketing.
        everything = options.rows * longest
        variants = {
            "bucketed": learner(Path(folder), options.zero_stage, merge=False, budget=4096),
            "one padded batch": learner(Path(folder), options.zero_stage, merge=False, budget=everything),
            "bucketed and merged": learner(Path(folder), options.zero_stage, merge=True, budget=4096),
        }
        seconds: dict[str, list[float]] = {name: [] for name in variants}
        busy: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(options.updates + 1):
            for name, variant in variants.items():
                began = time.process_time()
                seconds[name].append(variant.update(samples).seconds)
                busy[name].append(time.process_time() - began)
    # The first update, which allocates memory, is skipped.
    elapsed, median = ({name: statistics.median(row[1:]) for name, row in rows.items()} for rows in (seconds, busy))
    print(f"{parameters:,} parameters, {len(samples)} rows, {tokens:,} tokens, ZeRO {options.zero_stage}, ", end="")
    print(f"{torch.get_num_threads()} threads, {len(merge_identical(samples))} distinct rows")
    for name, value in median.items():
        print(
            f"{name:>20}: {elapsed[name]:6.3f} s/update ({tokens / elapsed[name]:,.0f} tokens/s of rollouts), ", end=""
        )
        print(f"{value:6.3f} s of CPU")
    padding = {
        budget: 1.0 - tokens / sum(batch.tokens.size for batch in pack(samples, 1, budget)[0])
        for budget in (4096, everything)
    }
    print(f"padding: {padding[4096]:.1%} bucketed, {padding[everything]:.1%} in one batch")
    print(f"gain from length bucketing: {median['one padded batch'] / median['bucketed']:.2f}x")
    print(f"gain from merging identical rollouts: {median['bucketed'] / median['bucketed and merged']:.2f}x")


if __name__ == "__main__":
    main()
