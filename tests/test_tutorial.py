"""The tutorial: its blocks are run in order, and each prints what stands below it.

Run with ``FOLDFUSE_UPDATE_GOLDEN=1`` to write the printed blocks anew, and read the difference before committing it.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
from pathlib import Path

from .golden import VARIABLE

PAGE = "docs/tutorial.md"
ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:```text\n(?P<printed>.*?)^```\n)?", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"-?\d+\.\d*(?:e[+-]?\d+)?")


def differs(found: str, expected: str) -> bool:
    """Whether two printed texts differ in more than the last places of fractions."""
    if NUMBER.sub("#", found) != NUMBER.sub("#", expected):
        return True
    numbers = zip(NUMBER.findall(found), NUMBER.findall(expected))
    return not all(math.isclose(float(x), float(y), rel_tol=1e-3, abs_tol=1e-4) for x, y in numbers)


def test_every_block_prints_what_stands_below_it(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)  # errors name places relative to it
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    namespace = {"__name__": "tutorial"}
    assert len(BLOCK.findall(text)) == text.count("```python") == (text.count("```") - 2 * text.count("```text")) / 2
    written, end, wrong = [], 0, []
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start("code"))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            # Empty lines in front, so that errors and names come from the page's own lines.
            exec(compile("\n" * line + block["code"], PAGE, "exec"), namespace)
        found, expected = printed.getvalue(), block["printed"] or ""
        if differs(found, expected):
            wrong.append(f"line {line + 1}: expected\n{expected}\nprinted\n{found}")
        elif expected:
            found = expected
        written += [text[end : block.start()], f"```python\n{block['code']}```\n"]
        written += [f"```text\n{found}```\n"] if found else []
        end = block.end()
    if os.environ.get(VARIABLE) == "1":
        (ROOT / PAGE).write_text("".join([*written, text[end:]]), encoding="utf-8", newline="\n")
        return
    assert not wrong, "\n\n".join(wrong)


def test_numbers_are_compared_with_care() -> None:
    assert not differs("tensor([1.0001])\n  in docs/tutorial.md:5: x", "tensor([1.0000])\n  in docs/tutorial.md:5: x")
    assert differs("in docs/tutorial.md:5: x", "in docs/tutorial.md:7: x")
    assert differs("tensor([1.1])", "tensor([1.0])")
    assert differs("Seq(f32)", "Seq(f64)")
