"""The samples on which the learner's tests train: identical ones, and tokens of every kind."""

from dataclasses import replace

import numpy as np
import torch
from transformers import Qwen2ForCausalLM

from seele_trainer.learner.sample import Sample
from tests.support.small_models import VOCABULARY

HINT_WEIGHT = np.float32(0.05)


def a_sample(random: np.random.Generator, model: Qwen2ForCausalLM) -> Sample:
    """Prompt, hint and completion of random lengths; the sampler's log-probabilities are the model's with noise."""
    prompt, hint, completion = random.integers(1, 6), random.integers(0, 8), random.integers(1, 18)
    length = prompt + hint + completion
    tokens = random.integers(0, VOCABULARY, length)
    generated = np.arange(length) >= prompt + hint
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(tokens)[None]).logits[0]
    model_logprobs = torch.log_softmax(logits[:-1], -1).gather(-1, torch.tensor(tokens[1:])[:, None])[:, 0].numpy()
    behaviour = np.concatenate([[0.0], model_logprobs]) + random.normal(0, 0.4, length)
    return Sample(
        tokens=tokens,
        policy_mask=generated,
        advantage=np.where(generated, random.choice([-0.75, -0.25, 0.5]), 0.0).astype(np.float32),
        supervised=HINT_WEIGHT * ((np.arange(length) >= prompt) & ~generated).astype(np.float32),
        behaviour_logprobs=np.where(generated, behaviour, 0.0).astype(np.float32),
    )


def without_advantage(sample: Sample) -> Sample:
    return replace(sample, advantage=np.zeros_like(sample.advantage))


def learning_nothing(sample: Sample) -> Sample:
    return replace(without_advantage(sample), supervised=np.zeros_like(sample.supervised))


def with_solution(number: int, sample: Sample) -> Sample:
    """A sample of one of five kinds. All but the first have the reference solution, or a prefix of it, instead of a hint.

    At most 3 tokens of a sample learn as its most uncertain ones, usually fewer than it has.
    """
    given, uncertain = sample.supervised != 0, 1 + number % 3
    advantage = np.where(given, np.float32(0.25), sample.advantage)
    prefix = replace(sample, supervised=np.zeros_like(sample.supervised), off_policy=given, advantage=advantage)
    rest = sample.off_policy
    return [
        replace(sample, most_uncertain=uncertain),
        replace(prefix, most_uncertain=uncertain),
        replace(prefix, shaping=0.1, clipped=False),
        replace(prefix, policy_mask=rest, advantage=np.where(given, advantage, 0), shaping=0.1),
        replace(learning_nothing(sample), policy_mask=rest, supervised=sample.policy_mask.astype(np.float32)),
    ][number % 5]


def make_samples(model: Qwen2ForCausalLM) -> dict[str, list[list[Sample]]]:
    """The samples of each update, by name; `model` gives the log-probabilities of the sampler."""
    random = np.random.default_rng(3)

    def update(different: int) -> list[Sample]:
        samples = [a_sample(random, model) for _ in range(different)]
        repeats = [samples[index] for index in random.integers(0, different, different // 2)]
        return samples + repeats

    mixed = [update(17) for _ in range(3)]
    return {
        "mixed": mixed,
        "long": [update(9) for _ in range(4)],
        "few": [update(1) for _ in range(3)],
        "no-advantage": [[without_advantage(sample) for sample in samples] for samples in mixed],
        "nothing": [[learning_nothing(sample) for sample in samples] for samples in mixed],
        "solutions": [[with_solution(*pair) for pair in enumerate(samples)] for samples in mixed],
        "solutions-alone": [[with_solution(4, sample) for sample in samples] for samples in mixed],
        "empty": [mixed[0], [], mixed[1]],
    }
