"""From weighted samples to the padded micro-batches of every rank, in pure numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seele_trainer.learner.sample import FloatArray, Sample


@dataclass(frozen=True)
class MicroBatch:
    """Padded sequences of one forward and backward pass: arrays of shape (rows, width), padded on the right with zeros.

    `clipped`, `shaping`, `most_uncertain`, `multiplicity` and `source` have shape (rows,). `most_uncertain` is -1 where all
    tokens learn; `source` is the index of the sample in what was packed, -1 in a micro-batch without any sample, which
    exists only so that all ranks do the same number of passes.
    """

    tokens: NDArray[np.int64]
    policy_mask: NDArray[np.bool_]
    advantage: FloatArray
    supervised: FloatArray
    behaviour_logprobs: FloatArray
    off_policy: NDArray[np.bool_]
    clipped: NDArray[np.bool_]
    shaping: FloatArray
    most_uncertain: NDArray[np.int64]
    multiplicity: FloatArray
    source: NDArray[np.int64]

    @property
    def trained(self) -> NDArray[np.bool_]:
        """Tokens whose log-probability the loss needs, (rows, width)."""
        trained: NDArray[np.bool_] = self.policy_mask | self.off_policy | (self.supervised != 0)
        return trained


def merge_identical(samples: Sequence[Sample], tolerance: float = 1e-3) -> list[Sample]:
    """Replace identical samples by one with their multiplicities added, in order of first appearance.

    Identical means the same tokens, masks and weights. Behaviour log-probabilities may differ by the engine's
    rounding, at most by `tolerance`, and are averaged: what that changes in the gradient is of the order of tolerance
    squared.
    """
    merged: list[Sample] = []
    by_content: dict[tuple[object, ...], list[int]] = {}
    for sample in samples:
        arrays = (sample.tokens, sample.policy_mask, sample.advantage, sample.supervised, sample.off_policy)
        content = (sample.clipped, sample.shaping, sample.most_uncertain, *(array.tobytes() for array in arrays))
        candidates = by_content.setdefault(content, [])
        twin = next((index for index in candidates if _close(merged[index], sample, tolerance)), None)
        if twin is None:
            candidates.append(len(merged))
            merged.append(sample)
        else:
            merged[twin] = _combine(merged[twin], sample)
    return merged


def _close(one: Sample, other: Sample, tolerance: float) -> bool:
    difference = np.abs(one.behaviour_logprobs - other.behaviour_logprobs)
    return bool(difference.max(initial=0.0) <= tolerance)


def _combine(one: Sample, other: Sample) -> Sample:
    total = one.multiplicity + other.multiplicity
    share = np.float32(other.multiplicity / total)
    behaviour = one.behaviour_logprobs + share * (other.behaviour_logprobs - one.behaviour_logprobs)
    return replace(one, behaviour_logprobs=behaviour, multiplicity=total)


def pack(samples: Sequence[Sample], ranks: int, token_budget: int) -> list[list[MicroBatch]]:
    """Spread samples over ranks: the same number of micro-batches on each, of at most `token_budget` padded tokens.

    Samples of similar length share a micro-batch, so little is padding; a sample longer than the budget stands alone.
    The micro-batches of one position have similar sizes on all ranks, because ranks wait for each other after each.
    Raises ValueError for a sample that trains its first token, which nothing predicts.
    """
    for index, sample in enumerate(samples):
        if sample.policy_mask[0] or sample.off_policy[0] or sample.supervised[0] != 0:
            raise ValueError(f"sample {index} trains its first token, which nothing predicts: put a token before it")
    lengths = np.array([len(sample.tokens) for sample in samples], dtype=np.int64)
    groups = _balanced_groups(lengths, ranks, token_budget)
    groups.sort(key=lambda group: -_padded(lengths, group))
    batches = [_micro_batch(samples, group) for group in groups]
    batches += [_empty() for _ in range(-len(batches) % ranks)]
    return _deal(batches, ranks)


def _balanced_groups(lengths: NDArray[np.int64], ranks: int, token_budget: int) -> list[list[int]]:
    """Indices of the samples of each micro-batch: as few as the budget allows, of even size, a multiple of `ranks`."""
    order = [int(index) for index in np.argsort(-lengths, kind="stable")]
    fewest = len(_fill(lengths, order, token_budget))
    wanted = math.ceil(fewest / ranks) * ranks
    # The smallest budget that still needs no more micro-batches makes them as even as they can be.
    low, high = 1, token_budget
    while low < high:
        middle = (low + high) // 2
        if len(_fill(lengths, order, middle)) <= wanted:
            high = middle
        else:
            low = middle + 1
    groups = _fill(lengths, order, high)
    while len(groups) % ranks and any(len(group) > 1 for group in groups):
        largest = max((group for group in groups if len(group) > 1), key=lambda group: _padded(lengths, group))
        groups.remove(largest)
        half = len(largest) // 2
        groups += [largest[:half], largest[half:]]
    return groups


def _fill(lengths: NDArray[np.int64], order: Sequence[int], budget: int) -> list[list[int]]:
    groups: list[list[int]] = []
    for index in order:
        # Longest first: the first row of a group is its width.
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= budget:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _padded(lengths: NDArray[np.int64], group: Sequence[int]) -> int:
    return len(group) * int(lengths[group[0]])


def _deal(batches: Sequence[MicroBatch], ranks: int) -> list[list[MicroBatch]]:
    """Give each rank one micro-batch of every `ranks` in a row; the least loaded rank gets the largest."""
    dealt: list[list[MicroBatch]] = [[] for _ in range(ranks)]
    load = [0] * ranks
    for start in range(0, len(batches), ranks):
        by_load = sorted(range(ranks), key=lambda rank: (load[rank], rank))
        for rank, batch in zip(by_load, batches[start : start + ranks], strict=True):
            dealt[rank].append(batch)
            load[rank] += batch.tokens.size
    return dealt


def _micro_batch(samples: Sequence[Sample], group: Sequence[int]) -> MicroBatch:
    chosen = [samples[index] for index in group]
    width = max(len(sample.tokens) for sample in chosen)

    def padded(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        rows = np.zeros((len(arrays), width), dtype=arrays[0].dtype)
        for row, array in zip(rows, arrays, strict=True):
            row[: len(array)] = array
        return rows

    return MicroBatch(
        tokens=padded([sample.tokens for sample in chosen]),
        policy_mask=padded([sample.policy_mask for sample in chosen]),
        advantage=padded([sample.advantage for sample in chosen]),
        supervised=padded([sample.supervised for sample in chosen]),
        behaviour_logprobs=padded([sample.behaviour_logprobs for sample in chosen]),
        off_policy=padded([sample.off_policy for sample in chosen]),
        clipped=np.array([sample.clipped for sample in chosen], dtype=np.bool_),
        shaping=np.array([sample.shaping for sample in chosen], dtype=np.float32),
        most_uncertain=np.array(
            [-1 if sample.most_uncertain is None else sample.most_uncertain for sample in chosen], dtype=np.int64
        ),
        multiplicity=np.array([sample.multiplicity for sample in chosen], dtype=np.float32),
        source=np.array(group, dtype=np.int64),
    )


def _empty() -> MicroBatch:
    return MicroBatch(
        tokens=np.zeros((1, 2), dtype=np.int64),
        policy_mask=np.zeros((1, 2), dtype=np.bool_),
        advantage=np.zeros((1, 2), dtype=np.float32),
        supervised=np.zeros((1, 2), dtype=np.float32),
        behaviour_logprobs=np.zeros((1, 2), dtype=np.float32),
        off_policy=np.zeros((1, 2), dtype=np.bool_),
        clipped=np.ones(1, dtype=np.bool_),
        shaping=np.zeros(1, dtype=np.float32),
        most_uncertain=np.full(1, -1, dtype=np.int64),
        multiplicity=np.zeros(1, dtype=np.float32),
        source=np.full(1, -1, dtype=np.int64),
    )


def to_score(sequence: Sequence[int]) -> Sample:
    """A sample of token ids of which every one but the first is scored, for passes without training."""
    tokens = np.array(sequence, dtype=np.int64)
    nothing = np.zeros(len(tokens), dtype=np.float32)
    scored = np.ones(len(tokens), dtype=np.float32)
    scored[:1] = 0.0
    none = np.zeros(len(tokens), dtype=np.bool_)
    return Sample(tokens, none, nothing, scored, nothing, off_policy=none)


def generated_tokens(samples: Sequence[Sample]) -> float:
    """Generated tokens times multiplicity: the global denominator of the KL term, and part of the policy term's."""
    return float(sum(sample.multiplicity * int(sample.policy_mask.sum()) for sample in samples))


def off_policy_tokens(samples: Sequence[Sample]) -> float:
    """Off-policy tokens times multiplicity: the other part of the policy term's global denominator."""
    return float(sum(sample.multiplicity * int(sample.off_policy.sum()) for sample in samples))


def supervised_tokens(samples: Sequence[Sample]) -> float:
    """Tokens with a supervised weight times multiplicity: the global denominator of the cross-entropy."""
    return float(sum(sample.multiplicity * int(np.count_nonzero(sample.supervised)) for sample in samples))


def padding_share(batches: Sequence[Sequence[MicroBatch]], samples: Sequence[Sample]) -> float:
    """Share of all positions of all micro-batches that is padding, in [0, 1]."""
    positions = sum(batch.tokens.size for rank in batches for batch in rank)
    return 1.0 - sum(len(sample.tokens) for sample in samples) / positions if positions else 0.0


def encode(batches: Sequence[MicroBatch]) -> bytes:
    """One rank's micro-batches as bytes, to be sent without pickling."""
    header = np.array([len(batches), *(size for batch in batches for size in batch.tokens.shape)], dtype=np.int64)
    arrays = [getattr(batch, field.name) for batch in batches for field in fields(MicroBatch)]
    return b"".join(array.tobytes() for array in [header, *arrays])


def decode(data: bytes) -> list[MicroBatch]:
    """Inverse of `encode`."""
    count = int(np.frombuffer(data, dtype=np.int64, count=1)[0])
    shapes = np.frombuffer(data, dtype=np.int64, count=2 * count, offset=8).reshape(count, 2)
    offset = 8 * (1 + 2 * count)
    batches = []
    for rows, width in shapes.tolist():
        arrays = {}
        for name, template in vars(_empty()).items():
            shape = (rows, width) if template.ndim == 2 else (rows,)
            array = np.frombuffer(data, dtype=template.dtype, count=math.prod(shape), offset=offset).reshape(shape)
            offset += array.nbytes
            arrays[name] = array
        batches.append(MicroBatch(**arrays))
    return batches
