"""Windows: convolutions and pools against torch's, and any other function of a window."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import foldfuse as ff

from .record import Program, floats

CONVOLUTIONS: dict[int, Callable] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
MAX_POOLS: dict[int, Callable] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVG_POOLS: dict[int, Callable] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
Padding = str | tuple[tuple[int, int], ...]


# ---------------------------------------------------------------- plain torch
def pad(x: torch.Tensor, size: Sequence[int], dilation: int, padding: Padding, fill: float = 0.0) -> torch.Tensor:
    """`x` of `[axis…, channels]` with its borders filled; an odd amount of `same` goes to the end, as in torch."""
    reach = [dilation * (k - 1) for k in size]
    if padding == "valid":
        amounts = [(0, 0) for _ in reach]
    elif padding == "same":
        amounts = [(r // 2, r - r // 2) for r in reach]
    elif padding == "causal":
        amounts = [(r, 0) for r in reach]
    else:
        amounts = list(padding)
    flat = [0, 0]  # torch counts from the last axis: the channels first
    for before, after in reversed(amounts):
        flat += [before, after]
    return F.pad(x, flat, value=fill)


def channels_first(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(-1, 0)[None]


def channels_last(y: torch.Tensor) -> torch.Tensor:
    return y[0].movedim(0, -1)


def plain_conv(
    p: dict[str, torch.Tensor],
    x: torch.Tensor,
    stride: int = 1,
    dilation: int = 1,
    padding: Padding = "valid",
    groups: int = 1,
    name: str = "conv_0",
) -> torch.Tensor:
    """`x` of `[axis…, in]`, a weight of `[size…, in/groups, out]`: torch's convolution of the padded input."""
    weight = p[f"{name}.weight"]
    dims = weight.ndim - 2
    x = pad(x, weight.shape[:dims], dilation, padding)
    weight = weight.movedim((-1, -2), (0, 1))
    bias = p.get(f"{name}.bias")
    return channels_last(
        CONVOLUTIONS[dims](channels_first(x), weight, bias, stride=stride, dilation=dilation, groups=groups)
    )


def plain_max_pool(p, x, size, stride, padding="valid", dilation=1):
    """torch's maximum pool; the border counts as minus infinity."""
    x = pad(x, size, dilation, padding, -float("inf"))
    return channels_last(MAX_POOLS[len(size)](channels_first(x), tuple(size), stride, dilation=dilation))


def plain_avg_pool(p, x, size, stride):
    """torch's average pool."""
    return channels_last(AVG_POOLS[len(size)](channels_first(x), tuple(size), stride))


def windows_of(x: torch.Tensor, size: int, stride: int, dilation: int, padding: Padding, fill: float = 0.0):
    """The windows of a list, one after another."""
    x = pad(x, (size,), dilation, padding, fill)
    reach = dilation * (size - 1)
    return [x[t : t + reach + 1 : dilation] for t in range(0, len(x) - reach, stride)]


# ---------------------------------------------------------------- inputs
def line(channels: int) -> Callable[[np.random.Generator, int], tuple]:
    return lambda rng, length: (floats(rng, length, channels),)


def grid(channels: int, *others: int) -> Callable[[np.random.Generator, int], tuple]:
    return lambda rng, length: (floats(rng, length, *others, channels),)


def container(dims: int, channels: int) -> Any:
    return ff.Seq(ff.f32[channels]) if dims == 1 else ff.Grid(ff.f32[channels], dims)


OTHERS = {1: (), 2: (6,), 3: (5, 4)}  # the axes of a grid after the first


# ---------------------------------------------------------------- convolutions
def conv_program(name, size, channels, out, stride=1, dilation=1, padding="valid", groups=1, **more):
    dims = len(size)

    def build():
        layer = ff.conv(out, size, stride=stride, dilation=dilation, padding=padding, groups=groups)
        return {"main": (layer, container(dims, channels))}

    return Program(
        name=f"windows.conv{dims}d.{name}",
        build=build,
        plain=partial(plain_conv, stride=stride, dilation=dilation, padding=padding, groups=groups),
        inputs=grid(channels, *OTHERS[dims]),
        shapes={"conv_0.weight": (*size, channels // groups, out), "conv_0.bias": (out,)},
        lengths=(5, 7),
        ragged=dims == 1,
        **more,
    )


def convolutions() -> list[Program]:
    programs = []
    for stride, dilation, padding in itertools.product((1, 2), (1, 2), ("valid", "same", "causal", ((2, 1),))):
        if padding == "same" and stride > 1:
            continue  # as torch: `same` means a stride of one
        text = padding if isinstance(padding, str) else "explicit"
        programs.append(
            conv_program(
                f"stride{stride}.dilation{dilation}.{text}", (3,), 3, 5, stride, dilation, padding, second=True
            )
        )
    programs += [
        conv_program("even.same", (4,), 3, 5, padding="same"),
        conv_program("single", (1,), 3, 5),
        conv_program("grouped", (3,), 6, 9, padding="same", groups=3),
        conv_program("depthwise", (4,), 3, 3, padding="causal", groups=3),
        conv_program("depthwise_times_two", (3,), 3, 6, padding="same", groups=3),
        conv_program("valid", (3, 2), 2, 3),
        conv_program("same", (3, 3), 2, 3, padding="same"),
        conv_program("stride", (3, 2), 2, 3, stride=2),
        conv_program("dilation.same", (2, 3), 2, 3, dilation=2, padding="same"),
        conv_program("explicit", (3, 3), 2, 3, stride=2, padding=((1, 0), (2, 1))),
        conv_program("grouped", (3, 3), 4, 6, padding="same", groups=2),
        conv_program("depthwise", (3, 3), 3, 3, padding="same", groups=3),
        conv_program("valid", (3, 2, 3), 2, 3),
        conv_program("same", (3, 3, 2), 2, 3, padding="same"),
        conv_program("stride", (2, 2, 2), 2, 3, stride=2),
        conv_program("dilation", (2, 2, 2), 2, 3, dilation=2),
        conv_program("depthwise", (2, 2, 2), 2, 2, groups=2),
    ]
    return programs


# ---------------------------------------------------------------- pools
def pool_program(kind, name, size, stride, **settings):
    dims = len(size)

    def build():
        pool = ff.max_pool if kind == "max" else ff.avg_pool
        return {"main": (pool(size, stride=stride, **settings), container(dims, 2))}

    plain = plain_max_pool if kind == "max" else plain_avg_pool
    return Program(
        name=f"windows.{kind}_pool{dims}d.{name}",
        build=build,
        plain=partial(plain, size=size, stride=stride, **settings),
        inputs=grid(2, *OTHERS[dims]),
        shapes={},
        lengths=(5, 7),
        ragged=dims == 1,
    )


def pools() -> list[Program]:
    sizes: list[tuple[int, ...]] = [(3,), (2, 3), (2, 2, 2)]
    programs = [
        pool_program(kind, f"stride{stride}", size, stride)
        for kind, size, stride in itertools.product(("max", "avg"), sizes, (1, 2))
    ]
    programs += [
        pool_program("max", "same", (3,), 1, padding="same"),
        pool_program("max", "same", (3, 3), 1, padding="same"),
        pool_program("max", "dilation", (2,), 1, dilation=2),
    ]
    return programs


# ---------------------------------------------------------------- any function of a window
def arbitrary() -> list[Program]:
    def list_program(name, f, plain_f, shapes, size, plain_fill=0.0, channels=3, lengths=(5, 7), **settings):
        """One function of a window of a list; `f()` makes it with fresh parameters."""

        def build():
            return {"main": (ff.window_map(f(), size, **settings), ff.Seq(ff.f32[channels]))}

        def plain(p, xs):
            windows = windows_of(
                xs,
                size,
                settings.get("stride", 1),
                settings.get("dilation", 1),
                settings.get("padding", "valid"),
                plain_fill,
            )
            return torch.stack([plain_f(p, w) for w in windows])

        return Program(f"windows.{name}", build, plain, line(channels), shapes, lengths=lengths, second=True)

    def local_attention():
        Q = ff.param((3, 3), "Q")

        def look(w):
            scores = w @ (w[2] @ Q)  # the newest element of the window asks all of it
            return ff.softmax(scores) @ w

        return look

    def plain_local_attention(p, w):
        """Attention of the last element of a window over the window."""
        scores = torch.stack([(w[2] @ p["Q"]) @ w[j] for j in range(3)])
        weights = torch.softmax(scores, dim=0)
        return sum(weights[j] * w[j] for j in range(3))

    def contraction():
        W = ff.param((3, 3, 5), "W")
        return lambda w: ff.tanh(ff.einsum("kc,kcn->n", w, W))

    def taps():
        taps = ff.param((4, 3), "K")
        return lambda w: ff.silu(ff.sum(w * taps, axis=0))

    def recurrent():
        W, U = ff.param((3, 4), "W"), ff.param((4, 4), "U")

        def inside(w):
            h = ff.tanh(w[0] @ W)
            h = ff.tanh(w[1] @ W + h @ U)
            return ff.tanh(w[2] @ W + h @ U)

        return inside

    def plain_recurrent(p, w):
        """An Elman net over each window."""
        h = w.new_zeros(4)
        for x in w:
            h = torch.tanh(x @ p["W"] + h @ p["U"])
        return h

    def picture():
        W = ff.param((2, 2, 2, 3), "W")
        look = ff.window_map(
            lambda w: ff.logsumexp(w, axis=(0, 1)) * ff.einsum("ijc,ijcn->n", w, W)[:2], (2, 2), stride=2
        )
        return {"main": (look, ff.Grid(ff.f32[2], 2))}

    def plain_picture(p, x):
        """Each 2×2 patch of a picture, cut out by hand."""
        rows = []
        for i in range(0, x.shape[0] - 1, 2):
            row = []
            for j in range(0, x.shape[1] - 1, 2):
                w = x[i : i + 2, j : j + 2]
                linear = sum(w[a, b] @ p["W"][a, b] for a in (0, 1) for b in (0, 1))
                row.append(w.exp().sum(dim=(0, 1)).log() * linear[:2])
            rows.append(torch.stack(row))
        return torch.stack(rows)

    def stack():
        return {
            "main": (
                ff.conv(4, 3, padding="same")
                >> ff.relu
                >> ff.max_pool(2, stride=2)
                >> ff.conv(3, 3, padding="same")
                >> ff.mean,
                ff.Seq(ff.f32[3]),
            )
        }

    def plain_stack(p, xs):
        """Convolution, rectifier, pool, convolution, mean over time (LeCun et al., 1989)."""
        y = torch.relu(plain_conv(p, xs, padding="same"))
        y = plain_max_pool(p, y, (2,), 2)
        return plain_conv(p, y, padding="same", name="conv_1").mean(dim=0)

    def scalars():
        return {"main": (ff.window_map(lambda w: w[2] - 2 * w[1] + w[0], 3), ff.Seq(ff.f32))}

    return [
        list_program(
            "contraction",
            contraction,
            lambda p, w: torch.tanh(torch.tensordot(w, p["W"], 2)),
            {"W": (3, 3, 5)},
            3,
            padding="same",
        ),
        list_program(
            "taps", taps, lambda p, w: F.silu((w * p["K"]).sum(0)), {"K": (4, 3)}, 4, padding="causal", lengths=(1, 5)
        ),
        list_program(
            "logsumexp", lambda: lambda w: ff.logsumexp(w, axis=0), lambda p, w: w.logsumexp(0), {}, 3, stride=2
        ),
        list_program(
            "fill",
            lambda: lambda w: ff.sum(w * w, axis=0) - w[0] * w[2],
            lambda p, w: w[0] ** 2 + w[1] ** 2 + w[2] ** 2 - w[0] * w[2],
            {},
            3,
            plain_fill=0.5,
            padding=((1, 2),),
            fill=0.5,
            dilation=2,
        ),
        list_program("local_attention", local_attention, plain_local_attention, {"Q": (3, 3)}, 3, padding="causal"),
        list_program("recurrent", recurrent, plain_recurrent, {"W": (3, 4), "U": (4, 4)}, 3, stride=2),
        Program(
            "windows.pair",
            lambda: {"main": (ff.window_map(lambda w: (w[0], w[1] * w[0]), 2), ff.Seq(ff.f32[3]))},
            lambda p, xs: (xs[:-1], xs[1:] * xs[:-1]),
            line(3),
            {},
            lengths=(2, 5),
        ),
        Program(
            "windows.second_difference",
            scalars,
            lambda p, xs: xs[2:] - 2 * xs[1:-1] + xs[:-2],
            lambda rng, length: (floats(rng, length),),
            {},
            lengths=(3, 6),
        ),
        Program(
            "windows.patches", picture, plain_picture, grid(2, 6), {"W": (2, 2, 2, 3)}, lengths=(4, 5), ragged=False
        ),
        Program(
            "windows.stack",
            stack,
            plain_stack,
            line(3),
            {"conv_0.weight": (3, 3, 4), "conv_0.bias": (4,), "conv_1.weight": (3, 4, 3), "conv_1.bias": (3,)},
            lengths=(5, 8),
        ),
    ]


PROGRAMS = tuple(convolutions() + pools() + arbitrary())
