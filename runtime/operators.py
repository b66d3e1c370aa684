"""The one operator: a program, given as its text, on tensors.

It is opaque to torch: Dynamo, AOTAutograd, Inductor and `torch.export` see a call with shapes, never what is inside. It
has no derivative of its own, on purpose: a formula registered with an operator is silently wrong under forward mode.
Derivatives are the business of `autograd`, which is the only caller.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..compiler.errors import DerivativeError
from .executable import executable

__all__ = ["evaluate"]

torch.library.define(
    "foldfuse::evaluate",
    "(Tensor[] inputs, Tensor?[] tables, SymInt[] extents, str program) -> Tensor[]",
    tags=(torch.Tag.pt2_compliant_tag,),
)


@torch.library.impl("foldfuse::evaluate", "default")
def _run(
    inputs: Sequence[Tensor], tables: Sequence[Tensor | None], extents: Sequence[int], program: str
) -> list[Tensor]:
    with torch.no_grad():
        return executable(program).run(inputs, tables, extents)


@torch.library.register_fake("foldfuse::evaluate")
def _shapes(
    inputs: Sequence[Tensor], tables: Sequence[Tensor | None], extents: Sequence[int], program: str
) -> list[Tensor]:
    unknown = lambda: torch.library.get_ctx().new_dynamic_size()
    return executable(program).empty_outputs(inputs, tables, extents, unknown)


_LIBRARY = torch.library.Library("foldfuse", "FRAGMENT")


def _refuse_batches(*arguments: object) -> list[Tensor]:
    raise DerivativeError(
        "torch's old vmap (is_grads_batched=True, torch.autograd.functional with vectorize=True) does not reach into "
        "foldfuse. Use torch.func.vmap, jacrev or vjp"
    )


_LIBRARY.impl("evaluate", _refuse_batches, "Batched")

evaluate = torch.ops.foldfuse.evaluate.default
"""``evaluate(inputs, tables, extents, program) -> outputs``.

Arguments:
    inputs: a tensor per input of the program, of dims (list axes…, shape…), on one device, of any strides.
    tables: per list size that the program declares and no input holds, i64 lengths of one dim per axis in the
        declaration's `over`, or None where no list of the size is ragged.
    extents: per declared list size that no input shows, the extent of padded lists.
    program: the printed graph.

Returns:
    A new contiguous tensor per output; what lies behind a list's end is zero.

Raises:
    DeviceError: the tensors lie on several devices.
    FoldfuseError: whatever the evaluator refuses (`runtime.eager.run`).
"""
