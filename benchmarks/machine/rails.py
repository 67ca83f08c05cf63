"""Power of a Jetson's rails: INA monitors in sysfs, or jetson-stats where those are not there.

    JetPack 5, 6, 7   /sys/class/hwmon/hwmon*   name ina3221; in<n>_label, in<n>_input (mV),
                      curr<n>_input (mA)  (Linux: Documentation/hwmon/ina3221.rst); Thor adds an
                      ina238 with label and power1_input (µW)
    JetPack 4         /sys/bus/i2c/drivers/ina3221x/*/iio:device*   rail_name_<n>,
                      in_power<n>_input (mW)

Which rails make the total is a fact of the board. One rail that feeds the whole module is taken
alone: adding the rails behind it would count them twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artefacts.errors import MissingLibraryError
from artefacts.libraries import require
from benchmarks.machine.proc_files import read_number, read_text

__all__ = ["JtopMeter", "RailMeter", "find_rails", "open_jtop", "parse_jtop", "total_power"]

# Xavier NX and Orin NX/Nano, Nano, Thor.
WHOLE = ("VDD_IN", "POM_5V_IN", "VIN")
# Fed by VIN_SYS_5V0 on AGX Orin, which is measured itself.
INSIDE = ("VDDQ_VDD2_1V8AO",)


def total_power(rails_w: Mapping[str, float]) -> tuple[float, tuple[str, ...]]:
    """Watts of the module and the rails that were added up.

    Args:
        rails_w: rail → watts.
    """
    for name in WHOLE:
        if name in rails_w:
            return rails_w[name], (name,)
    used = tuple(sorted(name for name in rails_w if name not in INSIDE))
    return sum(rails_w[name] for name in used), used


def find_rails(root: Path = Path("/")) -> dict[str, tuple[Path, ...]]:
    """Rail → the file with its power, or the files with its voltage and current.

    Args:
        root: where ``sys`` is; tests give a recorded tree.
    """
    rails: dict[str, tuple[Path, ...]] = {}
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if (read_text(chip / "name") or "").startswith("ina"):
            rails.update(_hwmon_rails(chip))
    for chip in sorted((root / "sys/bus/i2c/drivers/ina3221x").glob("*/iio:device*")):
        for label in sorted(chip.glob("rail_name_*")):
            name = read_text(label)
            power = chip / f"in_power{label.name.rpartition('_')[2]}_input"
            if name and read_number(power) is not None:
                rails[name] = (power,)
    return rails


def _hwmon_rails(chip: Path) -> dict[str, tuple[Path, ...]]:
    """The rails of one hwmon chip that have a label and a reading; NC is "not connected"."""
    rails: dict[str, tuple[Path, ...]] = {}
    for label in sorted(chip.glob("in*_label")):
        number = label.name[2:].removesuffix("_label")
        name = read_text(label)
        files = (chip / f"in{number}_input", chip / f"curr{number}_input")
        # Channel 7 is the sum of shunt voltages: a label without a current.
        if name and name != "NC" and all(read_number(file) is not None for file in files):
            rails[name] = files
    name = read_text(chip / "label")
    if name and read_number(chip / "power1_input") is not None:
        rails[name] = (chip / "power1_input",)
    return rails


@dataclass(frozen=True, kw_only=True)
class RailMeter:
    """Reads the rails that make a Jetson's total."""

    rails: Mapping[str, tuple[Path, ...]]

    @property
    def name(self) -> str:
        """What is read, for the report."""
        return f"INA rails {_used(self.rails)}"

    def watts(self) -> float | None:
        """Power now; None where a rail stopped answering."""
        readings = {name: _rail_watts(files) for name, files in self.rails.items()}
        known = {name: watts for name, watts in readings.items() if watts is not None}
        if len(known) < len(readings):
            return None
        return total_power(known)[0]


def _rail_watts(files: tuple[Path, ...]) -> float | None:
    """Watts of one rail: mV times mA, mW (iio), or µW (hwmon power)."""
    values = [read_number(file) for file in files]
    if any(value is None for value in values):
        return None
    if len(values) == 2:
        return float(values[0] or 0) * float(values[1] or 0) / 1e6
    return float(values[0] or 0) / (1e6 if files[0].name.startswith("power") else 1e3)


@dataclass(frozen=True, kw_only=True)
class JtopMeter:
    """Reads the rails through the service of jetson-stats, e.g. in a container with its socket."""

    client: Any

    @property
    def name(self) -> str:
        """What is read, for the report."""
        return f"jetson-stats rails {_used(parse_jtop(self.client.power))}"

    def watts(self) -> float | None:
        """Power at the service's last reading."""
        rails = parse_jtop(self.client.power)
        return total_power(rails)[0] if rails else None


def open_jtop(root: Path = Path("/")) -> JtopMeter | None:
    """A started client of jetson-stats; None where its service or its package is not there.

    Args:
        root: where ``run`` is.
    """
    if not (root / "run/jtop.sock").exists():
        return None
    try:
        library = require("jtop", extra="bench")
    except MissingLibraryError:
        return None
    client = library.jtop(interval=0.1)
    try:
        client.start()
    except library.JtopException:
        return None
    return JtopMeter(client=client)


def _used(rails: Mapping[str, object]) -> str:
    """The names of the rails that make the total."""
    return " + ".join(total_power(dict.fromkeys(rails, 0.0))[1])


def parse_jtop(power: Mapping[str, Any]) -> dict[str, float]:
    """Rail → watts from ``jtop().power`` of jetson-stats 4: ``{"rail": …, "tot": …}`` in mW.

    The total has the name of its rail (``VDD_IN``) where the board has one.
    """
    rails = {str(k): float(entry["power"]) / 1e3 for k, entry in power.get("rail", {}).items()}
    total = power.get("tot", {})
    if total.get("name") in WHOLE:
        rails[str(total["name"])] = float(total["power"]) / 1e3
    return rails
