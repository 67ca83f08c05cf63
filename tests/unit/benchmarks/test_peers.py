"""What the scripts that compare with peers say of their figures."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.peers.accuracy import is_measured
from benchmarks.peers.accuracy_tables import (
    engine_table,
    engine_verdicts,
    strong_verdicts,
    summary,
    table,
    verdicts,
)
from benchmarks.peers.cpu_latency import rows
from benchmarks.peers.engine_verdicts import decibels, of_engine, of_latency
from tests.unit.benchmarks.made import latencies

HERE, ELSEWHERE = "a CPU, cpu_isa portable", "a CPU, cpu_isa vnni"


def system(
    sqnr_db: float | None, value: float, engine_db: float | None = None, cpu: str = HERE
) -> dict[str, Any]:
    found: dict[str, Any] = {"value": value, "accepted": True, "int8_share": 1.0}
    found |= {"sqnr_db": sqnr_db, "agreement": 0.9, "processor_s": 20.0, "peak_mb": 300.0}
    if engine_db is not None:
        found["engine"] = {"sqnr_db": engine_db, "value": value - 0.01, "cpu": cpu}
    return found


def results(cpu: str = HERE) -> dict[str, dict[str, dict[str, Any]]]:
    return {
        "net": {
            "fp32": {"value": 0.8, "accepted": True, "int8_share": 0.0},
            "ours": system(30.0, 0.79),
            "ours-cpu": system(25.0, 0.78, 24.5),
            "onnxruntime-minmax": system(20.0, 0.7),
            "nncf-default": {**system(22.0, 0.77, 12.0, cpu), "accepted": False},
            "nncf-overflow": {**system(23.0, 0.77, 22.5, cpu), "accepted": False},
            "nncf-control": system(90.0, 0.8),
        }
    }


@pytest.mark.parametrize(
    ("engine_db", "peer_db", "kept"),
    [(24.0, 21.0, (True, True)), (23.9, 20.0, (False, True)), (24.0, 21.1, (True, False))],
)
def test_an_engine_is_held_to_its_graph_and_to_a_peers_engine(
    engine_db: float, peer_db: float, kept: tuple[bool, bool]
) -> None:
    lines = of_engine("net", 25.0, engine_db, {"nncf": peer_db})
    assert tuple(line.endswith(": kept") for line in lines) == kept
    assert tuple(line.endswith(": MISSED") for line in lines) == tuple(not k for k in kept)
    assert f"{25.0 - engine_db:+.2f} dB below its graph, expected at most 1 dB" in lines[0]
    assert f"{engine_db - peer_db:+.2f} dB over that of nncf, expected at least +3 dB" in lines[1]


def test_without_a_peer_an_engine_is_held_to_its_graph_alone() -> None:
    assert len(of_engine("net", 25.0, 25.0, {})) == 1


@pytest.mark.parametrize(("ratio", "verdict"), [(1.05, "kept"), (1.051, "MISSED")])
def test_latency_may_be_five_percent_above_nncfs(ratio: float, verdict: str) -> None:
    line = of_latency("net", ratio)
    assert line == f"net: {ratio:.3f} times NNCF's latency, expected at most 1.05: {verdict}"


def test_no_noise_is_exact() -> None:
    assert (decibels(None), decibels(24.96)) == ("exact", "25.0")


def test_engines_stand_beside_their_graphs_and_name_the_cpu() -> None:
    rows = engine_table(results(ELSEWHERE))
    assert rows[2:] == [
        f"| net | ours-cpu | 25.0 | 24.5 | +2.00 | +3.00 | {HERE} |",
        f"| net | nncf-default | 22.0 | 12.0 | +3.00 | +4.00 | {ELSEWHERE} |",
        f"| net | nncf-overflow | 23.0 | 22.5 | +3.00 | +4.00 | {ELSEWHERE} |",
    ]
    assert all(row.count("|") == rows[0].count("|") for row in rows)


def test_engines_of_another_cpu_are_no_comparison() -> None:
    assert len(engine_verdicts(results(), HERE)) == 3
    (alone,) = engine_verdicts(results(ELSEWHERE), HERE)
    assert "+0.50 dB below its graph" in alone
    assert engine_verdicts(results(), ELSEWHERE) == []


def test_graphs_are_compared_with_the_best_peer_that_tensorrt_takes_whole() -> None:
    assert verdicts(results()) == ["net: +10.00 dB over the best accepted peer, onnxruntime-minmax"]
    assert "| net | nncf-default | 22.00 | 90.0 | 77.00 | +3.00 | 100 | no: unsigned codes |" in (
        table(results())
    )


@pytest.mark.parametrize(
    ("name", "cpu", "measured"),
    [
        ("ours", ELSEWHERE, True),  # a graph is the same everywhere
        ("ours-cpu", HERE, True),
        ("ours-cpu", ELSEWHERE, False),
        ("nncf-default", ELSEWHERE, False),
        ("modelopt-max", HERE, False),
    ],
)
def test_engines_are_measured_again_on_another_cpu(name: str, cpu: str, measured: bool) -> None:
    assert is_measured(results()["net"], name, cpu) is measured


def test_a_graph_without_its_engine_is_measured_again() -> None:
    """As runs before engines were measured have left it."""
    assert not is_measured({"nncf-default": system(20.0, 0.7)}, "nncf-default", HERE)


def test_what_was_measured_without_its_cost_is_measured_again() -> None:
    known = {"ours": {"value": 0.79, "sqnr_db": 30.0}}
    assert not is_measured(known, "ours", HERE)


def test_what_failed_is_not_tried_again_before_it_is_asked_for() -> None:
    failed = {"failure": "over 60 processor s", "processor_s": 60.0, "peak_mb": 900.0}
    assert is_measured({"quark-adaround": failed}, "quark-adaround", HERE)
    assert is_measured({"nncf-default": failed}, "nncf-default", HERE)


def with_strong(sqnr_db: float, processor_s: float) -> dict[str, dict[str, dict[str, Any]]]:
    failed = {"failure": "over 60 processor s", "processor_s": 60.0, "peak_mb": 900.0}
    strong = {**system(sqnr_db, 0.785), "processor_s": processor_s}
    return {"net": {**results()["net"], "quark-adaround": strong, "aimet-adaround": failed}}


@pytest.mark.parametrize(
    ("sqnr_db", "processor_s", "kept"),
    [(29.0, 200.0, True), (29.1, 200.0, False), (29.0, 199.0, False), (33.0, 9.0, False)],
)
def test_a_strong_method_is_beaten_by_a_decibel_in_a_tenth_of_its_time(
    sqnr_db: float, processor_s: float, kept: bool
) -> None:
    (line,) = strong_verdicts(with_strong(sqnr_db, processor_s))
    assert line.endswith(": kept" if kept else ": MISSED")
    assert f"{30.0 - sqnr_db:+.2f} dB over quark-adaround in {20.0 / processor_s:.2f}" in line


def test_a_cell_is_worth_and_cost_or_why_there_is_none() -> None:
    entries = {**with_strong(29.0, 200.0), "other": results()["net"]}
    found = summary(entries)
    assert found[0] == "| dB / drop; s; MB | net | other |"
    assert "| fp32 | 80.00 % | 80.00 % |" in found
    assert "| quark-adaround | 29.0 / +1.50; 200 s; 300 MB | not run |" in found
    assert "| aimet-adaround | failed: over 60 processor s; 60 s; 900 MB | not run |" in found
    assert all(row.count("|") == found[0].count("|") for row in found)


def test_what_failed_is_in_no_other_table() -> None:
    entries = with_strong(29.0, 200.0)
    rows = [*table(entries), *engine_table(entries), *engine_verdicts(entries, HERE)]
    assert not [row for row in rows if "aimet" in row]
    assert verdicts(entries) == ["net: +1.00 dB over the best accepted peer, quark-adaround"]


def test_latency_rows_carry_what_engine_and_graph_are_worth() -> None:
    timed = latencies(fp32=4.0, int8=2.0, nncf=2.0)
    plain, int8, nncf = rows(
        "net", timed, {"int8": 25.0, "nncf": 20.0}, {"fp32": 120.0, "int8": 24.5, "nncf": 12.0}
    )
    assert plain.startswith("| net | fp32 | ")
    assert plain.endswith(" | 120.0 |  |")  # the graph is what all are compared with
    assert int8.endswith(" | 24.5 | 25.0 |")
    assert nncf.endswith("| 1.000 (1.000 to 1.000) | 12.0 | 20.0 |")
    assert float(plain.split("|")[4].split()[0]) == pytest.approx(2.0, rel=0.05)
