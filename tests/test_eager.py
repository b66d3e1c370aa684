"""The torch evaluator against the oracle: every combinator and nesting, forward and adjoint, padding poisoned."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
import torch

from foldfuse.compiler.adjoint import differentiate
from foldfuse.compiler.builder import Builder
from foldfuse.compiler.errors import EmptyError, IndexRangeError, UnboundedError
from foldfuse.compiler.ir import Graph, SizeDeclaration, verify
from foldfuse.compiler.sizes import Named
from foldfuse.compiler.types import ListType, array, f64, i64
from foldfuse.runtime import eager, eager_loops, reference

from .counting import calls
from .eager_programs import PROGRAMS as LIST_PROGRAMS
from .eager_programs import Program, rnn
from .eager_tree_programs import TREE_PROGRAMS, random_tree, tree

PROGRAMS = {**LIST_PROGRAMS, **TREE_PROGRAMS}

POISON = {"float": float("nan"), "int": -1_000_003, "bool": True}


# --- between nested lists and padded tensors --------------------------------------------------------------------------


def extents(value: Any, axes: int) -> list[int]:
    """The padded extents of nested lists."""
    if not axes:
        return []
    inner = [extents(v, axes - 1) for v in value]
    return [len(value), *(max(column) for column in zip(*inner))] if inner else [0] * axes


def padded(value: Any, type_: ListType, sizes: list[int] | None = None) -> torch.Tensor:
    """Nested lists as a tensor whose padding is poisoned."""
    sizes = extents(value, len(type_.axes)) if sizes is None else sizes
    out = np.full((*sizes, *type_.shape), POISON[type_.dtype.kind], type_.dtype.numpy)
    if not type_.axes:
        out[...] = value
    else:
        for i, element in enumerate(value):
            out[i] = padded(element, type_.element, sizes[1:]).numpy()
    return torch.from_numpy(out)


def table(lengths: Any, over: int) -> Any:
    """A table of lengths as the evaluator takes it, its padding poisoned."""
    return lengths if isinstance(lengths, int) else padded(lengths, array(i64).listed(*[None] * over))


def agrees(found: torch.Tensor, expected: Any, type_: ListType, what: str, padding_zero: bool = True) -> None:
    """A tensor holds nested lists and zeros behind them."""
    if not type_.axes:
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-11, err_msg=what)
        return
    assert len(found) >= len(expected), what
    for i, element in enumerate(expected):
        agrees(found[i], element, type_.element, what, padding_zero)
    if padding_zero:
        assert not found[len(expected) :].any(), f"{what}: padding is not zero"


def call(program: Program) -> tuple[list[torch.Tensor], dict[str, Any]]:
    """Arguments and tables of a program as tensors."""
    types = [v.type for v in program.graph.body.parameters]
    over = {d.name: len(d.over) for d in program.graph.sizes}
    shown = {}
    inputs = []
    for value, type_ in zip(program.arguments, types, strict=True):
        inputs.append(padded(value, type_))
        shown.update({str(a): n for a, n in zip(type_.axes, inputs[-1].shape)})
    inputs = [padded(v, t, [shown[str(a)] for a in t.axes]) for v, t in zip(program.arguments, types, strict=True)]
    tables = {}
    for name, lengths in program.tables.items():
        tables[name] = table(lengths, over[name])
        axes = next(d.over for d in program.graph.sizes if d.name == name)
        if axes:  # a table is padded like the lists that it belongs to
            tables[name] = padded(
                lengths, array(i64).listed(*[None] * len(axes)), [shown.get(a, program.tables.get(a)) for a in axes]
            )
    return inputs, tables


def random_cotangents(rng: Any, value: Any, type_: ListType) -> Any:
    if type_.axes:
        return [random_cotangents(rng, v, type_.element) for v in value]
    return rng.normal(size=type_.shape)


def nested(program: Program) -> Program:
    """A program under one more map, over two batches of which the second has but the first row of the first."""
    b, graph, outer = Builder(), program.graph, Named("A")
    inner = Builder(b)
    lists, elements, arguments, values = [], [], [], []
    for value, name, argument in zip(graph.body.parameters, graph.input_names, program.arguments, strict=True):
        batched = value.type.axes[:1] == (Named("B"),)
        given = b.parameter(value.type.listed(outer) if batched else value.type, name)
        values.append([argument, argument[:1]] if batched else argument)
        if batched:
            lists.append(given)
            elements.append(inner.parameter(value.type, name))
        arguments.append(elements[-1] if batched else given)
    results = inner.inline(graph.body, arguments)
    body, captured = inner.close(results)
    binds = [(n, graph.body.results.index(e.outputs[i])) for e in graph.body.equations for n, i in e.binds]
    attributes = {"size": outer, "captured": len(captured)}
    outputs = b.emit("map", (*captured, *lists), attributes, (body,), binds=tuple(binds))
    sizes, tables = [SizeDeclaration("A")], {"A": 2}
    for declared in graph.sizes:
        varies = declared.name == "B" or "B" in declared.over
        sizes.append(SizeDeclaration(declared.name, ("A", *declared.over) if varies else declared.over))
        lengths = program.tables[declared.name]
        if declared.name == "B":
            tables["B"] = [lengths, min(lengths, 1)]
        else:
            tables[declared.name] = [lengths, lengths[:1]] if varies else lengths
    made = Graph(f"nested_{graph.name}", b.close(outputs)[0], graph.input_names, graph.output_names, tuple(sizes))
    verify(made)
    return Program(made, values, tables)


@pytest.fixture(params=[*sorted(PROGRAMS), *(f"nested {name}" for name in sorted(PROGRAMS))])
def program(request: pytest.FixtureRequest) -> Program:
    made = PROGRAMS[request.param.removeprefix("nested ")](np.random.default_rng(7))
    return nested(made) if request.param.startswith("nested ") else made


# --- programs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [True, False])
def test_values(program: Program, check: bool) -> None:
    expected = reference.evaluate(program.graph, program.arguments, program.tables)
    inputs, tables = call(program)
    found = eager.run(program.graph, inputs, tables, check=check)
    for value, tensor, want, name in zip(
        program.graph.body.results, found, expected, program.graph.output_names, strict=True
    ):
        assert not torch.isnan(tensor.double()).any(), name
        agrees(tensor, want, value.type, name)


@pytest.mark.parametrize("memory", ["save", "recompute", "auto"])
def test_adjoint(program: Program, memory: str) -> None:
    rng = np.random.default_rng(3)
    needs = [v.type.dtype.is_float for v in program.graph.body.parameters]
    if not any(needs):
        pytest.skip("nothing to differentiate")
    forward, backward, pullback = differentiate(program.graph, needs, memory=memory)
    expected = reference.evaluate(forward, program.arguments, program.tables)
    inputs, tables = call(program)
    found = eager.run(forward, inputs, tables)
    count = len(program.graph.output_names)
    for value, tensor, want, name in zip(forward.body.results, found, expected, forward.output_names, strict=True):
        agrees(tensor, want, value.type, name)
    results = program.graph.body.results
    cotangents = [random_cotangents(rng, expected[j], results[j].type) for j in pullback.useful]
    arguments = [*(program.arguments[i] for i in pullback.kept), *expected[count:], *cotangents]
    wanted = reference.evaluate(backward, arguments, program.tables)
    # What a forward pass keeps is padded to its own extents, and may hold anything there.
    shapes = [
        *(inputs[i].shape for i in pullback.kept),
        *(v.shape for v in found[count:]),
        *(found[j].shape for j in pullback.useful),
    ]
    tensors = [
        padded(v, p.type, list(shape[: len(p.type.axes)]))
        for v, p, shape in zip(arguments, backward.body.parameters, shapes, strict=True)
    ]
    pulled = eager.run(backward, tensors, tables)
    for value, tensor, want, name in zip(backward.body.results, pulled, wanted, backward.output_names, strict=True):
        agrees(tensor, want, value.type, name)


def test_autograd(program: Program) -> None:
    """torch's derivative of the evaluation = the evaluation of the adjoint."""
    parameters = program.graph.body.parameters
    needs = [v.type.dtype.is_float for v in parameters]
    if not any(needs):
        pytest.skip("nothing to differentiate")
    inputs, tables = call(program)
    forward, backward, pullback = differentiate(program.graph, needs)
    found = eager.run(forward, inputs, tables)
    count = len(program.graph.output_names)
    generator = torch.Generator().manual_seed(1)
    cotangents = [torch.randn(found[j].shape, generator=generator, dtype=torch.float64) for j in pullback.useful]
    pulled = eager.run(backward, [*(inputs[i] for i in pullback.kept), *found[count:], *cotangents], tables)
    leaves = [v.clone().requires_grad_(need) for v, need in zip(inputs, needs, strict=True)]
    outputs = eager.run(program.graph, leaves, tables)
    wanted = [i for i, need in enumerate(needs) if need]
    scalars = sum((outputs[j] * ct).sum() for j, ct in zip(pullback.useful, cotangents, strict=True))
    scalars = scalars + 0 * leaves[needs.index(True)].nansum()  # without rows nothing depends on anything
    gradients = torch.autograd.grad(scalars, [leaves[i] for i in wanted], allow_unused=True, materialize_grads=True)
    by_input = dict(zip(pullback.reached, pulled, strict=True))
    for i, gradient in zip(wanted, gradients, strict=True):
        other = by_input.get(i, torch.zeros_like(gradient))
        torch.testing.assert_close(gradient, other, rtol=1e-9, atol=1e-11, msg=lambda m, i=i: f"input {i}: {m}")


def test_second_derivatives() -> None:
    for name in ("rnn", "attention", "tree", "convolution", "branches", "segments"):
        program = PROGRAMS[name](np.random.default_rng(5))
        needs = [v.type.dtype.is_float for v in program.graph.body.parameters]
        forward, backward, pullback = differentiate(program.graph, needs)
        inputs, tables = call(program)
        count = len(program.graph.output_names)
        found = eager.run(forward, inputs, tables)
        arguments = [
            *(inputs[i] for i in pullback.kept),
            *found[count:],
            *(torch.randn_like(found[j]) for j in pullback.useful),
        ]
        again = [v.type.dtype.is_float for v in backward.body.parameters]
        forward2, backward2, pullback2 = differentiate(backward, again)
        found2 = eager.run(forward2, arguments, tables)
        count2 = len(backward.output_names)
        cotangents = [torch.randn_like(found2[j]) for j in pullback2.useful]
        pulled = eager.run(backward2, [*(arguments[i] for i in pullback2.kept), *found2[count2:], *cotangents], tables)
        leaves = [v.clone().requires_grad_(need) for v, need in zip(arguments, again, strict=True)]
        outputs = eager.run(backward, leaves, tables)
        scalar = sum((outputs[j] * ct).sum() for j, ct in zip(pullback2.useful, cotangents, strict=True))
        wanted = [leaves[i] for i in pullback2.reached]
        for i, gradient, other in zip(pullback2.reached, torch.autograd.grad(scalar, wanted), pulled, strict=True):
            torch.testing.assert_close(
                gradient, other, rtol=1e-8, atol=1e-10, msg=lambda m, i=i, name=name: f"{name} {i}: {m}"
            )


def test_numbers_for_tables_mean_equal_lengths() -> None:
    program = PROGRAMS["rnn_equal"](np.random.default_rng(0))
    inputs, tables = call(program)
    for given in ({"B": 2, "T": 3}, {}, {"T": torch.tensor(3)}):
        for a, b in zip(eager.run(program.graph, inputs, given), eager.run(program.graph, inputs, tables)):
            assert torch.equal(a, b)
    longer = torch.cat([inputs[1], torch.full_like(inputs[1], float("nan"))], 1)
    last, states = eager.run(program.graph, [inputs[0], longer], {"B": 2, "T": 3})
    torch.testing.assert_close(last, eager.run(program.graph, inputs, tables)[0])
    assert states.shape == (2, 6, 3) and not states[:, 3:].any()


def test_raw_outputs_agree_where_they_are_live() -> None:
    program = rnn(np.random.default_rng(0))
    inputs, tables = call(program)
    expected = reference.evaluate(program.graph, program.arguments, program.tables)
    for value, tensor, want in zip(
        program.graph.body.results, eager.run(program.graph, inputs, tables, raw=True), expected
    ):
        agrees(tensor, want, value.type, "raw", padding_zero=False)


# --- trees ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_random_forests(seed: int) -> None:
    rng = np.random.default_rng(seed)
    forests = [random_tree(rng, int(rng.integers(0, 25)) or 1, spread=int(rng.integers(1, 9))) for _ in range(4)]
    test_adjoint(tree(rng, forests, kinds=bool(seed % 2)), "auto")
    test_autograd(tree(rng, forests, kinds=bool(seed % 2)))


def test_deep_chains_and_caterpillars_take_linear_work() -> None:
    rng = np.random.default_rng(0)

    def work(parents: list[int]) -> int:
        program = tree(rng, [parents])
        inputs, tables = call(program)
        leaves = [v.requires_grad_(v.is_floating_point()) for v in inputs]

        def run() -> None:
            states, total = eager.run(program.graph, leaves, tables)
            torch.autograd.grad(total.sum(), [leaves[0], leaves[4]])

        run()
        return calls(run)

    def chain(n: int) -> list[int]:
        return [*range(1, n), -1]

    def caterpillar(n: int) -> list[int]:
        return [*range(1, n), -1, *range(n)]

    for shape in (chain, caterpillar):
        assert work(shape(1000)) < 1.5 * 8 * work(shape(125))


# --- errors -----------------------------------------------------------------------------------------------------------


def test_an_index_out_of_range_counts_only_where_it_is_live() -> None:
    program = PROGRAMS["embedding"](np.random.default_rng(0))
    inputs, tables = call(program)
    eager.run(program.graph, inputs, tables)  # padding holds indices far out of range
    inputs[1][2, 1] = 5
    with pytest.raises(IndexRangeError, match="the index 5 is out of range for a table of 5"):
        eager.run(program.graph, inputs, tables)
    eager.run(program.graph, inputs, tables, check=False)
    program = PROGRAMS["lists"](np.random.default_rng(0))
    inputs, tables = call(program)
    inputs[1][1] = 1
    with pytest.raises(IndexRangeError, match="the index 1 is out of range for a list of 1"):
        eager.run(program.graph, inputs, tables)


def test_an_extremum_of_an_empty_list_counts_only_where_it_is_live() -> None:
    program = PROGRAMS["attention"](np.random.default_rng(0))
    inputs, tables = call(program)
    keys = tables["S"].clone()
    keys[1] = 0  # this row runs no step
    eager.run(program.graph, inputs, {**tables, "S": keys})
    keys[0] = 0
    with pytest.raises(EmptyError, match="max over an empty list"):
        eager.run(program.graph, inputs, {**tables, "S": keys})


def test_a_kind_out_of_range() -> None:
    program = PROGRAMS["branches"](np.random.default_rng(0))
    inputs, tables = call(program)
    inputs[2][0, 1] = 3
    with pytest.raises(IndexRangeError, match="the index 3 is out of range for 3 kinds"):
        eager.run(program.graph, inputs, tables)


def test_an_unfold_that_never_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eager_loops, "UNBOUNDED_LIMIT", 50)
    program = PROGRAMS["unfold_unbounded"](np.random.default_rng(0))
    inputs, tables = call(program)
    inputs[1][1] = 1000
    with pytest.raises(UnboundedError, match="give max_length="):
        eager.run(program.graph, inputs, tables)


def test_inputs_that_are_not_what_the_types_say() -> None:
    program = rnn(np.random.default_rng(0))
    inputs, tables = call(program)
    with pytest.raises(ValueError, match="the input W of rnn"):
        eager.run(program.graph, [inputs[0][:2], inputs[1]], tables)
    with pytest.raises(TypeError, match="float32"):
        eager.run(program.graph, [inputs[0].float(), inputs[1]], tables)


# --- plans ------------------------------------------------------------------------------------------------------------


def test_a_plan_lives_as_long_as_its_body() -> None:
    b = Builder()
    x = b.parameter(array(f64, 3), "x")
    body, _ = b.close([b("mul", x, b.constant(2.0, f64, (3,)))])
    graph = Graph("twice", body, ("x",), ("y",))
    before = len(eager._PLANS)
    assert torch.equal(
        eager.run(graph, [torch.ones(3, dtype=torch.float64)])[0], torch.full((3,), 2.0, dtype=torch.float64)
    )
    assert eager.prepare(body, 0) is eager.prepare(body, 0) and len(eager._PLANS) == before + 1
    del b, x, body, graph
    gc.collect()
    assert len(eager._PLANS) == before


def test_constants_made_in_inference_mode_serve_autograd() -> None:
    b = Builder()
    x = b.parameter(array(f64, 3), "x")
    body, _ = b.close([b("mul", x, b.constant(2.0, f64, (3,)))])
    graph = Graph("twice", body, ("x",), ("y",))
    with torch.inference_mode():
        eager.run(graph, [torch.ones(3, dtype=torch.float64)])
    leaf = torch.ones(3, dtype=torch.float64, requires_grad=True)
    eager.run(graph, [leaf])[0].sum().backward()
    assert torch.equal(leaf.grad, torch.full((3,), 2.0, dtype=torch.float64))
