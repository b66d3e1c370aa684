"""`foldfuse verify` of the kernels: on a GPU where there is one, otherwise in Triton's interpreter.

The interpreter is chosen where Triton defines a kernel, so that it needs a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ..kernels.request import STRATEGIES
from . import compat
from .module import Model
from .verification import VALUES, Row, verify_kernels

__all__ = ["answer", "kernel_rows"]

INTERPRETED = ("resident", "streamed")
"""The interpreter runs one program of a grid after the other: those of a cooperative kernel would wait for ever."""

Settings = tuple[int, int, int, "str | None"]

_CHILD = f"""\
import sys
from {__package__}.cli import load
from {__package__}.kernel_verification import answer
answer(load(sys.argv[1]), *sys.argv[2:])
"""


def kernel_rows(model: Model, program: str, settings: Settings) -> tuple[list[Row], str]:
    """Compare the kernels of a model with the oracle.

    Arguments:
        model: the model.
        program: the FILE:NAME that it was loaded from, from which another process loads it again.
        settings: batch, length, seed and entry point of `verification.verify`.

    Returns:
        The comparisons, and a remark on where the kernels ran, or why they did not.
    """
    if not compat.has_triton():
        return [], "kernels were not run: Triton is not installed here (pip install triton; it is published for Linux)"
    if torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
        rows = verify_kernels(model, *settings, device, (None, *STRATEGIES))
        return rows, f"kernels ran on {device} ({torch.cuda.get_device_name(device)})"
    if compat.interpreting():
        rows = verify_kernels(model, *settings, torch.device("cpu"), INTERPRETED)
    else:
        rows = _in_another_process(program, settings)
    return rows, (
        f"kernels ran in Triton's interpreter, {' and '.join(INTERPRETED)}; cooperative ones, whose programs wait for "
        "one another, run on a GPU only"
    )


def _in_another_process(program: str, settings: Settings) -> list[Row]:
    with TemporaryDirectory(prefix="foldfuse-verify-") as folder:
        file = Path(folder) / "rows.json"
        environment = {
            **os.environ,
            "TRITON_INTERPRET": "1",
            "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),
        }
        command = (sys.executable, "-c", _CHILD, program, json.dumps(settings), str(file))
        done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            why = f"its process ended with {done.returncode}: {said[-1].strip() if said else 'it said nothing'}"
            return [Row(settings[3] or "–", "kernels, interpreted", "oracle", float("inf"), VALUES, why)]
        return [Row(**row) for row in json.loads(file.read_text("utf-8"))]


def answer(model: Model, settings: str, file: str) -> None:
    """What the other process does: compare, and write the rows to a file."""
    rows = verify_kernels(model, *json.loads(settings), torch.device("cpu"), INTERPRETED)
    Path(file).write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")
