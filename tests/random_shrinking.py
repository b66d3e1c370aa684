"""A failing program made smaller: pieces of its source are taken away as long as it fails in the same way."""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from .random_properties import Checks, Failure
from .random_terms import Program


def kind(failure: Failure) -> tuple[str, ...]:
    """What two failures of one cause have in common: the property, the error and where it was raised."""
    return failure.property, failure.detail.split(":")[0], *re.findall(r"\[\S+:\d+\]$", failure.detail)


def shrunk(program: Program, failure: Failure, seconds: float = 60) -> tuple[Program, Failure]:
    """The smallest program found that fails alike, and its failure.

    Arguments:
        program: it has the failure.
        failure: what is kept.
        seconds: how long to look.
    """
    end = time.monotonic() + seconds
    smaller = True
    while smaller:
        smaller = False
        for source in _variants(program.source):
            if time.monotonic() > end:
                return program, failure
            if len(source) < len(program.source):
                tried = replace(program, source=source)
                found = _fails(tried, failure)
                if found is not None:
                    program, failure, smaller = tried, found, True
                    break
    return program, failure


def _fails(program: Program, failure: Failure) -> Failure | None:
    checks = Checks(program, "second" in failure.property, failure.property.startswith("law "), failure.property)
    try:
        found = checks.run()
    except Exception:  # whatever it is, it is not the failure that is looked for
        return None
    return next((f for f in found if kind(f) == kind(failure)), None)


def _variants(source: str) -> Iterator[str]:
    """Sources with a statement less, with one result, or with an expression replaced by a part of it."""
    count = sum(1 for _ in ast.walk(ast.parse(source)))
    for change in (_without_statement, _with_one_result, _with_part):
        for at in range(count):
            for choice in range(16):
                tree = ast.parse(source)
                if not change(list(ast.walk(tree))[at], choice):
                    break
                yield ast.unparse(tree) + "\n"


def _without_statement(node: ast.AST, choice: int) -> bool:
    body = getattr(node, "body", None)
    if not isinstance(body, list) or choice >= len(body) or len(body) == 1:
        return False
    if not isinstance(body[choice], ast.Return):
        del body[choice]
    return True


def _with_one_result(node: ast.AST, choice: int) -> bool:
    if not isinstance(node, ast.Return) or not isinstance(node.value, ast.Tuple) or choice >= len(node.value.elts):
        return False
    node.value = node.value.elts[choice]
    return True


def _with_part(node: ast.AST, choice: int) -> bool:
    """Put the choice-th part of an operand of this node in the operand's place."""
    places: list[tuple[Callable[[ast.expr], None], ast.expr]] = []
    for field, value in ast.iter_fields(node):
        if isinstance(value, ast.expr) and not (isinstance(node, ast.Call) and field == "func"):
            places.append((lambda new, field=field: setattr(node, field, new), value))
        elif isinstance(value, list):
            for i, item in enumerate(value):
                if isinstance(item, ast.expr):
                    places.append((lambda new, value=value, i=i: value.__setitem__(i, new), item))
    parts = [
        (put, part)
        for put, value in places
        for part in (value.args if isinstance(value, ast.Call) else ast.iter_child_nodes(value))
        if isinstance(part, ast.expr)
    ]
    if choice >= len(parts):
        return False
    put, part = parts[choice]
    put(part)
    return True
