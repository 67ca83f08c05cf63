"""The collector: what it counts, refuses, writes and continues."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from artefacts.errors import ArtefactError, DataError, ModelError
from artefacts.files import sha256_bytes
from calibrators.statistics.collector import Activations, Checkpoint, Collector
from calibrators.statistics.statistics import Statistics, TensorStatistics, subsets_of

NODES = {"conv_out": "Conv stem/conv", "x": "the graph's input"}


def sample(number: int, **values: object) -> Activations:
    arrays = {"conv_out": np.full((1, 2), number), "x": np.arange(number + 1)}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    return Activations(
        name=f"image {number}",
        digest=sha256_bytes(str(number).encode()),
        values={**arrays, **values},  # type: ignore[dict-item]  # tests put odd things in
    )


def collector(path: Path | None = None, every: int = 1, **changes: object) -> Collector:
    checkpoint = None if path is None else Checkpoint(path=path, every_samples=every)
    fields: dict[str, object] = {"graph_hash": "g", "nodes": NODES, "preprocess": None, **changes}
    return Collector(checkpoint=checkpoint, **fields)  # type: ignore[arg-type]


def test_grouping_does_not_show() -> None:
    one, other = collector(), collector()
    samples = [sample(number) for number in range(9)]
    one.add(samples)
    for entry in reversed(samples):
        other.add([entry])
    assert one.statistics() == other.statistics()
    expected = TensorStatistics.of(np.concatenate([s.values["x"] for s in samples]))
    assert one.statistics().tensors["x"] == expected


def test_subsets_hold_the_samples_that_their_digests_say() -> None:
    samples = [sample(number) for number in range(40)]
    whole = collector()
    whole.add(samples)
    for level, subset in enumerate(whole.statistics().subsets, start=1):
        chosen = [s for s in samples if subsets_of(s.digest) >= level]
        assert 0 < len(chosen) < len(samples)
        expected = TensorStatistics.of(np.concatenate([s.values["x"] for s in chosen]))
        assert subset["x"] == expected


def test_nan_names_tensor_node_and_sample() -> None:
    broken = sample(3, conv_out=np.array([1.0, np.nan, -np.inf], np.float32))
    same_level = [s for s in map(sample, range(50)) if subsets_of(s.digest) == 0][:2]
    for group in ([broken], [*same_level, broken]):
        with pytest.raises(DataError) as caught:
            collector().add(group)
        assert "tensor conv_out, computed by Conv stem/conv, has 1 NaN and 1 Inf" in str(
            caught.value
        )
        assert "for sample image 3" in str(caught.value)


def test_integers_are_refused() -> None:
    with pytest.raises(ModelError, match=r"tensor x \(the graph's input\) holds int64"):
        collector().add([sample(1, x=np.arange(3))])


def test_checkpoint_is_written_when_due_and_continued(tmp_path: Path) -> None:
    path = tmp_path / "x.stats.npz"
    first = collector(path, every=2)
    first.add([sample(0)])
    assert not path.exists()
    first.add([sample(1)])
    assert len(Statistics.load(path).samples) == 2
    second = collector(path, every=100)
    assert second.seen == {sample(0).digest, sample(1).digest}
    second.add([sample(2)])
    second.save()
    whole = collector()
    whole.add([sample(number) for number in (2, 1, 0)])
    assert Statistics.load(path) == whole.statistics()
    assert Statistics.load(path).digest == whole.statistics().digest


def test_checkpoint_by_time(tmp_path: Path) -> None:
    path = tmp_path / "x.stats.npz"
    Collector(
        "g", NODES, preprocess=None, checkpoint=Checkpoint(path=path, every_samples=99, every_s=0.0)
    ).add([sample(0)])
    assert path.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"graph_hash": "other"}, "its graph is g, expected other"),
        ({"preprocess": {"scale": 2}}, "its preprocessing is None, expected {'scale': 2}"),
        ({"nodes": {"x": "n"}}, r"its tensors is \['conv_out', 'x'\], expected \['x'\]"),
    ],
)
def test_checkpoint_of_another_run_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "x.stats.npz"
    collector(path).add([sample(0)])
    with pytest.raises(ArtefactError, match=message):
        collector(path, **change)


def test_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.stats.npz"
    path.write_bytes(b"PK")
    with pytest.raises(ArtefactError, match="cannot be read"):
        collector(path)


def test_each_tensor_of_a_sample_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []
    add = TensorStatistics.add
    monkeypatch.setattr(
        TensorStatistics, "add", lambda cell, array: (counted.append(array.size), add(cell, array))
    )
    filled = collector()
    filled.add([sample(number) for number in range(16)])
    assert sum(counted) == sum(2 + number + 1 for number in range(16))  # in whatever subset
    counted.clear()
    filled.statistics()
    assert counted == []


def test_no_checkpoint_of_half_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.stats.npz"
    filled = collector(path)
    inside, may_go = threading.Event(), threading.Event()
    count = Collector._count

    def slow(self: Collector, name: str, group: Sequence[Activations]) -> None:
        count(self, name, group)
        if group[0].name == "image 7" and not inside.is_set():  # its first tensor is counted
            inside.set()
            assert may_go.wait(10)

    monkeypatch.setattr(Collector, "_count", slow)
    other = threading.Thread(target=filled.add, args=([sample(7)],))
    other.start()
    assert inside.wait(10)
    filled.add([sample(1)])
    assert not path.exists()  # due, and sample 7 is half in
    may_go.set()
    other.join()
    whole = collector()
    whole.add([sample(1), sample(7)])
    assert Statistics.load(path) == whole.statistics()


def test_no_checkpoint_after_a_nan(tmp_path: Path) -> None:
    path = tmp_path / "x.stats.npz"
    filled = collector(path)
    broken = sample(3, x=np.array([1.0, np.nan], np.float32))  # its other tensor is fine
    with pytest.raises(DataError, match="has 1 NaN"):
        filled.add([broken])
    filled.add([sample(1)])
    assert not path.exists()


def test_a_sample_is_not_refused_for_another(rng: np.random.Generator) -> None:
    """Threads count at the same time: one has met the NaN of its own sample."""
    collector = Collector("0" * 64, {"t": "Sqrt root"}, preprocess=None)
    bad, good = (
        Activations(name=name, digest="0" * 64, values={"t": values})
        for name, values in (
            ("bad.png", np.full(3, np.nan, np.float32)),
            ("good.png", rng.standard_normal(3).astype(np.float32)),
        )
    )
    with pytest.raises(DataError, match=r"has 3 NaN and 0 Inf among 3 values for sample bad\.png"):
        collector.add([bad])
    collector.add([good])
