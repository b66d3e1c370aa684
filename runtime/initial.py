"""Initial tensors of a program's parameters, and the modules that hold them under their dotted names."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ..compiler.errors import ParameterError, ShapeError, Source
from ..compiler.parameters import Parameter, names
from ..compiler.types import DType
from .dtypes import torch_dtype


def initial(parameter: Parameter, dtype: DType) -> torch.Tensor:
    """A parameter's first value, drawn from torch's generator.

    Arguments:
        parameter: what is to be initialised; its shape is settled.
        dtype: its dtype.

    Raises:
        ShapeError: an `init` function gives a tensor of another shape. ParameterError: `init` is of no known kind.
    """
    assert parameter.shape is not None
    tensor = torch.empty(parameter.shape, dtype=torch_dtype(dtype))
    init = parameter.init
    with torch.no_grad():
        if init is None:
            return tensor.uniform_(-parameter.bound(), parameter.bound())
        if isinstance(init, str) and init == "normal" and parameter.owner is not None:
            return tensor.normal_()
        if callable(init):
            made = init(tensor)
            if made is not None and tuple(made.shape) != tuple(tensor.shape):
                raise ShapeError(
                    f"init= of {parameter!r} gives a tensor of shape {tuple(made.shape)}", parameter.source
                )
            return tensor if made is None else made.to(tensor.dtype)
        if isinstance(init, (int, float, np.ndarray, np.generic, list, tuple, torch.Tensor)):
            value = init.detach() if isinstance(init, torch.Tensor) else torch.as_tensor(np.array(init))
            return tensor.copy_(value.expand(tensor.shape))
    raise ParameterError(f"init= of {parameter!r} is a number, an array or a function; got {init!r}", parameter.source)


class Held:
    """A torch tensor that a step closes over, under its owner's name."""

    def __init__(self, name: str, tensor: torch.Tensor):
        self.name, self.tensor = name, tensor


class Owned:
    """The parameters and held tensors of all entry points, each once."""

    def __init__(self) -> None:
        self.dtypes: dict[Parameter | Held, DType] = {}
        self._held: dict[int, Held] = {}
        self._made: dict[str, list[Held]] = {}

    def key(self, given: Any) -> Parameter | Held:
        """What stands for an entry of `Entry.parameters`."""
        if isinstance(given, Parameter):
            return given
        name, tensor = given
        if id(tensor) not in self._held:
            constant = "." not in name and not tensor.requires_grad
            # A step that makes a tensor makes it anew whenever it is traced.
            made = self._made.setdefault(name, []) if constant else []
            found = next((h for h in made if h.tensor.dtype == tensor.dtype and torch.equal(h.tensor, tensor)), None)
            if found is None:
                found = Held(name, tensor)
                made.append(found)
            self._held[id(tensor)] = found
        return self._held[id(tensor)]

    def names(self) -> dict[Parameter | Held, str]:
        """The full name of each.

        Raises:
            ParameterError: a held tensor has the name of a parameter.
        """
        full: dict[Parameter | Held, str] = dict(names([p for p in self.dtypes if isinstance(p, Parameter)]))
        parameters, taken = set(full.values()), set(full.values())
        for held in self.dtypes:
            if not isinstance(held, Held):
                continue
            if held.name in parameters:
                raise ParameterError(
                    f"two parameters are called {held.name!r}; keep the module under another name, or rename the other"
                )
            # Modules that stood under one variable, as those of a list in a Python loop, are numbered.
            owner, dot, rest = held.name.partition(".")
            numbered = (f"{owner}_{i}{dot}{rest}" if i else held.name for i in itertools.count())
            full[held] = next(name for name in numbered if name not in taken)
            taken.add(full[held])
        return full


def made(parameter: Parameter, dtype: DType) -> torch.Tensor:
    """The tensor of a parameter or buffer, as a module holds it."""
    value = initial(parameter, dtype)
    return nn.Parameter(value) if parameter.learned else value


def attach(root: nn.Module, tensors: Mapping[str, torch.Tensor], sources: Mapping[str, Source | None]) -> None:
    """Register tensors under dotted names: parameters as parameters, others as buffers.

    Arguments:
        root: the module that holds them.
        tensors: by name.
        sources: where the user made them, by name, as far as that is known.

    Raises:
        ParameterError: a name is that of a parameter and of a scope at once, or of an attribute of modules.
    """
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        module: Any = root
        for part in path:
            if part not in module._modules:
                _check_free(module, part, name, sources.get(name))
                module.add_module(part, nn.Module())
            module = module._modules[part]
        _check_free(module, last, name, sources.get(name))
        if isinstance(tensor, nn.Parameter):
            module.register_parameter(last, tensor)
        else:
            module.register_buffer(last, tensor)


def _check_free(module: nn.Module, part: str, name: str, source: Source | None) -> None:
    if part in module._modules:
        raise ParameterError(f"a parameter is called {name!r}, as a scope or layer is. Choose another name", source)
    if part in module._parameters or part in module._buffers:
        raise ParameterError(
            f"{part!r} in {name!r} is a scope or layer and also the name of a parameter. Choose another name", source
        )
    if hasattr(module, part):
        raise ParameterError(
            f"the name {name!r} cannot be used: {part!r} is an attribute of every torch module. Choose another name or "
            "scope",
            source,
        )


def fetch(root: nn.Module, name: str) -> torch.Tensor:
    """The tensor under a dotted name, as it is now (after `.to`, `functional_call`, a parametrisation …)."""
    module: Any = root
    for part in name.split("."):
        module = getattr(module, part)
    return module
