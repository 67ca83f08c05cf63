"""What the caller of a build knows of an engine, as its manifest carries it: data, ranges, layers.

On disk it is one flat object under ``passport``; a key that this release does not know stays as it
is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from engines.monitoring.summary import InputSummary

__all__ = [
    "FloatLayer",
    "FloatOperator",
    "InputSummary",
    "Passport",
    "PlacementRecord",
    "PromiseRecord",
    "RecipeRecord",
    "VersionRecord",
]


@dataclass(frozen=True, kw_only=True)
class FloatLayer:
    """A quantizable layer that the graph leaves in floating point, by which rule and why."""

    node: str
    op_type: str
    rule: str
    why: str


@dataclass(frozen=True, kw_only=True)
class FloatOperator:
    """An operator that stayed in float32 where the others became float16, and why."""

    node: str
    op_type: str
    why: str


@dataclass(frozen=True, kw_only=True)
class PlacementRecord:
    """Which layers read INT8.

    Attributes:
        profile: whose rules placed them.
        int8_layers: names of the layers.
        int8_mac_share: their share of all multiply-accumulates, 0 to 1.
        floating: the others.
        shapes: of inputs with free axes, by which work was counted; none in older manifests.
    """

    profile: str
    int8_layers: tuple[str, ...]
    int8_mac_share: float
    floating: tuple[FloatLayer, ...]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PlacementRecord:
        """From what the manifest stores."""
        floating = tuple(FloatLayer(**layer) for layer in data["floating"])
        shapes = {name: tuple(shape) for name, shape in data.get("shapes", {}).items()}
        layers = tuple(data["int8_layers"])
        return cls(**{**data, "int8_layers": layers, "floating": floating, "shapes": shapes})


@dataclass(frozen=True, kw_only=True)
class RecipeRecord:
    """The recipe that an engine was made by: groups left in float, and what the search found."""

    released: tuple[str, ...]
    found: Mapping[str, Any]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RecipeRecord:
        """From what the manifest stores."""
        return cls(**{**data, "released": tuple(data["released"])})


@dataclass(frozen=True, kw_only=True)
class PromiseRecord:
    """How a search kept a promise on accuracy.

    Attributes:
        flag: the promise, e.g. ``--min-sqnr 25``.
        kept_on_selection: on the samples that the search saw.
        how: a sentence.
        selection_samples: how many they are.
        released: groups left in float.
        cost: what they cost.
        cost_unit: of the cost.
        calibrator: method of the ranges.
    """

    flag: str
    kept_on_selection: bool
    how: str
    selection_samples: int
    released: tuple[str, ...]
    cost: float
    cost_unit: str
    calibrator: str

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PromiseRecord:
        """From what the manifest stores."""
        return cls(**{**data, "released": tuple(data["released"])})


@dataclass(frozen=True, kw_only=True)
class VersionRecord:
    """One version of an engine that was recalibrated: its data, its ranges, and what was decided.

    Attributes:
        version: 1 for the first build.
        engine_sha256: of its file.
        created: UTC.
        came_from: SHA-256 of the engine that was recalibrated; None for the first.
        how: ``built``, ``merged`` with the data before, or ``replaced`` by new data.
        samples: how many it was calibrated with, those before it among them.
        samples_sha256: digest of all their digests.
        statistics_sha256: of its ``*.stats.npz``.
        ranges_sha256: of its ``*.ranges.json``.
        verdict: against the engine that it came from; None for the first.
    """

    version: int
    engine_sha256: str
    created: str
    came_from: str | None
    how: str
    samples: int | None
    samples_sha256: str | None
    statistics_sha256: str | None
    ranges_sha256: str | None
    verdict: str | None


# Of a calibrated engine these are stated where there is none, too.
_STATED = ("preprocess", "labels")
_TUPLES = ("labels", "calibration_samples")


def _float_operators(data: Any) -> tuple[FloatOperator, ...]:
    return tuple(FloatOperator(**entry) for entry in data)


def _inputs(data: Any) -> tuple[InputSummary, ...]:
    return tuple(map(InputSummary.from_json, data))


def _history(data: Any) -> tuple[VersionRecord, ...]:
    return tuple(VersionRecord(**entry) for entry in data)


_RECORDS = {
    "history": _history,
    "inputs": _inputs,
    "placement": PlacementRecord.from_json,
    "float32_operators": _float_operators,
    "recipe": RecipeRecord.from_json,
    "promise": PromiseRecord.from_json,
}


@dataclass(frozen=True, kw_only=True)
class Passport:
    """What only the caller of ``build`` knows; None where it does not.

    Attributes:
        graph_hash: of the prepared float graph.
        sample_axes: which axis of each input counts samples.
        ranges_sha256: of the ``*.ranges.json``.
        statistics_sha256: of the ``*.stats.npz``.
        preprocess: how raw samples become inputs, as ``Preprocess.to_dict`` says it.
        labels: class names by label.
        calibrator: method of the ranges.
        samples: how many were calibrated with.
        calibration_samples: their digests, so that nothing is evaluated on them.
        inputs: what the calibration samples look like, for ``engine.drift``.
        improved_graph_hash: of the graph with corrected biases and scaled channels.
        improvement_samples: how many it was fitted to.
        placement: which layers read INT8.
        float32_operators: what stayed in float32 where the rest became float16.
        recipe: that it was made by.
        promise: that a search kept.
        release: name, version and last day that were signed, see ``engines.Release``.
        settings: flags of the build that decided on its INT8, to be given again.
        history: versions up to this one, oldest first; None for an engine that was only built.
        more: what else the file has: of the caller, or of another release.
    """

    graph_hash: str | None = None
    sample_axes: Mapping[str, Any] | None = None
    ranges_sha256: str | None = None
    statistics_sha256: str | None = None
    preprocess: Mapping[str, Any] | None = None
    labels: tuple[str, ...] | None = None
    calibrator: str | None = None
    samples: int | None = None
    calibration_samples: tuple[str, ...] | None = None
    inputs: tuple[InputSummary, ...] | None = None
    improved_graph_hash: str | None = None
    improvement_samples: int | None = None
    placement: PlacementRecord | None = None
    float32_operators: tuple[FloatOperator, ...] | None = None
    recipe: RecipeRecord | None = None
    promise: PromiseRecord | None = None
    release: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] | None = None
    history: tuple[VersionRecord, ...] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As the manifest stores it."""
        stated = _STATED if self.ranges_sha256 is not None else ()
        known = {name: value for name, value in vars(self).items() if name != "more"}
        stored = {n: _plain(v) for n, v in known.items() if v is not None or n in stated}
        return {**self.more, **stored}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Passport:
        """From what the manifest stores; what is not of this release's form is in ``more``."""
        known = {entry.name for entry in fields(cls)} - {"more"}
        more = {name: value for name, value in data.items() if name not in known}
        found = {n: v for n, v in data.items() if n in known and v is not None}
        for name in found.keys() & set(_TUPLES):
            found[name] = tuple(found[name])
        for name in found.keys() & _RECORDS.keys():
            if (record := _record(name, found[name])) is None:
                more[name] = found.pop(name)
            else:
                found[name] = record
        return cls(**found, more=more)


def _record(name: str, data: Any) -> Any:
    """A field's record; None where it is of another form."""
    try:
        return _RECORDS[name](data)
    except (KeyError, TypeError):
        return None


def _plain(value: Any) -> Any:
    """Records as objects, tuples as lists, inside of objects, too."""
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    if hasattr(value, "__dataclass_fields__"):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    return value
