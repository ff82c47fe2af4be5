"""The operations of an evaluation in the order in which they run, and how much they hold at most.

Jittor runs what it was asked for in the order in which it was asked, and lets go of a tensor after
the last operation that reads it. So the sizes of what each operation reads and makes are enough.
What lies between a trained weight and the loss is kept until the loss is gone, whoever reads it. A
gradient is the same list backwards: each operation names what its gradient reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

SMALL, LARGE = 1 << 20, 1 << 21  # Jittor's pools: up to SMALL in one, the other in steps of LARGE
LARGEST_SHARED = 5 << 20  # what is smaller is cut from blocks of this size


@dataclass(frozen=True, eq=False)
class Tensor:
    """nbytes in memory. grad: whether a gradient flows through it."""

    nbytes: int
    grad: bool = False


@dataclass
class _Op:
    reads: tuple[Tensor, ...]
    makes: list[Tensor]
    scratch: int


@dataclass
class _Step:
    """How a gradient comes back through an operation."""

    inputs: tuple[Tensor, ...]  # that may need a gradient
    out: Tensor
    saved: tuple[Tensor, ...] = ()
    weights: int = 0  # bytes of the gradients of what is trained here
    scratch: int = 0
    passes: bool = False  # an addition: the gradient itself goes on
    again: Callable[[], Tensor] | None = None  # computes `out` once more, with its steps


@dataclass
class Tape:
    """What is recorded. training: gradients are taken. again: blocks are computed twice."""

    training: bool = False
    again: bool = False
    ops: list[_Op] = field(default_factory=list)
    steps: list[_Step] = field(default_factory=list)
    kept: list[Tensor] = field(default_factory=list)  # until the loss is gone

    def op(
        self,
        inputs: Sequence[Tensor],
        nbytes: float,
        saved: Sequence[Tensor] = (),
        weights: float = 0,
        scratch: float = 0,
        also: Sequence[Tensor] = (),
        passes: bool = False,
        keeps_out: bool = False,
        more: Sequence[float] = (),
    ) -> Tensor:
        """One operation; returns what it makes.

        saved: what its gradient reads; keeps_out: its result too. weights: bytes of its trained
        weights. scratch: bytes only while it runs. also: what it reads without a gradient. more:
        bytes of results that nobody reads.
        """
        grad = self.training and (bool(weights) or any(x.grad for x in inputs))
        out = Tensor(int(nbytes), grad)
        made = [out, *(Tensor(int(n)) for n in more)]
        self.ops.append(_Op((*inputs, *also), made, int(scratch)))
        if grad:
            read = (*saved, out) if keeps_out else tuple(saved)
            given = (tuple(inputs), out, read, int(weights), int(scratch), passes)
            self.steps.append(_Step(*given))
            self.kept.append(out)
        return out

    def block(self, call: Callable[[], Tensor], inputs: Sequence[Tensor]) -> Tensor:
        """call() makes a tensor of the inputs; where blocks are computed twice, its inner steps
        are forgotten until its gradient is wanted."""
        if not (self.training and self.again):
            return call()
        before, self.steps, self.kept = (self.steps, self.kept), [], []
        out = call()
        self.steps, self.kept = before
        self.kept.append(out)
        if out.grad or any(x.grad for x in inputs):
            self.steps.append(_Step(tuple(inputs), out, tuple(inputs), again=call))
        return out

    def backward(self, last: Tensor) -> None:
        """Add the operations that take the gradients of everything that `last` depends on."""
        self._back(self.steps, {id(last): Tensor(last.nbytes)})

    def _back(self, steps: list[_Step], grads: dict[int, Tensor]) -> None:
        for step in reversed(steps):
            g = grads.pop(id(step.out), None)
            if g is None:
                continue
            if step.again is not None:
                self._recompute(step, g, grads)
                continue
            if step.weights:
                made = Tensor(step.weights)
                self.ops.append(_Op((g, *step.saved), [made], step.scratch))
                self.kept.append(made)
            for x in step.inputs:
                if x.grad:
                    self._add(grads, x, g if step.passes else self._gradient(step, x, g))

    def _gradient(self, step: _Step, x: Tensor, g: Tensor) -> Tensor:
        made = Tensor(x.nbytes)
        self.ops.append(_Op((g, *step.saved), [made], step.scratch))
        return made

    def _add(self, grads: dict[int, Tensor], x: Tensor, g: Tensor) -> None:
        other = grads.get(id(x))
        if other is not None:
            total = Tensor(x.nbytes)
            self.ops.append(_Op((other, g), [total], 0))
            g = total
        grads[id(x)] = g

    def _recompute(self, step: _Step, g: Tensor, grads: dict[int, Tensor]) -> None:
        before, self.steps, self.kept, self.again = (self.steps, self.kept), [], [], False
        out = step.again()
        inner, alive = self.steps, self.kept
        (self.steps, self.kept), self.again = before, True
        found = {id(out): g}
        self._back(inner, found)
        self.ops.append(_Op(tuple(alive), [], 0))  # until here
        for x in step.inputs:
            if id(x) in found:
                self._add(grads, x, found[id(x)])

    @property
    def scratch(self) -> int:
        """Bytes that a library takes for itself at most, and the process does not give back."""
        return max(op.scratch for op in self.ops)

    def peak(self, pool: Pool | None = None) -> int:
        """Bytes that Jittor's allocator has from the system after all of this, without scratch.

        pool: the allocator, which may hold blocks of what ran before.
        """
        last: dict[int, int] = {}
        for i, op in enumerate(self.ops):
            for tensor in (*op.makes, *op.reads):
                last[id(tensor)] = i
        for tensor in self.kept:
            last[id(tensor)] = len(self.ops)
        ends: dict[int, list[int]] = {}
        for key, i in last.items():
            ends.setdefault(i, []).append(key)
        pool, places = pool or Pool(), {}
        for i, op in enumerate(self.ops):
            for tensor in op.makes:
                places[id(tensor)] = pool.take(tensor.nbytes)
            for key in ends.get(i, ()):
                if key in places:
                    pool.give(places.pop(key))
        for block in places.values():
            pool.give(block)
        return pool.total


@dataclass(eq=False)
class _Block:
    size: int
    large: bool
    free: bool = True
    before: _Block | None = None
    after: _Block | None = None


class Pool:
    """Jittor's allocator: the smallest free block that fits, cut where enough is left over; what
    was taken from the system is not given back (src/mem/allocator/sfrl_allocator.cc)."""

    def __init__(self) -> None:
        self.total = 0
        self.blocks: list[_Block] = []  # that are free

    def take(self, nbytes: int) -> _Block:
        size = max(-(-nbytes // 512) * 512, 512)
        large = size > SMALL
        fitting = [b for b in self.blocks if b.large == large and b.size >= size]
        if fitting:
            block = min(fitting, key=lambda b: b.size)
            self.blocks.remove(block)
        else:
            block = _Block(self._from_system(size), large)
            self.total += block.size
        rest = block.size - size
        if rest > SMALL if large else rest >= 512:
            self.blocks.append(_link(_Block(rest, large), block, block.after))
            block.size = size
        block.free = False
        return block

    def give(self, block: _Block) -> None:
        block.free = True
        for other in (block.before, block.after):
            if other is not None and other.free:
                self.blocks.remove(other)
                block.size += other.size
                if other is block.before:
                    _link(block, other.before, block.after)
                else:
                    _link(block, block.before, other.after)
        self.blocks.append(block)

    @staticmethod
    def _from_system(size: int) -> int:
        if size <= SMALL:
            return SMALL
        return max(LARGEST_SHARED, -(-size // LARGE) * LARGE)


def _link(block: _Block, before: _Block | None, after: _Block | None) -> _Block:
    """Between two neighbours."""
    block.before, block.after = before, after
    if before is not None:
        before.after = block
    if after is not None:
        after.before = block
    return block
