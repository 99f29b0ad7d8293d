"""Which of several equal processes this one is, as torchrun or Slurm's srun says in the environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from evalkit import environment as machine
from evalkit.errors import UsageError

T = TypeVar("T")

#: Rank, number of ranks, and rank on its machine: torchrun's names, then srun's. A batch script sees
#: SLURM_NTASKS too, but the step's own number is what srun started.
_NAMES = (
    ("RANK", ("WORLD_SIZE",), "LOCAL_RANK"),
    ("SLURM_PROCID", ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), "SLURM_LOCALID"),
)

#: Device files of the drivers of NVIDIA, AMD and Windows' Linux.
_DRIVERS = ("nvidia[0-9]*", "kfd", "dxg")


@dataclass(frozen=True, slots=True)
class Rank:
    """One of `world` processes; `local` counts those of one machine.

    Attributes:
        without: ranks that are not there; rank 0 answers their share too. by_slurm: whether srun's variables
            say so, not torchrun's.
    """

    number: int
    world: int
    local: int = 0
    without: frozenset[int] = frozenset()
    by_slurm: bool = field(default=False, compare=False)

    @property
    def name(self) -> str:
        """As messages call it."""
        return f"rank {self.number} of {self.world}"

    @property
    def others(self) -> list[int]:
        """The other ranks but 0 that are there."""
        return [number for number in range(1, self.world) if number not in self.without]

    def share(self, groups: Sequence[T]) -> Sequence[T]:
        """Every `world`-th group; those of the ranks that are not there too if this is rank 0."""
        if self.number or not self.without:
            return groups[self.number :: self.world]
        return [group for place, group in enumerate(groups) if place % self.world not in self.others]

    def start(self, command: str) -> str:
        """The line that starts all ranks."""
        if self.by_slurm:
            return f"srun --ntasks {self.world} {command}"
        return f"torchrun --nproc-per-node {self.world} -m {command}"

    @property
    def device(self) -> str | None:
        """The accelerator of this rank, `cuda:N`; None where the machine has none."""
        if not any(next(Path("/dev").glob(pattern), None) for pattern in _DRIVERS):
            return None
        import torch

        count = torch.cuda.device_count()
        return f"cuda:{self.local % count}" if count else None


def from_environment(environment: Mapping[str, str]) -> Rank | None:
    """The rank of this process, None where it is the only one.

    Raises:
        UsageError: the variables contradict each other, or this is Windows.
    """
    for name, sizes, local in _NAMES:
        size = next((size for size in sizes if environment.get(size)), None)
        if not environment.get(name) or size is None:
            continue
        try:
            numbers = (int(environment[name]), int(environment[size]), int(environment.get(local) or 0))
            rank = Rank(*numbers, by_slurm=name.startswith("SLURM"))
        except ValueError:
            rank = Rank(0, 0)
        if not 0 <= rank.number < rank.world:
            raise UsageError(
                f"{name}={environment[name]} {size}={environment[size]}: no rank; unset them, or give "
                "--no-ranks"
            )
        if rank.world > 1 and machine.is_windows():
            raise UsageError(
                f"{name}: several ranks are not supported on Windows: give --no-ranks, or use WSL"
            )
        return rank if rank.world > 1 else None
    return None
