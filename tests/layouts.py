"""Lists without padding, laid out by their lengths."""

from __future__ import annotations

import torch

from foldfuse.runtime.layout import Layout


def layout(lengths: torch.Tensor, longest: int, form: str) -> Layout:
    """How packed or jagged lists of these lengths lie."""
    total = int(lengths.sum())
    if form == "jagged":
        return Layout(lengths, lengths.cumsum(0) - lengths, None, longest, total)
    counts = (lengths > torch.arange(longest).unsqueeze(-1)).sum(-1)
    rows = lengths.argsort(descending=True, stable=True).argsort()
    return Layout(lengths, rows, counts.cumsum(0) - counts, longest, total)
