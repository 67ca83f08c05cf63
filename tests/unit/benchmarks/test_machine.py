from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.machine import MachineWatch, capture_environment, find_meter
from benchmarks.machine import meters as meters_module
from benchmarks.machine.facts import parse_nvpmodel
from benchmarks.machine.meters import NvmlMeter, RaplMeter, find_zones
from benchmarks.machine.nvml import Gpu, slowdown_names
from benchmarks.machine.peak_memory import peak_bytes
from benchmarks.machine.rails import find_rails, parse_jtop, total_power
from tests.unit.benchmarks.recorded import (
    AGX_ORIN,
    AGX_XAVIER,
    NANO,
    ORIN_NANO,
    THOR,
    XEON,
    lay_out,
)


@pytest.mark.parametrize(
    ("tree", "rails", "used", "watts"),
    [
        (ORIN_NANO, 3, "VDD_IN", 5.064 * 0.968),
        (AGX_ORIN, 4, "VDD_CPU_CV + VDD_GPU_SOC + VIN_SYS_5V0", 3.19232 + 1.1976 + 4.734504),
        (THOR, 4, "VIN", 23.1),
        (NANO, 3, "POM_5V_IN", 2.532),
        (AGX_XAVIER, 6, "CPU + CV + GPU + SOC + SYS5V + VDDRQ", 3.585),
    ],
    ids=["orin-nano", "agx-orin", "thor", "nano", "agx-xavier"],
)
def test_a_jetsons_total_is_read_from_its_rails(
    tmp_path: Path, tree: dict[str, str], rails: int, used: str, watts: float
) -> None:
    root = lay_out(tree, tmp_path)
    assert len(find_rails(root)) == rails
    meter = find_meter(root)
    assert meter is not None
    assert meter.name == f"INA rails {used}"
    assert meter.watts() == pytest.approx(watts)


def test_a_rail_that_stops_answering_is_no_zero(tmp_path: Path) -> None:
    meter = find_meter(lay_out(AGX_ORIN, tmp_path))
    assert meter is not None
    (tmp_path / "sys/class/hwmon/hwmon3/curr1_input").write_text("")
    assert meter.watts() is None


def test_jetson_stats_rails() -> None:
    # jtop().power of an Orin Nano: milliwatts; the input rail is the total and has its name.
    power = {
        "rail": {
            "VDD_CPU_GPU_CV": {"volt": 5064, "curr": 184, "power": 931, "avg": 930},
            "VDD_SOC": {"volt": 5056, "curr": 296, "power": 1496, "avg": 1490},
        },
        "tot": {"volt": 5064, "curr": 968, "power": 4901, "avg": 4890, "name": "VDD_IN"},
    }
    assert total_power(parse_jtop(power)) == (pytest.approx(4.901), ("VDD_IN",))
    # AGX Orin: no such rail; jetson-stats adds all of them, we leave the inner one out.
    power = {
        "rail": {
            "VDD_GPU_SOC": {"power": 3192},
            "VDD_CPU_CV": {"power": 1197},
            "VIN_SYS_5V0": {"power": 4734},
            "VDDQ_VDD2_1V8AO": {"power": 397},
        },
        "tot": {"power": 9520, "avg": 9500},
    }
    assert total_power(parse_jtop(power))[0] == pytest.approx(9.123)
    assert parse_jtop({}) == {}


def test_rapl_adds_packages_and_survives_the_wrap(tmp_path: Path) -> None:
    root = lay_out(XEON, tmp_path)
    zones = find_zones(root)
    assert [zone.name for zone in zones] == ["package-0", "package-1"]
    seconds = itertools.count(100.0, 2.0)
    meter = RaplMeter(zones=zones, clock=lambda: next(seconds))
    assert meter.watts() is None
    # package 0 wraps: 328 850 µJ up to its range, one more to 0, then 1 671 149 µJ
    zones[0].counter.write_text("1671149")
    zones[1].counter.write_text("9000000")
    assert meter.watts() == pytest.approx((2_000_000 + 4_000_000) / 1e6 / 2)


def test_counters_that_only_root_may_read_are_no_meter(tmp_path: Path) -> None:
    root = lay_out({k: v for k, v in XEON.items() if "energy_uj" not in k}, tmp_path)
    assert find_zones(root) == ()


class FakeNvmlError(Exception):
    """As pynvml raises for what a GPU does not tell."""


def fake_gpu(**answers: Any) -> Gpu:
    """A GPU with recorded answers; anything else is "not supported"."""

    def ask(value: Any) -> Callable[..., Any]:
        def function(*_: Any) -> Any:
            if isinstance(value, list):
                return value.pop(0) if len(value) > 1 else value[0]
            if value is None:
                raise FakeNvmlError
            return value

        return function

    names = {
        "nvmlDeviceGetName": "NVIDIA A10",
        "nvmlDeviceGetPowerUsage": 52_300,
        "nvmlDeviceGetEnforcedPowerLimit": 150_000,
        "nvmlDeviceGetClockInfo": 1695,
        "nvmlDeviceGetMaxClockInfo": 1695,
        "nvmlDeviceGetTemperature": 61,
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=1 << 30),
        "nvmlDeviceGetCurrentClocksThrottleReasons": 0,
        "nvmlSystemGetDriverVersion": "580.95.05",
    }
    library = SimpleNamespace(
        NVMLError=FakeNvmlError,
        NVML_CLOCK_SM=1,
        NVML_TEMPERATURE_GPU=0,
        **{name: ask(value) for name, value in (names | answers).items()},
    )
    return Gpu(library=library, handle=object())


def test_nvml_units() -> None:
    meter = NvmlMeter(gpu=fake_gpu())
    assert meter.watts() == pytest.approx(52.3)
    assert meter.name == "NVML board power of NVIDIA A10"
    assert NvmlMeter(gpu=fake_gpu(nvmlDeviceGetPowerUsage=None)).watts() is None


def test_only_slowdowns_are_throttling() -> None:
    assert slowdown_names(0x1 | 0x2 | 0x10 | 0x100) == ()
    assert slowdown_names(0x4 | 0x40) == ("power limit", "temperature (hardware)")


def test_the_real_library_has_the_names_we_ask_for() -> None:
    pynvml = pytest.importorskip("pynvml")
    for name in vars(fake_gpu().library):
        assert hasattr(pynvml, name), name
    for bit, name in {
        0x04: "SwPowerCap",
        0x08: "HwSlowdown",
        0x20: "SwThermalSlowdown",
        0x40: "HwThermalSlowdown",
        0x80: "HwPowerBrakeSlowdown",
    }.items():
        assert getattr(pynvml, f"nvmlClocksThrottleReason{name}") == bit


def test_no_meter_on_a_machine_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters_module, "open_gpu", lambda: None)
    assert find_meter(tmp_path) is None


def test_the_environment_of_a_server(tmp_path: Path) -> None:
    root = lay_out(XEON, tmp_path)
    found = capture_environment(root, lambda command: "abc1234", fake_gpu())
    assert found["cpu"]["model"] == "Intel(R) Xeon(R) Platinum 8480+"
    assert found["cpu"]["INT8 instructions"] == "avx2, avx512_vnni, amx_int8"
    assert found["cpu"]["governor"] == "performance"
    assert found["cpu"]["clock"] == "2001 MHz"
    assert found["cpu"]["turbo"] == "off"
    assert found["memory"] == {"total": "15.6 GiB", "available": "7.8 GiB"}
    assert found["gpu"]["power limit"] == "150 W"
    assert found["gpu"]["slowed down by"] == "nothing"
    assert found["software"]["git commit"] == "abc1234"
    assert "jetson" not in found


def test_the_environment_of_a_jetson(tmp_path: Path) -> None:
    root = lay_out(ORIN_NANO, tmp_path)
    answers = {"nvpmodel": "NV Power Mode: MAXN_SUPER\n2"}
    gpu = fake_gpu(nvmlDeviceGetPowerUsage=None, nvmlDeviceGetTemperature=None)
    found = capture_environment(root, lambda command: answers.get(command[0]), gpu)
    assert found["jetson"]["board"].startswith("NVIDIA Jetson Orin Nano")
    assert found["jetson"]["L4T"].startswith("R36 (release), REVISION: 4.3")
    assert found["jetson"]["power mode"] == "MAXN_SUPER (2)"
    assert found["jetson"]["GPU clock locked"] == "yes (1020–1020 MHz)"
    assert found["gpu"]["power"] == "unknown"


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    found = capture_environment(tmp_path, lambda command: None, fake_gpu())
    assert found["cpu"]["governor"] == "unknown"
    assert found["cpu"]["turbo"] == "unknown"
    assert found["memory"]["total"] == "unknown"
    assert found["software"]["git commit"] == "unknown"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NV Power Mode: MAXN_SUPER\n2", "MAXN_SUPER (2)"),
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: 15W\n0\n", "15W (0)"),
        ("NV Power Mode: MAXN", "MAXN"),
        ("NVPM ERROR: Error opening /var/lib/nvpmodel/status", None),
        (None, None),
    ],
)
def test_power_modes(text: str | None, expected: str | None) -> None:
    assert parse_nvpmodel(text) == expected


def watch(root: Path, gpu: Gpu | None = None) -> MachineWatch:
    seconds = itertools.count()
    return MachineWatch(root=root, gpu=gpu, clock=lambda: float(next(seconds)))


def test_a_machine_that_stays_the_same_is_steady(tmp_path: Path) -> None:
    found = watch(lay_out(XEON, tmp_path), fake_gpu()).verdict()
    assert found.verdict == "steady"
    assert found.reasons == ()
    assert found.facts["CPU clock"] == "2001 MHz"
    assert found.facts["GPU temperature"] == "61 °C"


def test_nothing_readable_is_unknown_not_steady(tmp_path: Path) -> None:
    assert watch(tmp_path).verdict().verdict == "unknown"


def test_heat_and_foreign_load_disturb(tmp_path: Path) -> None:
    root = lay_out(XEON, tmp_path)
    machine = watch(root)
    (root / "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count").write_text("8")
    # 10 000 ticks later: others were busy for 4 000 of them, the host kept 1 000.
    (root / "proc/stat").write_text("cpu  5000 0 500 13000 100 0 0 1400 0 0\n")
    found = machine.verdict()
    assert found.verdict == "disturbed"
    text = "; ".join(found.reasons)
    assert "throttled 5 times" in text
    assert "of the CPU time to other machines" in text
    assert "other programs used" in text


def test_a_gpu_that_changes_its_clock_disturbs(tmp_path: Path) -> None:
    clocks = [1695] * 10 + [1200] * 10
    gpu = fake_gpu(
        nvmlDeviceGetClockInfo=clocks, nvmlDeviceGetCurrentClocksThrottleReasons=[0, 0, 0x20, 0]
    )
    machine = watch(lay_out(XEON, tmp_path), gpu)
    for _ in range(19):
        machine.sample()
    found = machine.verdict()
    assert found.verdict == "disturbed"
    assert "the GPU was slowed down by its temperature (driver)" in found.reasons
    assert any("GPU clock moved between 1200 and 1695 MHz" in reason for reason in found.reasons)


def test_samples_are_spaced(tmp_path: Path) -> None:
    root, now = lay_out(XEON, tmp_path), [0.0]
    gpu = fake_gpu(nvmlDeviceGetClockInfo=[1000, 2000, 3000])
    machine = MachineWatch(root=root, gpu=gpu, interval_s=1.0, clock=lambda: now[0])
    machine.sample()
    now[0] = 1.5
    machine.sample()
    assert machine.verdict().facts["GPU clock"] == "1000–2000 MHz"


def test_peak_memory_of_this_process() -> None:
    assert peak_bytes() > 10 << 20
