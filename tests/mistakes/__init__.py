"""Programs and calls with one mistake each, and what foldfuse says about it.

A case is a function that makes the mistake. The line that the message must name carries the comment `# here`.
"""

from .case import CASES, Case
from . import arguments, arrays, carries, compiling, derivatives, indices, lists, parameters, python, representations
from . import torch_functions, trees, unfolds, windows

__all__ = ["CASES", "Case"]
