"""Filling fresh buffers with values that cannot be overlooked, so that reading what nothing wrote shows.

Floats become a NaN with bits of its own (a computed NaN has other ones), integers a large odd number, booleans True.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Protocol

import numpy as np
import torch

_BITS = {
    torch.float64: 0x7FF8A5A5A5A5A5A5,
    torch.float32: 0x7FC5A5A5,
    torch.bfloat16: 0x7FE5,
    torch.float16: 0x7EA5,
    torch.int64: 0x5A5A5A5A5A5A5A5B,
    torch.int32: 0x5A5A5A5B,
    torch.int16: 0x5A5B,
    torch.int8: 0x5B,
    torch.uint8: 0x5B,
    torch.bool: 1,
}
_SIGNED = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class _Register(Protocol):
    def uninitialised(self, tensor: torch.Tensor) -> None: ...


def pattern(dtype: torch.dtype) -> np.unsignedinteger:
    """The bits that `fill` gives an element of a dtype, as an unsigned number of its width.

    Raises:
        KeyError: there is no poison for the dtype (complex and 8-bit float ones, quantised ones).
    """
    return np.dtype(f"u{dtype.itemsize}").type(_BITS[dtype])


def fill(tensor: torch.Tensor) -> None:
    """Overwrite a tensor with poison, past autograd's sight."""
    with torch.no_grad():
        if tensor.dtype == torch.bool:
            tensor.fill_(True)
        else:
            tensor.view(_SIGNED[tensor.element_size()]).fill_(_BITS[tensor.dtype])


@contextmanager
def poisoned_empty(recorder: _Register | None = None) -> Iterator[None]:
    """Let `torch.empty`, `empty_like`, `empty_strided`, `new_empty` and `new_empty_strided` give poison in the block.

    Only what is allocated on the CPU, in a dtype that there is poison for, is filled.

    Arguments:
        recorder: is given each such tensor to register as uninitialised, so that a kernel's reading it is a finding.
    """

    def poisoning(allocate: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        @wraps(allocate)
        def poisoned(*arguments: Any, **keywords: Any) -> torch.Tensor:
            tensor = allocate(*arguments, **keywords)
            if _can_be_filled(tensor):
                fill(tensor) if recorder is None else recorder.uninitialised(tensor)
            return tensor

        return poisoned

    places = [(torch, name) for name in ("empty", "empty_like", "empty_strided")]
    places += [(torch.Tensor, name) for name in ("new_empty", "new_empty_strided")]
    own = [(place, name, vars(place).get(name)) for place, name in places]
    for place, name in places:
        setattr(place, name, poisoning(getattr(place, name)))
    try:
        yield
    finally:
        for place, name, value in own:
            # `torch.Tensor` inherits its methods: there the inherited one shows again.
            if value is None:
                delattr(place, name)
            else:
                setattr(place, name, value)


def _can_be_filled(tensor: torch.Tensor) -> bool:
    """Whether a tensor has memory of its own on the CPU: not a fake one, nor one that stands for a batch."""
    return (
        type(tensor) is torch.Tensor
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and tensor.dtype in _BITS
        and tensor.numel() > 0
    )
