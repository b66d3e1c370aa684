"""Programs and calls with one mistake each, and what foldfuse says about it.

A case is a function that makes the mistake. The line that the message must name carries the comment `# here`.
"""

from importlib import import_module

from .case import CASES, Case

for _subject in (
    "arguments",
    "arrays",
    "carries",
    "compiling",
    "derivatives",
    "indices",
    "lists",
    "parameters",
    "python",
    "representations",
    "torch_functions",
    "trees",
    "unfolds",
    "windows",
):
    import_module(f".{_subject}", __name__)

__all__ = ["CASES", "Case"]
