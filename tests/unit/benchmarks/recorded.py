"""Sensor trees as devices show them: text of files under /proc, /sys, /etc and /run.

Files, labels and units are those of the Linux drivers and of public logs of these boards (see
benchmarks/machine/rails.py); the values are typical ones of an idle board.
"""

from __future__ import annotations

from pathlib import Path

HWMON = "sys/class/hwmon"
IIO = "sys/bus/i2c/drivers/ina3221x"

# Jetson Orin Nano, JetPack 6: one monitor, channel 7 sums the shunt voltages.
ORIN_NANO = {
    f"{HWMON}/hwmon0/name": "tmp451",
    f"{HWMON}/hwmon1/name": "ina3221",
    f"{HWMON}/hwmon1/in1_label": "VDD_IN",
    f"{HWMON}/hwmon1/in1_input": "5064",
    f"{HWMON}/hwmon1/curr1_input": "968",
    f"{HWMON}/hwmon1/in2_label": "VDD_CPU_GPU_CV",
    f"{HWMON}/hwmon1/in2_input": "5064",
    f"{HWMON}/hwmon1/curr2_input": "184",
    f"{HWMON}/hwmon1/in3_label": "VDD_SOC",
    f"{HWMON}/hwmon1/in3_input": "5056",
    f"{HWMON}/hwmon1/curr3_input": "296",
    f"{HWMON}/hwmon1/in7_label": "sum of shunt voltages",
    f"{HWMON}/hwmon1/in7_input": "7240",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "sys/class/devfreq/17000000.gpu/min_freq": "1020000000",
    "sys/class/devfreq/17000000.gpu/max_freq": "1020000000",
}

# Jetson AGX Orin, JetPack 5: two monitors, channels that are not connected, no input rail.
AGX_ORIN = {
    f"{HWMON}/hwmon3/name": "ina3221",
    f"{HWMON}/hwmon3/in1_label": "VDD_GPU_SOC",
    f"{HWMON}/hwmon3/in1_input": "19952",
    f"{HWMON}/hwmon3/curr1_input": "160",
    f"{HWMON}/hwmon3/in2_label": "VDD_CPU_CV",
    f"{HWMON}/hwmon3/in2_input": "19960",
    f"{HWMON}/hwmon3/curr2_input": "60",
    f"{HWMON}/hwmon3/in3_label": "VIN_SYS_5V0",
    f"{HWMON}/hwmon3/in3_input": "4968",
    f"{HWMON}/hwmon3/curr3_input": "953",
    f"{HWMON}/hwmon4/name": "ina3221",
    f"{HWMON}/hwmon4/in1_label": "NC",
    f"{HWMON}/hwmon4/in1_input": "0",
    f"{HWMON}/hwmon4/curr1_input": "0",
    f"{HWMON}/hwmon4/in2_label": "VDDQ_VDD2_1V8AO",
    f"{HWMON}/hwmon4/in2_input": "4968",
    f"{HWMON}/hwmon4/curr2_input": "80",
    f"{HWMON}/hwmon4/in3_label": "NC",
    f"{HWMON}/hwmon4/in3_input": "0",
    f"{HWMON}/hwmon4/curr3_input": "0",
}

# Jetson AGX Thor, JetPack 7: an ina3221 and a single-channel ina238 for the board's input.
THOR = {
    f"{HWMON}/hwmon2/name": "ina3221",
    f"{HWMON}/hwmon2/in1_label": "VDD_GPU",
    f"{HWMON}/hwmon2/in1_input": "19928",
    f"{HWMON}/hwmon2/curr1_input": "120",
    f"{HWMON}/hwmon2/in2_label": "VDD_CPU_SOC_MSS",
    f"{HWMON}/hwmon2/in2_input": "19936",
    f"{HWMON}/hwmon2/curr2_input": "326",
    f"{HWMON}/hwmon2/in3_label": "VIN_SYS_5V0",
    f"{HWMON}/hwmon2/in3_input": "5008",
    f"{HWMON}/hwmon2/curr3_input": "1302",
    f"{HWMON}/hwmon5/name": "ina238",
    f"{HWMON}/hwmon5/label": "VIN",
    f"{HWMON}/hwmon5/power1_input": "23100000",
}

# Jetson Nano, JetPack 4: the older driver gives milliwatts.
NANO = {
    f"{IIO}/6-0040/iio:device0/name": "ina3221x",
    f"{IIO}/6-0040/iio:device0/rail_name_0": "POM_5V_IN",
    f"{IIO}/6-0040/iio:device0/in_power0_input": "2532",
    f"{IIO}/6-0040/iio:device0/in_voltage0_input": "5096",
    f"{IIO}/6-0040/iio:device0/in_current0_input": "497",
    f"{IIO}/6-0040/iio:device0/rail_name_1": "POM_5V_GPU",
    f"{IIO}/6-0040/iio:device0/in_power1_input": "121",
    f"{IIO}/6-0040/iio:device0/rail_name_2": "POM_5V_CPU",
    f"{IIO}/6-0040/iio:device0/in_power2_input": "647",
}

# Jetson AGX Xavier, JetPack 4: six rails, none of which feeds the others.
AGX_XAVIER = {
    f"{IIO}/1-0040/iio:device0/rail_name_0": "GPU",
    f"{IIO}/1-0040/iio:device0/in_power0_input": "310",
    f"{IIO}/1-0040/iio:device0/rail_name_1": "CPU",
    f"{IIO}/1-0040/iio:device0/in_power1_input": "465",
    f"{IIO}/1-0040/iio:device0/rail_name_2": "SOC",
    f"{IIO}/1-0040/iio:device0/in_power2_input": "930",
    f"{IIO}/1-0041/iio:device1/rail_name_0": "CV",
    f"{IIO}/1-0041/iio:device1/in_power0_input": "0",
    f"{IIO}/1-0041/iio:device1/rail_name_1": "VDDRQ",
    f"{IIO}/1-0041/iio:device1/in_power1_input": "310",
    f"{IIO}/1-0041/iio:device1/rail_name_2": "SYS5V",
    f"{IIO}/1-0041/iio:device1/in_power2_input": "1570",
}

# A server with two packages; core and DRAM zones lie beside or inside them.
XEON = {
    "sys/class/powercap/intel-rapl:0/name": "package-0",
    "sys/class/powercap/intel-rapl:0/energy_uj": "262143000000",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850",
    "sys/class/powercap/intel-rapl:0:0/name": "dram",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "1200",
    "sys/class/powercap/intel-rapl:0:0/max_energy_range_uj": "65712999613",
    "sys/class/powercap/intel-rapl:1/name": "package-1",
    "sys/class/powercap/intel-rapl:1/energy_uj": "5000000",
    "sys/class/powercap/intel-rapl:1/max_energy_range_uj": "262143328850",
    "proc/stat": "cpu  1000 0 500 8000 100 0 0 400 0 0\ncpu0 1000 0 500 8000 100 0 0 400 0 0",
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Platinum 8480+\n"
    "flags\t\t: fpu sse2 avx2 avx512_vnni amx_int8",
    "proc/meminfo": "MemTotal:       16384000 kB\nMemAvailable:    8192000 kB",
    "proc/loadavg": "0.42 0.31 0.20 1/345 6789",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2001000",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "3800000",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "1",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3",
    "etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"',
}


def lay_out(tree: dict[str, str], root: Path) -> Path:
    """Write a tree under ``root``, each file with the newline that the kernel adds."""
    for name, text in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root
