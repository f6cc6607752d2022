"""The trainer processes as ranks: joining them, and moving bytes and sums between them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Self, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

T = TypeVar("T")

# Followers wait while rank 0 samples rollouts, which may take hours. A peer that dies closes its connection, which ends
# the wait at once.
_CONTROL_TIMEOUT = timedelta(days=7)


@dataclass(frozen=True)
class Ranks:
    """This process among the trainer processes. Every method is collective: all ranks call it in the same order.

    `control` is a separate gloo group, so that data and commands are sent from host memory even with GPUs.
    """

    rank: int
    world_size: int
    device: torch.device
    control: dist.ProcessGroup

    @classmethod
    def join(cls) -> Self:
        """Join the ranks that torchrun's environment describes; without one, be the only rank.

        Joining twice in one process gives the same ranks. Without CUDA this selects DeepSpeed's CPU accelerator, which
        only works before DeepSpeed is imported for the first time.
        """
        on_gpu = torch.cuda.is_available()
        if not on_gpu:
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        local_rank = int(os.environ.setdefault("LOCAL_RANK", "0"))
        # If this is unset, DeepSpeed's CPU accelerator takes the number of NUMA nodes for the number of devices.
        os.environ.setdefault("LOCAL_SIZE", os.environ.get("LOCAL_WORLD_SIZE", "1"))
        device = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
        if on_gpu:
            torch.cuda.set_device(device)
        if not dist.is_initialized():
            backend = "nccl" if on_gpu else "gloo"
            # A single rank needs no rendezvous, whose port may be taken. -1 means that torchrun's environment decides.
            store, rank, size = (None, -1, -1) if "RANK" in os.environ else (dist.HashStore(), 0, 1)  # type: ignore[attr-defined]
            dist.init_process_group(
                backend, store=store, rank=rank, world_size=size, device_id=device if on_gpu else None
            )
        control = dist.new_group(backend="gloo", timeout=_CONTROL_TIMEOUT)
        return cls(dist.get_rank(), dist.get_world_size(), device, control)

    @property
    def is_driver(self) -> bool:
        """Whether this is rank 0, which has the data."""
        return self.rank == 0

    def broadcast(self, payload: bytes | None) -> bytes:
        """Rank 0's payload, on every rank."""
        if self.world_size == 1:
            return _given(payload)
        size = torch.tensor([len(payload or b"")])
        dist.broadcast(size, src=0, group=self.control)
        buffer = _buffer(payload if self.is_driver else None, int(size))
        dist.broadcast(buffer, src=0, group=self.control)
        return buffer.numpy().tobytes()

    def scatter(self, payloads: Sequence[bytes] | None) -> bytes:
        """This rank's payload, of rank 0's one for each rank."""
        if self.world_size == 1:
            return _given(payloads)[0]
        sizes = torch.tensor([len(payload) for payload in payloads] if payloads else [0] * self.world_size)
        dist.broadcast(sizes, src=0, group=self.control)
        largest = int(sizes.max())
        parts = [_buffer(payload, largest) for payload in payloads] if payloads else None
        mine = torch.empty(largest, dtype=torch.uint8)
        dist.scatter(mine, parts if self.is_driver else None, src=0, group=self.control)
        return mine[: int(sizes[self.rank])].numpy().tobytes()

    def gather(self, payload: bytes) -> list[bytes]:
        """The payloads of all ranks in order on rank 0, an empty list elsewhere."""
        if self.world_size == 1:
            return [payload]
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        dist.all_gather(sizes, torch.tensor([len(payload)]), group=self.control)
        largest = max(int(size) for size in sizes)
        parts = [torch.empty(largest, dtype=torch.uint8) for _ in sizes] if self.is_driver else None
        dist.gather(_buffer(payload, largest), parts, dst=0, group=self.control)
        if parts is None:
            return []
        return [part[: int(size)].numpy().tobytes() for part, size in zip(parts, sizes, strict=True)]

    def total(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Element-wise sum over ranks."""
        if self.world_size == 1:
            return values
        summed = torch.from_numpy(values.copy())
        dist.all_reduce(summed, group=self.control)
        result: NDArray[np.float64] = summed.numpy()
        return result

    def barrier(self) -> None:
        """Wait for every rank."""
        if self.world_size > 1:
            dist.barrier(group=self.control)


def _given(value: T | None) -> T:
    if value is None:
        raise ValueError("rank 0 must pass the data of a collective call; only other ranks pass None")
    return value


def _buffer(payload: bytes | None, size: int) -> torch.Tensor:
    buffer = torch.zeros(size, dtype=torch.uint8)
    if payload:
        buffer[: len(payload)] = torch.frombuffer(bytearray(payload), dtype=torch.uint8)
    return buffer
