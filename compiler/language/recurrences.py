"""fold, scan, unfold, and feedback between steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import types
from ..errors import CarryError, RepresentationError, SizeError, StructureError
from ..expression import Expression, call, check_function, declared_names, of_one, show_function
from ..ir import Value
from ..scope import Scope, current, is_module, is_tracing
from ..sizes import Constant
from ..trace import (
    element_structure,
    leaf_paths,
    leaves,
    list_structure,
    plain,
    require_elements,
    same_shape_of_structure,
    traced,
    with_leaves,
)
from ..types import array, boolean, i64
from ..values import Traced, TracedArray, TracedList, type_of


class Comparison(NamedTuple):
    """How a message tells of two results that must have one type.

    Attributes:
        first, second: what has the one, what has the other, with the verb.
        leaf: what a leaf is a part of.
    """

    first: str
    second: str
    leaf: str = "result"


def _of_step(name: str, step: Any) -> Comparison:
    return Comparison(f"the step of {name}({show_function(step)}) takes", "but gives", "carry")


def matched(result: Any, carry: Any, told: Comparison) -> Any:
    """A new carry checked against the one taken, leaf by leaf; bare numbers take the carry's dtype.

    Raises:
        CarryError: structure, shape or dtype differ; the message names the leaf.
        RepresentationError: the carry is named and the result is not, or otherwise.
    """
    if not same_shape_of_structure(result, carry):
        hint = ", or the pair (carry, output)" if told.leaf == "carry" else ""
        raise CarryError(
            f"{told.first} the {told.leaf} {types.show(type_of(carry))}, {told.second} {types.show(type_of(result))}. "
            f"Give the {told.leaf} in the same structure{hint}"
        )
    program = current().program
    out, resized = [], False
    for path, given, taken in zip(leaf_paths(carry), leaves(result), leaves(carry), strict=True):
        where = f"{told.leaf}{path}" if path else f"the {told.leaf}"
        pairs = list(zip(taken.type.axes, given.type.axes, strict=False))
        alike = len(given.type.axes) == len(taken.type.axes) and given.type.shape == taken.type.shape
        if not alike or given.type.dtype is not taken.type.dtype:
            widened = alike and given.type.dtype.is_float and not taken.type.dtype.is_float
            hint = "Write the initial value as a float, 0.0" if widened else "Give it in the type that it is taken in"
            raise CarryError(f"{told.first} {where} as {_shown(taken)}, {told.second} {_shown(given)}. {hint}")
        if not all([program.merge(a, b, f"{told.first} {where} in one size, {told.second} another") for a, b in pairs]):
            given, resized = current()("resize", given, sizes=taken.type.axes), True
        out.append(given)
    _same_names(result, carry, told)
    return with_leaves(carry if resized else result, iter(out))


def _shown(value: Value) -> str:
    """A leaf's type as its user writes it."""
    type_: Any = types.Array(value.type.dtype, value.type.shape)
    for _ in value.type.axes:
        type_ = types.Seq(type_)
    return types.show(type_)


def _same_names(result: Any, carry: Any, told: Comparison) -> None:
    declared = type_of(carry)
    if declared_names(declared) and declared_names(declared) != declared_names(type_of(result)):
        raise RepresentationError(
            f"{told.first} the {told.leaf} {types.show(declared)}, {told.second} {types.show(type_of(result))}. "
            f"Name the new {told.leaf} too, or give init= without a name"
        )


def _carry_and_output(result: Any, carry: Any, told: Comparison) -> tuple[Any, Any]:
    """FACE's rule: a result of the carry's structure is carry and output at once, otherwise it is (carry, output)."""
    result = traced(result)
    if same_shape_of_structure(result, carry) and not _pair_of(result, carry):
        return matched(result, carry, told), result
    if isinstance(result, tuple) and len(result) == 2:
        return matched(result[0], carry, told), result[1]
    return matched(result, carry, told), result


def _pair_of(result: Any, carry: Any) -> bool:
    """A pair whose first part is the whole carry: then it is (carry, output), also when the nesting agrees."""
    if not (isinstance(result, tuple) and len(result) == 2) or types.is_namedtuple(result):
        return False
    return same_shape_of_structure(result[0], carry) and [v.type for v in leaves(result[0])] == [
        v.type for v in leaves(carry)
    ]


def check_step(step: Any, what: str) -> None:
    """Refuse what is no step, and a torch cell as it is: a cell takes (input, state), a step (state, input).

    Raises:
        StructureError: it is no function, or a torch cell.
    """
    check_function(step, what)
    if is_module(step) and type(step).__name__ in ("RNNCell", "GRUCell", "LSTMCell"):
        raise StructureError(
            f"{what} takes a step (carry, element), but torch's {type(step).__name__} takes (input, state). Write "
            "lambda h, x: cell(x, h)"
        )


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
    inner.enter(size, lists)
    taken = with_leaves(carry, iter([inner.parameter(v.type, v.name or "carry") for v in leaves(carry)]))
    element = element_structure(xs, [inner.parameter(v.type.element, v.name or "x") for v in lists])
    with inner.active():
        new, output = _carry_and_output(call(step, taken, element), taken, _of_step(name, step))
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
        init: the first carry: a constant, a parameter, a traced value, or a function of an element of which only sizes
            are
            read. Left out, the expression takes the pair (init, list).
        reverse: from the last element to the first.

    Returns:
        An expression ``[a] → s``; for an empty list it gives `init`.

    Raises:
        CarryError: the step changes the carry's type; the message names the leaf.

    Example:
        >>> encode = map(embedding(256, 32)) >> fold(gru(64, 32), init=zeros(64))
    """
    check_step(step, "ff.fold")

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
    check_step(step, "ff.scan")

    def apply(x: Any) -> Any:
        carry, xs = _split_init(init, x, "ff.scan")
        last, outputs = _run_scan(step, carry, xs, reverse, "scan")
        return (last, outputs) if final else outputs

    return of_one(apply, f"scan({show_function(step)}{', reverse=True' if reverse else ''})")


def unfold(
    step: Any, init: Any = None, length: int | None = None, until: Any = None, max_length: int | None = None
) -> Expression:
    """Generate a list from a carry.

    Arguments:
        step: carry → (carry, output).
        init: the first carry; left out, the expression takes it as its input. With it, inside of a program, the result
            is
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
        raise SizeError(
            f"ff.unfold takes either length= or until=; got {'neither' if length is None else 'both'}. Write "
            "length=20, or "
            "until=lambda y: y == EOS"
        )
    if until is not None:
        check_function(until, "until= of ff.unfold")
    for name, number in (("length", length), ("max_length", max_length)):
        if isinstance(number, Traced):
            raise SizeError(
                f"{name}= of ff.unfold is known when the program is compiled; got {type_of(number)}. For a length that "
                "is "
                "computed, count in the carry and stop with until="
            )
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
        new, output = _carry_and_output(call(step, taken), taken, _of_step("unfold", step))
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
        raise StructureError(
            "an unfold with until= inside the step of another one gives lists of no fixed size; bound it with length="
        )
    body, captured = inner.close(results)
    attributes = {
        "captured": len(captured),
        "carries": len(carries),
        "size": size,
        "reverse": False,
        "stop": True,
        "bound": bound,
    }
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
        carry = plain(carry)
        if not isinstance(carry, tuple) or len(carry) != 2:
            raise StructureError(
                f"a step of ff.feedback carries the pair (state, last output); got {types.show(type_of(carry))}. Start "
                "the "
                "unfold from such a pair, as in init=(h, BOS)"
            )
        state, last = carry
        result = traced(call(step, state, last))
        if not isinstance(result, tuple) or len(result) != 2:
            raise StructureError(f"the step of ff.feedback gives (state, logits); got {types.show(type_of(result))}")
        state, logits = result
        y = traced(call(choose, logits))
        return (state, y), y

    return of_one(apply, f"feedback({show_function(step)}, {show_function(choose)})")
