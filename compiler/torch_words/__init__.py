"""torch's functions on traced values, matched by name: `torch.tanh`, `F.silu` or an `nn.LSTMCell` work in a step."""

# Importing them fills the table.
from . import activations, arithmetic, layers, losses, reductions, shapes
from .table import TABLE, call

__all__ = ["TABLE", "activations", "arithmetic", "call", "layers", "losses", "reductions", "shapes"]
