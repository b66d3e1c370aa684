"""The torch evaluator against the oracle: every primitive, every combinator, forward and adjoint, padding poisoned."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from eager_programs import PROGRAMS, Program, rnn, tree

from foldfuse.compiler.adjoint import differentiate
from foldfuse.compiler.builder import Builder
from foldfuse.compiler.errors import EmptyError, IndexRangeError, UnboundedError
from foldfuse.compiler.ir import Equation, Graph, Lambda, Value, infer
from foldfuse.compiler.records import RECORDS, Primitive
from foldfuse.compiler.types import ListType, array, bf16, f32, f64, from_numpy, i64
from foldfuse.runtime import eager, reference

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
        axes = [d.over for d in program.graph.sizes if d.name == name][0]
        if axes:  # a table is padded like the lists that it belongs to
            tables[name] = padded(lengths, array(i64).listed(*[None] * len(axes)), [shown.get(a, program.tables.get(a)) for a in axes])
    return inputs, tables


def random_cotangents(rng: Any, value: Any, type_: ListType) -> Any:
    if type_.axes:
        return [random_cotangents(rng, v, type_.element) for v in value]
    return rng.normal(size=type_.shape)


@pytest.fixture(params=sorted(PROGRAMS))
def program(request: pytest.FixtureRequest) -> Program:
    return PROGRAMS[request.param](np.random.default_rng(7))


# --- programs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [True, False])
def test_values(program: Program, check: bool) -> None:
    expected = reference.evaluate(program.graph, program.arguments, program.tables)
    inputs, tables = call(program)
    found = eager.run(program.graph, inputs, tables, check=check)
    for value, tensor, want, name in zip(program.graph.body.results, found, expected, program.graph.output_names, strict=True):
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
    shapes = [*(inputs[i].shape for i in pullback.kept), *(v.shape for v in found[count:]), *(found[j].shape for j in pullback.useful)]
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
        arguments = [*(inputs[i] for i in pullback.kept), *found[count:], *(torch.randn_like(found[j]) for j in pullback.useful)]
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
            torch.testing.assert_close(gradient, other, rtol=1e-8, atol=1e-10, msg=lambda m, i=i, name=name: f"{name} {i}: {m}")


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
    for value, tensor, want in zip(program.graph.body.results, eager.run(program.graph, inputs, tables, raw=True), expected):
        agrees(tensor, want, value.type, "raw", padding_zero=False)


# --- trees ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_random_forests(seed: int) -> None:
    rng = np.random.default_rng(seed)
    from eager_programs import random_tree

    forests = [random_tree(rng, int(rng.integers(0, 25)) or 1, spread=int(rng.integers(1, 9))) for _ in range(4)]
    test_adjoint(tree(rng, forests, kinds=bool(seed % 2)), "auto")
    test_autograd(tree(rng, forests, kinds=bool(seed % 2)))


def test_deep_chains_and_caterpillars_take_linear_time() -> None:
    import time

    rng = np.random.default_rng(0)

    def seconds(parents: list[int]) -> float:
        program = tree(rng, [parents])
        inputs, tables = call(program)
        leaves = [v.requires_grad_(v.is_floating_point()) for v in inputs]
        start = time.perf_counter()
        states, total = eager.run(program.graph, leaves, tables)
        torch.autograd.grad(total.sum(), [leaves[0], leaves[4]])
        return time.perf_counter() - start

    chain = [*range(1, 1000), -1]
    spine = [*range(1, 500), -1, *range(500)]
    assert seconds(chain) < 10 and seconds(spine) < 10


# --- primitives -------------------------------------------------------------------------------------------------------

SAMPLES = [(name, i) for name, record in sorted(RECORDS.items()) if isinstance(record, Primitive) for i in range(len(record.samples))]


def draw(rng: Any, given: Any, domain: tuple[float, float]) -> np.ndarray:
    if not isinstance(given, ListType):
        return np.asarray(given)
    if given.dtype.kind == "bool":
        return rng.integers(0, 2, size=given.shape).astype(bool)
    if given.dtype.kind == "int":
        return rng.integers(-4, 5, size=given.shape).astype(given.dtype.numpy)
    return rng.uniform(*domain, size=given.shape).astype(given.dtype.numpy)


def application(name: str, types: tuple[ListType, ...], attributes: dict[str, Any]) -> Lambda:
    """A body of one equation."""
    parameters = tuple(Value(t) for t in types)
    outputs = tuple(Value(t) for t in infer(name, types, attributes, ()))
    return Lambda(parameters, (Equation(name, parameters, outputs, attributes),), outputs)


def evaluated(body: Lambda, depth: int, tensors: list[torch.Tensor], check: bool = True) -> torch.Tensor:
    sizes = eager.Environment({}, depth, torch.device("cpu"))
    (out,) = eager.prepare(body, depth)(eager.Context(sizes, None, check), tensors)
    return out


@pytest.mark.parametrize("name, index", SAMPLES)
def test_primitive(name: str, index: int) -> None:
    record = RECORDS[name]
    sample = record.samples[index]
    rng = np.random.default_rng(index)
    types = tuple(t if isinstance(t, ListType) else array(from_numpy(t.dtype), *t.shape) for t in sample.inputs)
    body = application(name, types, sample.attributes)
    for depth in (0, 1, 2):
        # Each input varies with every leading dim, with some, with none.
        leads = [tuple(n if keep else 1 for n, keep in zip((3, 2), pattern)) for pattern in itertools.product((True, False), repeat=depth)]
        for own in itertools.islice(itertools.product(leads, repeat=len(types)), 40):
            arrays = [
                np.stack([draw(rng, g, sample.domain) for _ in range(int(np.prod(lead)))]).reshape(*lead, *t.shape)
                for g, t, lead in zip(sample.inputs, types, own)
            ]
            full = np.broadcast_shapes(*own) if own else (1,) * depth
            out = evaluated(body, depth, [torch.from_numpy(np.ascontiguousarray(a)) for a in arrays], check=bool(index % 2))
            assert out.shape[depth:] == body.results[0].type.shape and out.dtype == eager.torch_dtype(body.results[0].type.dtype)
            assert all(n in (1, m) for n, m in zip(out.shape, full))
            out = out.expand(*full, *out.shape[depth:])
            for at in np.ndindex(*full):
                elements = [a[tuple(i if n > 1 else 0 for i, n in zip(at, a.shape))] for a in arrays]
                want = record.numpy(*elements, **sample.attributes)
                np.testing.assert_allclose(out[at].numpy(), want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name, index", SAMPLES)
def test_primitive_without_rows(name: str, index: int) -> None:
    sample = RECORDS[name].samples[index]
    types = tuple(t if isinstance(t, ListType) else array(from_numpy(t.dtype), *t.shape) for t in sample.inputs)
    body = application(name, types, sample.attributes)
    if types:
        tensors = [torch.zeros(0, *t.shape, dtype=eager.torch_dtype(t.dtype)) for t in types]
        assert evaluated(body, 1, tensors).shape == (0, *body.results[0].type.shape)


def elementwise(name: str, *arrays: Any, **attributes: Any) -> np.ndarray:
    arrays = [np.asarray(a) for a in arrays]
    types = tuple(array(from_numpy(a.dtype), *a.shape) for a in arrays)
    return evaluated(application(name, types, attributes), 0, [torch.from_numpy(a) for a in arrays]).numpy()


def test_nan_and_ties_as_numpy_has_them() -> None:
    values = np.array([[1.0, np.nan, 3.0, np.nan], [2.0, 5.0, 5.0, -np.inf]])
    for name in ("reduce_max", "reduce_min", "reduce_sum"):
        np.testing.assert_array_equal(elementwise(name, values, axes=(1,)), RECORDS[name].numpy(values, (1,)))
    for name in ("argmax", "argsort"):
        np.testing.assert_array_equal(elementwise(name, values, axis=1), RECORDS[name].numpy(values, 1))
    for name in ("maximum", "minimum"):
        np.testing.assert_array_equal(elementwise(name, values[0], values[1]), RECORDS[name].numpy(values[0], values[1]))
    np.testing.assert_array_equal(elementwise("sign", values), np.sign(values))
    np.testing.assert_array_equal(elementwise("round", np.array([0.5, 1.5, -2.5])), [0.0, 2.0, -2.0])


def test_integer_division_by_zero_and_minus_one() -> None:
    x, y = np.array([7, -7, np.iinfo(np.int64).min, 5]), np.array([2, 2, -1, 0])
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(elementwise("floor_divide", x, y), np.floor_divide(x, y))
        np.testing.assert_array_equal(elementwise("integer_remainder", x, y), np.remainder(x, y))


def test_reduction_over_no_axes_is_the_identity() -> None:
    values = np.arange(6.0).reshape(2, 3)
    for name in ("reduce_sum", "reduce_max"):
        np.testing.assert_array_equal(elementwise(name, values, axes=()), values)


def test_random_numbers_are_bit_exact() -> None:
    for seed in (0, -1, 7, np.iinfo(np.int64).min, np.iinfo(np.int64).max):
        for counter in (-3, 0, 2**40):
            want = RECORDS["fold_seed"].numpy(np.int64(seed), np.int64(counter))
            assert elementwise("fold_seed", np.int64(seed), np.int64(counter)) == want
        for dtype in (f32, f64):
            want = RECORDS["uniform"].numpy(np.int64(seed), (5, 3), dtype)
            np.testing.assert_array_equal(elementwise("uniform", np.int64(seed), shape=(5, 3), dtype=dtype), want)


def test_contraction_of_halves_accumulates_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(s, generator=generator).bfloat16() for s in ((1, 4096), (4096, 3)))
    body = application("contract", (array(bf16, 4096), array(bf16, 4096, 3)), {"spec": "i,ij->j", "dtype": f32})
    out = evaluated(body, 1, [x, w.unsqueeze(0)])
    assert out.dtype is torch.float32
    torch.testing.assert_close(out, (x.double() @ w.double()).float(), rtol=1e-4, atol=1e-3)


def test_cast_to_bf16_rounds_as_the_reference() -> None:
    values = np.random.default_rng(0).normal(size=100)
    body = application("cast", (array(f64, 100),), {"dtype": bf16, "pinned": True})
    out = evaluated(body, 0, [torch.from_numpy(values)])
    assert out.dtype is torch.bfloat16
    np.testing.assert_array_equal(out.float().numpy(), RECORDS["cast"].numpy(values, bf16, True))


def test_a_shared_weight_is_never_expanded() -> None:
    """The product of rows with a weight under a batch is one matrix product on the weight's own memory."""
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = function(*args, **(kwargs or {}))
            seen.extend(t.untyped_storage().nbytes() for t in (out if isinstance(out, (list, tuple)) else [out]) if isinstance(t, torch.Tensor))
            return out

    body = application("contract", (array(f64, 2, 8), array(f64, 2, 8, 9)), {"spec": "hi,hij->hj"})
    x, w = torch.randn(50, 2, 8, dtype=torch.float64), torch.randn(1, 2, 8, 9, dtype=torch.float64)
    with Watch():
        out = evaluated(body, 1, [x, w])
    torch.testing.assert_close(out, torch.einsum("bhi,hij->bhj", x, w[0]))
    assert max(seen) <= 50 * 2 * 9 * 8


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
    import foldfuse.runtime.eager_loops as loops

    monkeypatch.setattr(loops, "UNBOUNDED_LIMIT", 50)
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
    with pytest.raises(ValueError, match="float32"):
        eager.run(program.graph, [inputs[0].float(), inputs[1]], tables)


# --- plans ------------------------------------------------------------------------------------------------------------


def test_a_plan_lives_as_long_as_its_body() -> None:
    import gc

    b = Builder()
    x = b.parameter(array(f64, 3), "x")
    body, _ = b.close([b("mul", x, b.constant(2.0, f64, (3,)))])
    graph = Graph("twice", body, ("x",), ("y",))
    before = len(eager._PLANS)
    assert torch.equal(eager.run(graph, [torch.ones(3, dtype=torch.float64)])[0], torch.full((3,), 2.0, dtype=torch.float64))
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
