"""Copies of an engine for a pool, and whether they may take the place of others under way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artefacts.errors import EngineError
from engines.engine import Engine
from engines.loading import load
from engines.manifest import Manifest
from engines.tensors import TensorSpec

__all__ = ["check_replacement", "load_copies", "load_replacement", "retire"]


def load_copies(path: str | Path, size: int, options: Mapping[str, Any]) -> list[Engine]:
    """So many engines on the same weights, all or none.

    Raises:
        BuilderError: as for ``engines.load``.
    """
    first = load(path, **options)
    copies = [first]
    try:
        copies.extend(first.clone() for _ in range(size - 1))
    except BaseException:
        for engine in copies:
            retire(engine)
        raise
    for engine in copies:
        engine.pooled = True
    return copies


def load_replacement(
    path: str | Path, size: int, options: Mapping[str, Any], old: Manifest
) -> list[Engine]:
    """Copies of an engine that may take the place of another, warmed up.

    Raises:
        EngineError: requests made for the other do not fit it.
        BuilderError: as for ``engines.load`` and a call.
    """
    copies = load_copies(path, size, options)
    try:
        check_replacement(path, old, copies[0].manifest)
        for engine in copies:
            engine.warm_up()
    except BaseException:
        for engine in copies:
            retire(engine)
        raise
    return copies


def check_replacement(path: str | Path, old: Manifest, new: Manifest) -> None:
    """Refuse an engine that requests made for another do not fit.

    Raises:
        EngineError: its inputs, outputs or preprocessing are others, or it takes fewer shapes.
    """
    for what, was, found in (
        ("inputs", _said(old.inputs), _said(new.inputs)),
        ("outputs", _said(old.outputs), _said(new.outputs)),
        ("preprocessing", str(old.passport.preprocess), str(new.passport.preprocess)),
    ):
        if was != found:
            raise _refused(path, f"{what} {found}", was)
    narrower = [
        f"{profile.min} to {profile.max}"
        for profile in old.profiles
        if new.profiles
        and not any(p.contains(profile.min) and p.contains(profile.max) for p in new.profiles)
    ]
    if new.profiles and not old.profiles:
        narrower = ["any shape"]
    if narrower:
        raise _refused(path, "profiles for fewer shapes", narrower[0])


def _refused(path: str | Path, found: str, expected: str) -> EngineError:
    return EngineError(
        f"engine {path} has {found}, expected {expected} as the engine that it would replace, "
        "which goes on; build it from the same model and spec, or start a service of its own"
    )


def _said(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(
        f"{spec.name} {spec.dtype} [{', '.join('?' if d is None else str(d) for d in spec.shape)}]"
        for spec in specs
    )


def retire(engine: Engine) -> None:
    """Close an engine that its pool lends no more."""
    engine.pooled = False
    engine.close()
