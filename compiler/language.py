"""The combinators that a user writes. Each is an expression; its meaning is the IR that it appends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from . import functions, types
from .adjoint import gradient
from .errors import CarryError, DerivativeError, DtypeError, RepresentationError, ShapeError, SizeError, StructureError, TraceError, TreeError, WindowError
from .expression import Expression, call, check_function, of_one, require, show_function
from .ir import Lambda, Value
from .sizes import Constant
from .trace import (
    NamedProduct,
    Scope,
    TracedArray,
    TracedList,
    TracedTree,
    Unknown,
    current,
    element_structure,
    is_tracing,
    leaf_paths,
    leaves,
    list_structure,
    map_all,
    map_list,
    plain,
    require_elements,
    same_shape_of_structure,
    traced,
    type_of,
    with_leaves,
)
from .types import Rep, array, boolean, i64


def introduce(rep: Rep, value: Any) -> Any:
    """``Word(x)``: name a value.

    Raises:
        RepresentationError: the value is not of the type that the name stands for.
    """
    if not is_tracing():
        raise TraceError(f"{rep.name}(…) names a value of a program; call it inside of one")
    value = traced(value)
    if isinstance(value, TracedArray):
        value = TracedArray(value.value)
    require(value, types.strip(rep.type) if not isinstance(rep.type, Rep) else rep.type, f"what {rep.name}(…) names")
    if isinstance(value, TracedArray):
        return TracedArray(value.value, rep)
    if isinstance(value, TracedList):
        return TracedList(value._sizes, value.content, value.grid, rep, value.static_length)
    if isinstance(value, TracedTree):
        return TracedTree(value.tables, value.root, value.kind, value.size, value.arity_size, value.type, value.content, rep)
    return NamedProduct(rep, value.content if isinstance(value, NamedProduct) else value)


# --- lists ------------------------------------------------------------------------------------------------------------


def map(f: Any) -> Expression:
    """Apply a function to every element of a list, of a grid (through all its dimensions), or to every node value of a tree.

    Arguments:
        f: element → result, an expression or any function of a traced value.

    Returns:
        An expression ``[a] → [b]``.

    Example:
        >>> embed = map(embedding(256, 32))
    """
    check_function(f, "ff.map")

    def apply(xs: Any) -> Any:
        xs = plain(xs)
        if isinstance(xs, TracedTree):
            nodes = map_list(TracedList((xs.size,), xs.content), lambda x: call(f, x))
            return TracedTree(xs.tables, xs.root, xs.kind, xs.size, xs.arity_size, xs.type, nodes.content)
        return map_all(require_elements(xs, "ff.map"), lambda x: call(f, x))

    return of_one(apply, f"map({show_function(f)})")


def shift(xs: Any, first: Any) -> Any:
    """A list moved one place to the right: `first`, then all elements of xs but the last.

    Arguments:
        xs: a list.
        first: a value of the element's type (a number, a parameter, a traced value).

    Returns:
        A list of the same size (an empty one stays empty).

    Example:
        >>> logits = scan(step, init=h)(shift(target, BOS))     # teacher forcing
    """
    xs = require_elements(xs, "ff.shift", 1)
    scope, size = current(), xs.sizes[0]
    first = _as_element(first, xs, "ff.shift")
    index = TracedList((size,), TracedArray(scope.iota(size)))
    views = []
    for value in leaves(xs.content):
        if value.type.element.axes:
            raise StructureError("ff.shift moves lists of arrays, not lists of lists")
        window = scope("view", value, window=(1,), stride=(1,), dilation=(1,), low=(1,), high=(-1,), fill=0)
        views.append(window)
    moved = TracedList((size,), with_leaves(xs.content, iter(views)))
    firsts = leaves(first)

    def choose(window: Any, i: Any) -> Any:
        at_start = functions.equal(i, 0)
        chosen = []
        for value, start in zip(leaves(window), firsts, strict=True):
            element = functions.index_array(TracedArray(value), 0)
            chosen.append(functions.where(at_start, TracedArray(start), element).value)
        return with_leaves(window, iter(chosen))

    return map_list(moved, choose, index)


def _as_element(value: Any, xs: TracedList, where: str) -> Any:
    """A value in the structure, dtypes and shapes of a list's elements."""
    value = traced(value)
    expected = leaves(xs.content)
    if not same_shape_of_structure(value, xs.content) or len(leaves(value)) != len(expected):
        raise StructureError(f"{where}: {types.show(type_of(value))} stands where an element, {types.show(type_of(xs.content))}, belongs")
    out = []
    for given, like in zip(leaves(value), expected, strict=True):
        element = like.type.element
        x = TracedArray(given)
        if given.type.dtype is not element.dtype:
            if given.type.dtype.is_float and not element.dtype.is_float:
                raise DtypeError(f"{where}: {given.type} stands where {element} belongs")
            x = functions.cast_to(x, element.dtype)
        if x.shape != element.shape:
            raise ShapeError(f"{where}: {given.type} stands where {element} belongs")
        out.append(x.value)
    return with_leaves(value, iter(out))


def length(xs: Any) -> TracedArray:
    """The number of elements of a list or grid, or of nodes of a tree, as an i64 number."""
    return functions.length(xs)


def indices(xs: Any) -> TracedList:
    """The list 0, 1, … of the size of a list."""
    size = require_elements(xs, "ff.indices", 1).sizes[0]
    value = current().iota(size)
    return TracedList((size,), TracedArray(value))


def reverse(xs: Any) -> Any:
    """A list from its last element to its first."""
    xs = require_elements(xs, "ff.reverse", 1)
    last = functions.subtract(length(xs), 1)
    return map_list(indices(xs), lambda i: functions.index_list(xs, functions.subtract(last, i)))


def reduce(op: Any, identity: Any) -> Expression:
    """Reduce a list with an associative operation.

    Arguments:
        op: (left, right) → result, associative; it may be evaluated in any bracketing, in the list's order.
        identity: what leaves the other argument of `op` unchanged; the result for an empty list.

    Returns:
        An expression ``[a] → a``.

    Example:
        >>> compose_affine = reduce(lambda p, q: (q[0] * p[0], q[0] * p[1] + q[1]), (1.0, 0.0))
    """
    check_function(op, "ff.reduce")

    def apply(xs: Any) -> Any:
        xs = require_elements(xs, "ff.reduce", 1)
        scope, size = current(), xs.sizes[0]
        start = _as_element(identity, xs, "the identity of ff.reduce")
        inner = Scope(scope, scope.program)
        left = with_leaves(start, iter([inner.parameter(v.type, "left") for v in leaves(start)]), keep_reps=False)
        right = with_leaves(xs.content, iter([inner.parameter(v.type.element, "right") for v in leaves(xs.content)]))
        with inner.active():
            result = _matched(traced(call(op, left, right)), left, "the result of ff.reduce's operation")
        body, captured = inner.close(leaves(result))
        attributes = {"captured": len(captured), "carries": len(leaves(start)), "size": size}
        outputs = scope.emit("reduce_with", (*captured, *leaves(start), *leaves(xs.content)), attributes, (body,))
        return with_leaves(result, iter(outputs), keep_reps=False)

    return of_one(apply, f"reduce({show_function(op)})")


# --- scan, fold, unfold -----------------------------------------------------------------------------------------------


def _matched(result: Any, carry: Any, what: str) -> Any:
    """A new carry checked against the one taken, leaf by leaf; bare numbers take the carry's dtype.

    Raises:
        CarryError: structure, shape or dtype differ; the message names the leaf.
        RepresentationError: the carry is named and the result is not, or otherwise.
    """
    if not same_shape_of_structure(result, carry):
        raise CarryError(f"{what} is {types.show(type_of(result))}, but it takes {types.show(type_of(carry))}: the structures differ")
    program = current().program
    paths, out = leaf_paths(carry), []
    for path, given, taken in zip(paths, leaves(result), leaves(carry), strict=True):
        where = f"{what}: leaf carry{path}"
        if len(given.type.axes) != len(taken.type.axes):
            raise CarryError(f"{where} is taken as {taken.type} and given as {given.type}")
        for left, right in zip(taken.type.axes, given.type.axes, strict=True):
            program.unify(left, right, where)
        if given.type.shape != taken.type.shape:
            raise CarryError(f"{where} is taken with shape {taken.type.shape} and given with shape {given.type.shape}")
        if given.type.dtype is not taken.type.dtype:
            hint = " (write the initial value as a float, 0.0)" if given.type.dtype.is_float and not taken.type.dtype.is_float else ""
            raise CarryError(f"{where} is taken as {taken.type.dtype} and given as {given.type.dtype}{hint}")
        out.append(given)
    _same_names(result, carry, what)
    return with_leaves(result, iter(out))


def _same_names(result: Any, carry: Any, what: str) -> None:
    declared = type_of(carry)
    if _names(declared) and _names(declared) != _names(type_of(result)):
        raise RepresentationError(
            f"{what} is {types.show(type_of(result))}, but the carry is declared as {types.show(declared)}. "
            "Name the new carry too, or give init= without a name"
        )


def _names(type_: Any) -> list[str]:
    if isinstance(type_, Rep):
        return [type_.name]
    if isinstance(type_, (types.Seq, types.Grid, types.Tree)):
        return _names(type_.element)
    parts = type_.values() if isinstance(type_, Mapping) else type_ if isinstance(type_, tuple) else ()
    return [name for part in parts for name in _names(part)]


def _carry_and_output(result: Any, carry: Any, what: str) -> tuple[Any, Any]:
    """FACE's rule: a result of the carry's structure is carry and output at once, otherwise it is (carry, output)."""
    result = traced(result)
    if same_shape_of_structure(result, carry) and not _pair_of(result, carry):
        return _matched(result, carry, what), result
    if isinstance(result, tuple) and len(result) == 2:
        return _matched(result[0], carry, what), result[1]
    return _matched(result, carry, what), result


def _pair_of(result: Any, carry: Any) -> bool:
    """A pair whose first part is the whole carry: then it is (carry, output), also when the nesting agrees."""
    if not (isinstance(result, tuple) and len(result) == 2) or types.is_namedtuple(result):
        return False
    return same_shape_of_structure(result[0], carry) and [v.type for v in leaves(result[0])] == [v.type for v in leaves(carry)]


def _initial(init: Any, xs: TracedList | None) -> Any:
    """The initial carry; a function of an element reads sizes only.

    Raises:
        StructureError: the function reads the element's values.
    """
    if not (callable(init) and not hasattr(init, "__array_ufunc__")) or isinstance(init, (np.ndarray, np.generic)):
        return traced(init)
    if xs is None:
        raise StructureError("init= of ff.unfold is a value, not a function: there is no element to read sizes from")
    scope = current()
    phantoms = [Value(v.type.element, v.name) for v in leaves(xs.content)]
    scope.defined.update(phantoms)
    before = len(scope.equations)
    carry = traced(call(init, element_structure(xs, phantoms)))
    used = {v for e in scope.equations[before:] for v in e.inputs} | set(leaves(carry))
    if used & set(phantoms):
        raise StructureError(
            "init= as a function may read only the sizes of an element, but it reads its values. "
            "Compute the initial carry before the scan and pass it as init="
        )
    scope.defined.difference_update(phantoms)
    return carry


def _split_init(init: Any, x: Any, name: str) -> tuple[Any, TracedList]:
    if init is not None:
        xs = require_elements(x, name, 1)
        return _initial(init, xs), xs
    x = plain(x)
    if not (isinstance(x, tuple) and len(x) == 2):
        raise StructureError(f"{name} without init= takes the pair (init, list); got {types.show(type_of(x))}")
    return traced(x[0]), require_elements(x[1], name, 1)


def _run_scan(step: Any, carry: Any, xs: TracedList, backwards: bool, name: str) -> tuple[Any, TracedList]:
    scope, size = current(), xs.sizes[0]
    lists = list(leaves(xs.content))

    def index(inner: Scope) -> Value:
        lists.append(scope.iota(size))
        return inner.parameter(array(i64), "index")

    inner = Scope(scope, scope.program, index)
    taken = with_leaves(carry, iter([inner.parameter(v.type, v.name or "carry") for v in leaves(carry)]))
    element = element_structure(xs, [inner.parameter(v.type.element, v.name or "x") for v in lists])
    with inner.active():
        new, output = _carry_and_output(call(step, taken, element), taken, f"the carry of {name}({show_function(step)})")
    results = [inner.use(v) for v in (*leaves(new), *leaves(output))]
    size = scope.program.sizes.resolve(size)
    counts = inner.result_counts(results)
    body, captured = inner.close((*results, *counts.values()))
    attributes = {"captured": len(captured), "carries": len(leaves(carry)), "size": size, "reverse": backwards}
    binds = tuple((n, len(results) + i) for i, n in enumerate(counts))
    outputs = scope.emit(
        "scan",
        (*captured, *leaves(carry), *lists),
        attributes,
        (body,),
        binds,
        [v.name for v in results],
    )
    carries = len(leaves(carry))
    last = with_leaves(new, iter(outputs[:carries]))
    return last, list_structure(size, output, outputs[carries : len(results)], xs.grid)


def fold(step: Any, init: Any = None, reverse: bool = False) -> Expression:
    """Run a step along a list and give the last carry.

    Arguments:
        step: (carry, element) → carry, or (carry, output), of which the output is dropped.
        init: the first carry: a constant, a parameter, a traced value, or a function of an element of which only sizes are
            read. Left out, the expression takes the pair (init, list).
        reverse: from the last element to the first.

    Returns:
        An expression ``[a] → s``; for an empty list it gives `init`.

    Raises:
        CarryError: the step changes the carry's type; the message names the leaf.

    Example:
        >>> encode = map(embedding(256, 32)) >> fold(gru(64, 32), init=zeros(64))
    """
    check_function(step, "ff.fold")

    def apply(x: Any) -> Any:
        carry, xs = _split_init(init, x, "ff.fold")
        return _run_scan(step, carry, xs, reverse, "fold")[0]

    return of_one(apply, f"fold({show_function(step)})")


def scan(step: Any, init: Any = None, reverse: bool = False, final: bool = False) -> Expression:
    """Run a step along a list and give every output.

    Arguments:
        step: (carry, element) → the new carry, which is also the output, or (carry, output).
        init: as for `fold`.
        reverse: from the last element to the first; outputs keep their place.
        final: give ``(last carry, outputs)``.

    Returns:
        An expression ``[a] → [b]``, or ``[a] → (s, [b])``.

    Raises:
        CarryError: the step changes the carry's type; the message names the leaf.

    Example:
        >>> hidden = scan(lstm(64, 32), init=rest(64))
    """
    check_function(step, "ff.scan")

    def apply(x: Any) -> Any:
        carry, xs = _split_init(init, x, "ff.scan")
        last, outputs = _run_scan(step, carry, xs, reverse, "scan")
        return (last, outputs) if final else outputs

    return of_one(apply, f"scan({show_function(step)}{', reverse=True' if reverse else ''})")


def unfold(step: Any, init: Any = None, length: int | None = None, until: Any = None, max_length: int | None = None) -> Expression:
    """Generate a list from a carry.

    Arguments:
        step: carry → (carry, output).
        init: the first carry; left out, the expression takes it as its input. With it, inside of a program, the result is
            the list itself.
        length: how many elements to generate, or
        until: a predicate of the output that ends the list; the stopping element is kept. Rows stop on their own.
        max_length: the most elements with `until`. Without it a predicate that never stops is an error of the call.

    Returns:
        An expression ``s → [b]``.

    Raises:
        SizeError: neither or both of length and until are given.
        UnboundedError: (in the call) the predicate did not stop.

    Example:
        >>> say = unfold(feedback(speak, greedy), until=lambda y: y == EOS, max_length=40)
    """
    check_function(step, "ff.unfold")
    if (length is None) == (until is None):
        raise SizeError("ff.unfold takes either length= or until=")
    for name, number in (("length", length), ("max_length", max_length)):
        if number is not None and (not isinstance(number, (int, np.integer)) or number < 0):
            raise SizeError(f"{name}= of ff.unfold is a whole number, not negative; got {number!r}")
    if until is None and max_length is not None:
        raise SizeError("max_length= belongs to until=; with length= the list has that length")

    def apply(*arguments: Any) -> Any:
        if init is None and not arguments:
            raise StructureError("ff.unfold without init= takes the first carry as its input")
        carry = traced(arguments[0] if len(arguments) == 1 else arguments) if init is None else _initial(init, None)
        if until is None:
            assert length is not None
            scope = current()
            counter = TracedList((Constant(length),), TracedArray(scope.iota(Constant(length))))
            return _run_scan(_Step(step, show_function(step)), carry, counter, False, "unfold")[1]
        return _run_until(step, carry, until, max_length)

    # With its carry given there is no input left: inside of a program it is its list.
    return apply() if init is not None and is_tracing() else Expression(apply, f"unfold({show_function(step)})")


class _Step:
    """An unfold's step as a scan's: the counter is not given to it."""

    def __init__(self, step: Any, name: str):
        self.step, self.__name__ = step, name

    def __call__(self, carry: Any, _: Any) -> Any:
        return call(self.step, carry)


def _run_until(step: Any, carry: Any, until: Any, bound: int | None) -> TracedList:
    scope = current()
    size = scope.program.sizes.fresh("until")

    def index(inner: Scope) -> Value:
        counted.append(inner.parameter(array(i64), "index"))
        return counted[0]

    counted: list[Value] = []
    inner = Scope(scope, scope.program, index)
    taken = with_leaves(carry, iter([inner.parameter(v.type, v.name or "carry") for v in leaves(carry)]))
    with inner.active():
        new, output = _carry_and_output(call(step, taken), taken, f"the carry of unfold({show_function(step)})")
        stop = traced(call(until, output))
        if not isinstance(stop, TracedArray) or stop.dtype is not boolean or stop.shape:
            raise StructureError(f"until= gives one bool, such as y == EOS; got {types.show(type_of(stop))}")
    carries, initial = leaves(new), leaves(carry)
    if counted:
        # The loop index is a carry of its own here: there is no list to count along. Parameters stand carries first.
        carries = [*carries, inner("add", counted[0], inner.index_constant(1))]
        initial = [*initial, scope.index_constant(0)]
    results = [inner.use(v) for v in (*carries, stop.value, *leaves(output))]
    if inner.result_counts(results):
        raise StructureError("an unfold with until= inside the step of another one gives lists of no fixed size; bound it with length=")
    body, captured = inner.close(results)
    attributes = {"captured": len(captured), "carries": len(carries), "size": size, "reverse": False, "stop": True, "bound": bound}
    names = [v.name for v in results]
    names[len(carries)] = "count"
    outputs = scope.emit("scan", (*captured, *initial), attributes, (body,), ((size.name, len(carries)),), names)
    return list_structure(size, output, outputs[len(carries) + 1 :])


def feedback(step: Any, choose: Any) -> Expression:
    """Turn a step that reads its last output into a step of `unfold`.

    Arguments:
        step: (s, y) → (s, logits).
        choose: logits → y: `greedy`, ``sample(temperature, top_k)``, ``straight_through(…)``, or any function.

    Returns:
        An expression ``(s, y) → ((s, y), y)``: the carry is the state and the last choice.

    Example:
        >>> train = scan(speak, init=h)(shift(target, BOS))
        >>> generate = unfold(feedback(speak, greedy), length=20)
    """
    check_function(step, "ff.feedback")
    check_function(choose, "ff.feedback")

    def apply(carry: Any) -> Any:
        state, last = plain(carry)
        result = traced(call(step, state, last))
        if not isinstance(result, tuple) or len(result) != 2:
            raise StructureError(f"the step of ff.feedback gives (state, logits); got {types.show(type_of(result))}")
        state, logits = result
        y = traced(call(choose, logits))
        return (state, y), y

    return of_one(apply, f"feedback({show_function(step)}, {show_function(choose)})")


# --- choices ----------------------------------------------------------------------------------------------------------


def _greedy(logits: Any) -> Any:
    """The most likely class: the index of the largest logit, the first of equal ones."""
    return functions.argmax(logits, axis=-1)


greedy = of_one(_greedy, "greedy")


def sample(temperature: float = 1.0, top_k: int | None = None) -> Expression:
    """A class drawn from ``softmax(logits / temperature)``, by the Gumbel-max trick (Maddison et al. 2014).

    Arguments:
        temperature: greater than 0; small is nearly greedy.
        top_k: draw among the k largest logits only.

    Returns:
        An expression ``logits → class``. The draw depends on the call's seed, the row, and the place in the enclosing
        loops, so it is equal in every evaluator.
    """
    if not temperature > 0:
        raise ShapeError(f"temperature is greater than 0 (ff.greedy is its limit); got {temperature}")

    def apply(logits: Any) -> Any:
        logits = plain(logits)
        if not isinstance(logits, TracedArray) or len(logits.shape) != 1:
            raise ShapeError(f"ff.sample takes a vector of logits; got {types.show(type_of(logits))}")
        logits = functions._float_array(logits)
        if top_k is not None:
            values, _ = functions.top_k(logits, min(top_k, logits.shape[0]))
            logits = functions.where(functions.less(logits, values[-1]), -np.inf, logits)
        gumbel = functions.negative(functions.log(functions.negative(functions.log(uniform(logits.shape[0])))))
        return functions.argmax(functions.add(functions.divide(logits, temperature), gumbel), axis=-1)

    return of_one(apply, f"sample({temperature}{f', top_k={top_k}' if top_k else ''})")


def uniform(*shape: int) -> TracedArray:
    """Uniform numbers in (0, 1), from the call's seed, this place of the program, the row and the enclosing loops."""
    scope = current()
    shape = functions._shape(shape)
    return TracedArray(scope("uniform", scope.program.next_seed(), shape=shape, dtype=scope.program.float_dtype))


def straight_through(choose: Any) -> Expression:
    """A choice that gradients pass through (Bengio et al. 2013): a one-hot vector whose derivative is the softmax's.

    Arguments:
        choose: logits → class.

    Returns:
        An expression ``logits → one-hot vector``; multiply it with an embedding's table.
    """
    check_function(choose, "ff.straight_through")

    def apply(logits: Any) -> Any:
        soft = functions.softmax(logits)
        hard = functions.one_hot(call(choose, logits), plain(logits).shape[-1])
        return functions.add(functions.stop_gradient(functions.subtract(hard, soft)), soft)

    return of_one(apply, f"straight_through({show_function(choose)})")


# --- windows ----------------------------------------------------------------------------------------------------------


def _per_dimension(value: Any, dims: int, name: str, least: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * dims
    if len(values) != dims:
        raise WindowError(f"{name}= has {len(values)} entries for {dims} dimension{'s' * (dims > 1)}")
    if any(not isinstance(v, (int, np.integer)) or v < least for v in values):
        raise WindowError(f"{name}= is whole numbers of at least {least}; got {value!r}")
    return tuple(int(v) for v in values)


def _padding(padding: Any, spans: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    dims = len(spans)
    if padding == "valid":
        return (0,) * dims, (0,) * dims
    if padding == "same":
        low = tuple((span - 1) // 2 for span in spans)
        return low, tuple(span - 1 - before for span, before in zip(spans, low, strict=True))
    if padding == "causal":
        return tuple(span - 1 for span in spans), (0,) * dims
    if isinstance(padding, (int, np.integer)):
        padding = (int(padding),) * dims
    if isinstance(padding, (tuple, list)):
        if dims == 1 and len(padding) == 2 and not any(isinstance(p, (tuple, list)) for p in padding):
            padding = (padding,)
        pairs = [(p, p) if isinstance(p, (int, np.integer)) else tuple(p) for p in padding]
        if len(pairs) == dims and all(len(p) == 2 and min(p) >= 0 for p in pairs):
            return tuple(int(p[0]) for p in pairs), tuple(int(p[1]) for p in pairs)
    raise WindowError(
        f"padding= is 'valid', 'same', 'causal', a number, or (before, after) per dimension, not negative; got {padding!r}"
    )


def windows(xs: Any, size: Any, stride: Any = 1, dilation: Any = 1, padding: Any = "valid", fill: float = 0) -> TracedList:
    """The windows of a list or grid: each an array ``[size…, *element]``; see `window_map`."""
    xs = require_elements(xs, "ff.window_map")
    dims = len(xs._sizes)
    window = _per_dimension(size, dims, "size", 1)
    steps, gaps = _per_dimension(stride, dims, "stride", 1), _per_dimension(dilation, dims, "dilation", 1)
    low, high = _padding(padding, [g * (w - 1) + 1 for g, w in zip(gaps, window, strict=True)])
    if any(n >= w for n, w in zip(high, [g * (w - 1) + 1 for g, w in zip(gaps, window, strict=True)], strict=True)) and np.isinf(fill):
        raise WindowError("with this padding a window may lie in the padding alone, whose maximum is no number; pad less than a window")
    scope, views = current(), []
    for value in leaves(xs.content):
        if len(value.type.axes) != dims:
            raise StructureError(f"ff.window_map takes grids of arrays; {types.show(type_of(xs))} holds lists")
        views.append(scope("view", value, window=window, stride=steps, dilation=gaps, low=low, high=high, fill=fill))
    sizes = views[0].type.axes
    return TracedList(sizes, with_leaves(xs.content, iter(views)), xs.grid)


def window_map(f: Any, size: Any, stride: Any = 1, dilation: Any = 1, padding: Any = "valid", fill: float = 0) -> Expression:
    """Apply a function to every window of a list or grid.

    Arguments:
        f: a window, an array ``[size…, channels]`` (``[size…, *element]``), to a result.
        size: the window's extent, a number or one per dimension.
        stride: from one window to the next.
        dilation: from one element of a window to the next.
        padding: "valid" (none), "same" (as many windows as elements at stride 1, the odd one after), "causal" (all before),
            a number, or (before, after) per dimension.
        fill: what padding holds.

    Returns:
        An expression ``Grid[a] → Grid[b]``.

    Raises:
        WindowError: a setting has no meaning; (in the call) a window is larger than its padded input.

    Example:
        >>> smooth = window_map(lambda w: mean(w, axis=0), 3, padding="same")
    """
    check_function(f, "ff.window_map")

    def apply(xs: Any) -> Any:
        return map_all(windows(xs, size, stride, dilation, padding, fill), lambda window: call(f, window))

    return of_one(apply, f"window_map({show_function(f)}, {size})")


# --- derivatives ------------------------------------------------------------------------------------------------------


def _differentiated(f: Any, arguments: Sequence[Any]) -> tuple[Any, Any]:
    scope = current()
    structures = [traced(a) for a in arguments]
    inner = Scope(scope, scope.program)
    taken = [with_leaves(s, iter([inner.parameter(v.type, v.name) for v in leaves(s)])) for s in structures]
    with inner.active():
        result = plain(traced(call(f, *taken)))
    if not isinstance(result, TracedArray) or result.shape or not result.dtype.is_float:
        raise DerivativeError(f"ff.grad takes a function that gives one float number; {show_function(f)} gives {types.show(type_of(result))}")
    first = leaves(structures[0])
    for value in first:
        if not value.type.dtype.is_float:
            raise DerivativeError(f"ff.grad differentiates by its first argument, which holds {value.type}; integers have no gradient")
    body, captured = inner.close([result.value])
    flat = [v for s in structures for v in leaves(s)]
    wanted = [False] * len(captured) + [i < len(first) for i in range(len(flat))]
    value, gradients = gradient(scope, body, (*captured, *flat), wanted)
    return TracedArray(value), with_leaves(structures[0], iter(gradients), keep_reps=False)


def grad(f: Any) -> Expression:
    """The gradient of a function as an expression, for steps that learn.

    Arguments:
        f: a function of one or more arguments that gives one float number.

    Returns:
        An expression of the same arguments: the gradient by the first one, in its structure.

    Raises:
        DerivativeError: f gives no number, or its first argument holds integers.

    Example:
        >>> def learner(W, p):
        ...     W = W - 0.1 * grad(loss)(W, p)
        ...     return W, p[0] @ W
    """
    check_function(f, "ff.grad")
    return Expression(lambda *arguments: _differentiated(f, arguments)[1], f"grad({show_function(f)})")


def value_and_grad(f: Any) -> Expression:
    """Like `grad`, giving the pair of f's value and its gradient."""
    check_function(f, "ff.value_and_grad")
    return Expression(lambda *arguments: _differentiated(f, arguments), f"value_and_grad({show_function(f)})")


# --- trees ------------------------------------------------------------------------------------------------------------


def cata(node: Any, leaf: Any = None, every: bool = False) -> Expression:
    """Fold a tree from its leaves to its root.

    Arguments:
        node: (value, results of the children) → result; a dict of such functions, one per node kind, for a tree with kinds.
            The children's results are a list; with a fixed arity they unpack (``left, right = kids``).
        leaf: value → result, for nodes without children. Without it a leaf is a node whose list of children is empty.
        every: give every node's result, as a list in input order, instead of the root's.

    Returns:
        An expression ``Tree[a] → r``, or ``Tree[a] → [r]``.

    Raises:
        CarryError: a node's result differs in type from its children's.
        TreeError: the node kinds of the tree and of `node` differ.

    Example:
        >>> total = cata(lambda x, kids: x + sum(kids))
    """
    steps = node if isinstance(node, Mapping) else {"": node}
    for step in steps.values():
        check_function(step, "ff.cata")
    if leaf is not None:
        check_function(leaf, "ff.cata")

    def apply(tree: Any) -> Any:
        tree = plain(tree)
        if not isinstance(tree, TracedTree):
            raise StructureError(f"ff.cata folds a tree; what stands there is {types.show(type_of(tree))}")
        if isinstance(node, Mapping):
            if set(steps) != set(tree.type.kinds):
                raise TreeError(
                    f"ff.cata has steps for the kinds {sorted(steps)}, the tree has {list(tree.type.kinds)}; give one step per kind, "
                    "and declare the kinds in ff.Tree(…, kinds=(…))"
                )
            ordered = [steps[kind] for kind in tree.type.kinds]
        else:
            ordered = list(steps.values())
        if tree.type.arity is not None and leaf is None and tree.type.arity > 0:
            raise TreeError(f"a tree of fixed arity {tree.type.arity} has leaves, which have no children: give ff.cata a leaf= function")
        results = _run_cata(tree, ordered, leaf)
        if every:
            return results
        values = [current()("element", v, tree.root) for v in leaves(results.content)]
        return with_leaves(results.content, iter(values))

    names = show_function(node) if not isinstance(node, Mapping) else "{" + ", ".join(steps) + "}"
    return of_one(apply, f"cata({names})")


def _run_cata(tree: TracedTree, steps: Sequence[Any], leaf: Any) -> TracedList:
    scope = current()
    result = _result_structure(tree, steps, leaf)
    own = list(leaves(tree.content))
    if tree.kind is not None:
        own.append(tree.kind)

    def index(inner: Scope) -> Value:
        own.append(scope.iota(tree.size))
        return inner.parameter(array(i64), "node")

    inner = Scope(scope, scope.program, index)
    element = with_leaves(tree.content, iter([inner.parameter(v.type.element, v.name or "x") for v in leaves(tree.content)]))
    kind = inner.parameter(array(i64), "kind") if tree.kind is not None else None
    flat = leaves(result)
    parameters = [Value(v.type.listed(tree.arity_size), "kids") for v in flat]
    inner.defined.update(parameters)
    kids = _children(tree, result, parameters)
    with inner.active():
        given = _matched(_node_result(inner, tree, steps, leaf, element, kids, kind), result, "a node's result")
    results = [inner.use(v) for v in leaves(given)]
    # The index, if it was asked for, was appended to the own elements; the children's results stand after all of them.
    inner.parameters = [*inner.parameters, *parameters]
    body, captured = inner.close(results)
    attributes = {
        "captured": len(captured),
        "own": len(own),
        "states": len(flat),
        "emitted": 0,
        "size": tree.size,
        "arity": tree.arity_size,
    }
    outputs = scope.emit("tree_up", (*tree.tables, *captured, *own), attributes, (body,), names=[v.name for v in results])
    return list_structure(tree.size, given, outputs)


def _children(tree: TracedTree, result: Any, values: Sequence[Value]) -> TracedList:
    return TracedList((tree.arity_size,), with_leaves(result, iter(values), keep_reps=False), static_length=tree.type.arity)


def _node_result(inner: Scope, tree: TracedTree, steps: Sequence[Any], leaf: Any, element: Any, kids: Any, kind: Value | None) -> Any:
    """What a node gives: its step, chosen by kind, or the leaf's where there are no children."""
    branches: list[Callable[[], Any]] = [lambda step=step: call(step, element, kids) for step in steps]
    if leaf is not None:
        branches = [lambda: call(leaf, element), *branches]
    if len(branches) == 1:
        return traced(branches[0]())
    index = TracedArray(kind) if len(steps) > 1 and kind is not None else TracedArray(inner.index_constant(0))
    if leaf is not None:
        inside = functions.greater(TracedArray(inner.length(tree.arity_size)), 0)
        index = functions.where(inside, functions.add(index, 1), 0)
    return switch(index, branches)


def switch(index: Any, branches: Sequence[Callable[[], Any]]) -> Any:
    """One of several branches, chosen by a computed index.

    Arguments:
        index: an i64 number from 0 to ``len(branches) - 1``.
        branches: functions without arguments that give results of one type; each closes over what it reads.

    Returns:
        The chosen branch's result. The others are not evaluated for their effect on errors or gradients.

    Raises:
        CarryError: the branches' types differ.

    Example:
        >>> y = switch(kind, [lambda: tanh(x), lambda: relu(x)])
    """
    scope = current()
    index = functions.cast_to(plain(index), i64)
    built, results = [], []
    for branch in branches:
        inner = Scope(scope, scope.program)
        with inner.active():
            result = traced(branch()) if not results else _matched(traced(branch()), results[0], "a branch's result")
            found = [inner.use(v) for v in leaves(result)]
        results.append(result)
        built.append((inner, found))
    outer = list(dict.fromkeys(v for inner, _ in built for v in inner.captures))
    bodies = []
    for inner, found in built:
        parameters = tuple(inner.captures.get(v) or Value(v.type, v.name) for v in outer)
        bodies.append(Lambda(parameters, tuple(inner.equations), tuple(found)))
    outputs = scope.emit("switch", (index.value, *outer), {}, bodies)
    return with_leaves(results[0], iter(outputs))


def _result_structure(tree: TracedTree, steps: Sequence[Any], leaf: Any) -> Any:
    """The structure and types of a node's result, found by tracing into a scope that is thrown away: from the leaf's
    result, or, without one, by giving the children an unknown type and tracing until the result's type stands still."""
    scope = current()
    result: Any = Unknown()
    for _ in range(4):
        trial = Scope(scope, scope.program, lambda inner: inner.parameter(array(i64), "node"))
        element = with_leaves(tree.content, iter([trial.parameter(v.type.element, v.name) for v in leaves(tree.content)]))
        with trial.active():
            if leaf is not None:
                found = traced(call(leaf, element))
            else:
                flat = leaves(result)
                parameters = [trial.parameter(v.type.listed(tree.arity_size), "kids") for v in flat]
                found = traced(call(steps[0], element, _children(tree, result, parameters)))
        if _has_unknown(found):
            if same_shape_of_structure(found, result) and not isinstance(result, Unknown):
                break
            result = found
            continue
        if leaf is not None or (same_shape_of_structure(found, result) and [v.type for v in leaves(found)] == [v.type for v in leaves(result)]):
            return found
        result = found
    if _has_unknown(result):
        raise TreeError("the type of a node's result cannot be inferred from its children's alone; give ff.cata a leaf= function")
    return result


def _has_unknown(structure: Any) -> bool:
    if isinstance(structure, Unknown):
        return True
    if isinstance(structure, (TracedList, NamedProduct)):
        return _has_unknown(structure.content)
    if isinstance(structure, Mapping):
        return any(_has_unknown(part) for part in structure.values())
    return isinstance(structure, tuple) and any(_has_unknown(part) for part in structure)


def tap(value: Any, name: str) -> Any:
    """Mark an inner value, so that ``model.record(…)`` shows it under this name; the value itself.

    Arguments:
        value: arrays, or products of them.
        name: what it is called in the record.
    """
    structure = traced(value)
    names = leaf_paths(structure)
    tapped = [current()("tap", v, name=f"{name}{path}") for v, path in zip(leaves(structure), names, strict=True)]
    return with_leaves(structure, iter(tapped))
