"""Laws of single operations: neutral elements, inverse pairs, and operations that only copy.

All are exact but for the sign of a zero, and none hides a NaN: ``0 * x`` stays as it is.
"""

from __future__ import annotations

import numpy as np

from ..ir import Equation, Value
from ..types import bf16, f16
from .sweep import Sweep, single


@single("neutral element", "add", "sub", "mul", "div")
def neutral_element(s: Sweep, e: Equation) -> Value | None:
    """x + 0 = x, x - 0 = x, 0 - x = -x, x * 1 = x, x / 1 = x, where 0 and 1 are constants."""
    x, y = e.inputs
    left, right = s.number(x), s.number(y)
    if e.op in ("add", "sub") and right is not None and right == 0:
        return x
    if e.op == "add" and left is not None and left == 0:
        return y
    if e.op == "sub" and left is not None and left == 0:
        return s.emit("neg", y)
    if e.op in ("mul", "div") and right is not None and right == 1:
        return x
    if e.op == "mul" and left is not None and left == 1:
        return y
    return None


@single("signs", "neg", "add", "sub")
def signs(s: Sweep, e: Equation) -> Value | None:
    """-(-x) = x, x + (-y) = x - y, (-x) + y = y - x, x - (-y) = x + y."""
    if e.op == "neg":
        inner = s.maker(e.inputs[0], "neg")
        return None if inner is None else inner.inputs[0]
    x, y = e.inputs
    inner = s.maker(y, "neg")
    if inner is not None:
        return s.emit("sub" if e.op == "add" else "add", x, inner.inputs[0])
    inner = s.maker(x, "neg") if e.op == "add" else None
    return None if inner is None else s.emit("sub", y, inner.inputs[0])


@single(
    "identity",
    "reshape",
    "broadcast",
    "transpose",
    "slice",
    "pad",
    "flip",
    "concatenate",
    "reduce_sum",
    "cast",
    "select",
)
def identity(s: Sweep, e: Equation) -> Value | None:
    """reshape, broadcast, transpose, slice, pad, flip, concatenate, sum or cast to what a value already is = the value;
    where(c, x, x) = x. A pinned cast stays: it holds its dtype when the program's default changes."""
    x, a = e.inputs[0], e.attributes
    if e.op == "select":
        return e.inputs[1] if e.inputs[1] is e.inputs[2] else None
    if e.op == "cast":
        return x if x.type == e.output.type and not a["pinned"] else None
    if x.type != e.output.type or len(e.inputs) > 1:
        return None
    if e.op == "transpose":
        return x if a["permutation"] == tuple(range(len(a["permutation"]))) else None
    if e.op == "slice":
        return x if all(n == 1 for n in a["strides"]) else None
    if e.op in ("flip", "reduce_sum"):
        return x if not a["axes"] else None
    return x


@single("inverse pair", "reshape", "transpose", "flip", "logical_not", "stack", "unstack")
def inverse_pair(s: Sweep, e: Equation) -> Value | None:
    """reshape . reshape = reshape, transpose . transpose = transpose of the composed permutation, flip . flip = id
    (same axes), not . not = id, stack . unstack = id, unstack . stack = id."""
    if e.op in ("stack", "unstack"):
        inner = s.maker(e.inputs[0], "unstack" if e.op == "stack" else "stack")
        return inner.inputs[0] if inner is not None and inner.inputs[0].type == e.output.type else None
    inner = s.maker(e.inputs[0], e.op)
    if inner is None:
        return None
    (x,) = inner.inputs
    if e.op == "reshape":
        return s.emit("reshape", x, shape=e.attributes["shape"])
    if e.op == "transpose":
        first = inner.attributes["permutation"]
        return s.emit("transpose", x, permutation=tuple(first[p] for p in e.attributes["permutation"]))
    if e.op == "flip" and inner.attributes["axes"] != e.attributes["axes"]:
        return None
    return x


@single("copies of a constant", "broadcast", "reshape", "transpose", "slice", "flip", "neg", "cast")
def copies_of_a_constant(s: Sweep, e: Equation) -> Value | None:
    """broadcast, reshape, transpose, slice, flip, negation or cast of a constant filled with one number = a constant. A
    cast that is pinned or rounds to 16 bits stays."""
    number = s.number(e.inputs[0])
    if number is None:
        return None
    dtype = e.output.type.dtype
    if e.op == "cast":
        whole = dtype.kind != "float" or e.attributes["pinned"] or dtype in (f16, bf16)
        if whole or e.inputs[0].type.dtype in (f16, bf16):
            return None
        number = float(number)
    return s.emit("constant", value=-number if e.op == "neg" else number, dtype=dtype, shape=e.output.type.shape)


@single("a constant of equal elements", "constant")
def uniform_constant(s: Sweep, e: Equation) -> Value | None:
    """a constant array of equal elements = one number that fills it, which other laws can read."""
    value, a = e.attributes["value"], e.attributes
    if not isinstance(value, np.ndarray) or not value.size or not bool(np.all(value == value.flat[0])):
        return None
    if not value.flat[0] and value.dtype.kind == "f" and np.signbit(value).any():
        return None
    return s.emit("constant", value=value.flat[0].item(), dtype=a["dtype"], shape=a["shape"])


@single("broadcast of a broadcast", "broadcast")
def broadcast_of_a_broadcast(s: Sweep, e: Equation) -> Value | None:
    """broadcast . broadcast = broadcast."""
    inner = s.maker(e.inputs[0], "broadcast")
    if inner is None:
        return None
    (x,) = inner.inputs
    dims = tuple(e.attributes["dims"][d] for d in inner.attributes["dims"])
    return s.emit("broadcast", x, shape=e.attributes["shape"], dims=dims)


@single("slice of a copy", "slice")
def slice_of_a_copy(s: Sweep, e: Equation) -> Value | None:
    """slice . slice = slice; slice . concatenate = slice of the part that it lies in; slice . pad = slice of what was
    padded, where it keeps clear of the padding; slice . broadcast = broadcast . slice. Strides must be 1."""
    a = e.attributes
    inner = s.maker(e.inputs[0])
    if (
        inner is None
        or any(n != 1 for n in a["strides"])
        or inner.op not in ("slice", "concatenate", "pad", "broadcast")
    ):
        return None
    bounds = list(zip(a["starts"], a["stops"], strict=True))
    if inner.op == "slice":
        if any(n != 1 for n in inner.attributes["strides"]):
            return None
        first = inner.attributes["starts"]
        return _slice(s, inner.inputs[0], [(f + lo, f + hi) for f, (lo, hi) in zip(first, bounds, strict=True)])
    if inner.op == "concatenate":
        axis, at = inner.attributes["axis"], 0
        for part in inner.inputs:
            low, high = at, at + part.type.shape[axis]
            if low <= bounds[axis][0] and bounds[axis][1] <= high:
                bounds[axis] = (bounds[axis][0] - low, bounds[axis][1] - low)
                return _slice(s, part, bounds)
            at = high
        return None
    (x,) = inner.inputs
    if inner.op == "pad":
        if any(inner.attributes["interior"]):
            return None
        low = inner.attributes["low"]
        inside = [(lo - p, hi - p) for p, (lo, hi) in zip(low, bounds, strict=True)]
        if any(not 0 <= lo <= hi <= n for (lo, hi), n in zip(inside, x.type.shape, strict=True)):
            return None
        return _slice(s, x, inside)
    dims = inner.attributes["dims"]
    own = [bounds[d] if n != 1 else (0, 1) for n, d in zip(x.type.shape, dims, strict=True)]
    if any(n == 1 and bounds[d][1] == bounds[d][0] for n, d in zip(x.type.shape, dims, strict=True)):
        return None
    return s.emit("broadcast", _slice(s, x, own), shape=tuple(hi - lo for lo, hi in bounds), dims=dims)


def _slice(s: Sweep, x: Value, bounds: list[tuple[int, int]]) -> Value:
    starts, stops = tuple(lo for lo, _ in bounds), tuple(hi for _, hi in bounds)
    return s.emit("slice", x, starts=starts, stops=stops, strides=(1,) * len(bounds))


@single("sum of padded parts", "add")
def sum_of_padded_parts(s: Sweep, e: Equation) -> Value | None:
    """pad x + pad y = pad (concatenate x y), where x and y lie side by side along one axis and are padded alike along
    the others. It is what the adjoint of a packed value's parts becomes."""
    pads = [s.maker(v, "pad") for v in e.inputs]
    if None in pads or any(n for pad in pads for n in pad.attributes["interior"]):
        return None
    for first, second in (pads, pads[::-1]):
        place, other = _place(first), _place(second)
        apart = [d for d, (p, q) in enumerate(zip(place, other, strict=True)) if p != q]
        if len(apart) == 1 and place[apart[0]][1] == other[apart[0]][0]:
            both = s.emit("concatenate", first.inputs[0], second.inputs[0], axis=apart[0])
            low = first.attributes["low"]
            return s.emit("pad", both, low=low, high=second.attributes["high"], interior=(0,) * len(low))
    return None


def _place(pad: Equation) -> list[tuple[int, int]]:
    """Where the padded value lies along each axis."""
    return [(lo, lo + n) for lo, n in zip(pad.attributes["low"], pad.inputs[0].type.shape, strict=True)]


@single("concatenation of a concatenation", "concatenate")
def nested_concatenation(s: Sweep, e: Equation) -> Value | None:
    """concatenate (concatenate x y) z = concatenate x y z, along one axis."""
    axis = e.attributes["axis"]
    parts: list[Value] = []
    for value in e.inputs:
        inner = s.maker(value, "concatenate")
        parts.extend(inner.inputs if inner is not None and inner.attributes["axis"] == axis else (value,))
    return s.emit("concatenate", *parts, axis=axis) if len(parts) > len(e.inputs) else None


@single("contraction of a transpose", "contract")
def contraction_of_a_transpose(s: Sweep, e: Equation) -> Value | None:
    """contract(transpose x, y) = contract(x, y) with x's labels permuted; and the same on the right."""
    operands, output = e.attributes["spec"].split("->")
    labels = operands.split(",")
    inputs = list(e.inputs)
    for i, value in enumerate(e.inputs):
        inner = s.maker(value, "transpose")
        if inner is not None:
            permutation = inner.attributes["permutation"]
            labels[i] = "".join(labels[i][permutation.index(d)] for d in range(len(permutation)))
            inputs[i] = inner.inputs[0]
    if inputs == list(e.inputs):
        return None
    return s.emit("contract", *inputs, **{**e.attributes, "spec": f"{','.join(labels)}->{output}"})


LAWS = (
    neutral_element,
    signs,
    identity,
    inverse_pair,
    uniform_constant,
    copies_of_a_constant,
    broadcast_of_a_broadcast,
    slice_of_a_copy,
    sum_of_padded_parts,
    nested_concatenation,
    contraction_of_a_transpose,
)
