"""Stand-ins for NVIDIA's objects that know NVIDIA's own signatures.

Without its libraries TensorRT's Python bindings cannot make a builder or an engine, but their
classes are real, and every method's docstring begins with the signature pybind11 generated:

    set_memory_pool_limit(self: IBuilderConfig, pool: MemoryPoolType, pool_size: int) -> None

A ``Stand`` of such a class has the attributes that the class has, no more. A call must fit one of
the signatures in number, names and types of its arguments; assigning needs a setter. So code
driven with stands touches only what that release has, and ``hasattr`` answers as that release
would. What a call returns comes from its return annotation, or from ``answers``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

__all__ = ["Parameter", "Signature", "Stand", "Surface"]

_DECLARATION = re.compile(r"^(?:\d+\. )?\w*\((?P<parameters>.*)\) -> (?P<result>.+)$")
# C++ names that pybind11 printed because the class was registered later.
_PYTHON_NAMES = {"IParserError": "ParserError", "IEngineInspector": "EngineInspector"}
_NEEDS_LIBRARY = ("Builder", "OnnxParser", "Runtime")
_PLAIN: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "SupportsInt": int,
    "float": (int, float),
    "SupportsFloat": (int, float),
    "bool": bool,
    "str": str,
    "buffer": (bytes, bytearray, memoryview),
    "Buffer": (bytes, bytearray, memoryview),
    "tuple": tuple,
    "list": list,
    "Dims": (tuple, list),
    "object": object,
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a signature, without ``self``."""

    name: str
    kind: str
    optional: bool


@dataclass(frozen=True)
class Signature:
    """One overload."""

    parameters: tuple[Parameter, ...]
    result: str


class Surface:
    """A TensorRT module whose builder, parser and runtime are stands.

    Args:
        module: NVIDIA's bindings.
        answers: ``"Class.attribute"`` → what reading it or calling it gives; a callable is called
            with the stand and the arguments.
    """

    def __init__(self, module: ModuleType, answers: dict[str, Any]) -> None:
        self._module = module
        self.answers = answers
        self.touched: list[str] = []

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._module, name)
        if name not in _NEEDS_LIBRARY:
            return real

        def construct(*positional: Any, **named: Any) -> Stand:
            stand = Stand(self, real)
            _fit(self, f"{name}()", _signatures(real.__init__), positional, named)
            self.touched.append(f"{name}()")
            return stand

        return construct

    def kind(self, annotation: str) -> Any:
        """The class, plain type or tuple of types that an annotation means."""
        name = re.split(r"[.:]", annotation.split("[")[0])[-1]
        if name in ("List", "Sequence"):
            return (list, tuple)
        if name in _PLAIN:
            return _PLAIN[name]
        scope: Any = self._module
        for part in re.split(r"\.|::", annotation):
            scope = getattr(scope, _PYTHON_NAMES.get(part, part), scope)
        if not isinstance(scope, type):
            raise NotImplementedError(f"annotation {annotation!r}: extend surface.py")
        return scope


class Stand:
    """An object of one of NVIDIA's classes, as far as its signatures go."""

    def __init__(self, surface: Surface, real: type) -> None:
        object.__setattr__(self, "_surface", surface)
        object.__setattr__(self, "_real", real)
        object.__setattr__(self, "values", {})

    def __getattr__(self, name: str) -> Any:
        surface, real = self._surface, self._real
        attribute = getattr(real, name)  # AttributeError where this release lacks it
        key = f"{real.__name__}.{name}"
        surface.touched.append(key)
        if isinstance(attribute, property):
            if name in self.values:
                return self.values[name]
            (signature,) = _signatures(attribute.fget)
            return _answer(surface, key, self, (), signature)

        def call(*positional: Any, **named: Any) -> Any:
            signature, values = _fit(surface, key, _signatures(attribute), positional, named)
            return _answer(surface, key, self, values, signature, called=True)

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        attribute = getattr(self._real, name)
        key = f"{self._real.__name__}.{name} ="
        assert isinstance(attribute, property), f"{key} is a method"
        assert attribute.fset is not None, f"{key} is read-only"
        self._surface.touched.append(key)
        _fit(self._surface, key, _signatures(attribute.fset), (value,), {})
        self.values[name] = value

    def __bytes__(self) -> bytes:
        key = f"{self._real.__name__}.__bytes__"
        return self._surface.answers[key]


def _answer(
    surface: Surface,
    key: str,
    stand: Stand,
    values: tuple[Any, ...],
    signature: Signature,
    *,
    called: bool = False,
) -> Any:
    if key in surface.answers:
        answer = surface.answers[key]
        return answer(stand, *values) if callable(answer) and called else answer
    if signature.result == "None":
        return None
    kind = surface.kind(signature.result)
    defaults: dict[Any, Any] = {bool: True, int: 0, str: "", list: [], (list, tuple): []}
    if kind in defaults:
        return defaults[kind]
    return Stand(surface, kind)


def _fit(
    surface: Surface,
    key: str,
    signatures: tuple[Signature, ...],
    positional: tuple[Any, ...],
    named: dict[str, Any],
) -> tuple[Signature, tuple[Any, ...]]:
    """The first overload that takes these arguments, and the arguments in its order."""
    bound = [_bind(surface, s, positional, named) for s in signatures]
    fitting = (i for i, values in enumerate(bound) if not isinstance(values, str))
    first = next(fitting, None)
    assert first is not None, f"{key} takes no such arguments: {'; '.join(map(str, bound))}"
    return signatures[first], bound[first]  # type: ignore[return-value]


def _bind(
    surface: Surface, signature: Signature, positional: tuple[Any, ...], named: dict[str, Any]
) -> tuple[Any, ...] | str:
    """The arguments in the order of the signature, or why they do not fit it."""
    parameters = signature.parameters
    if len(positional) > len(parameters):
        return f"{len(positional)} arguments for {len(parameters)} parameters"
    given = dict(zip((p.name for p in parameters), positional, strict=False)) | named
    if unknown := set(given) - {p.name for p in parameters}:
        return f"no parameter {sorted(unknown)}"
    for parameter in parameters:
        if parameter.name not in given:
            if not parameter.optional:
                return f"parameter {parameter.name} is missing"
            continue
        value, kind = given[parameter.name], surface.kind(parameter.kind)
        fits = isinstance(value._real if isinstance(value, Stand) else value, kind) or (
            isinstance(value, Stand) and issubclass(value._real, kind)
        )
        # An enum is no int to pybind11, and a bool is none either by intention.
        if not fits or (kind is int and isinstance(value, bool)):
            return f"{parameter.name} is {value!r}, not {parameter.kind}"
    return tuple(given[p.name] for p in parameters if p.name in given)


def _signatures(function: Callable[..., Any]) -> tuple[Signature, ...]:
    lines = (function.__doc__ or "").splitlines()
    found = [m for line in lines if (m := _DECLARATION.match(line.strip()))]
    assert found, f"{function} has no signature in its docstring"
    return tuple(Signature(tuple(_parameters(m["parameters"])), m["result"].strip()) for m in found)


def _parameters(text: str) -> Iterator[Parameter]:
    """``self: X, pool: T, size: int = 0`` without the first."""
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(text + ","):
        depth += {"[": 1, "(": 1, "<": 1, "]": -1, ")": -1, ">": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    for part in parts[1:]:
        declared, _, default = part.partition(" = ")
        name, _, kind = declared.partition(": ")
        yield Parameter(name.strip(), kind.strip(), bool(default))
