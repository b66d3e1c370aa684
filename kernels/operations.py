"""Elementwise operations as Triton text: an infix operator, a prefix, or a function of `tl` or of `device`."""

from __future__ import annotations

from collections.abc import Sequence

from .tiles import Tile, call, combine

INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/",
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
    "logical_and": "&", "logical_or": "|", "plus": "+", "times": "*", "quotient": "//", "remainder_index": "%",
}  # fmt: skip
PREFIX = {"neg": "-", "logical_not": "~"}
TRITON = {
    "abs": "tl.abs", "exp": "tl.exp", "log": "tl.log", "sqrt": "tl.sqrt", "rsqrt": "tl.rsqrt", "sin": "tl.sin",
    "cos": "tl.cos", "floor": "tl.floor", "erf": "tl.erf", "ceil": "tl.ceil", "select": "tl.where",
}  # fmt: skip
DEVICE = {
    "tanh": "tanh", "sigmoid": "sigmoid", "expm1": "expm1", "log1p": "log1p", "round": "round_half_even",
    "arctan": "arctan", "arctan2": "arctan2", "power": "power", "remainder": "remainder",
    "floor_divide": "floor_divide", "integer_remainder": "integer_remainder", "is_finite": "is_finite",
    "sign": "sign", "maximum": "maximum", "minimum": "minimum", "fold_seed": "fold_seed", "uniform": "uniform",
}  # fmt: skip
"""Helpers of `device`, by operation."""

HELPERS = ("reduce_max", "reduce_min", "reduce_prod", "argmax", "arrive", "await_arrivals", "grid_barrier")
"""The other helpers of `device`."""

TYPES = {
    "f16": "tl.float16", "bf16": "tl.bfloat16", "f32": "tl.float32", "f64": "tl.float64", "i32": "tl.int32",
    "i64": "tl.int64", "bool": "tl.int1",
}  # fmt: skip

NEUTRAL = {"sum": "0", "prod": "1", "max": 'float("-inf")', "min": 'float("inf")', "argmax": 'float("-inf")'}
BYTES = {"f16": 2, "bf16": 2, "f32": 4, "f64": 8, "i32": 4, "i64": 8, "bool": 1}
HALVES = ("f16", "bf16")
_INTEGER_LIMITS = {"i32": (-(2**31), 2**31 - 1), "i64": (-(2**63), 2**63 - 1)}


def computed(dtype: str) -> str:
    """The dtype that values of a dtype are computed in: half precisions in f32."""
    return "f32" if dtype in HALVES else dtype


def widened(tile: Tile, dtype: str) -> Tile:
    """A tile of a dtype as what is computed with."""
    return Tile(f"{tile.atom}.to(tl.float32)", tile.dims) if dtype in HALVES else tile


def neutral(operation: str, dtype: str) -> str:
    """The text of a reduction's identity."""
    if dtype in _INTEGER_LIMITS and operation in ("max", "min", "argmax"):
        low, high = _INTEGER_LIMITS[dtype]
        return str(high if operation == "min" else low)
    text = NEUTRAL[operation]
    return f"{text}.0" if dtype in ("f32", "f64") and text in "01" else text


def number(value: object, dtype: str) -> str:
    """The text of a number."""
    if dtype in ("index", "i32", "i64", "bool"):
        return str(value)
    value = float(value)  # type: ignore[arg-type]
    if value != value:
        text = 'float("nan")'
    elif value in (float("inf"), float("-inf")):
        text = f'float("{value}")'
    else:
        text = repr(value)
    # A bare number is taken as single precision where nothing beside it says otherwise.
    return f"tl.full((), {text}, tl.float64)" if dtype == "f64" else text


def cast(tile: Tile, source: str, target: str) -> Tile:
    """A tile of values of one dtype as values of another."""
    if target == source:
        return tile
    if tile.text.isdigit():
        return Tile(f"tl.full((), {tile.text}, {TYPES[target]})")
    if target == "bool":
        return Tile(f"{tile.atom} != 0", tile.dims)
    if target in HALVES:
        # From f64 or a whole number in two steps, as the evaluators round.
        tile = tile if source in HALVES or source == "f32" else Tile(f"{tile.atom}.to(tl.float32)", tile.dims)
    return Tile(f"{tile.atom}.to({TYPES[target]})", tile.dims)


def apply(op: str, tiles: Sequence[Tile], dtype: str) -> tuple[Tile, str | None]:
    """The tile of an operation, and the helper of `device` that it calls, if any."""
    if op in INFIX:
        return combine(INFIX[op], *tiles), None
    if op in PREFIX:
        return Tile(f"{PREFIX[op]}{tiles[0].atom}", tiles[0].dims), None
    if op in TRITON:
        return call(TRITON[op], tiles), None
    return call(DEVICE[op], tiles), DEVICE[op]
