"""``--attention`` on its way to the placement: of the command, and of its stages."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

import pytest

from pipeline.keywords import job_of
from pipeline.steps import placing
from quantization.commands import add_placement, placement_of
from tests.networks import bert

PRODUCTS = {"n_MatMul_3", "n_MatMul_4"}


@pytest.mark.parametrize(
    ("asked", "length", "int8"),
    [
        (None, 16, True),
        ("auto", "length", False),
        ("int8", "length", True),
        ("float", 16, False),
    ],
)
def test_what_is_asked_for_is_placed(
    asked: str | None, length: int | str, int8: bool, tmp_path: Path
) -> None:
    model = bert(length=length, layers=1)
    given = {} if asked is None else {"attention": asked}
    with job_of("m.onnx", tmp_path / "m.engine", {"target": "tensorrt-rtx", **given}) as job:
        placement = placing(job, "tensorrt-rtx", None, model)()
    assert (set(placement.int8_nodes) >= PRODUCTS) == int8
    parser = ArgumentParser()
    add_placement(parser)
    flags = [] if asked is None else ["--attention", asked]
    assert placement_of(parser.parse_args(flags), model) == placement
