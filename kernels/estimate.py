"""What a loop tree needs of a chip, and how long a step of it takes: an estimate, made without compiling.

The tree says which tiles a program holds at once, which operands stay in shared memory, what a step reads and
multiplies. The constants were fitted to what ptxas and Triton report for LSTM, GRU and layer-norm LSTM of 16 to 1024
units; they rank placements, they predict no time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from .barriers import written_values
from .expressions import Axis, Expression, subterms
from .loop_tree import Barrier, Loop, Stage, Tree
from .operations import BYTES, HALVES
from .placement import Placement
from .request import Request
from .targets import Target

REGISTERS = 64
"""Registers of a thread that addresses, indices and constants take."""
MARGIN = 30
"""Registers of a thread that are left free: what the estimate does not know of."""
LEANER = 40
"""How many more are left free each time that a kernel was found to spill."""
FEWEST_WARPS, MOST_WARPS = 4, 8
"""Of a program. One that was found to spill gets the most, where these have more registers for the same tiles."""
EXACT_REGISTERS = 80
"""Registers of a thread that a product in exact precision takes beside its operands and sums."""
EXACT_TILE = 16 * 32 * 32
"""The largest product (rows × columns × depth) of exact single precision that registers hold."""
WRITTEN = 24
"""The most blocks of a reduction that are written out: for 32 the compiler took a minute, for 64 more than ten."""
LATENCY = 0.5e-6
"""Seconds from a stage's loads to its stores, however little it does."""
ITERATION = 0.25e-6
"""Seconds that a block of a pipelined loop takes at least."""
MEETING = 0.05e-6
"""Seconds of a barrier within a program."""


@dataclass(frozen=True)
class Estimate:
    """What a program needs and a step takes.

    Attributes:
        shared: bytes of shared memory.
        live: elements of the tiles that a program holds at once.
        early: elements that are loaded before they are needed, of a step or of the next one too; `waiting`: words of
            blocks that are loaded together; `placement` says how many of them at most.
        margin: registers of a thread that are left free; `fewest`, the warps that a program has at least.
        largest: elements of the largest tile, and `largest_axes` the axes of it.
        exact: of the largest product in exact single or double precision, rows × columns × depth.
        written: the most blocks of a reduction that are written one after another.
        step: seconds of a step of the outermost loop.
    """

    shared: int
    live: int
    early: int
    waiting: int
    placement: Placement
    margin: int
    fewest: int
    largest: int
    largest_axes: tuple[Axis, ...]
    exact: int
    written: int
    step: float

    def registers(self, warps: int, chip: Target) -> int:
        """Registers of a thread."""
        threads = chip.warp_size * warps
        early, waiting = self.placement.early, self.placement.waiting
        ahead = min(self.early // threads, 2 * early) + min(self.waiting // threads, waiting)
        return REGISTERS + self.live // threads + ahead + EXACT_REGISTERS * (self.exact > 0)

    def warps(self, chip: Target) -> int:
        """The least number of warps whose registers hold the tiles."""
        return self.fewest if self.fits(chip, self.fewest) else MOST_WARPS

    def fits(self, chip: Target, warps: int = MOST_WARPS) -> bool:
        """Whether so many warps have registers for the tiles."""
        return self.registers(warps, chip) <= chip.thread_registers(warps) - self.margin

    def lacks(self, chip: Target) -> str:
        """What the chip has not enough of; empty where a program fits."""
        if self.shared > chip.shared_memory:
            return f"its weights and tiles are about {self.shared:,} bytes of shared memory, of {chip.shared_memory:,}"
        warps = self.warps(chip)
        if not self.fits(chip, warps):
            most = chip.thread_registers(warps)
            return f"its tiles are about {self.registers(warps, chip)} registers a thread, of {most}"
        if self.exact > EXACT_TILE:
            return "its products in exact precision are larger than registers hold"
        if self.written > WRITTEN:
            return f"a sum of it would be written out in {self.written} blocks, of at most {WRITTEN}"
        return ""


def estimate(tree: Tree, placement: Placement, request: Request) -> Estimate:
    """The estimate of a loop tree under a placement, for a request."""
    return _Estimate(tree, placement, request).result()


class _Estimate:
    def __init__(self, tree: Tree, placement: Placement, request: Request):
        self.tree, self.placement = tree, placement
        self.request = request
        self.chip: Target = request.chip
        self.numerics = request.numerics
        self.written = written_values(tree)
        self.resident = 0
        self.staged = 0
        self.live = 0
        self.largest: tuple[int, tuple[Axis, ...]] = (1, ())
        self.exact = 0
        self.written_out = 1
        self.seen: set[Expression] = set()
        self.held: set[Expression] = set()
        self.kept = 0
        self.waiting = 0
        self.looping: set[Axis] = set()

    def result(self) -> Estimate:
        seconds = self.items(self.tree.items, ())
        loops = [i for i in self.tree.items if isinstance(i, Loop)]
        carried = sum(self.tile(self.tree.own[c]) for loop in self.tree.loops() for c in loop.registers)
        step = sum(self.items(loop.items, (loop,)) for loop in loops) if loops else seconds
        # Where few threads may have all registers, more of them have no more.
        fewest, most = (warps * self.chip.thread_registers(warps) for warps in (FEWEST_WARPS, MOST_WARPS))
        return Estimate(
            self.resident + self.staged,
            self.live + carried + self.kept,
            max((self.early(loop) for loop in self.tree.loops()), default=0),
            self.waiting,
            self.placement,
            MARGIN + LEANER * self.request.lean,
            MOST_WARPS if self.request.lean and most > fewest else FEWEST_WARPS,
            self.largest[0],
            self.largest[1],
            self.exact,
            self.written_out,
            step,
        )

    def early(self, loop: Loop) -> int:
        """The elements of a step that are loaded before they are needed: before its barrier, or a step ahead, where
        those of the step that runs are held too."""
        stages = [i for i in loop.items if isinstance(i, Stage)]
        terms = subterms(root.expression for stage in stages for root in stage.roots)
        loads = [t for t in terms if t.op == "load" and loop.axis in t.axes]
        places = self.tree.storage
        given = [t for t in loads if places[t.extra].kind == "buffer" and places[t.extra].buffer not in self.written]
        once = [t for t in given if all(a.role != "reduced" and self.placement.once(a) for a in t.axes)]
        meets = bool(loop.items) and isinstance(loop.items[0], Barrier) and loop.items[0].kind == "grid"
        return (1 if meets else 2) * sum(self.tile([a for a in t.axes if a.role == "own"]) for t in once)

    def tile(self, axes: Iterable[Axis], rows: bool = True) -> int:
        """The elements of a tile over own axes."""
        count = self.placement.rows if rows and self.tree.rows else 1
        return count * prod(self.placement.block(a) for a in axes)

    def elements(self, axes: Iterable[Axis]) -> int:
        axes = [a for a in axes if a.role != "step"]
        inner = [a for a in axes if a.role != "row"]
        count = self.placement.rows if len(inner) < len(axes) else 1
        total = count * prod(self.placement.block(a) for a in inner)
        if total > self.largest[0]:
            self.largest = (total, tuple(axes))
        return total

    def items(self, items: Iterable[Stage | Loop | Barrier], loops: tuple[Loop, ...]) -> float:
        seconds = 0.0
        for item in items:
            if isinstance(item, Barrier):
                seconds += self.chip.barrier + LATENCY if item.kind == "grid" else MEETING
            elif isinstance(item, Stage):
                seconds += self.stage(item, loops)
            else:
                # An inner loop's length is not known: segments of a checkpointed scan have 32 steps.
                seconds += sum(self.stage(s, loops) for s in item.initial if isinstance(s, Stage))
                seconds += 32 * self.items(item.items, (*loops, item))
        return seconds

    def stage(self, stage: Stage, loops: tuple[Loop, ...]) -> float:
        blocks = prod(self.blocks(a) for a in stage.axes)
        self.looping = {a for a in stage.axes if self.blocks(a) > 1}
        terms: dict[Expression, None] = {}
        todo = [root.expression for root in stage.roots]
        while todo:
            term = todo.pop()
            if term not in terms:
                terms[term] = None
                todo.extend(term.arguments)
        rate = self.chip.rates["f32"] / self.chip.multiprocessors
        read = self.chip.cache_bandwidth / self.chip.multiprocessors
        compute = memory = 0.0
        iterations = blocks
        accumulators = 0
        widest = 0
        operands: dict[Expression, int] = {}
        bundles: dict[tuple[Axis, ...], list[Expression]] = {}
        for term in terms:
            if term.op in ("axis", "number") or term.dtype == "index":
                continue
            if loops and self.constant(term):
                self.before(term)
                continue
            if loops and not (term.op == "reduce" and term.extra[2]):
                for argument in term.arguments:
                    self.hold(argument)
            if term.op == "load":
                if self.tree.storage[term.extra].kind != "register":
                    size = self.elements(term.axes) * BYTES[term.extra.dtype]
                    memory += blocks * self.repeats(term.axes, stage) * size
                continue
            if term.op == "reduce":
                inner = [a for a in term.extra[1] if a.extent != 1]
                count = self.elements(term.axes)
                accumulators += count
                looped = prod(self.blocks(a) for a in inner)
                if self.placement.unrolled and term.extra[2]:
                    bundles.setdefault(term.extra[1], []).append(term)
                else:
                    iterations += blocks * (looped - 1)
                depth = prod(self.placement.block(a) for a in inner)
                if term.extra[2]:
                    seconds, product = self.contraction(term, count, depth, operands)
                    compute += blocks * looped * seconds
                    widest = max(widest, product)
                else:
                    widest = max(widest, self.elements({*term.arguments[0].axes, *inner}))
                    compute += blocks * looped * count * depth / rate
                continue
            widest = max(widest, self.elements(term.axes))
            compute += blocks * self.elements(term.axes) * (10 if term.op in ("exp", "tanh", "sigmoid") else 1) / rate
        out = self.tile(stage.axes)
        if out > self.largest[0]:
            self.largest = (out, (*self.tree.rows, *stage.axes))
        for root in stage.roots:
            memory += blocks * out * len(root.stores) * BYTES[root.expression.dtype]
        self.live = max(self.live, accumulators + 2 * widest + out * len(stage.roots) + sum(operands.values()))
        if bundles:
            for axes, bundle in bundles.items():
                looped, words = prod(self.blocks(a) for a in axes), self.varying(bundle, operands)
                room = self.placement.waiting * 32 * self.placement.warps
                self.written_out = max(self.written_out, looped)
                together = min(looped, max(1, room // max(words, 1)))
                iterations += blocks * (-(-looped // together) - 1)
                self.waiting = max(self.waiting, (looped - 1) * words)
                # A loop around them is pipelined: of all that it loads there are two copies then.
                self.staged = max(self.staged, 8 * words * looped if self.looping else 4 * words * together)
        else:
            # Of what a loop of blocks loads there are two copies: one is filled while the other is used.
            self.staged = max(self.staged, sum(2 * 4 * n for n in operands.values()))
        return LATENCY + ITERATION * max(0, iterations - 1) + compute + memory / read

    def blocks(self, axis: Axis) -> int:
        """How often a program runs the body of an axis's loop of blocks."""
        if not isinstance(axis.extent, int):
            return 4
        count = -(-axis.extent // self.placement.block(axis))
        return -(-count // self.placement.sharers(axis))

    def repeats(self, axes: Iterable[Axis], stage: Stage) -> int:
        return prod(self.blocks(a) for a in axes if a.role == "reduced" and a not in stage.axes)

    def constant(self, term: Expression) -> bool:
        """Whether a term is the same in every step."""
        if any(a.role == "step" for a in term.axes):
            return False
        for value in term.loads:
            storage = self.tree.storage[value]
            if storage.kind == "register" or storage.buffer in self.written:
                return False
        if not self.looped(term):
            return True
        # What varies with a loop of blocks is not held from one step to the next.
        return self.placement.resident and self.looping.isdisjoint(term.axes)

    def looped(self, term: Expression) -> bool:
        wide = [a for a in term.axes if self.placement.block(a) > 1 and a.role in ("own", "reduced")]
        return len(wide) > 1 and not any(a.role == "row" for a in term.axes)

    def before(self, term: Expression) -> None:
        """Count what is computed before the loops and held."""
        if term in self.seen:
            return
        self.seen.add(term)
        self.elements(term.axes)

    def hold(self, term: Expression) -> None:
        """Count a tile that is made before the loops and used in them, where no matrix product takes it."""
        if term.op in ("axis", "number") or term.dtype == "index" or term in self.held or not self.constant(term):
            return
        self.held.add(term)
        self.kept += self.elements(term.axes)

    def varying(self, bundle: Iterable[Expression], operands: Mapping[Expression, int]) -> int:
        """The words of a block that products which are written together load."""
        return sum(operands.get(x, 0) for x in {x: None for term in bundle for x in term.arguments})

    def contraction(
        self, term: Expression, count: int, depth: int, operands: dict[Expression, int]
    ) -> tuple[float, int]:
        """Seconds of one block of a contraction, and the elements of its products where these are a tile; what its
        operands take is noted."""
        left, right = term.arguments
        over = set(term.extra[1])
        free = [[a for a in x.axes if a not in over and a.role != "step"] for x in (left, right)]
        alike = {a for a in set(free[0]) & set(free[1]) if a.role == "row" or self.placement.block(a) > 1}
        sides = [self.elements(x) for x in free]
        dot = not alike and min(*sides, depth) >= 16 and left.dtype in ("f16", "bf16", "f32", "f64")
        if not dot:
            self.hold(left)
            self.hold(right)
            product = self.elements({*left.axes, *right.axes})
            return count * depth * 2 / (self.chip.rates["f32"] / self.chip.multiprocessors), product
        half = left.dtype in HALVES
        kind = (
            left.dtype if half else "tf32" if self.numerics.precision == "tf32" and left.dtype == "f32" else left.dtype
        )
        if kind in ("f32", "f64"):
            self.exact = max(self.exact, count * depth * (2 if kind == "f64" else 1))
        for operand in (left, right):
            size = self.elements([a for a in operand.axes if a.role != "step"])
            if self.constant(operand):
                if operand not in self.seen and self.placement.resident:
                    self.seen.add(operand)
                    blocks = prod(self.blocks(a) for a in term.extra[1]) if self.placement.unrolled else 1
                    self.resident += blocks * size * BYTES[operand.dtype]
            else:
                operands[operand] = size // 2 if half else size
        # Sixteen rows keep a quarter of a tensor core busy at best.
        return count * depth * 2 / (0.25 * self.chip.rates[kind] / self.chip.multiprocessors), 0
