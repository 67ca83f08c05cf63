"""Estimates of a build: they grow with what they stand for; a full disk is refused first."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from artefacts.errors import InputError
from engines import BuildOptions
from pipeline.job import Build, Calibrate, Data, Job, Paths, Quantize, Verify
from pipeline.needs import Needs, check_space, needs_of
from tests.networks import Builder


def network(width: int) -> onnx.ModelProto:
    net = Builder()
    hidden = net.relu(net.gemm(net.input("x", ("N", 64)), 64, width))
    return net.build("dense", net.gemm(hidden, width, 8))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    onnx.save(network(64), tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=np.zeros((12, 64), np.float32))
    return Job(
        paths=Paths(onnx=tmp_path / "m.onnx", engine=tmp_path / "out" / "m.engine"),
        data=Data(calib_data=tmp_path / "x.npz"),
        calibrate=Calibrate(),
        quantize=Quantize(improvement_samples=8),
        build=Build(options=BuildOptions(precision="int8")),
        verify=Verify(),
    )


def test_files_and_memory_grow_with_the_weights(job: Job) -> None:
    small, large = (needs_of(job, network(width), fits=False) for width in (64, 64 * 512))
    weights = 64 * 64 * 512 * 4
    assert large.disk_bytes - small.disk_bytes > 3 * weights
    assert 2 * weights < large.memory_bytes - small.memory_bytes < 3 * weights
    calibrated = dataclasses.replace(job, quantize=Quantize(improvement_samples=0))
    small, large = (needs_of(calibrated, network(w), fits=False) for w in (64, 64 * 512))
    assert 2 * weights < large.memory_bytes - small.memory_bytes < 3 * weights
    half = dataclasses.replace(job, build=Build(options=BuildOptions(precision="fp16")))
    assert needs_of(half, network(64 * 512), fits=False).disk_bytes < large.disk_bytes


def test_samples_and_activations_of_a_batch_count(job: Job) -> None:
    """Eight samples that are learned from, and 0.65 of the activations of a batch of eight."""
    without = needs_of(job, network(64), fits=False)
    found = needs_of(job, network(64), fits=True)
    samples, activations = 8 * 4 * 64, int(0.65 * 8 * 4 * (64 + 64 + 8))
    assert found.memory_bytes - without.memory_bytes == samples + activations
    assert found.seconds is not None
    assert without.seconds is None
    assert "calibration and improvement about 1 s here" in str(found)


def test_samples_that_do_not_fit_leave_the_time_open(job: Job) -> None:
    other = Builder()
    model = other.build("other", other.gemm(other.input("y", ("N", 32)), 32, 8))
    assert needs_of(job, model, fits=True).seconds is None


def test_a_full_disk_is_refused(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    check_space(job, network(64))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=r"has 1 MB free, expected about 1 MB for m\.engine"):
        check_space(job, network(64))


def test_only_long_work_is_announced() -> None:
    needs = Needs(disk_bytes=1, memory_bytes=int(1.2e9), seconds=240.0)
    assert needs.long() == [
        "calibration and improvement take about 4 minutes here, memory up to 1.2 GB"
    ]
    assert dataclasses.replace(needs, seconds=29.0).long() == []
    assert dataclasses.replace(needs, seconds=None).long() == []


def test_what_is_said() -> None:
    needs = Needs(disk_bytes=int(2.5e9), memory_bytes=int(5e7), seconds=150.0)
    assert str(needs) == (
        "files 2.5 GB, memory up to 50 MB, calibration and improvement about 2 minutes here"
    )
