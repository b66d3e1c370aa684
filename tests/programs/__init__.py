"""The corpus: every kind of program that foldfuse promises, each with its counterpart in plain torch."""

from __future__ import annotations

from . import face, nestings, recurrences, trees, unfolds, windows
from .record import MODULE, Program, as_tensors, draw_parameters

PROGRAMS: tuple[Program, ...] = (
    *recurrences.PROGRAMS,
    *face.PROGRAMS,
    *windows.PROGRAMS,
    *trees.PROGRAMS,
    *unfolds.PROGRAMS,
    *nestings.PROGRAMS,
)

assert len({program.name for program in PROGRAMS}) == len(PROGRAMS)

__all__ = ["MODULE", "PROGRAMS", "Program", "as_tensors", "draw_parameters"]
