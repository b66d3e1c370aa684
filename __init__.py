"""foldfuse: models as functional programs, compiled to fused GPU kernels, forward and backward."""

from .compiler import combinators as _combinators
from .compiler import primitives as _primitives
from .compiler import torch_words as _torch_words
from .compiler.errors import *  # noqa: F403
from .compiler.expression import expression
from .compiler.words.lifting import WORDS as _WORDS
from .compiler.words.constants import arange, eye, full, linspace, ones, zeros
from .compiler.language import (
    cata,
    feedback,
    fold,
    grad,
    greedy,
    indices,
    length,
    map,
    reduce,
    reverse,
    sample,
    scan,
    shift,
    straight_through,
    switch,
    tap,
    unfold,
    uniform,
    value_and_grad,
    window_map,
    windows,
)
from .compiler.layers import (
    avg_pool,
    conv,
    dense,
    dropout,
    embedding,
    group_norm,
    layer_norm,
    max_pool,
    rms_norm,
)
from .compiler.parameters import buffer, param, scope
from .compiler.types import Grid, Rep, Seq, Tree, bf16, f16, f32, f64, i32, i64
from .compiler.types import boolean as bool

from .runtime.forest import Forest, forest
from .runtime.module import Model, compile
from .runtime.ragged import Ragged, ragged

globals().update(_WORDS)
