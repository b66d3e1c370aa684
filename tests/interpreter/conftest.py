"""The interpreter leg of the tests: kernels run on the CPU by Triton's interpreter, under instruments.

`schedules` runs the programs of a launch side by side, in an order that a seed draws; `addresses` records what each
program loads and stores and finds accesses that nothing orders; `poison` fills fresh buffers with NaN. They take hold
of the interpreter through `hooks`; `rounding` lets it round to bf16 as a GPU does; `kernel_harness` runs generated
kernels under all of them.

Run the leg with ``TRITON_INTERPRET=1 pytest tests/interpreter``: the variable is read when ``@triton.jit`` runs, so the
leg has a process of its own. The folder is no package, so that its files can import those of `tests`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


class _Skipped(pytest.Module):
    """A test file that is not even imported: its kernels would be made for a GPU."""

    def collect(self) -> Any:
        pytest.skip("needs `TRITON_INTERPRET=1 pytest tests/interpreter`", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> pytest.Module | None:
    if _INTERPRETED or module_path.parent != Path(__file__).parent:
        return None
    return _Skipped.from_parent(parent, path=module_path)


@pytest.fixture(scope="session", autouse=True)
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Generated kernels lie in a folder of the session, not among the user's."""
    from foldfuse.runtime.kernel_cache import FOLDER_VARIABLE

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER_VARIABLE, str(tmp_path_factory.mktemp("kernels")))
        yield


@pytest.fixture(scope="session", autouse=True)
def cooperative_launches() -> Iterator[None]:
    """Programs that wait for each other all get on, so that a kernel with grid barriers ends."""
    from .schedules import in_order

    with in_order():
        yield


@pytest.fixture(scope="session", autouse=True)
def rounding_to_nearest() -> Iterator[None]:
    """Numbers are rounded to bf16 as on a GPU."""
    from .rounding import nearest

    with nearest():
        yield


@pytest.fixture(params=["in order", 1, 2])
def schedule(request: pytest.FixtureRequest) -> Iterator[str | int]:
    """Run the test in order and under two shuffled schedules; the value names the schedule."""
    from .schedules import shuffled_schedules

    if request.param == "in order":
        yield request.param
    else:
        with shuffled_schedules(request.param):
            yield request.param


@pytest.fixture
def recorder() -> Iterator[Any]:
    """Record all launches of the test, fresh buffers being poisoned, and fail the test on any finding."""
    from .addresses import recorded_addresses
    from .poison import poisoned_empty

    with recorded_addresses() as recorder, poisoned_empty(recorder):
        yield recorder
    recorder.check()
