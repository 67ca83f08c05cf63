"""The table of ``make bench-placement`` in docs/placement.md, and what it says in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.report.tables import NONE, to_markdown

__all__ = ["render", "verdicts"]

Found = Mapping[str, Any]
SYSTEMS = {"ours": "ours", "modelopt": "ModelOpt"}
FOR_ACCURACY = ("output_layers", "squeeze_excite", "erased")
"""Rules that cost work in INT8 on purpose."""
_SHOWN = "8.9"  # the capability of plan and seconds


def render(document: Found) -> str:
    """A Markdown table, two rows for a network, and what it was measured with."""
    networks = document["networks"]
    capabilities = list(networks[0]["plans"]["ours"])
    rows = [["network", "graph", *(f"SM {one}" for one in capabilities), "plan kB", "build s"]]
    rows[0].append("SQNR dB")
    for one in networks:
        for system, shown in SYSTEMS.items():
            plans = one["plans"][system]
            last = plans[_SHOWN]
            rows.append(
                [
                    one["name"] if system == "ours" else "",
                    shown,
                    *(cell(plans[sm], one["macs"]) for sm in capabilities),
                    f"{last['plan_bytes'] / 1000:,.0f}",
                    f"{last['seconds']:.0f}",
                    NONE if one["sqnr_db"][system] is None else f"{one['sqnr_db'][system]:.1f}",
                ]
            )
    days = sorted({one["day"] for one in networks})
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    behind = [line for one in networks for line in verdicts(one) if line.endswith("BEHIND")]
    worse = {line.partition(":")[0] for line in behind}
    said = ", ".join(sorted(worse)) or "none"
    versions = ", ".join(document["environment"].values())
    return f"{to_markdown(rows)}\n\nBehind in something: {said}.\n\nMeasured {span}: {versions}.\n"


def cell(plan: Found, macs: int) -> str:
    """Kernels / multiplying / conversions, and the share of the work that runs INT8."""
    share = plan["int8_macs"] / max(macs, 1)
    counts = f"{plan['kernels']} / {plan['multiplying']} / {plan['conversions']}"
    return f"{counts}, {100 * share:.1f} %"


def verdicts(network: Found) -> list[str]:
    """One line for each capability: where ours is behind, if it is.

    Layers that are left in float for accuracy's sake may be INT8 there.
    """
    lines = []
    for sm, plan in network["plans"]["ours"].items():
        peer = network["plans"]["modelopt"][sm]
        worse = [
            f"{plan[key]} {key}, ModelOpt {peer[key]}"
            for key in ("kernels", "conversions")
            if plan[key] > peer[key]
        ]
        kept = sum(network["left_macs"].get(rule, 0) for rule in FOR_ACCURACY)
        if plan["int8_macs"] + kept < peer["int8_macs"]:
            worse.append(f"{plan['int8_macs']} MACs in INT8, ModelOpt {peer['int8_macs']}")
        found = f"{'; '.join(worse)}: BEHIND" if worse else "not behind"
        lines.append(f"{network['name']}: SM {sm}: {found}")
    return lines
