"""The process that `resources` compiles kernels in: it reads one job a line and answers each with one line of JSON.

It is run as a script, in Python's isolated mode, and imports nothing of foldfuse but what a kernel's text imports: so
it starts as fast as Triton does. A compiler that crashes takes this process along and no other.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

# What a tensor-core instruction is called in PTX (each generation of chips has one) and in AMD's assembly.
_MATRIX_PTX = re.compile(r"\b(?:mma\.sync|wgmma\.mma_async|tcgen05\.mma)\b")
_MATRIX_AMD = re.compile(r"^\s*v_s?mfma", re.MULTILINE)
# An access to a thread's own memory.
_LOCAL_NVIDIA = re.compile(r"\b(?:LDL|STL)\b")
_LOCAL_AMD = re.compile(r"^\s*scratch_(?:load|store)", re.MULTILINE)


def serve(greeting: Mapping[str, Any], jobs: Any, answers: Any) -> None:
    """Answer jobs until there are no more.

    Arguments:
        greeting: "path", where modules are looked for; "package" and "package_folder", foldfuse's name and place;
            "folder", an empty folder for the kernels' texts.
        jobs: lines of JSON; see `compile_job`.
        answers: where their answers are written: resources, or {"error": text}.
    """
    sys.path[:] = greeting["path"]
    # A kernel's text imports its helpers from the package. Its face, which imports torch, is not run for that.
    package = ModuleType(greeting["package"])
    package.__path__ = [greeting["package_folder"]]
    sys.modules[package.__name__] = package
    for number, line in enumerate(jobs):
        file = Path(greeting["folder"]) / f"kernel_{number}.py"
        try:
            answer = compile_job(json.loads(line), file)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def compile_job(job: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Compile a kernel and say what it takes.

    Arguments:
        job: "source" (the text of a module), "name" (of its function), "signature" (Triton's type of each argument),
            "aligned" (which of them are pointers to multiples of 16 bytes), "options", "target" (backend, architecture,
            warp size).
        file: where to write the text: Triton reads a function's text from its file.

    Returns:
        The fields of `resources.Resources` that do not stand in the job.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    # What ptxas reports about spills stands in no artefact, so that a cached kernel would not do.
    triton.knobs.compilation.always_compile = True
    triton.knobs.nvidia.dump_ptxas_log = True

    file.write_text(job["source"], encoding="utf-8")
    specification = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)

    attributes = {(position,): [["tt.divisibility", 16]] for position in job["aligned"]}
    source = ASTSource(getattr(module, job["name"]), job["signature"], {}, attributes)
    target = GPUTarget(*job["target"])
    # Backends refuse no option that they do not have, but a later release may.
    known = triton.compiler.make_backend(target).parse_options({})
    options = {name: value for name, value in job["options"].items() if hasattr(known, name)}
    printed = io.StringIO()
    start = time.perf_counter()
    with contextlib.redirect_stdout(printed):
        compiled = triton.compile(source, target=target, options=options)
    seconds = time.perf_counter() - start

    machine = _nvidia(compiled, printed.getvalue()) if target.backend == "cuda" else _amd(compiled)
    return machine | {
        "threads": compiled.metadata.num_warps * target.warp_size,
        "shared": compiled.metadata.shared,
        "seconds": seconds,
    }


def _number(pattern: str, text: str, where: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"{where} does not say {pattern!r}; it says:\n{text[-2000:]}")
    return int(found.group(1))


def _nvidia(compiled: Any, log: str) -> dict[str, int]:
    """What ptxas reports of the kernel itself: its log also names device functions that are not inlined."""
    name = re.escape(compiled.metadata.name)
    entry = re.search(rf"Function properties for {name}\n.*\n.*Used \d+ registers", log)
    report = entry.group(0) if entry else log
    stack = _number(r"(\d+) bytes stack frame", report, "ptxas")
    return {
        "registers": _number(r"Used (\d+) registers", report, "ptxas"),
        "stack": stack,
        "spilled": _number(r"(\d+) bytes spill stores", report, "ptxas"),
        # Disassembling takes longer than most compilations, and only what lies on the stack is accessed there.
        "local_accesses": len(_LOCAL_NVIDIA.findall(compiled.asm["sass"])) if stack else 0,
        "scalar_spills": 0,
        "tensor_core_instructions": len(_MATRIX_PTX.findall(compiled.asm["ptx"])),
        "tensor_memory": getattr(compiled.metadata, "tmem_size", 0) or 0,
    }


def _amd(compiled: Any) -> dict[str, int]:
    """What the assembly's metadata says; a vector register is four bytes of each thread."""
    assembly = compiled.asm["amdgcn"]
    metadata = assembly[assembly.rindex("amdhsa.kernels:") :]
    return {
        "registers": _number(r"\.vgpr_count:\s+(\d+)", metadata, "the assembly"),
        "stack": _number(r"\.private_segment_fixed_size:\s+(\d+)", metadata, "the assembly"),
        "spilled": 4 * _number(r"\.vgpr_spill_count:\s+(\d+)", metadata, "the assembly"),
        "local_accesses": len(_LOCAL_AMD.findall(assembly)),
        "scalar_spills": _number(r"\.sgpr_spill_count:\s+(\d+)", metadata, "the assembly"),
        "tensor_core_instructions": len(_MATRIX_AMD.findall(assembly)),
        "tensor_memory": 0,
    }


if __name__ == "__main__":
    # Compilers write to the standard output too: answers go to a copy of it, all else to the standard errors.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        serve(json.loads(sys.stdin.readline()), sys.stdin, answers)
