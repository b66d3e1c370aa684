"""In which precision a call runs: that of the parameters, of autocast, and of torch's own matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..compiler.ir import Graph
from ..compiler.precision import with_precision
from ..compiler.program import Entry
from ..compiler.types import DTYPES, DType, f32

__all__ = ["PRECISIONS", "Precision", "declared", "in_precision", "precision_of", "tf32_chosen"]


class Precision(NamedTuple):
    """The precision of a call.

    Attributes:
        compute: the dtype that it computes in, by name.
        operand: the half precision that the operands of contractions are rounded to; empty where they are not.
        half: whether inputs and outputs are in that half precision.
    """

    compute: str = "f32"
    operand: str = ""
    half: bool = False

    def __str__(self) -> str:
        if not self.operand:
            return self.compute
        if self.half:
            return f"{self.operand} (computed in {self.compute})"
        return f"{self.compute} ({self.operand} operands of contractions, by autocast)"


PRECISIONS = {
    "f32": Precision(),
    "f64": Precision("f64"),
    "bf16": Precision("f32", "bf16", True),
    "f16": Precision("f32", "f16", True),
}
"""By the dtype of a model's parameters, the precision of its calls without autocast."""

_TORCH = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16", torch.float16: "f16"}


def precision_of(inputs: Sequence[Tensor]) -> Precision:
    """The precision of a call: that of its first float input, and of autocast where that is on."""
    found = next((x for x in inputs if x.is_floating_point()), None)
    if found is None:
        return Precision()
    own = PRECISIONS[_TORCH.get(found.dtype, "f32")]
    kind = found.device.type
    if own == Precision() and torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        operand = _TORCH.get(torch.get_autocast_dtype(kind), "f32")
        if PRECISIONS[operand].half:
            return Precision(operand=operand)
    return own


def tf32_chosen() -> bool:
    """Whether torch is set to run matrix products of f32 in tf32 on CUDA devices: then kernels do, too.

    Both of torch's ways to set it count: `torch.set_float32_matmul_precision` and `torch.backends.cuda.matmul`.
    """
    # `torch.get_float32_matmul_precision` raises where the newer of the two was used.
    return torch.backends.cuda.matmul.fp32_precision == "tf32"


def declared(entry: Entry) -> DType:
    """The float dtype that an entry's graph is written in: half precisions are computed in f32."""
    return f32 if entry.stored.bits == 16 else entry.stored


def in_precision(graph: Graph, precision: Precision, default: DType = f32) -> Graph:
    """A graph, written in `default`, in the precision of a call."""
    operand = DTYPES[precision.operand] if precision.operand else None
    return with_precision(graph, DTYPES[precision.compute], operand, boundary=precision.half, default=default)
