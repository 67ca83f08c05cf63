"""What the comparison of placements counts and says, and the page that holds it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from benchmarks.peers.placement import PAGE, STORED
from benchmarks.peers.placement_kernels import converts
from benchmarks.peers.placement_tables import render, verdicts
from benchmarks.report.results import insert_results


@pytest.mark.parametrize(
    ("name", "reads", "expected"),
    [
        ("__myl_CastMulMinMaxRounCastConc_myl0_0", 1, True),
        ("__myl_MulAddMulMinMaxRounCastReshTranReshMove_myl0_4", 1, True),  # a bias, no more
        ("__myl_MoveConc_myl0_3", 2, True),
        ("__myl_MulMulMinMaxRounCast_myl0_7", 2, False),  # a gate
        ("__myl_MulAddMulMinMaxRounCast_myl0_7", 2, False),  # a skip
        ("__myl_MulAddDivErfAddMulMulMulMinMaxRounCast_myl0_11", 1, False),  # GELU
        ("_gemm_mha_v2_myl0_7", 3, False),
        ("n_MatMul_5_myl0_8", 1, False),
    ],
)
def test_a_conversion_is_a_kernel_that_computes_nothing(
    name: str, reads: int, expected: bool
) -> None:
    inputs = [{"Datatype": "Float"}] * reads
    assert converts({"Name": name, "Inputs": inputs}) == expected


def plan(kernels: int, conversions: int, int8_macs: int) -> dict[str, Any]:
    return {
        "kernels": kernels, "multiplying": 9, "int8": 8, "int8_macs": int8_macs,
        "conversions": conversions, "plan_bytes": 1_234_567, "seconds": 3.4, "names": "",
    }  # fmt: skip


def network(ours: dict[str, Any], peer: dict[str, Any], **left: int) -> dict[str, Any]:
    return {
        "name": "net",
        "day": "2026-11-29",
        "macs": 1000,
        "left_macs": left,
        "sqnr_db": {"ours": 30.04, "modelopt": 25.0},
        "plans": {"ours": {"8.9": ours}, "modelopt": {"8.9": peer}},
    }


@pytest.mark.parametrize(
    ("ours", "left", "said"),
    [
        ((20, 2, 900), {}, "not behind"),
        ((21, 2, 900), {}, "21 kernels, ModelOpt 20: BEHIND"),
        ((20, 3, 950), {}, "3 conversions, ModelOpt 2: BEHIND"),
        ((20, 2, 890), {}, "890 MACs in INT8, ModelOpt 900: BEHIND"),
        ((20, 2, 890), {"few_channels": 10}, "890 MACs in INT8, ModelOpt 900: BEHIND"),
        ((20, 2, 890), {"output_layers": 10}, "not behind"),
        ((20, 2, 880), {"squeeze_excite": 10}, "880 MACs in INT8, ModelOpt 900: BEHIND"),
    ],
)
def test_a_verdict_says_what_is_worse(
    ours: tuple[int, int, int], left: dict[str, int], said: str
) -> None:
    found = network(plan(*ours), plan(20, 2, 900), **left)
    assert verdicts(found) == [f"net: SM 8.9: {said}"]


def test_a_table_has_both_systems_and_names_what_is_behind() -> None:
    found = network(plan(21, 2, 905), plan(20, 2, 900))
    text = render({"environment": {"processor": "a CPU"}, "networks": [found]})
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert cells[2] == ["net", "ours", "21 / 9 / 2, 90.5 %", "1,235", "3", "30.0"]
    assert cells[3] == ["", "ModelOpt", "20 / 9 / 2, 90.0 %", "1,235", "3", "25.0"]
    assert "Behind in something: net." in text
    assert "Measured 2026-11-29: a CPU." in text


def test_the_page_says_what_the_results_say() -> None:
    """On a failure: ``python -m benchmarks.peers.placement --table``."""
    page = PAGE.read_text(encoding="utf-8")
    stored = STORED.read_text(encoding="utf-8")
    document = json.loads(stored)
    assert insert_results(page, render(document)) == page
    names = [one["name"] for one in document["networks"]]
    assert len(names) == len(set(names)) >= 12
    assert not re.search(r'(^|[\s="])/(tmp|root|home|work)', stored)
