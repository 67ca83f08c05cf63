"""What is clipped, what is odd, whether the samples were enough."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from artefacts.files import sha256_bytes
from calibrators.ranges.diagnostics import clipped_share, convergence, describe
from calibrators.ranges.methods import compute_ranges
from calibrators.statistics.collector import Activations, Collector
from calibrators.statistics.statistics import Statistics, TensorStatistics, subsets_of


def statistics_of(count: int, scale_of: object = None, seed: int = 0) -> Statistics:
    """Samples of 2000 normal values; ``scale_of`` maps a sample's digest to its scale."""
    rng = np.random.default_rng(seed)
    collector = Collector("g", {"x": "node", "y": "node"}, preprocess=None)
    for number in range(count):
        digest = sha256_bytes(str(number).encode())
        scale = 1.0 if scale_of is None else scale_of(digest)  # type: ignore[operator]
        values = rng.standard_normal(2000) * scale
        arrays = {"x": values, "y": np.maximum(values, 0)}
        collector.add([Activations(name=str(number), digest=digest, values=arrays)])
    return collector.statistics()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_clipped_share_counts_what_is_beyond(share: float, rng: np.random.Generator) -> None:
    values = rng.standard_normal(100_000)
    cell = TensorStatistics.of(values)
    amax = float(np.quantile(np.abs(values), share))
    expected = float(np.mean(np.abs(values) > amax))
    assert clipped_share(cell, amax) == pytest.approx(expected, abs=1e-3)


def test_clipped_share_at_the_ends() -> None:
    cell = TensorStatistics.of(np.array([1.0, 2.0, 3.0, 4.0], np.float32))
    assert clipped_share(cell, 4.0) == 0.0
    assert clipped_share(cell, 9.0) == 0.0
    assert clipped_share(cell, 0.5) == 1.0
    assert clipped_share(TensorStatistics(), 1.0) == 0.0


def test_report_of_each_tensor(rng: np.random.Generator) -> None:
    values = rng.standard_normal(50_000).astype(np.float32)
    tensors = {
        "plain": values,
        "dead": np.zeros(9, np.float32),
        "constant": np.full(9, 2.5, np.float32),
        "spiked": np.append(values, np.float32(100)),
        "unranged": values,
    }
    cells = {name: TensorStatistics.of(array) for name, array in tensors.items()}
    statistics = Statistics(graph_hash="g", preprocess=None, samples=("s",), tensors=cells)
    ranges = compute_ranges(statistics, method="percentile:99.9")
    ranges = replace(ranges, tensors={n: r for n, r in ranges.tensors.items() if n != "unranged"})
    reports = {report.name: report for report in describe(statistics, ranges)}
    assert set(reports) == set(tensors) - {"unranged"}
    assert {name: report.remark for name, report in reports.items()} == {
        "plain": "",
        "dead": "dead",
        "constant": "constant",
        "spiked": "outliers",
    }
    plain = reports["plain"]
    assert plain.clipped_share == pytest.approx(0.001, abs=2e-4)
    quantized = np.clip(np.rint(values / (plain.amax / 127)), -127, 127) * (plain.amax / 127)
    sqnr = 10 * math.log10(float((values**2).sum()) / float(((values - quantized) ** 2).sum()))
    assert plain.sqnr_db == pytest.approx(sqnr, abs=0.1)
    assert (reports["constant"].sqnr_db, reports["dead"].zero_share) == (math.inf, 1.0)


def test_samples_that_are_alike_were_enough() -> None:
    found = convergence(statistics_of(64), method="percentile:99")
    quarter, half = (
        sum(subsets_of(sha256_bytes(str(n).encode())) >= level for n in range(64))
        for level in (2, 1)
    )
    assert found.samples == (quarter, half, 64)
    assert found.enough == quarter
    assert str(found) == f"{quarter} of 64 samples were enough for these ranges"


def test_samples_that_differ_were_not() -> None:
    """One sample with large values, outside both subsets: half the samples do not know of it."""
    outside = next(d for d in map(_digest, range(64)) if subsets_of(d) == 0)
    statistics = statistics_of(64, lambda digest: 50.0 if digest == outside else 1.0)
    found = convergence(statistics, method="minmax")
    assert found.enough is None
    assert found.settled_share[:-1] == (0.0, 0.0)
    assert "100% of the tensors differ by more than 5 %" in str(found)
    assert "more samples would help" in str(found)


def test_dead_in_a_part_only_is_a_change() -> None:
    outside = next(d for d in map(_digest, range(64)) if subsets_of(d) == 0)
    statistics = statistics_of(64, lambda digest: float(digest == outside))
    assert convergence(statistics, method="minmax").worst[0][1] == 1.0
    assert convergence(statistics_of(64, lambda _: 0.0), method="minmax").enough is not None


def test_few_samples_or_no_subsets_tell_nothing() -> None:
    statistics = replace(statistics_of(8), subsets=())
    assert str(convergence(statistics, method="mse")).startswith("8 samples are too few")


def _digest(number: int) -> str:
    return sha256_bytes(str(number).encode())
