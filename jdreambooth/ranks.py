"""One run on several processes through Jittor's own MPI: `mpirun -np N jdreambooth train ...`.

Every process, a rank, computes its share of each batch; gradients and losses are averaged over the
ranks, so that N ranks with a batch of B do what one process with a batch of N * B does. The first
rank alone writes. A process on its own is the first of one, and nothing here does anything then.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from jstyle.sd import runtime
from jstyle.sd.startup import StartupError, jt

from .trainables.base import fill

T = TypeVar("T")
OTHER_LAUNCHERS = ("PMI_SIZE", "SLURM_STEP_NUM_TASKS")  # MPICH's mpirun, and Slurm's srun


class Ranks:
    """The processes of a run, and which of them this one is: rank 0 .. count - 1.

    What communicates must be called by all ranks in the same order.
    Raises StartupError where the processes were started but cannot work together.
    """

    def __init__(self):
        self.rank, self.count = jt.rank, jt.world_size
        started = max(int(os.environ.get(name, "1")) for name in OTHER_LAUNCHERS)
        if started > 1 and not jt.in_mpi:
            raise StartupError(
                f"{started} processes were started, but not by the mpirun of Open MPI, the only "
                "one that Jittor knows; mend: apt install openmpi-bin libopenmpi-dev"
            )
        if self.count > 1 and runtime.device() == "cuda" and not jt.compile_extern.nccl_ops:
            raise StartupError(
                "several processes on CUDA need NCCL; mend: set nccl_include_path and "
                "nccl_lib_path, or train on one GPU"
            )

    @property
    def first(self) -> bool:
        return self.rank == 0

    def average(self, variables: Iterable[jt.Var]) -> None:
        """Give each variable the mean that it has over the ranks, the same bytes on all of them."""
        if self.count == 1:
            return
        for variable in variables:
            mean = variable.mpi_all_reduce("mean")
            mean.sync()  # one at a time, so that all ranks talk about the same one
            variable.update(mean)

    def means(self, values: Mapping[str, float]) -> dict[str, float]:
        """The mean of each number over the ranks, which must have the same names."""
        if self.count == 1:
            return dict(values)
        means = jt.array(list(values.values()), dtype="float32").mpi_all_reduce("mean").numpy()
        return dict(zip(values, map(float, means), strict=True))

    def share(self, tensors: Mapping[str, jt.Var]) -> None:
        """Give every rank the first one's values; what is trained stays trained."""
        if self.count == 1:
            return
        for tensor in tensors.values():
            trained = tensor.requires_grad
            fill(tensor, tensor.mpi_broadcast(0).numpy())
            if not trained:
                tensor.stop_grad()
        jt.sync_all()

    def first_does(self, work: Callable[[], T]) -> T | None:
        """The first rank's `work()`, and None on the others, which wait for it to be done.

        Raises on all ranks what it raises, on the others as a RuntimeError.
        """
        if self.count == 1:
            return work()
        result, error = None, None
        if self.first:
            try:
                result = work()
            except Exception as raised:
                error = raised
        if self._count_of(error is not None):
            raise error or RuntimeError("the first process could not go on")
        return result

    def require_same(self, what: str, text: str) -> None:
        """Raise ValueError unless `text` is the same on all ranks."""
        if self.count > 1:
            mine = zlib.crc32(text.encode()) & 0x7FFFFFFF
            theirs = jt.array([mine], dtype="int32").mpi_broadcast(0).item()
            if self._count_of(mine != theirs):
                raise ValueError(f"{what} must be the same for all processes, and are not")

    def _count_of(self, mine: bool) -> int:
        """On how many ranks it is so."""
        return jt.array([int(mine)], dtype="int32").mpi_all_reduce("add").item()
