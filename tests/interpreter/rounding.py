"""Rounding to bf16 as a GPU does it: to the nearest number, of two to the even one.

Triton's interpreter cuts the lower bits off instead, which doubles the largest error and pulls every number towards
zero: gradients that add many of them then come out too small.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

_cast = interpreter.InterpreterBuilder.cast_impl


@contextmanager
def nearest() -> Iterator[None]:
    """A context manager under which kernels in the interpreter round to the nearest bf16.

    Example:
        with nearest():
            kernel[(1,)](x, y)
    """
    with mock.patch.object(interpreter.InterpreterBuilder, "cast_impl", _rounded):
        yield


def _rounded(builder: Any, source: interpreter.TensorHandle, target: Any) -> interpreter.TensorHandle:
    if source.dtype.scalar != tl.float32 or target.scalar != tl.bfloat16:
        return _cast(builder, source, target)
    numbers = torch.from_numpy(np.ascontiguousarray(source.data)).to(torch.bfloat16)
    return interpreter.TensorHandle(numbers.view(torch.int16).numpy().view(np.uint16), tl.bfloat16)
