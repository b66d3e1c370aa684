"""Golden texts: what a printer or a generator wrote last time, held in `tests/golden/`.

Run the tests with ``FOLDFUSE_UPDATE_GOLDEN=1`` to write them anew, and read the difference before committing it.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"
VARIABLE = "FOLDFUSE_UPDATE_GOLDEN"


def check_golden(name: str, text: str) -> None:
    """Compare a text with the golden one of this name, or replace that when the environment says so.

    Arguments:
        name: file name within `tests/golden/`.
        text: what the code under test gives now.

    Raises:
        AssertionError: they differ, or there is no golden text yet; the message shows the difference.
    """
    path = FOLDER / name
    if os.environ.get(VARIABLE) == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        return
    assert path.exists(), f"there is no golden text {name}; write it with {VARIABLE}=1"
    golden = path.read_text(encoding="utf-8")
    if golden != text:
        difference = difflib.unified_diff(golden.splitlines(), text.splitlines(), f"golden/{name}", "now", lineterm="")
        raise AssertionError(
            "\n".join((f"{name} differs; if that is meant, write it anew with {VARIABLE}=1", *difference))
        )
