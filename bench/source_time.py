"""From an expression to the source of its kernels: how long that takes, and Triton's own compile time beside it.

The expression is a stack of LSTM layers. The time is the processor's: from the expression to its optimised forward and
adjoint graphs, and from these to the text of all kernels, nothing kept from before. The length of a list does not
enter: no kernel is made for one. Triton then compiles each distinct text once, ahead of time, for a target.

    foldfuse bench source-time
"""

import os
import statistics
import time
from collections.abc import Sequence

import foldfuse as ff
from foldfuse.kernels.request import Request
from foldfuse.kernels.resources import compile_many
from foldfuse.runtime import fused

from . import report
from .compile_time import stack


def sources(layers: int, hidden: int, target: str) -> tuple[float, float, list]:
    """Return the processor seconds to the graphs of a new stack and from there to its kernels, and the kernels."""
    started = time.process_time()
    compiled = ff.compile(stack(layers, hidden), ff.Seq(ff.f32[hidden])).compiled()
    between = time.process_time()
    plans = [fused.plan(graph, Request(target), frozenset()) for graph in (compiled.forward, compiled.backward)]
    ended = time.process_time()
    return between - started, ended - between, [planned.kernel for plan in plans for planned in plan.kernels]


def measure_sources(layers: int, hidden: int, target: str, repeats: int) -> dict[str, object]:
    """Return one row: the medians for a stack, and how many kernels and distinct texts it has."""
    graphs, texts, made = zip(*(sources(layers, hidden, target) for _ in range(repeats)))
    total = statistics.median(g + t for g, t in zip(graphs, texts))
    return {
        "layers": layers,
        "seconds_to_graphs": statistics.median(graphs),
        "seconds_to_source": statistics.median(texts),
        "seconds": total,
        "seconds_per_layer": total / layers,
        "kernels": len(made[-1]),
        "kernels_with_a_loop": sum(kernel.name.startswith("scan") for kernel in made[-1]),
        "distinct_texts": len({kernel.source for kernel in made[-1]}),
    }


def measure_triton(hidden: int, target: str, repeats: int) -> list[dict[str, object]]:
    """Return a row for each distinct kernel of one layer: the seconds that Triton takes to compile its text."""
    kernels = list({kernel.key: kernel for kernel in sources(1, hidden, target)[2]}.values())
    times = [compile_many(kernels, [target], 1) for _ in range(repeats)]
    return [
        {
            "kernel": kernel.name,
            "strategy": kernel.strategy,
            "lines": len(kernel.source.splitlines()),
            "triton_seconds": statistics.median(found[kernel, target].seconds for found in times),
        }
        for kernel in kernels
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables and write the JSON file.

    Args:
        arguments: the command line; the program's own where left out.
    """
    parser = report.parser("source-time", __doc__)
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--target", default="sm_90")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args(arguments)

    if os.environ.get("TRITON_INTERPRET") == "1":
        raise SystemExit("unset TRITON_INTERPRET: Triton is to compile the kernels")
    sources(1, given.hidden, given.target)  # what is loaded when it is first used is paid once in a process
    report.finish("source_time", given, {
        "expression to the source of all kernels: processor seconds": [
            measure_sources(layers, given.hidden, given.target, given.repeats) for layers in given.layers
        ],
        "Triton, for each text of one layer": measure_triton(given.hidden, given.target, given.repeats),
    })


if __name__ == "__main__":
    main()
