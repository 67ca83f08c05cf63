"""Arrays of samples come back as they were, from memory or from a file."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graphs.view import GraphView
from quantization.improve.walk.float_and_int8 import FloatAndInt8, LayerVisit
from quantization.improve.walk.sample_arrays import Memory, SampleArrays
from quantization.measure.execution import load_node
from tests.accuracy_models import samples_of
from tests.networks import resnet

KINDS = st.sampled_from([np.float32, np.float16, np.float64, np.int64, np.uint8, np.bool_])


@given(
    arrays=st.lists(
        KINDS.flatmap(lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, min_side=0))),
        max_size=6,
    ),
    left=st.integers(0, 600),
)
def test_what_is_kept_comes_back(arrays: list[np.ndarray], left: int) -> None:
    memory = Memory(left_bytes=left, smallest_bytes=1)
    kept = SampleArrays(memory=memory)
    for array in arrays:
        kept.append(array)
    assert len(kept) == len(arrays)
    assert kept.size_bytes == sum(array.nbytes for array in arrays)
    for found, wanted in zip(kept, arrays, strict=True):
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)
    for found, wanted in zip(kept[1:], arrays[1:], strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert memory.left_bytes >= 0
    kept.give_up()
    assert memory.left_bytes == left
    assert kept.size_bytes == 0


def test_what_goes_makes_room_in_memory(rng: np.random.Generator) -> None:
    memory = Memory(left_bytes=10_000)
    first, second = SampleArrays(memory=memory), SampleArrays(memory=memory)
    values = rng.normal(size=(3, 1000))
    for row in values:
        first.append(row)  # the second and the third go to a file
    assert memory.left_bytes == 2_000
    first.give_up(0)
    assert memory.left_bytes == 10_000
    second.append(values[0])
    assert second[0] is not None
    assert memory.left_bytes == 2_000
    first.replace(1, -values[1])
    second.replace(0, -values[0])
    np.testing.assert_array_equal(first[1], -values[1])
    np.testing.assert_array_equal(first[2], values[2])
    np.testing.assert_array_equal(second[0], -values[0])
    del second
    assert memory.left_bytes == 10_000


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    going=st.lists(st.integers(0, 100), max_size=60),
)
def test_places_in_the_file_are_used_again(sizes: list[int], going: list[int]) -> None:
    """Nothing lies on anything that is still asked for, and what is free is one piece again."""
    memory = Memory(left_bytes=0, smallest_bytes=1)
    kept = SampleArrays(memory=memory)
    alive: dict[int, np.ndarray] = {}
    for number, size in enumerate(sizes):
        alive[number] = np.full(size, number, np.float32)
        kept.append(alive[number])
        for chosen in going[2 * number : 2 * number + 2]:
            gone = chosen % len(kept)
            if alive.pop(gone, None) is not None:
                kept.give_up(gone)
        for other, wanted in alive.items():
            np.testing.assert_array_equal(kept[other], wanted)
    kept.give_up()
    assert memory._free == [(0, memory._end)]
    whole = np.zeros(memory._end // 4, np.float32)
    kept.append(whole)
    assert memory._free == []
    assert memory._end == whole.nbytes <= 4 * sum(sizes)


def test_words_and_views_of_others_stay_in_memory() -> None:
    words = np.array(["a" * 3000, "b"] * 2, object)
    memory = Memory(left_bytes=0)
    kept = SampleArrays(memory=memory)
    kept.append(words)
    assert kept[0] is words
    fed = np.zeros(100_000)
    assert SampleArrays.shared([fed])[0] is fed


def test_without_a_place_for_files_memory_has_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    memory = Memory(left_bytes=0)
    kept = SampleArrays(memory=memory)
    values = rng.normal(size=(2, 1000))
    for row in values:
        kept.append(row)
    assert memory.file_fails
    np.testing.assert_array_equal(kept[:], values)


def test_a_walk_in_files_is_the_walk_in_memory(rng: np.random.Generator) -> None:
    model = resnet(size=16)
    feeds = samples_of(model, rng, 3)
    in_memory, in_files = (walked(model, feeds, left_bytes) for left_bytes in (1 << 30, 0))
    assert len(in_memory) == len(in_files) > 20
    for found, wanted in zip(in_files, in_memory, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_walk_holds_what_is_still_to_be_read(rng: np.random.Generator) -> None:
    """The memory of a node's inputs is there again when the walk is through."""
    model = resnet(size=16)
    memory = Memory(left_bytes=1 << 30)
    view = GraphView(model)
    both = FloatAndInt8(
        view=view, load=load_node, samples=samples_of(model, rng, 2), correct=False, memory=memory
    )
    both.walk(lambda visit: ({}, {}))
    assert set(both.exact) == set(view.outputs)
    left = sum(values.size_bytes for values in both.exact.values())
    assert memory.left_bytes == (1 << 30) - left


def walked(
    model: onnx.ModelProto, feeds: list[dict[str, np.ndarray]], left_bytes: int
) -> list[np.ndarray]:
    """All that a walk hands on, layer by layer, weights rounded coarsely in the second copy."""
    view = GraphView(model)
    memory = Memory(left_bytes=left_bytes)
    both = FloatAndInt8(view=view, load=load_node, samples=feeds, correct=True, memory=memory)
    seen: list[np.ndarray] = []

    def look(visit: LayerVisit) -> tuple[dict, dict]:  # type: ignore[type-arg]
        for values in (*visit.exact.values(), *visit.actual.values()):
            seen.extend(values)
        weights = [name for name in visit.node.inputs[1:2] if view.is_constant(name)]
        found = {name: view.constant(name) for name in weights}
        return {}, {name: np.round(value, 1) for name, value in found.items() if value is not None}

    both.walk(look)
    return [*seen, *both.shifts.values()]
