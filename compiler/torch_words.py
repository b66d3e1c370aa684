"""torch's functions on traced values, matched by name: what makes `torch.tanh`, `F.silu` or an `nn.LSTMCell` work in a
step.

Torch calls `Traced.__torch_function__` with its own function; the table here gives that function's meaning in
foldfuse's words, with torch's argument names and defaults. Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from . import words as f
from .errors import AxisError, ShapeError, StructureError
from .layers import dropout, normalise
from .scope import current
from .trace import plain, traced
from .types import DTYPES, DType
from .values import TracedList

TABLE: dict[str, Callable[..., Any]] = {}


def call(function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Run the function of the table that bears a torch function's name.

    Raises:
        StructureError: the table has none; the message names it.
    """
    name = getattr(function, "__name__", str(function))
    if name == "__get__":
        owner = getattr(function, "__self__", None)
        name = getattr(owner, "__name__", name)
        return getattr(traced(arguments[0]), name)
    meaning = TABLE.get(name) or TABLE.get(name.strip("_"))
    if meaning is None:
        raise StructureError(
            f"torch's {name} has no meaning in a program yet. Write it with ff's functions, or keep that part outside "
            "of the compiled model"
        )
    for option in ("out", "dtype", "size_average", "reduce"):
        if keywords.get(option) is not None and not (option == "dtype" and name in ("to", "type")):
            raise StructureError(
                f"torch's {name} with {option}= has no meaning in a program. {_INSTEAD[option]}"
            )
    try:
        return meaning(*arguments, **keywords)
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            raise
        # Raised by the call itself: the arguments do not fit the parameters.
        raise StructureError(
            f"torch's {name} has no meaning in a program with these arguments: it {str(error).partition('() ')[2]}. "
            "Leave out what a program does not "
            "take, or write it with ff's functions"
        ) from None


_INSTEAD = {
    "out": "A program changes no tensor in place: use the result",
    "dtype": "Convert with ff.cast, before or after",
    "size_average": "Write reduction='none', 'mean' or 'sum'",
    "reduce": "Write reduction='none', 'mean' or 'sum'",
}


def define(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function under torch's names."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            TABLE[name] = function
        return function

    return enter


def _plain(word: Any) -> Callable[..., Any]:
    return lambda input, *rest, out=None, inplace=False: word(input, *rest)


for _name in (
    "exp",
    "expm1",
    "log",
    "log1p",
    "sqrt",
    "rsqrt",
    "sin",
    "cos",
    "tanh",
    "sigmoid",
    "erf",
    "floor",
    "ceil",
    "sign",
    "relu",
    "silu",
    "softplus",
    "logsigmoid",
    "isfinite",
    "logical_not",
    "square",
    "dot",
    "outer",
):
    TABLE[_name] = _plain(f.WORDS[_name])
for _names, _word in (
    (("abs", "absolute"), f.abs_),
    (("neg", "negative"), f.negative),
    (("round",), f.round_),
    (("arctan", "atan"), f.arctan),
    (("multiply", "mul"), f.multiply),
    (("divide", "div", "true_divide", "truediv"), f.divide),
    (("pow", "power"), f.power),
    (("maximum",), f.maximum),
    (("minimum",), f.minimum),
    (("atan2", "arctan2"), f.arctan2),
    (("remainder", "mod"), f.remainder),
    (("floor_divide", "floordiv"), f.floor_divide),
    (("eq", "equal"), f.equal),
    (("ne", "not_equal"), f.not_equal),
    (("lt", "less"), f.less),
    (("le", "less_equal"), f.less_equal),
    (("gt", "greater"), f.greater),
    (("ge", "greater_equal"), f.greater_equal),
    (("logical_and", "and", "bitwise_and"), f.logical_and),
    (("logical_or", "or", "bitwise_or"), f.logical_or),
    (("matmul", "mm", "mv", "bmm"), f.matmul),
    (("where",), f.where),
    (("invert", "bitwise_not"), f.logical_not),
):
    for _name in _names:
        TABLE[_name] = _plain(_word)
for _name, _word in (
    ("radd", f.add),
    ("rsub", f.subtract),
    ("rmul", f.multiply),
    ("rdiv", f.divide),
    ("rtruediv", f.divide),
    ("rmatmul", f.matmul),
    ("rpow", f.power),
):
    TABLE[_name] = lambda input, other, _word=_word: _word(other, input)


@define("add", "iadd")
def _add(input: Any, other: Any, *, alpha: float = 1) -> Any:
    return f.add(input, other if alpha == 1 else f.multiply(other, alpha))


@define("sub", "subtract", "isub")
def _sub(input: Any, other: Any, *, alpha: float = 1) -> Any:
    return f.subtract(input, other if alpha == 1 else f.multiply(other, alpha))


@define("addmm")
def _addmm(input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    return f.add(f.multiply(input, beta), f.multiply(f.matmul(mat1, mat2), alpha))


@define("einsum")
def _einsum(equation: str, *operands: Any) -> Any:
    return f.einsum(equation, *operands)


@define("cat", "concat", "concatenate")
def _cat(tensors: Any, dim: int = 0) -> Any:
    return f.concat(*tensors, axis=dim)


@define("stack")
def _stack(tensors: Any, dim: int = 0) -> Any:
    return f.stack(*tensors, axis=dim)


@define("hstack")
def _hstack(tensors: Any) -> Any:
    return f.concat(*tensors, axis=0 if len(plain(tensors[0]).shape) == 1 else 1)


@define("chunk")
def _chunk(input: Any, chunks: int, dim: int = 0) -> Any:
    n = plain(input).shape[f.axis_of(dim, len(plain(input).shape))]
    return f.split(input, -(-n // chunks), axis=dim)


@define("split")
def _split(tensor: Any, split_size_or_sections: Any, dim: int = 0) -> Any:
    return f.split(tensor, split_size_or_sections, axis=dim)


@define("unbind")
def _unbind(input: Any, dim: int = 0) -> Any:
    return tuple(f.iterate(f.swapaxes(input, 0, dim) if dim else input))


@define("clamp", "clip")
def _clamp(input: Any, min: Any = None, max: Any = None) -> Any:
    return f.clip(input, min, max)


@define("clamp_min")
def _clamp_min(input: Any, min: Any) -> Any:
    return f.maximum(input, min)


for _name, _word in (("sum", f.sum_), ("mean", f.mean), ("prod", f.prod), ("amax", f.amax), ("amin", f.amin)):
    TABLE[_name] = lambda input, dim=None, keepdim=False, _word=_word, **_: _word(input, dim=dim, keepdim=keepdim)


def _extreme(word: Any, choice: Any) -> Callable[..., Any]:
    def meaning(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
        if dim is None:
            return word(input)
        if not isinstance(dim, int):
            return (f.maximum if word is f.max_ else f.minimum)(input, dim)
        index = choice(input, dim)
        value = f.take_along_axis(input, f.expand_dims(index, dim), dim)
        return (value, f.expand_dims(index, dim)) if keepdim else (f.squeeze(value, dim), index)

    return meaning


TABLE["max"], TABLE["min"] = _extreme(f.max_, f.argmax), _extreme(f.min_, f.argmin)


@define("var")
def _var(
    input: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: int | None = None
) -> Any:
    return f.var(input, dim=dim, correction=int(unbiased) if correction is None else correction, keepdim=keepdim)


@define("std")
def _std(
    input: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: int | None = None
) -> Any:
    return f.sqrt(_var(input, dim, unbiased, keepdim, correction=correction))


@define("norm", "linalg_norm", "linalg_vector_norm", "vector_norm")
def _norm(input: Any, p: Any = 2, dim: Any = None, keepdim: bool = False, *, ord: Any = None, **_: Any) -> Any:
    p = p if ord is None else ord
    if p not in (2, 2.0, "fro", None):
        raise StructureError(f"torch's norm of order {p} has no meaning in a program; write it with ff.sum and powers")
    return f.norm(input, dim=dim, keepdims=keepdim)


@define("logsumexp")
def _logsumexp(input: Any, dim: Any, keepdim: bool = False) -> Any:
    return f.logsumexp(input, dim=dim, keepdim=keepdim)


@define("softmax")
def _softmax(input: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    return f.softmax(input, dim=dim)


@define("log_softmax")
def _log_softmax(input: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    return f.log_softmax(input, dim=dim)


@define("argmax")
def _argmax(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    out = f.argmax(input, dim=dim)
    return f.expand_dims(out, dim) if keepdim else out


@define("argmin")
def _argmin(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    out = f.argmin(input, dim=dim)
    return f.expand_dims(out, dim) if keepdim else out


@define("cumsum")
def _cumsum(input: Any, dim: int, **_: Any) -> Any:
    return f.cumsum(input, dim=dim)


@define("cumprod")
def _cumprod(input: Any, dim: int, **_: Any) -> Any:
    return f.cumprod(input, dim=dim)


@define("sort")
def _sort(input: Any, dim: int = -1, descending: bool = False, stable: bool = True) -> Any:
    index = f.argsort(input, axis=dim, descending=descending)
    return f.take_along_axis(input, index, dim), index


@define("topk")
def _topk(input: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    if not largest:
        value, index = f.top_k(f.negative(input), k, dim)
        return f.negative(value), index
    return f.top_k(input, k, dim)


@define("gather")
def _gather(input: Any, dim: int, index: Any, **_: Any) -> Any:
    return f.take_along_axis(input, index, dim)


@define("index_select")
def _index_select(input: Any, dim: int, index: Any) -> Any:
    return f.take(input, index, dim)


@define("getitem")
def _getitem(input: Any, key: Any) -> Any:
    return f.subscript(input, key)


# --- shapes -----------------------------------------------------------------------------------------------------------


@define("reshape", "view")
def _reshape(input: Any, *shape: Any) -> Any:
    return f.reshape(input, *shape)


@define("transpose", "swapaxes", "swapdims")
def _transpose(input: Any, dim0: int, dim1: int) -> Any:
    return f.swapaxes(input, dim0, dim1)


@define("permute")
def _permute(input: Any, *dims: Any) -> Any:
    return f.transpose(input, *dims)


@define("t", "adjoint")
def _t(input: Any) -> Any:
    return f.transpose(input)


@define("unsqueeze")
def _unsqueeze(input: Any, dim: int) -> Any:
    return f.expand_dims(input, dim)


@define("squeeze")
def _squeeze(input: Any, dim: Any = None) -> Any:
    return f.squeeze(input, dim)


@define("flatten")
def _flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    return f.flatten(input, start_dim, end_dim)


@define("broadcast_to", "expand")
def _expand(input: Any, *shape: Any) -> Any:
    return f.broadcast_to(input, *shape)


@define("flip")
def _flip(input: Any, *dims: Any) -> Any:
    return f.flip(input, tuple(dims[0]) if isinstance(dims[0], (tuple, list)) else dims)


@define("roll")
def _roll(input: Any, shifts: int, dims: Any = None) -> Any:
    return f.roll(input, shifts, dims)


@define("tril")
def _tril(input: Any, diagonal: int = 0) -> Any:
    return f.tril(input, diagonal)


@define("triu")
def _triu(input: Any, diagonal: int = 0) -> Any:
    return f.triu(input, diagonal)


@define("zeros_like")
def _zeros_like(input: Any, **_: Any) -> Any:
    return f.zeros_like(input)


@define("ones_like")
def _ones_like(input: Any, **_: Any) -> Any:
    return f.ones_like(input)


@define("full_like")
def _full_like(input: Any, fill_value: float, **_: Any) -> Any:
    return f.filled_like(input, fill_value)


@define("detach", "clone", "contiguous")
def _same(input: Any, **_: Any) -> Any:
    return traced(input)


TABLE["detach"] = lambda input: f.stop_gradient(input)


@define("float")
def _float(input: Any) -> Any:
    return f.cast_to(traced(input), current().program.float_dtype)


@define("type_as")
def _type_as(input: Any, other: Any) -> Any:
    return f.cast_to(traced(input), traced(other).dtype)


@define("to", "type")
def _to(input: Any, *arguments: Any, dtype: Any = None, **_: Any) -> Any:
    for given in (dtype, *arguments):
        if isinstance(given, DType):
            return f.cast(input, given)
        name = str(given).rsplit(".", 1)[-1]
        known = {
            "float32": "f32",
            "float64": "f64",
            "float16": "f16",
            "bfloat16": "bf16",
            "int64": "i64",
            "int32": "i32",
            "bool": "bool",
        }
        if name in known:
            return f.cast(input, DTYPES[known[name]])
    return traced(input)


# --- activations ------------------------------------------------------------------------------------------------------


@define("gelu")
def _gelu(input: Any, approximate: str = "none") -> Any:
    return f.gelu(input, approximate)


@define("elu")
def _elu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    return f.elu(input, alpha)


@define("leaky_relu")
def _leaky_relu(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Any:
    return f.leaky_relu(input, negative_slope)


@define("relu6")
def _relu6(input: Any, inplace: bool = False) -> Any:
    return f.clip(input, 0.0, 6.0)


@define("hardtanh")
def _hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Any:
    return f.clip(input, min_val, max_val)


@define("hardsigmoid")
def _hardsigmoid(input: Any, inplace: bool = False) -> Any:
    return f.clip(f.add(f.divide(input, 6.0), 0.5), 0.0, 1.0)


@define("mish")
def _mish(input: Any, inplace: bool = False) -> Any:
    return f.multiply(input, f.tanh(f.softplus(input)))


@define("glu")
def _glu(input: Any, dim: int = -1) -> Any:
    left, right = f.chunk(input, 2, axis=dim)
    return f.multiply(left, f.sigmoid(right))


@define("softplus")
def _softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    return f.divide(f.softplus(f.multiply(input, beta)), beta)


@define("dropout")
def _dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    return dropout(p)(input) if training else traced(input)


@define("normalize")
def _normalize(input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Any:
    if p != 2:
        raise StructureError("torch's normalize has a meaning in a program for p=2 only")
    return f.divide(input, f.maximum(f.norm(input, axis=dim, keepdims=True), eps))


@define("cosine_similarity")
def _cosine(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    product = f.sum_(f.multiply(x1, x2), axis=dim)
    return f.divide(product, f.multiply(f.maximum(f.norm(x1, axis=dim), eps), f.maximum(f.norm(x2, axis=dim), eps)))


# --- layers -----------------------------------------------------------------------------------------------------------


@define("linear")
def _linear(input: Any, weight: Any, bias: Any = None) -> Any:
    y = f.matmul(input, f.transpose(weight))
    return y if bias is None else f.add(y, bias)


@define("bilinear")
def _bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Any:
    y = f.einsum("i,oij,j->o", input1, weight, input2)
    return y if bias is None else f.add(y, bias)


@define("embedding")
def _embedding(input: Any, weight: Any, padding_idx: Any = None, max_norm: Any = None, *_: Any, **__: Any) -> Any:
    if max_norm is not None:
        raise StructureError(
            "nn.Embedding with max_norm changes its weight in the forward pass, which a program cannot"
        )
    if padding_idx is not None:
        # Torch gives the padding row no gradient.
        row = f.equal(f.arange(traced(weight).shape[0]), padding_idx % traced(weight).shape[0])
        weight = f.where(f.expand_dims(row, 1), f.stop_gradient(weight), weight)
    return f.take(weight, input)


def _normalised_axes(input: Any, shape: Any, name: str) -> tuple[int, ...]:
    """The last axes, which must have the shape that torch's normalisation was made for."""
    x = plain(input)
    while isinstance(x, TracedList):
        x = x.content
    if tuple(x.shape[-len(shape) :]) != tuple(shape):
        raise ShapeError(f"torch's {name} was made for arrays whose last axes are {tuple(shape)}; got {x.shape}")
    return tuple(range(-len(shape), 0))


@define("layer_norm")
def _layer_norm(
    input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Any:
    axes = _normalised_axes(input, normalized_shape, "layer_norm")
    y = f.lifted(lambda x: normalise(x, axes, eps), (input,), "layer_norm")
    y = y if weight is None else f.multiply(y, weight)
    return y if bias is None else f.add(y, bias)


@define("rms_norm")
def _rms_norm(input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    axes = _normalised_axes(input, normalized_shape, "rms_norm")
    eps = np.finfo(np.float32).eps if eps is None else eps
    y = f.multiply(input, f.rsqrt(f.add(f.mean(f.square(input), axis=axes, keepdims=True), float(eps))))
    return y if weight is None else f.multiply(y, weight)


@define("batch_norm", "instance_norm")
def _batch_norm(*_: Any, **__: Any) -> Any:
    raise AxisError(
        "batch statistics run over the batch, which steps do not see: a program is the meaning of one example. Use "
        "layer_norm or "
        "group_norm, compile with batched=False, or put torch's batch norm between compiled parts"
    )


@define("lstm_cell")
def _lstm_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
    h, c = hx
    gates = f.add(_linear(input, w_ih, b_ih), _linear(h, w_hh, b_hh))
    i, z, g, o = f.chunk(gates, 4)
    c = f.add(f.multiply(f.sigmoid(z), c), f.multiply(f.sigmoid(i), f.tanh(g)))
    return f.multiply(f.sigmoid(o), f.tanh(c)), c


@define("gru_cell")
def _gru_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
    r_x, z_x, n_x = f.chunk(_linear(input, w_ih, b_ih), 3)
    r_h, z_h, n_h = f.chunk(_linear(hx, w_hh, b_hh), 3)
    r, z = f.sigmoid(f.add(r_x, r_h)), f.sigmoid(f.add(z_x, z_h))
    n = f.tanh(f.add(n_x, f.multiply(r, n_h)))
    return f.add(f.multiply(f.subtract(1.0, z), n), f.multiply(z, hx))


def _rnn_cell(activation: Any) -> Callable[..., Any]:
    return lambda input, hx, w_ih, w_hh, b_ih=None, b_hh=None: activation(
        f.add(_linear(input, w_ih, b_ih), _linear(hx, w_hh, b_hh))
    )


TABLE["rnn_tanh_cell"], TABLE["rnn_relu_cell"] = _rnn_cell(f.tanh), _rnn_cell(f.relu)


# --- losses -----------------------------------------------------------------------------------------------------------


def _reduced(loss: Any, reduction: str) -> Any:
    if reduction not in ("none", "mean", "sum"):
        raise StructureError(f"reduction is 'none', 'mean' or 'sum'; got {reduction!r}")
    return {"none": lambda x: x, "mean": f.mean, "sum": f.sum_}[reduction](loss)


@define("cross_entropy")
def _cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    x, y = plain(input), plain(target)
    if isinstance(x, TracedList) or isinstance(y, TracedList):
        raise StructureError(
            "torch's cross_entropy takes arrays; for lists use ff.map, or ff.cross_entropy, which lifts"
        )
    if weight is not None or label_smoothing or y.dtype.is_float or len(x.shape) > 2:
        raise StructureError(
            "cross_entropy in a program takes logits [C] or [N, C] and class targets, without weight or label smoothing"
        )
    if len(x.shape) != len(y.shape) + 1:
        raise ShapeError(
            f"cross_entropy takes logits [C] or [N, C] and targets [] or [N] of one example; got {x.shape} and "
            f"{y.shape}"
        )
    kept = f.not_equal(y, ignore_index)
    loss = f.where(kept, f.cross_entropy(x, f.where(kept, y, 0)), 0.0)
    if reduction == "mean":
        return f.divide(f.sum_(loss), f.cast_to(f.sum_(kept), loss.dtype))
    return _reduced(loss, reduction)


@define("nll_loss", "nll_loss_nd")
def _nll_loss(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
) -> Any:
    x, y = plain(input), plain(target)
    if weight is not None or len(x.shape) > 2:
        raise StructureError("nll_loss in a program takes log-probabilities [C] or [N, C], without weight")
    chosen = f.take_along_axis(x, f.expand_dims(y, -1), -1)
    return _reduced(f.negative(f.reshape(chosen, *y.shape)), reduction)


@define("mse_loss")
def _mse_loss(
    input: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean", weight: Any = None
) -> Any:
    return _reduced(f.square(f.subtract(input, target)), reduction)


@define("l1_loss")
def _l1_loss(
    input: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean", weight: Any = None
) -> Any:
    return _reduced(f.abs_(f.subtract(input, target)), reduction)


@define("binary_cross_entropy_with_logits")
def _bce(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    pos_weight: Any = None,
) -> Any:
    if weight is not None or pos_weight is not None:
        raise StructureError(
            "binary_cross_entropy_with_logits in a program takes no weights; multiply the losses of reduction='none'"
        )
    return _reduced(f.subtract(f.softplus(input), f.multiply(input, target)), reduction)


@define("one_hot")
def _one_hot(tensor: Any, num_classes: int = -1) -> Any:
    if num_classes < 1:
        raise ShapeError("one_hot in a program names its num_classes")
    return f.cast_to(f.one_hot(tensor, num_classes), DTYPES["i64"])


@define("scaled_dot_product_attention")
def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: Any = None,
    enable_gqa: bool = False,
) -> Any:
    if dropout_p or enable_gqa:
        raise StructureError("scaled_dot_product_attention in a program has neither dropout nor grouped queries")
    q, k = traced(query), traced(key)
    scores = f.multiply(f.matmul(q, f.swapaxes(k, -1, -2)), scale or 1.0 / math.sqrt(q.shape[-1]))
    if is_causal:
        scores = f.where(np.tril(np.ones(scores.shape[-2:], bool)), scores, -np.inf)
    if attn_mask is not None:
        mask = traced(attn_mask)
        scores = f.where(mask, scores, -np.inf) if mask.dtype.kind == "bool" else f.add(scores, mask)
    return f.matmul(f.softmax(scores, -1), value)


@define("is_floating_point")
def _is_floating_point(input: Any) -> bool:
    return traced(input).dtype.is_float


@define("numel")
def _numel(input: Any) -> int:
    return math.prod(traced(input).shape)


@define("pad")
def _pad(input: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
    if mode != "constant" or value not in (None, 0, 0.0):
        raise StructureError("pad in a program fills with zeros")
    x = traced(input)
    low, high = [0] * len(x.shape), [0] * len(x.shape)
    for i in range(len(pad) // 2):
        low[-1 - i], high[-1 - i] = pad[2 * i], pad[2 * i + 1]
    return f.emit("pad", x, low=tuple(low), high=tuple(high), interior=(0,) * len(x.shape))


for _name in (
    "conv1d",
    "conv2d",
    "conv3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
):

    def _convolution(*_: Any, _name: str = _name, **__: Any) -> Any:
        raise StructureError(
            f"torch's {_name} sees the batch and channels first; write ff.conv, ff.max_pool or ff.window_map over a "
            "grid"
        )

    TABLE[_name] = _convolution
