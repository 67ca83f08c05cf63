"""Configurations of the stages refuse what no stage could do, whoever makes them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from artefacts.errors import InputError
from engines import BuildOptions
from pipeline.job import Build, Calibrate, Data, Job, Paths, Quantize, Verify
from pipeline.promise import Promise


@pytest.mark.parametrize(
    ("stage", "given", "sentence"),
    [
        (Data, {"batch": 0}, "batch is 0, expected at least 1"),
        (Data, {"calib_num": 0}, "calib_num is 0, expected at least 1"),
        (Data, {"random_calibration": -1}, "random_calibration is -1, expected at least 1"),
        (Data, {"shard": (3, 2)}, "shard is 3 of 2, expected a part of 1 to 2"),
        (Calibrate, {"workers": "dask"}, "workers is 'dask', expected one of None, ray"),
        (Quantize, {"improvement_samples": -1}, "improvement_samples is -1, expected at least 0"),
        (Quantize, {"effort": "most"}, "effort is 'most', expected one of fast, default, thorough"),
        (Quantize, {"weights": "int4"}, "weights is 'int4', expected one of int8, float"),
        (Quantize, {"attention": "on"}, "attention is 'on', expected one of auto, int8, float"),
        (Quantize, {"isa": "amx"}, "isa is 'amx', expected one of auto, vnni, portable"),
        (Quantize, {"search_time_s": 9.0}, "--search-time without a promise"),
        (Verify, {"sign": Path("no.pem")}, r"--sign names the key no\.pem, which is no file"),
    ],
)
def test_a_stage_refuses_what_it_cannot_do(
    stage: type, given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        stage(**given)


def test_stages_are_held_against_each_other() -> None:
    job = Job(
        paths=Paths(onnx=Path("m.onnx"), engine=Path("out/m.engine")),
        data=Data(calib_data=Path("c")),
        calibrate=Calibrate(),
        quantize=Quantize(promise=Promise(kind="sqnr", minimum=20.0)),
        build=Build(options=BuildOptions(precision="int8")),
        verify=Verify(),
    )
    assert job.steps == 5
    halved = Build(options=BuildOptions(precision="fp16"))
    with pytest.raises(InputError, match="--min-sqnr with --precision fp16"):
        dataclasses.replace(job, build=halved)
    with pytest.raises(InputError, match="--min-sqnr with --shard"):
        dataclasses.replace(job, data=Data(calib_data=Path("c"), shard=(1, 2)))
