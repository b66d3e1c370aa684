"""The real data of the examples: from the standard library and packages, split the same way in every run.

Texts are strings; `padded` makes the tensors of symbol numbers that a model takes. Where a function gives two parts,
one is to learn from, and the second is held out. Digits and lines are split example by example, by a seed that the
example names; texts by module. Baselines that need more than a line stand beside their data.

The examples' settings (widths, rates, numbers of steps) were chosen on the splits of seed 0, and for texts on the
modules `VALIDATION`. What is reported is of the splits of seed 1 and of the modules `HELD_OUT`, and no setting was
changed after they were looked at. Digits, names and lines are split anew from the same ones: some that are held out
by seed 1 were held out by seed 0, too.
"""

from __future__ import annotations

import ast
import io
import keyword
import math
import sysconfig
import tokenize
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

import foldfuse as ff

ALPHABET = "\n" + "".join(map(chr, range(ord(" "), ord("~") + 1)))
SYMBOLS = len(ALPHABET) + 1
"""How many symbol numbers there are: the alphabet, and one that stands for every other character."""

BIT = math.log(2)
"""One bit in nats, the unit of `ff.cross_entropy` and of torch's."""

SPELLED = "zero one two three four five six seven eight nine".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
CLASSES = "space name keyword number string comment operator".split()
"""The token classes of `tagged_source`, by number."""

NODES = sorted(name for name, kind in vars(ast).items() if isinstance(kind, type) and issubclass(kind, ast.AST))
"""The kinds of nodes of Python's syntax trees, by number."""

# Modules that are one file in every supported version of Python.
TRAINING = """
    argparse ast bdb calendar cmd codecs configparser contextlib copy dataclasses difflib dis doctest enum fractions
    ftplib functools gettext gzip inspect ipaddress locale mailbox mimetypes ntpath optparse os pdb pickle pickletools
    platform plistlib posixpath pprint pydoc random selectors shutil smtplib socket ssl statistics subprocess tarfile
    tempfile threading tokenize trace traceback turtle types typing uuid warnings zipapp
""".split()
VALIDATION = "bisect csv fileinput glob heapq queue shelve socketserver textwrap timeit weakref".split()
HELD_OUT = "base64 code compileall filecmp graphlib netrc pkgutil pyclbr shlex symtable wave webbrowser".split()
# Modules of packages, held out as well where one wants more than `HELD_OUT`.
PACKAGED = """
    asyncio/selector_events asyncio/streams collections/__init__ concurrent/futures/_base ctypes/util
    email/_header_value_parser html/parser importlib/_bootstrap_external logging/config multiprocessing/managers
    multiprocessing/pool unittest/loader urllib/robotparser wsgiref/handlers xml/sax/expatreader xmlrpc/client
""".split()


class Images(NamedTuple):
    """Images [n, height, width, channels] between 0 and 1, and the digit [n] that each shows."""

    images: torch.Tensor
    labels: torch.Tensor


class Lines(NamedTuple):
    """Lines of text, and the number [n] of the module that each comes from."""

    lines: list[str]
    modules: torch.Tensor


class Tagged(NamedTuple):
    """A text as symbol numbers [n], and the token class [n] of each character (see `CLASSES`)."""

    symbols: torch.Tensor
    classes: torch.Tensor


def places(count: int, fraction: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the places of the examples to learn from, and of the held-out `fraction`, shuffled with a fixed seed."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    held_out = round(count * fraction)
    return order[held_out:], order[:held_out]


def digits(seed: int, fraction: float = 0.25) -> tuple[Images, Images]:
    """Return scikit-learn's 1,797 handwritten digits of 8 x 8 grey pixels, to learn from and held out.

    Args:
        seed: of the split.
        fraction: the part that is held out.

    Returns:
        Two `Images` of one channel: [1348, 8, 8, 1] and [449, 8, 8, 1] if nothing else is said.
    """
    from sklearn.datasets import load_digits

    loaded = load_digits()
    images = torch.tensor(loaded.images, dtype=torch.float32)[..., None] / 16
    labels = torch.tensor(loaded.target, dtype=torch.int64)
    return tuple(Images(images[part], labels[part]) for part in places(len(labels), fraction, seed))


def colour_digits(seed: int, fraction: float = 0.25) -> tuple[Images, Images]:
    """Return the digits of `digits`, same split and order, each painted in one random colour on another.

    The two colours are drawn by the seed, too, and apart from each other by at least 0.6 in some channel, so ink is now
    brighter than paper and now darker: the grey image is not just a sum of the channels.

    Returns:
        Two `Images` of three channels: [1348, 8, 8, 3] and [449, 8, 8, 3] if nothing else is said.
    """
    generator = torch.Generator().manual_seed(seed + 1)
    painted = []
    for grey, labels in digits(seed, fraction):
        paper, ink = torch.rand(2, len(labels), 1, 1, 3, generator=generator)
        channel = torch.randint(3, (len(labels), 1, 1, 1), generator=generator)
        bright = torch.rand(len(labels), 1, 1, 1, generator=generator) < 0.5
        high, low = (torch.rand(2, len(labels), 1, 1, 1, generator=generator) * 0.2).unbind()
        chosen = torch.arange(3) == channel
        paper = torch.where(chosen, torch.where(bright, 1 - high, low), paper)
        ink = torch.where(chosen, torch.where(bright, low, 1 - high), ink)
        painted.append(Images(paper + (ink - paper) * grey, labels))
    return tuple(painted)


def spelled_digits() -> list[str]:
    """Return the ten English words for the digits, by digit."""
    return list(SPELLED)


def spelled_number(number: int) -> str:
    """Return the English words for a number from 20 to 99."""
    tens, units = divmod(number, 10)
    return TENS[tens - 2] + (f"-{SPELLED[units]}" if units else "")


def number_images(source: Images, numbers: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Return images of numbers of two digits, each digit a random one of that kind among given images.

    Args:
        source: images of digits, such as a part of `digits(seed)`, which the digits are taken from.
        numbers: whole numbers [n] from 0 to 99.
        generator: chooses the images; torch's own when left out.

    Returns:
        Images [n, 8, 16, 1].
    """
    sides = []
    for digit in (numbers // 10, numbers % 10):
        shows = (source.labels == digit[:, None]).float()
        sides.append(source.images[torch.multinomial(shows, 1, generator=generator).squeeze(1)])
    return torch.cat(sides, dim=2)


def logistic_regression(training: Images, held_out: Images) -> float:
    """Return the held-out accuracy of scikit-learn's logistic regression on pixels: a baseline of reading digits."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(max_iter=1000).fit(training.images.flatten(1), training.labels)
    return float(fitted.score(held_out.images.flatten(1), held_out.labels))


def symbols(text: str, alphabet: str = ALPHABET) -> torch.Tensor:
    """Return a text as symbol numbers [n]; a character outside the alphabet becomes `len(alphabet)`."""
    number = {character: place for place, character in enumerate(alphabet)}
    return torch.tensor([number.get(character, len(alphabet)) for character in text], dtype=torch.int64)


def characters(numbers: torch.Tensor | list[int], alphabet: str = ALPHABET) -> str:
    """Return symbol numbers as a text, with a replacement sign for the symbol outside the alphabet."""
    return "".join((alphabet + "\N{REPLACEMENT CHARACTER}")[number] for number in numbers)


def padded(texts: list[str], alphabet: str = ALPHABET) -> tuple[torch.Tensor, torch.Tensor]:
    """Return texts as symbol numbers [n, longest], padded with zeros, and their lengths [n]: what `ff.ragged` takes."""
    rows = [symbols(text, alphabet) for text in texts]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])


@cache
def module_source(module: str) -> str:
    """Return the source text of a module of the standard library that is one file."""
    return (Path(sysconfig.get_paths()["stdlib"]) / f"{module}.py").read_text(encoding="utf-8")


def source_text(modules: list[str]) -> torch.Tensor:
    """Return the source of modules, one after the other, as one tensor of symbol numbers [n]."""
    return symbols("\n".join(map(module_source, modules)))


def counted_bits(training: torch.Tensor, held_out: torch.Tensor) -> tuple[float, float]:
    """Return held-out bits per character of a unigram and of a bigram model, both counted on the training text.

    The bigram is smoothed towards the unigram, which weighs as much as 100 sightings of each first character: the best
    round weight on the text of `VALIDATION`, so that the baseline is no straw man.
    """
    unigram = torch.bincount(training, minlength=SYMBOLS).double() + 1
    unigram /= unigram.sum()
    pairs = torch.bincount(training[:-1] * SYMBOLS + training[1:], minlength=SYMBOLS**2).double()
    pairs = pairs.view(SYMBOLS, SYMBOLS) + 100 * unigram
    bigram = pairs / pairs.sum(1, keepdim=True)
    before, after = held_out[:-1], held_out[1:]
    return tuple(-probability.log2().mean().item() for probability in (unigram[after], bigram[before, after]))


def windows(texts: torch.Tensor | tuple, starts: torch.Tensor, length: int):
    """Return the windows [rows, length] that begin at `starts` [rows], of one tensor or of each of a tuple of them."""
    if isinstance(texts, tuple):
        return tuple(windows(text, starts, length) for text in texts)
    return texts[starts[:, None] + torch.arange(length)]


def source_lines(
    modules: list[str], seed: int, least: int = 20, most: int = 80, fraction: float = 0.2
) -> tuple[Lines, Lines]:
    """Return lines of the source of some modules, to learn from and held out, each with the number of its module.

    A line is stripped, has from `least` to `most` characters, and stands in one of the modules only: a held-out line is
    never seen in training.

    Args:
        modules: names of modules; a line's number is the place of its module here.
        seed: of the split.
        least: fewest characters.
        most: most characters.
        fraction: the part that is held out.

    Returns:
        Two `Lines`.
    """
    found: dict[str, set[int]] = {}
    for number, module in enumerate(modules):
        for line in module_source(module).splitlines():
            if least <= len(line.strip()) <= most:
                found.setdefault(line.strip(), set()).add(number)
    kept = [(line, *numbers) for line, numbers in found.items() if len(numbers) == 1]
    parts = ([kept[place] for place in part.tolist()] for part in places(len(kept), fraction, seed))
    return tuple(Lines([line for line, _ in part], torch.tensor([number for _, number in part])) for part in parts)


def token_classes(text: str) -> torch.Tensor:
    """Return the number [n] of the token class of every character of a Python text, as `tokenize` sees it."""
    starts = [0]
    for line in text.split("\n"):  # as `tokenize` counts lines: a form feed ends none
        starts.append(starts[-1] + len(line) + 1)
    of = [0] * len(text)
    names = {tokenize.NUMBER: "number", tokenize.STRING: "string", tokenize.COMMENT: "comment", tokenize.OP: "operator"}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        name = names.get(token.type)
        if token.type == tokenize.NAME:
            name = "keyword" if keyword.iskeyword(token.string) else "name"
        elif tokenize.tok_name[token.type].startswith(("FSTRING", "TSTRING")):
            name = "string"
        if name is not None:
            begin, end = (starts[row - 1] + column for row, column in (token.start, token.end))
            of[begin:end] = [CLASSES.index(name)] * (end - begin)
    return torch.tensor(of, dtype=torch.int64)


def tagged_source() -> tuple[Tagged, Tagged]:
    """Return Python source with the token class of every character: of the modules `TRAINING`, and of `HELD_OUT`.

    Returns:
        Two `Tagged`, each one long text; `windows(tagged, starts, length)` cuts both of its tensors alike.
    """

    def tagged(modules: list[str]) -> Tagged:
        texts = [module_source(module) + "\n" for module in modules]
        return Tagged(symbols("".join(texts)), torch.cat([token_classes(text) for text in texts]))

    return tagged(TRAINING), tagged(HELD_OUT)


def functions(modules: list[str], least: int = 2, most: int = 150) -> list[ast.FunctionDef]:
    """Return the syntax trees of the functions in modules that have `least` calls and at most `most` nodes."""
    found = []
    for node in (node for module in modules for node in ast.walk(ast.parse(module_source(module)))):
        if isinstance(node, ast.FunctionDef) and len(inner := list(ast.walk(node))) <= most:
            if sum(isinstance(below, ast.Call) for below in inner) >= least:
                found.append(node)
    return found


def call_in_call(node: ast.AST, inside: bool = False) -> bool:
    """Return whether some call stands inside of another, below a node that itself stands inside of a call or not."""
    is_call = isinstance(node, ast.Call)
    return (is_call and inside) or any(call_in_call(child, inside or is_call) for child in ast.iter_child_nodes(node))


def copies(count: int, length: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the copy task (Graves, Wayne, Danihelka 2014): random bits, which are to be given back after a mark.

    Args:
        count: how many sequences.
        length: of what is to be copied.
        generator: of the bits.

    Returns:
        Inputs [count, 2 * length + 2, 6]: a mark in channel 4, vectors of four bits, a mark in channel 5, and nothing
        while the bits are given back; and the bits [count, length, 4] that are to come last.
    """
    bits = torch.randint(2, (count, length, 4), generator=generator).float()
    given = torch.zeros(count, 2 * length + 2, 6)
    given[:, 1 : length + 1, :4] = bits
    given[:, 0, 4] = given[:, length + 1, 5] = 1
    return given, bits


def copying_lstm(hidden: int = 29) -> ff.compiler.expression.Expression:
    """Return the baseline of the copy task: an LSTM with a dense layer on every state."""
    gates, out = ff.dense(4 * hidden), ff.dense(4)

    def step(carry, x):
        h, c = carry
        i, f, g, o = ff.chunk(gates(ff.concat(x, h)), 4)
        c = ff.sigmoid(f) * c + ff.sigmoid(i) * ff.tanh(g)
        h = ff.sigmoid(o) * ff.tanh(c)
        return (h, c), out(h)

    return ff.scan(step, init=(ff.zeros(hidden), ff.zeros(hidden)))


def name_pairs(
    language: str, seed: int, kinds: tuple[str, ...] = ("territories", "languages"), fraction: float = 0.2
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return pairs of an English name and the same in another language, from Unicode's CLDR, by way of Babel.

    Every English name and every name of the other language occurs once. Pairs that are written alike stay in: filter
    them where they would make a task too easy.

    Args:
        language: CLDR's code, such as `"de"` or `"fr"`.
        seed: of the split.
        kinds: attributes of `babel.Locale`, such as `"territories"`, `"languages"`, `"scripts"`, `"currencies"`.
        fraction: the part that is held out.

    Returns:
        The pairs to learn from, and the held-out ones.
    """
    from babel import Locale

    english, other = Locale("en"), Locale(language)
    pairs: dict[str, str] = {}
    for kind in kinds:
        first, second = getattr(english, kind), getattr(other, kind)
        for code in sorted(set(first) & set(second)):
            if second[code] not in pairs.values():
                pairs.setdefault(first[code], second[code])
    listed = list(pairs.items())
    return tuple([listed[place] for place in part.tolist()] for part in places(len(listed), fraction, seed))


def date_pairs(
    seed: int, languages: Sequence[str] = ("en",), count: int = 4000, fraction: float = 0.2
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return pairs of a date as CLDR writes it (medium, long or full) and as ISO 8601 does, by way of Babel.

    Days are drawn from 1950 to 2049, and no day is drawn twice. They are the same in all languages: a held-out day is
    in training in no language and in no form.

    Args:
        seed: of the days, of their forms and of the split.
        languages: CLDR's codes.
        count: how many days.
        fraction: the part that is held out.

    Returns:
        The pairs to learn from, and the held-out ones: `("Thursday, March 12, 2020", "2020-03-12")`. One language
        comes after the other.
    """
    from datetime import date

    from babel.dates import format_date

    generator = torch.Generator().manual_seed(seed)
    first, last = date(1950, 1, 1).toordinal(), date(2049, 12, 31).toordinal()
    drawn = first + torch.randperm(last - first + 1, generator=generator)[:count]
    days = [date.fromordinal(day) for day in drawn.tolist()]
    forms = [("medium", "long", "full")[form] for form in torch.randint(3, (count,), generator=generator).tolist()]
    parts = [part.tolist() for part in places(count, fraction, seed)]

    def pair(place: int, language: str) -> tuple[str, str]:
        return format_date(days[place], forms[place], locale=language), days[place].isoformat()

    return tuple([pair(place, language) for language in languages for place in part] for part in parts)
