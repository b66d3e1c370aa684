"""What is computed: language, types, IR, laws, adjoint. Imports neither torch nor triton."""

# Importing them fills the table of records.
from . import combinators, primitives

__all__ = ["combinators", "primitives"]
