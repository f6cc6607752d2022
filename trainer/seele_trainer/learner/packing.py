"""From weighted samples to the padded micro-batches of every rank, and from those to tensors on its device."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seele_trainer.learner.sample import EVERY_TOKEN, FIELDS, Sample, SampleFields


@dataclass(frozen=True, kw_only=True)
class MicroBatch(SampleFields[NDArray[Any], NDArray[Any]]):
    """Padded sequences of one forward and backward pass.

    Per-token fields have shape (rows, width) and are padded on the right with zeros, the others have shape (rows,).
    `source` is the index of each row's sample in the list that was packed. It is -1 in a micro-batch without samples,
    which exists only so that every rank makes the same number of passes.
    """

    source: NDArray[np.int64]

    @property
    def trained(self) -> NDArray[np.bool_]:
        """Tokens whose log-probability the loss needs, (rows, width)."""
        trained: NDArray[np.bool_] = self.policy_mask | self.off_policy | (self.supervised != 0)
        return trained


@dataclass(frozen=True)
class DeviceBatch:
    """A micro-batch on the device: padded `tokens` (rows, width), and flat lists of the tokens that are scored.

    For each scored token, `positions` is its index into the flattened `tokens` and `rows` its row. `temperature` is the
    sampling temperature for tokens with a policy gradient, because the tempered policy sampled them, and 1 for
    supervised tokens; None means 1 for all. `scored` has the fields of their samples, one value per token.
    """

    tokens: Tensor
    positions: Tensor
    rows: Tensor
    temperature: Tensor | None
    scored: SampleFields[Tensor, Tensor]
    ranked: bool
    """Whether only the most uncertain tokens of some row learn."""


def merge_identical(samples: Sequence[Sample], tolerance: float = 1e-3) -> list[Sample]:
    """Replace identical samples by one with their multiplicities added, in order of first appearance.

    Samples are identical if their tokens, masks and weights are. Behaviour log-probabilities may differ by the
    engine's rounding, at most by `tolerance`, and are averaged: this changes the gradient by the order of tolerance
    squared.
    """
    merged: list[Sample] = []
    by_content: dict[tuple[bytes, ...], list[int]] = {}
    compared = [each for each in FIELDS if each.name not in ("behaviour_logprobs", "multiplicity")]
    for sample in samples:
        content = tuple(np.asarray(getattr(sample, each.name), each.metadata["dtype"]).tobytes() for each in compared)
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

    Samples of similar length share a micro-batch to keep padding low; a sample longer than the budget gets its own.
    Micro-batches at the same position have similar sizes on all ranks, because ranks wait for each other after each.
    Raises ValueError for a sample that trains its first token, which nothing predicts.
    """
    for index, sample in enumerate(samples):
        if sample.policy_mask[0] or sample.off_policy[0] or sample.supervised[0] != 0:
            raise ValueError(f"sample {index} trains its first token, which nothing predicts: put a token before it")
    lengths = np.array([len(sample.tokens) for sample in samples], dtype=np.int64)
    groups = _balanced_groups(lengths, ranks, token_budget)
    groups.sort(key=lambda group: -_padded(lengths, group))
    batches = [_micro_batch(samples, group, source=group) for group in groups]
    nothing = Sample(tokens=np.zeros(2, dtype=np.int64), multiplicity=0.0)
    batches += [_micro_batch([nothing], [0], source=[-1]) for _ in range(-len(batches) % ranks)]
    return _deal(batches, ranks)


def _balanced_groups(lengths: NDArray[np.int64], ranks: int, token_budget: int) -> list[list[int]]:
    """Indices of the samples of each micro-batch: as few as the budget allows, a multiple of `ranks`, of equal size."""
    order = [int(index) for index in np.argsort(-lengths, kind="stable")]
    fewest = len(_fill(lengths, order, token_budget))
    wanted = math.ceil(fewest / ranks) * ranks
    # The smallest budget that needs no more micro-batches makes them as equal in size as possible.
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
    """Give each rank one of every `ranks` consecutive micro-batches; the least loaded rank gets the largest."""
    dealt: list[list[MicroBatch]] = [[] for _ in range(ranks)]
    load = [0] * ranks
    for start in range(0, len(batches), ranks):
        by_load = sorted(range(ranks), key=lambda rank: (load[rank], rank))
        for rank, batch in zip(by_load, batches[start : start + ranks], strict=True):
            dealt[rank].append(batch)
            load[rank] += batch.tokens.size
    return dealt


def _micro_batch(samples: Sequence[Sample], group: Sequence[int], *, source: Sequence[int]) -> MicroBatch:
    """The samples of `group` as rows."""
    # A masked rollout may be a prompt of one token, and `to_device` needs a second position to score.
    width = max(2, *(len(samples[index].tokens) for index in group))
    stacked = {}
    for each in FIELDS:
        shape = (len(group), width) if each.metadata["per_token"] else (len(group),)
        stacked[each.name] = np.zeros(shape, dtype=each.metadata["dtype"])
        for row, index in enumerate(group):
            value = getattr(samples[index], each.name)
            stacked[each.name][(row, slice(len(value))) if each.metadata["per_token"] else row] = value
    return MicroBatch(**stacked, source=np.array(source, dtype=np.int64))


def to_score(sequence: Sequence[int]) -> Sample:
    """A sample whose tokens are all scored except the first, for passes without training."""
    tokens = np.array(sequence, dtype=np.int64)
    return Sample(tokens=tokens, supervised=(np.arange(len(tokens)) > 0).astype(np.float32))


def encode(batches: Sequence[MicroBatch]) -> bytes:
    """One rank's micro-batches as the bytes of an npz file, to be sent without pickling."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        allow_pickle=False,
        **{f"{number}.{name}": array for number, batch in enumerate(batches) for name, array in vars(batch).items()},
    )
    return buffer.getvalue()


def decode(data: bytes) -> list[MicroBatch]:
    """Inverse of `encode`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        names = [each.name for each in fields(MicroBatch)]
        count = len(stored.files) // len(names)
        return [MicroBatch(**{name: stored[f"{number}.{name}"] for name in names}) for number in range(count)]


def to_device(batch: MicroBatch, device: torch.device, temperature: float) -> DeviceBatch:
    """Move a micro-batch to the device. Only tokens with some weight are scored, and at least one."""
    chosen = np.flatnonzero(batch.trained)
    if not len(chosen):
        # Ranks have to make the same passes, so a micro-batch without samples scores one token with zero weight.
        chosen = np.array([1])
    rows = chosen // batch.tokens.shape[1]

    def tensor(array: NDArray[Any]) -> Tensor:
        return torch.tensor(array, device=device)

    scored = {}
    for each in FIELDS:
        array = getattr(batch, each.name)
        scored[each.name] = array.reshape(-1)[chosen] if each.metadata["per_token"] else array[rows]
    tempered = None
    if temperature != 1.0:
        tempered = np.where(scored["policy_mask"] | scored["off_policy"], temperature, 1.0).astype(np.float32)
    return DeviceBatch(
        tokens=tensor(batch.tokens),
        positions=tensor(chosen),
        rows=tensor(rows),
        temperature=None if tempered is None else tensor(tempered),
        scored=SampleFields(**{name: tensor(array) for name, array in scored.items()}),
        ranked=bool((batch.most_uncertain < EVERY_TOKEN).any()),
    )
