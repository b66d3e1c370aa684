"""The laws: equations between programs, one value each, used from left to right.

`LAWS` holds them in the order in which one round over a body applies them. What they add up to, the normal form:

- nothing is computed twice or for nobody; constants stand where they are used, invariants outside of loops;
- work that needs no carry is in maps before and after the loops, maps over one size that read each other are one map;
- a recurrent step holds each contraction once and joins and cuts no packed value (see `contraction`);
- a sum over a list is a contraction of lists, or a sum of something that no contraction made.
"""

from . import accumulation, algebra, batching, branches, contraction, dead, fusion, hoisting, sharing, sinking
from .law import Firing, Law, Refusal, Scope

# Invariants leave before anything is hoisted; the hoist comes before the sink (what needs no carry is hoisted);
# packed contractions are cut when only what feeds the carry is left in the loop.
LAWS: tuple[Law, ...] = (
    *algebra.LAWS,
    sharing.common_subexpressions,
    *dead.LAWS,
    *sharing.LAWS,
    contraction.contraction_along_one_element,
    contraction.contraction_of_a_concatenation,
    *hoisting.LAWS,
    sinking.running_sum,
    sinking.scan_without_carry,
    branches.contraction_out_of_a_switch,
    sinking.output_sink,
    contraction.slice_of_a_contraction,
    *fusion.LAWS,
    branches.sum_over_children,
    *accumulation.LAWS,
    *batching.LAWS,
)

__all__ = ["LAWS", "Firing", "Law", "Refusal", "Scope"]
