"""The time that work takes on a CUDA device, by its own events."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch


def milliseconds(run: Callable[[], object], repeats: int, warm: int = 3) -> list[float]:
    """Return how long each of some runs took on the current stream.

    The host runs ahead of the device as it does in a training loop: where it is too slow for that, the time that the
    device waits for it counts.

    Arguments:
        run: queues the work; whatever it compiles is compiled in the runs that are not counted.
        repeats: how many runs are counted.
        warm: how many go before them.
    """
    for _ in range(warm):
        run()
    torch.cuda.synchronize()
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for started, ended in events:
        started.record()
        run()
        ended.record()
    torch.cuda.synchronize()
    return [started.elapsed_time(ended) for started, ended in events]


def spread(times: Sequence[float], unit: str) -> dict[str, float]:
    """Return the median of times under the name of their unit, the least of them, and the quartiles about the median.

    Example:
        >>> spread([2.0, 1.0, 3.0], "ms")
        {'ms': 2.0, 'least_ms': 1.0, 'lower_quartile_ms': 1.5, 'upper_quartile_ms': 2.5}
    """
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else [*times] * 3
    return {unit: middle, f"least_{unit}": min(times), f"lower_quartile_{unit}": low, f"upper_quartile_{unit}": high}
