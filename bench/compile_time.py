"""How long a user waits before the first step: the import, and the way from an expression to its optimised graphs.

The expression is a stack of LSTM layers. Two claims are measured. The time grows linearly with the layers; and the
length of a list, T, does not enter it: a model whose graphs are made runs on another T without making anything new.
Both the time that passed and the processor's are given: where they differ, other programs had the machine too.

    foldfuse bench compile-time
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import torch

import foldfuse as ff

from . import report

# In a process of its own, since a module is imported once. Torch goes first: its time is not foldfuse's.
IMPORT = """
import time
started = time.perf_counter()
import torch
between, worked = time.perf_counter(), time.process_time()
import foldfuse
print(between - started, time.perf_counter() - between, time.process_time() - worked)
"""


def lstm(hidden: int, width: int) -> Callable:
    """Return an LSTM's step from inputs of `width` numbers to states of `hidden`, its gate weights packed."""
    W = ff.param((width, 4 * hidden), "W")
    U = ff.param((hidden, 4 * hidden), "U")
    b = ff.param((4 * hidden,), "b")

    def step(carry, x):
        h, c = carry
        i, f, g, o = ff.chunk(x @ W + h @ U + b, 4)
        c = ff.sigmoid(f) * c + ff.sigmoid(i) * ff.tanh(g)
        h = ff.sigmoid(o) * ff.tanh(c)
        return (h, c), h

    return step


def stack(layers: int, hidden: int) -> object:
    """Return the expression of `layers` LSTM layers, one upon the other, each with weights of its own."""
    expression = None
    for number in range(layers):
        with ff.scope(f"layer{number}"):
            layer = ff.scan(lstm(hidden, hidden), init=(ff.zeros(hidden), ff.zeros(hidden)))
        expression = layer if expression is None else expression >> layer
    return expression


def seconds(run: Callable[[], object]) -> tuple[float, float, object]:
    """Return how long a call took, how long the processor worked for it, and what it gave."""
    started, worked = time.perf_counter(), time.process_time()
    result = run()
    return time.perf_counter() - started, time.process_time() - worked, result


def compiled_stack(layers: int, hidden: int) -> tuple[object, object]:
    """Return the module of a new stack and its optimised forward and adjoint graphs."""
    model = ff.compile(stack(layers, hidden), ff.Seq(ff.f32[hidden]))
    return model, model.compiled()


def measure_graphs(layers: int, hidden: int, repeats: int) -> dict[str, object]:
    """Return one row: the time from expression to graphs for a stack, and the size of what comes out.

    The first time is told apart from the median: whatever is cached between equal stacks shows as a difference.
    """
    elapsed, worked, made = zip(*(seconds(lambda: compiled_stack(layers, hidden)) for _ in range(repeats)))
    _, graphs = made[-1]
    return {
        "layers": layers,
        "first_seconds": elapsed[0],
        "median_seconds": statistics.median(elapsed),
        "processor_seconds": statistics.median(worked),
        "processor_seconds_per_layer": statistics.median(worked) / layers,
        "forward_lines": len(str(graphs.forward).splitlines()),
        "backward_lines": len(str(graphs.backward).splitlines()),
    }


def measure_length(layers: int, hidden: int, length: int) -> dict[str, object]:
    """Return one row: a new model's graphs made, then run twice on lists of one length, and twice on longer ones.

    The first run makes the program of the call ready; the run at another length after it makes nothing new.
    """
    _, graphs, (model, _) = seconds(lambda: compiled_stack(layers, hidden))

    def run(length: int) -> float:
        inputs = torch.randn(1, length, hidden)
        return seconds(lambda: model(inputs).sum().backward())[1]

    first, second, other = run(length), run(length), run(2 * length)
    return {
        "layers": layers,
        "T": length,
        "graphs": graphs,
        "first_run": first,
        "second_run": second,
        "run_at_twice_T": other,
        "second_run_at_twice_T": run(2 * length),
    }


def measure_import(repeats: int) -> dict[str, object]:
    """Return one row: seconds to import torch, and foldfuse after it, each in a new process."""
    command = [sys.executable, "-c", IMPORT]
    # An installed package has its bytecode; a first import writes it here, where the environment would forbid that.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    run = lambda: subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    times = [tuple(map(float, run().split())) for _ in range(repeats + 1)][1:]
    torch_seconds, own_seconds, worked = (statistics.median(column) for column in zip(*times))
    return {
        "processes": repeats,
        "torch_seconds": torch_seconds,
        "foldfuse_seconds_beyond_torch": own_seconds,
        "foldfuse_processor_seconds": worked,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables and write the JSON file.

    Args:
        arguments: the command line; the program's own where left out.
    """
    parser = report.parser("compile-time", __doc__)
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--lengths", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args(arguments)

    # What the compiler loads when it is first used is paid once in a process, and is no part of a model's time.
    torch.set_num_threads(1)  # the arrays are small, and the processor time of waiting threads says nothing
    warm_seconds, *_ = seconds(lambda: compiled_stack(1, given.hidden))
    report.finish("compile_time", given, {
        "import": [measure_import(given.repeats)],
        "first model in this process": [{"layers": 1, "seconds": warm_seconds}],
        "expression to optimised forward and adjoint graphs": [
            measure_graphs(layers, given.hidden, given.repeats) for layers in given.layers
        ],
        "the same, then run, at T and at twice T: processor seconds": [
            measure_length(layers, given.hidden, length) for layers in given.layers for length in given.lengths
        ],
    })


if __name__ == "__main__":
    main()
