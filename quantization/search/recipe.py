"""recipe.yaml: what a search found, so that the engine can be made again without searching."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from artefacts.errors import ArtefactError
from artefacts.faults import reading
from artefacts.files import read_bounded, write_atomic
from artefacts.texts import shown
from artefacts.yaml_documents import parse_yaml
from quantization.improve.methods import Methods
from quantization.placement import ATTENTIONS, Attention

__all__ = ["Recipe"]

_FORMAT = 1
# A recipe may come from elsewhere: nothing larger is parsed as YAML.
_LIMIT_BYTES = 4 << 20
_NAMES = ("exclude", "released", "fitted_without")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything but the model and the samples.

    Attributes:
        graph_hash: of the prepared model.
        profile: of the placement, e.g. "tensorrt".
        exclude: patterns the user kept in float.
        released: names of the fusion groups the search left in float, sorted.
        calibrator: method of the ranges, e.g. "mse".
        methods: the improvements; None where calibration alone was better.
        fitted_without: groups that were in float when the improvements were fitted, sorted.
        improvement_samples: how many samples they were fitted to.
        attention: whether its products are INT8, see ``place``.
        weights: how weights are stored, see ``insert_qdq``.
        unsigned: uint8 where values are never negative, see ``place``.
        held_out: whether a part of the calibration samples was kept to judge by.
        seed: of the improvements and splits.
        samples_digest: of the calibration samples, so that others are noticed.
        found: what the search promised, for people: score, goal, unit, cost, share of INT8.
    """

    graph_hash: str
    profile: str
    exclude: tuple[str, ...] = ()
    released: tuple[str, ...] = ()
    calibrator: str
    methods: Methods | None
    fitted_without: tuple[str, ...] = ()
    improvement_samples: int = 0
    attention: Attention = "auto"
    weights: Literal["int8", "float"] = "int8"
    unsigned: bool = False
    held_out: bool = False
    seed: int = 0
    samples_digest: str
    found: Mapping[str, Any] = field(default_factory=dict)

    def check(self, *, graph_hash: str, samples_digest: str) -> None:
        """Refuse another model or other samples.

        Raises:
            ArtefactError: one of them differs.
        """
        for what, wanted, got in (
            ("prepared graph", self.graph_hash, graph_hash),
            ("calibration data", self.samples_digest, samples_digest),
        ):
            if wanted != got:
                raise ArtefactError(
                    f"recipe is for {what} {wanted[:12]}, found {got[:12]}, expected the same; "
                    "give the model and samples it was found with, or search again"
                )

    def save(self, path: str | Path) -> None:
        """Write the recipe, all of it or nothing.

        Raises:
            InputError: the folder cannot be written to.
        """
        content = {"format": _FORMAT, **dataclasses.asdict(self)}
        for name in _NAMES:
            content[name] = list(getattr(self, name))
        content["found"] = dict(self.found)
        text = yaml.dump(content, Dumper=_Plain, sort_keys=False, allow_unicode=True)
        write_atomic(path, text.encode())

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe.

        Raises:
            InputError: no such file, or too large.
            ArtefactError: not a recipe, or damaged.
        """
        data = read_bounded(path, limit_bytes=_LIMIT_BYTES, what="recipe")
        remedy = "expected a recipe.yaml written by this program; search again or correct it"
        with reading(path, "recipe", remedy=remedy):
            return cls._parse(parse_yaml(data))

    @classmethod
    def _parse(cls, content: Any) -> Recipe:
        if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
            raise ValueError(f"format is not {_FORMAT}")
        names = {entry.name for entry in dataclasses.fields(cls)}
        # A field that this version does not know may change the model: refused, not ignored.
        if set(content) - names:
            raise ValueError(f"unknown field {shown(min(set(content) - names, key=str))}")
        for name in ("graph_hash", "profile", "calibrator", "samples_digest"):
            if not isinstance(content[name], str):
                raise TypeError(f"{name} is {shown(content[name])}, not text")
        for name in _NAMES:
            entries = content.get(name, ())
            if not isinstance(entries, list | tuple) or not all(
                isinstance(entry, str) for entry in entries
            ):
                raise TypeError(f"{name} is no list of names")
            content[name] = tuple(content.get(name, ()))
        for name in ("seed", "improvement_samples"):
            # Not isinstance: True is an int to Python, and no number of samples.
            if type(content.get(name, 0)) is not int or content.get(name, 0) < 0:
                raise TypeError(f"{name} is {shown(content[name])}, not a whole number")
        for name in ("unsigned", "held_out"):
            if not isinstance(content.get(name, False), bool):
                raise TypeError(f"{name} is {shown(content[name])}, not true or false")
        if content.get("attention", "auto") not in ATTENTIONS:
            raise TypeError(f"attention is {shown(content['attention'])}, not auto, int8 or float")
        if content.get("weights", "int8") not in ("int8", "float"):
            raise TypeError(f"weights is {shown(content['weights'])}, not int8 or float")
        methods = content["methods"]
        if methods is not None:
            if not isinstance(methods, dict) or not all(
                isinstance(value, bool) for value in methods.values()
            ):
                raise TypeError("methods are not all true or false")
            content["methods"] = Methods(**methods)
        _check_found(content.get("found", {}))
        return cls(**content)


class _Plain(yaml.SafeDumper):
    """Writes what appears twice twice: readers refuse aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _check_found(found: object) -> None:
    """It goes into manifests: values of JSON by name; the reader has bounded how many."""
    if not isinstance(found, dict):
        raise TypeError(f"found is {shown(found)}, not values by name")
    beneath: list[tuple[object, object]] = list(found.items())
    while beneath:
        name, value = beneath.pop()
        if not isinstance(name, str):
            raise TypeError(f"found has {shown(name)}: {shown(value)}, not a value by name")
        if isinstance(value, dict):
            beneath += value.items()
        elif isinstance(value, list):
            beneath += [(name, entry) for entry in value]
        elif not isinstance(value, str | int | float | bool | None):
            raise TypeError(f"found has {shown(name)}: {shown(value)}, not a plain value")
        elif isinstance(value, int | float) and not abs(value) < math.inf:
            raise TypeError(f"found has {shown(name)}: {shown(value)}, not a finite number")
