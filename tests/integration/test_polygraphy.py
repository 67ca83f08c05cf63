"""NVIDIA's Polygraphy beside our builder: another program, the same plan."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import engines
from engines import BuildOptions, Profile
from tests.engine_models import convnet, save

pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx")

SHAPES = {"min": (1, 3, 8, 8), "opt": (4, 3, 8, 8), "max": (8, 3, 8, 8)}


def built_by_polygraphy(model: Path, engine: Path) -> bytes:
    """By its command, on the library that an environment variable chooses."""
    shapes = [
        word
        for end, shape in SHAPES.items()
        for word in (f"--trt-{end}-shapes", f"input:{list(shape)}".replace(" ", ""))
    ]
    given = ("--convert-to", "trt", "--strongly-typed", "--compute-capabilities", "8.6", *shapes)
    done = subprocess.run(
        [Path(sys.executable).parent / "polygraphy", "convert", model, "-o", engine, *given],
        env=os.environ | {"POLYGRAPHY_USE_TENSORRT_RTX": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return engine.read_bytes()


def built_by_us(model: Path, engine: Path, *, tf32: bool) -> bytes:
    profile = Profile(**{end: {"input": shape} for end, shape in SHAPES.items()})
    options = BuildOptions(
        target="tensorrt-rtx",
        precision="int8",
        profiles=(profile,),
        compute_capabilities=("8.6",),
        tf32=tf32,
    )
    engines.build(model, engine, options)
    return engine.read_bytes()


def test_the_same_plan_byte_for_byte(tmp_path: Path, rng: np.random.Generator) -> None:
    """But for TF32, which Polygraphy 0.53.6 leaves on for this library whatever it is told."""
    model = save(convnet(rng), tmp_path)
    theirs = built_by_polygraphy(model, tmp_path / "polygraphy.engine")
    assert theirs == built_by_us(model, tmp_path / "ours.engine", tf32=True)
    assert theirs != built_by_us(model, tmp_path / "without_tf32.engine", tf32=False)
