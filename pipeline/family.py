"""The files of one build, found from any of them: by name, and held together by their hashes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import engines
from artefacts.errors import ArtefactError, InputError
from artefacts.files import sha256_file
from calibrators.ranges.ranges import Ranges
from graphs.files import load_model
from graphs.identity import graph_hash
from pipeline.paths import SUFFIXES, Paths
from quantization.write.insert import METADATA_GRAPH, METADATA_PROFILE, METADATA_RANGES

__all__ = ["Family", "family_of", "is_artefact"]

_FLOATS = (".improved.onnx", ".prepared.onnx")
_BUILT_FROM = (".int8.onnx", ".portable.onnx", ".fp16.onnx")
_ENGINES = (".engine", ".plan")


@dataclass(frozen=True, kw_only=True)
class Family:
    """Files that belong together.

    Attributes:
        float_model: the graph that ``int8`` was made from: improved, or as it was prepared.
        int8: the Q/DQ model.
        ranges: that it was made with.
        profile: whose placement it has.
    """

    float_model: Path
    int8: Path
    ranges: Path
    profile: str


def is_artefact(path: Path) -> bool:
    """Whether a file is named as one that a build writes beside its engine, or is an engine."""
    return _without_manifest(path).name.endswith((*_ENGINES, *SUFFIXES))


def family_of(path: Path) -> Family:
    """The float graph, Q/DQ model and ranges that lie beside a file of a build.

    Args:
        path: an engine, its manifest, or anything that was written with it.

    Raises:
        InputError: a file is missing.
        ArtefactError: the files are not of one build.
        EngineError: the manifest of the engine is missing or damaged.
    """
    engine = _without_manifest(path)
    beside = Paths(onnx=Path(), engine=_as_engine(engine)).beside
    int8 = _present(beside(".int8.onnx"), path)
    if engine.suffix in _ENGINES:
        _check_engine(engine, [beside(suffix) for suffix in _BUILT_FROM])
    facts = {entry.key: entry.value for entry in load_model(int8).metadata_props}
    wanted = facts.get(METADATA_GRAPH)
    if wanted is None:
        raise ArtefactError(
            f"model {int8} does not say which graph it was made from, expected one that this "
            "project wrote; a model that came quantized has no float graph here"
        )
    ranges = _present(beside(".ranges.json"), path)
    found = Ranges.load(ranges)
    if found.digest != facts.get(METADATA_RANGES) and found.graph_hash != wanted:
        raise ArtefactError(
            f"ranges {ranges} are of graph {found.graph_hash[:12]}, expected {wanted[:12]} of "
            f"{int8}: files of two builds; build again"
        )
    return Family(
        float_model=_float_model([beside(suffix) for suffix in _FLOATS], int8, wanted),
        int8=int8,
        ranges=ranges,
        profile=facts.get(METADATA_PROFILE, "tensorrt"),
    )


def _without_manifest(path: Path) -> Path:
    """The engine of a manifest, ``out/m.engine.json`` → ``out/m.engine``; any other file itself."""
    manifest = path.name.endswith(tuple(f"{ending}.json" for ending in _ENGINES))
    return path.with_suffix("") if manifest else path


def _as_engine(path: Path) -> Path:
    """The name of an engine, ``out/m.ranges.json`` → ``out/m.engine``."""
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            return path.with_name(f"{path.name.removesuffix(suffix)}.engine")
    return path


def _present(path: Path, given: Path) -> Path:
    if not path.is_file():
        raise InputError(
            f"no {path.name} beside {given}, expected the files that the build wrote with it; copy "
            "the whole folder, or build again"
        )
    return path


def _float_model(candidates: list[Path], int8: Path, wanted: str) -> Path:
    said = []
    for path in candidates:
        if path.is_file():
            found = graph_hash(load_model(path))
            if found == wanted:
                return path
            said.append(f"{path.name} is {found[:12]}")
    raise ArtefactError(
        f"model {int8} was made from graph {wanted[:12]}, expected it beside "
        f"({', '.join(said) or 'no float model is there'}): files of two builds; build again"
    )


def _check_engine(engine: Path, sources: list[Path]) -> None:
    """Refuse an engine that was built from none of the models beside it."""
    wanted = engines.read_manifest(engine).onnx.get("sha256")
    present = [path for path in sources if path.is_file()]
    if wanted not in {sha256_file(path) for path in present}:
        names = ", ".join(path.name for path in present)
        raise ArtefactError(
            f"engine {engine} was built from a model with sha256 {str(wanted)[:12]}…, expected "
            f"that of {names or 'a model'} beside it: files of two builds; build again"
        )
