"""Whether the text of a kernel takes products in 64 bits where 32 would wrap: the reach of a tensor is not limited.

No test has memory for 2³¹ elements, so the text is read: a number whose size nothing limits (a list size, a step, a
tile of rows) is 32 bits wide until it is cast, and must be cast before it is a factor.
"""

from __future__ import annotations

import ast

from foldfuse.compiler.sizes import Size
from foldfuse.kernels.kernel import Kernel, Tiles

SMALL, UNLIMITED, WIDE = range(3)
"""What an integer is: limited by the text's own numbers, 32 bits wide and not limited, 64 bits wide (or no integer)."""


def narrow_products(kernel: Kernel) -> list[str]:
    """The products in a kernel's text that may wrap.

    Example:
        >>> narrow_products(replace(kernel, source=kernel.source.replace(".to(tl.int64)", "")))
        ['tl.program_id(0) * 16']
    """
    reader = _Reader(kernel)
    reader.visit(ast.parse(kernel.source))
    return reader.found


class _Reader(ast.NodeVisitor):
    def __init__(self, kernel: Kernel):
        self.kinds = {a.name: UNLIMITED if a.kind == "size" else SMALL for a in kernel.arguments}
        self.loaded = {a.name: SMALL if a.dtype in ("bool", "i32") else WIDE for a in kernel.arguments}
        self.grid = [UNLIMITED if _unlimited(axis) else SMALL for axis in kernel.grid]
        self.found: list[str] = []

    def visit_Assign(self, node: ast.Assign) -> None:
        self.bind(node.targets[0], self.kind(node.value))

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.bind(node.target, max(self.kind(node.target), self.kind(node.value)))

    def visit_For(self, node: ast.For) -> None:
        self.bind(node.target, max(map(self.kind, node.iter.args)))
        for statement in node.body:
            self.visit(statement)

    def visit_Expr(self, node: ast.Expr) -> None:
        self.kind(node.value)

    def bind(self, target: ast.expr, kind: int) -> None:
        if isinstance(target, ast.Name):
            # What a loop carries keeps its widest meaning.
            self.kinds[target.id] = kind

    def kind(self, node: ast.expr) -> int:
        """What an expression is; its narrow products are noted."""
        if isinstance(node, ast.Name):
            return self.kinds.get(node.id, SMALL)
        if isinstance(node, ast.Constant):
            return WIDE if isinstance(node.value, float) else SMALL
        if isinstance(node, ast.Subscript):
            return self.kind(node.value)
        if isinstance(node, ast.Call):
            return self.called(node)
        inner = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
        kinds = list(map(self.kind, inner))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and max(kinds) == UNLIMITED:
            self.found.append(ast.unparse(node))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            return WIDE
        return SMALL if isinstance(node, ast.Compare) else max(kinds, default=SMALL)

    def called(self, node: ast.Call) -> int:
        name = ast.unparse(node.func)
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        kinds = list(map(self.kind, arguments))
        if name.endswith(".to"):
            self.kind(node.func.value)
            return SMALL if ast.unparse(node.args[0]) in ("tl.int1", "tl.int32") else WIDE
        if name == "tl.program_id":
            return self.grid[node.args[0].value]
        if name == "tl.load":
            pointer = next(n.id for n in ast.walk(node.args[0]) if isinstance(n, ast.Name) and n.id in self.loaded)
            return self.loaded[pointer]
        if name in ("tl.full", "tl.zeros"):
            return SMALL if ast.unparse(node.args[-1]) in ("tl.int1", "tl.int32") else WIDE
        return max(kinds, default=SMALL)


def _unlimited(axis: Tiles) -> bool:
    return any(isinstance(extent, Size) for extent in axis.extents)
