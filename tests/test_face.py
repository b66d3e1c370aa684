"""The programs of the language's description run as they are printed: values and gradients against plain torch, padded
and ragged, and the training loop round them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils import clip_grad_norm_
from torch.utils import _pytree as pytree

import foldfuse as ff

from . import face_programs as printed
from .golden import FOLDER
from .harness import arguments, compare, compiled, error, examples, model_run, plain_run, rows_of
from .programs import PROGRAMS, Program
from .programs.face import LUONG, D, H, V, dense_shapes, gru_shapes, lstm_shapes, plain_language_model
from .programs.record import floats, loop, prefixed
from .programs.recurrences import plain_layer_norm_lstm
from .programs.windows import plain_conv

WIDTH = printed.X


def test_the_block_is_the_printed_one():
    ours = Path(printed.__file__).read_text(encoding="utf-8")
    block = (FOLDER / "face_programs.txt").read_text(encoding="utf-8")
    _, _, programs = ours.partition(f"# {'-' * 118}\n")
    assert programs == block


# ---------------------------------------------------------------- the printed programs and their counterparts
def plain_block(p, x):
    """He et al., Deep residual learning (2015), with group normalization (Wu and He, 2018)."""
    y = x
    for i in (0, 1):
        y = plain_conv(p, y, padding="same", name=f"conv_{i}").movedim(-1, 0)[None]
        y = F.group_norm(y, 8, p[f"group_norm_{i}.weight"], p[f"group_norm_{i}.bias"])[0].movedim(0, -1)
        y = y if i else torch.relu(y)
    return torch.relu(x + y)


def renamed(names: dict[str, str], plain: Callable) -> Callable:
    """A counterpart that knows parameters under other names."""
    return lambda p, *example: plain({names.get(name, name): value for name, value in p.items()}, *example)


BLOCK = {
    **{f"conv_{i}.{name}": shape for i in (0, 1) for name, shape in (("weight", (3, 3, 64, 64)), ("bias", (64,)))},
    **{f"group_norm_{i}.{name}": (64,) for i in (0, 1) for name in ("weight", "bias")},
}
FACES = {
    **{"rgb.conv_0.weight": (3, 3, 3, 4), "rgb.conv_0.bias": (4,)},
    **prefixed("rgb", dense_shapes("dense_0", 4, WIDTH)),
    **{"grey.conv_0.weight": (3, 3, 1, 3), "grey.conv_0.bias": (3,)},
    **prefixed("grey", dense_shapes("dense_0", 3, WIDTH)),
    **dense_shapes("age", WIDTH, 1),
    **dense_shapes("sex", WIDTH, 2),
}
DECODER = {"dec.embedding_0.weight": "emb.weight", "dec.dense_0.weight": "out.weight", "dec.dense_0.bias": "out.bias"}
LM = {**DECODER, **{f"dec.{name}": name for name in gru_shapes(H, D)}}
LM_SHAPES = {
    "dec.embedding_0.weight": (V, D),
    **prefixed("dec", gru_shapes(H, D)),
    **prefixed("dec", dense_shapes("dense_0", H, V)),
}
LUONG_NAMES = {f"dec.dense_0.{part}": f"out.{part}" for part in ("weight", "bias")}
LUONG_SHAPES = {
    **{name: shape for name, shape in LUONG.items() if not name.startswith("out.")},
    **prefixed("dec", dense_shapes("dense_0", H, V)),
}
LAYER_NORM_LSTM = {
    **lstm_shapes(H, D),
    **{"layer_norm_0.weight": (4 * H,), "layer_norm_0.bias": (4 * H,)},
    **{"layer_norm_1.weight": (H,), "layer_norm_1.bias": (H,)},
}


def scanned_head():
    """The addressing as a step, its memory and its controls as inputs."""
    step = lambda w, p: printed.head(p[0], w, *p[1:])
    types = (ff.f32[5, 3], ff.f32[3], ff.f32, ff.f32, ff.f32[3], ff.f32)
    return {"main": (lambda xs: ff.scan(step, init=ff.softmax(ff.zeros(5)))(xs), ff.Seq(types))}


def plain_head(M, prev, k, beta, gate, s, gamma):
    """Graves, Wayne, Danihelka, Neural Turing machines (2014), section 3.3."""
    similar = (M @ k) / (torch.linalg.vector_norm(M, dim=1) * torch.linalg.vector_norm(k) + 1e-6)
    w = gate * torch.softmax(beta * similar, 0) + (1 - gate) * prev
    w = (s[0] * torch.roll(w, 1) + s[1] * w + s[2] * torch.roll(w, -1)) ** gamma
    return w / w.sum()


def plain_scanned_head(p, xs):
    step = lambda w, x: (plain_head(x[0], w, *x[1:]),) * 2
    return loop(step, torch.full((5,), 0.2, dtype=torch.float64), xs)[1]


def head_inputs(rng, length):
    inside = lambda *shape: 1 / (1 + abs(floats(rng, *shape)))
    # A weight of exactly zero has no derivative under a power.
    s = inside(length, 3)
    s = s / s.sum(axis=1, keepdims=True)
    controls = inside(length), inside(length), s, 1 + inside(length)
    return ((floats(rng, length, 5, 3), floats(rng, length, 3), *controls),)


CORPUS = {program.name: program for program in PROGRAMS}


def as_printed(name: str, entries: dict[str, tuple], **changes) -> Program:
    """A program of the corpus with its expression as it is printed."""
    return replace(CORPUS[name], build=lambda: entries, **changes)


SEQ2SEQ = {"loss": (printed.loss, printed.Text, printed.Text), "sample": (printed.sample, printed.Text)}
HEADS = {
    "rgb": (printed.rgb.typed(printed.RGB, printed.Face) >> printed.heads, printed.RGB),
    "grey": (printed.grey.typed(printed.Grey, printed.Face) >> printed.heads, printed.Grey),
}
PRINTED = (
    as_printed("face.tagger", {"main": (printed.tagger, printed.Text)}),
    as_printed("face.seq2seq.loss", SEQ2SEQ),
    as_printed("face.seq2seq.sample", SEQ2SEQ),
    as_printed(
        "face.luong",
        {"main": (printed.luong, printed.Text, printed.Text)},
        shapes=LUONG_SHAPES,
        plain=renamed(LUONG_NAMES, CORPUS["face.luong"].plain),
    ),
    as_printed("face.mamba", {"main": (printed.mamba, ff.Seq(ff.f32[D]))}),
    Program(
        "face.convlstm",
        lambda: {"main": (printed.convlstm(3, 3), ff.Seq(ff.Grid(ff.f32[2], 2)))},
        CORPUS["face.convlstm"].plain,
        CORPUS["face.convlstm"].inputs,
        CORPUS["face.convlstm"].shapes,
        lengths=(1, 3),
    ),
    Program(
        "face.residual_block",
        lambda: {"main": (printed.block, ff.Grid(ff.f32[64], 2))},
        plain_block,
        lambda rng, n: (floats(rng, n, 3, 64),),
        BLOCK,
        ragged=False,
    ),
    as_printed("face.child_sum", {"main": (ff.cata(printed.node), ff.Tree(ff.f32[D]))}),
    as_printed("face.child_sum.every", {"main": (ff.cata(printed.node, every=True), ff.Tree(ff.f32[D]))}),
    as_printed(
        "face.attend",
        {"main": (ff.scan(printed.attend, init=ff.zeros(3, 5)), ff.Seq((ff.f32[3], ff.f32[3], ff.f32[5])))},
    ),
    Program(
        "face.learner",
        lambda: {
            "main": (ff.scan(printed.learner, init=ff.param((D, 2), "W")), ff.Seq((ff.f32[D], ff.f32[2]))),
        },
        CORPUS["face.learner"].plain,
        CORPUS["face.learner"].inputs,
        CORPUS["face.learner"].shapes,
    ),
    Program("face.head", scanned_head, plain_scanned_head, head_inputs, {}),
    as_printed("face.faces.rgb", HEADS, shapes=FACES),
    as_printed("face.faces.grey", HEADS, shapes=FACES),
    as_printed(
        "face.language_model",
        {"main": (printed.lm, printed.Text, printed.Text, ff.f32[H])},
        shapes=LM_SHAPES,
        plain=renamed(LM, plain_language_model),
    ),
    Program(
        "face.lstm.layer_norm",
        lambda: {"main": (ff.scan(printed.lstm(H, D, norm=ff.layer_norm), init=printed.rest(H)), ff.Seq(ff.f32[D]))},
        lambda p, xs: loop(partial(plain_layer_norm_lstm, p), (xs.new_zeros(H), xs.new_zeros(H)), xs)[1],
        lambda rng, n: (floats(rng, n, D),),
        LAYER_NORM_LSTM,
        lengths=(0, 1, 5),
    ),
)
by_program = pytest.mark.parametrize("program", PRINTED, ids=lambda program: program.name)


@pytest.fixture(autouse=True)
def names(request, monkeypatch):
    """The attention decoder reads more than the text before it, so its layers are wider."""
    program = request.node.callspec.params.get("program") if hasattr(request.node, "callspec") else None
    if program is not None and program.name == "face.luong":
        for name, value in printed.attentive.items():
            monkeypatch.setattr(printed, name, value)


@by_program
@pytest.mark.parametrize("ragged", [False, True], ids=["padded", "ragged"])
def test_values_and_gradients(program: Program, ragged: bool) -> None:
    if ragged and not program.ragged:
        pytest.skip("its examples have one size")
    model = compiled(program)
    batch = examples(program, ragged)
    expected = plain_run(program, batch)
    compare(model_run(model, program, batch, ragged), expected)
    call = arguments(model, program, batch, ragged)
    for row, want in zip(rows_of(model.reference(*call, entry=program.entry), len(batch)), expected.outputs):
        for x, y in zip(row, want, strict=True):
            assert error(x, y) <= 1e-9


def test_the_model_compiled_in_the_block():
    """The last `model` of the block is the one with two inputs and two tasks."""
    model = printed.model
    assert model.entries == ("rgb", "grey")
    assert model.signature.splitlines()[0] == "rgb: RGB → (f32[1], f32[2])"
    age, sex = model(torch.randn(2, 4, 5, 1), entry="grey")
    assert age.shape == (2, 1) and sex.shape == (2, 2)


@by_program
def test_the_ordinary_training_loop(program: Program) -> None:
    """AdamW, clipping, ragged batches where the program has lists; dropout is on."""
    if program.entry == "sample":
        pytest.skip("generation is not trained")
    torch.manual_seed(0)
    model = compiled(program).float().train()
    single = lambda x: x.detach().float() if x.is_floating_point() else x
    batch = pytree.tree_map(single, examples(program, program.ragged))
    call = arguments(model, program, batch, program.ragged)
    parameters = list(model.parameters())
    if not parameters:
        pytest.skip("it has no parameters")
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    losses = []
    for _ in range(8):
        output = model(*call, entry=program.entry, seed=3)
        leaves = [y for row in rows_of(output, len(batch)) for y in row if y.requires_grad]
        if program.name in ("face.seq2seq.loss", "face.language_model"):
            loss = sum(y.sum() for y in leaves if not y.dim())
        else:
            loss = sum(((y - torch.linspace(-0.4, 0.3, y.numel()).reshape(y.shape)) ** 2).sum() for y in leaves)
        optimizer.zero_grad()
        loss.backward()
        assert clip_grad_norm_([p for p in parameters if p.grad is not None], 1.0).isfinite()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
