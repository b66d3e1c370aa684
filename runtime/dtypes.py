"""The torch dtypes of the IR's."""

from __future__ import annotations

import torch

from ..compiler.types import DType

DTYPES: dict[str, torch.dtype] = {
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "f32": torch.float32,
    "f64": torch.float64,
    "i32": torch.int32,
    "i64": torch.int64,
    "bool": torch.bool,
}


def torch_dtype(dtype: DType) -> torch.dtype:
    """The torch dtype of an IR dtype."""
    return DTYPES[dtype.name]
