"""Random programs on their kernels, in Triton's interpreter: values and gradients are those of the evaluators.

A program is tried under one setting that its seed draws: a strategy, the blocks of its tiles, rows of one length or of
several, what is kept for the backward pass. All instruments are on: the order of programs is shuffled, every address is
recorded, and fresh memory is poisoned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
import torch

from foldfuse.compiler.errors import StrategyError
from foldfuse.compiler.pipeline import compile_graph
from foldfuse.compiler.sizes import ROWS_OF, TIMES_OF, flat_size, total_of
from foldfuse.compiler.types import f64
from foldfuse.kernels.emit import Numerics
from foldfuse.kernels.request import Request
from foldfuse.runtime import fused
from foldfuse.runtime.layout import flat_sizes

from .interpreter.kernel_harness import instruments
from .layouts import layout
from .random_inputs import Call, mapped, same

NUMERICS = Numerics(interpreted=True)


@dataclass(frozen=True)
class Setting:
    """How a program is run.

    Attributes:
        request: what kernels are wanted.
        memory: what is kept for the backward pass.
        even: whether all rows have lists of one length, which then have no tables.
        form: "packed" or "jagged" where lists of rows are stored without padding, in this order; otherwise "padded".
    """

    request: Request
    memory: str
    even: bool
    form: str = "padded"


def setting(seed: int) -> Setting:
    """The setting of a program."""
    random = Random(seed)
    request = Request(
        numerics=NUMERICS,
        force=random.choice((None, "resident", "streamed", "cooperative")),
        vendor=random.random() < 0.7,
        block=random.choice((None, None, 2, 4)),
    )
    memory, even = random.choice(("auto", "save", "recompute")), random.random() < 0.4
    form = "padded" if even else random.choice(("padded", "packed", "jagged"))
    return Setting(replace(request, tiles=random.choice((None, 2, 5))), memory, even, form)


RAN: Counter[str] = Counter()
"""What the programs of this process were: graphs of kernels and graphs that none are made of; by strategy, kernels."""


def on_kernels(call: Call, chosen: Setting) -> list[torch.Tensor] | None:
    """The outputs of a graph by its kernels, padded; None where no kernels are made of it.

    Arguments:
        call: the graph with its arguments.
        chosen: how it is run. A strategy that cannot hold a loop is left to the cost model.
    """
    inputs, tables = call.tensors()
    if not inputs:
        RAN["graphs without inputs"] += 1
        return None
    extents = call.extents()
    given = {name: table for name, table in tables.items() if isinstance(table, torch.Tensor)}
    if chosen.even:
        given = {name: table for name, table in given.items() if not (table == extents[name]).all()}
    graph, layouts = call.graph, {}
    if chosen.form != "padded":
        layouts = {n: layout(given[n], extents[n], chosen.form) for n in flat_sizes(graph) if n in given}
        graph = graph.with_flat(layouts)
        for name, own in layouts.items():
            _, given[ROWS_OF + name], times = own.tables()
            given.update({} if times is None else {TIMES_OF + name: times})
            extents[total_of(name).name] = own.total
        inputs = [
            x if name is None else layouts[name].take(x)
            for x, name in zip(inputs, (flat_size(t.axes, graph.flat) for t in call.inputs), strict=True)
        ]
        RAN["graphs on flat lists"] += bool(layouts)
    ragged = frozenset(given) | {d.name for d in graph.sizes if d.input is not None}
    request = chosen.request
    try:
        planned = fused.plan(graph, request, ragged)
    except StrategyError:
        if request.force is None:
            raise
        planned = fused.plan(graph, replace(request, force=None), ragged)
    if isinstance(planned, str):
        RAN["graphs without kernels"] += 1
        return None
    RAN["graphs"] += 1
    RAN.update(f"{each.kernel.strategy} kernels" for each in planned.kernels)
    with instruments(f"{call.graph.name} {request}"):
        outputs = fused.run(planned, inputs, given, extents)
    return [
        x if name is None else layouts[name].pad(x)
        for x, name in zip(outputs, (flat_size(t.axes, graph.flat) for t in call.outputs), strict=True)
    ]


def agrees(call: Call, chosen: Setting, expected: Sequence[Any]) -> None:
    """Assert that the kernels of a graph give what is expected."""
    found = on_kernels(call, chosen)
    if found is not None:
        same("kernels", found, expected, call.outputs)


def kernel_properties(call: Call, chosen: Setting, seed: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """What must hold of a program's kernels: by name, checks to run in this order.

    Arguments:
        call: the program with its arguments.
        chosen: how it is run.
        seed: of the cotangents.
    """
    needs = [t.dtype.is_float for t in call.inputs]
    made = compile_graph(call.graph, needs, memory=chosen.memory, default=f64)
    forward = call.with_graph(made.forward)
    outputs = forward.reference()
    yield "kernels, forward", lambda: agrees(forward, chosen, outputs)
    if made.backward is None or made.pullback is None:
        return
    generator = np.random.default_rng(seed + 1)
    values = outputs[: len(call.outputs)]
    cotangents = [
        mapped(lambda v: generator.normal(size=np.shape(v)), len(t.axes), v) for v, t in zip(values, call.outputs)
    ]
    arguments = [
        *(call.arguments[i] for i in made.pullback.kept),
        *outputs[len(values) :],
        *(cotangents[j] for j in made.pullback.useful),
    ]
    backward = replace(call, graph=made.backward, arguments=arguments)
    yield "kernels, backward", lambda: agrees(backward, chosen, backward.reference())
