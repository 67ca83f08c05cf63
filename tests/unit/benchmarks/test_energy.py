"""Energy from readings of a meter."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from benchmarks.machine import measure_energy
from benchmarks.machine.energy import PowerTrace


class ConstantMeter:
    """Draws 10 W, and 40 W while a system works."""

    name = "constant"

    def __init__(self) -> None:
        self.working = False

    def watts(self) -> float:
        return 40.0 if self.working else 10.0


def test_idle_power_is_subtracted() -> None:
    meter = ConstantMeter()

    def work() -> None:
        meter.working = True
        time.sleep(0.002)

    found = measure_energy({"one": work}, meter, batch=4, seconds=0.08, interval_s=0.005)["one"]
    assert found.idle_w == pytest.approx(10)
    assert found.mean_w == pytest.approx(40)
    assert found.per_image_j == pytest.approx(30 * found.seconds / found.images)
    assert found.gross_per_image_j == pytest.approx(40 * found.seconds / found.images)
    assert found.images % 4 == 0


def test_a_silent_meter_gives_no_energy() -> None:
    meter = SimpleNamespace(name="silent", watts=lambda: None)
    assert measure_energy({"one": lambda: None}, meter, seconds=0.01, interval_s=0.002) == {}


def test_mean_power_weighs_by_time() -> None:
    assert PowerTrace(times_s=(1.0, 4.0), watts=(10.0, 50.0)).mean_w == pytest.approx(40)
    assert PowerTrace(times_s=(), watts=()).mean_w is None
