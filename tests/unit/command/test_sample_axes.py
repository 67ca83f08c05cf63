"""What a sample is: each kind of network, run on two samples to find out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

import calibrators
from artefacts.errors import BuilderError, DataError, InputError, ModelError
from calibrators.samples.axes import NOTE, SampleAxes
from pipeline.job import Job
from pipeline.keywords import job_of
from pipeline.sample_axes import settle_axes
from pipeline.samples import calibration_samples
from pipeline.screen import Screen
from tests.sample_networks import NETWORKS, Network, Shapes


def job(tmp_path: Path, data: Any, **options: Any) -> Job:
    if isinstance(data, np.ndarray):  # what the front door writes lives as long as its job
        np.save(tmp_path / "given.npy", data)
        data = tmp_path / "given.npy"
    given = {"calib_data": data, **options}
    with job_of(tmp_path / "m.onnx", tmp_path / "out/m.engine", given) as found:
        return found


def settled(
    tmp_path: Path, model: onnx.ModelProto, data: Any, **options: Any
) -> tuple[onnx.ModelProto, list[calibrators.Sample], str]:
    asked = job(tmp_path, data, **options)
    screen = Told()
    found = settle_axes(asked.data, model, screen)
    return found, list(calibration_samples(asked.data, found)), "\n".join(screen.lines)


class Told(Screen):
    """A screen that remembers."""

    def __init__(self) -> None:
        super().__init__(bars=False, steps=5, quiet=True)
        self.lines: list[str] = []

    def add(self, *lines: str) -> None:
        """Remember the lines."""
        self.lines += lines


@pytest.mark.parametrize("name", NETWORKS)
def test_axes_are_found_by_running(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    network = NETWORKS[name]
    feeds = [network.feed(rng) for _ in range(2)]
    model, samples, said = settled(tmp_path, network.model(rng), lambda: feeds)
    specs = calibrators.input_specs(model)
    assert {spec.name: spec.axis for spec in specs} == dict(network.axes)
    assert len(samples) == network.samples * len(feeds)
    if any(axis is not None for axis in network.axes.values()):
        assert {spec.apart for spec in specs} == {network.apart}
    for spec in specs:
        pieces = [sample.inputs[spec.name] for sample in samples]
        wanted = [feed[spec.name] for feed in feeds]
        if spec.axis is None:
            assert all(piece.shape == wanted[0].shape for piece in pieces)
        else:
            np.testing.assert_array_equal(
                np.concatenate(pieces, spec.axis), np.concatenate(wanted, spec.axis)
            )
    assert ("no batch axis" in said) == all(axis is None for axis in network.axes.values())


@pytest.mark.parametrize("name", ["images", "time first", "state of two layers"])
def test_samples_are_stacked_along_their_axes(
    name: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    network = NETWORKS[name]
    feed = network.feed(rng)
    model, samples, _ = settled(tmp_path, network.model(rng), lambda: [feed])
    specs = calibrators.input_specs(model)
    found = list(calibrators.batches(samples, 8, inputs=specs))
    if None in network.axes.values():
        assert [batch.count for batch in found] == [1] * network.samples
        return
    (batch,) = found
    for key, array in feed.items():
        np.testing.assert_array_equal(batch.inputs[key], array)


def test_what_the_screen_says(tmp_path: Path, rng: np.random.Generator) -> None:
    said = {}
    for name in ("tokens", "state of two layers", "nodes and edges", "a batch of one"):
        network = NETWORKS[name]
        feed = network.feed(rng)
        said[name] = settled(tmp_path, network.model(rng), lambda feed=feed: [feed])[2]
    assert said == {
        "tokens": "batch axis 0 of 2 inputs (found by running)",
        "state of two layers": "batch axis 0 of x, 1 of state (found by running)",
        "nodes and edges": "no batch axis: each is one sample, whole (found by running)",
        "a batch of one": "batch axis 0 of the input (fixed by the model)",
    }


def test_a_free_batch_that_something_inside_fixes_to_one(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    network = Network(
        io="(float[N,2,6] x) => (float[1,4] y)",
        body="to = Constant <value_ints=[1,12]> () a = Reshape (x, to) y = MatMul (a, w12x4)",
        shapes={"x": (1, 2, 6)},
        axes={"x": 0},
        samples=1,
    )
    rows = rng.normal(size=(9, 2, 6)).astype(np.float32)
    model, samples, _ = settled(tmp_path, network.model(rng), rows)
    specs = calibrators.input_specs(model)
    assert [spec.shape for spec in specs] == [(1, 2, 6)]
    assert calibrators.fixed_batch(specs) == 1
    assert len(samples) == 9
    assert all(b.count == 1 for b in calibrators.batches(samples, 8, inputs=specs))


@pytest.mark.parametrize(
    ("name", "arrays", "count"),
    [
        ("image and points", {"x": (6, 3, 8, 8), "pts": (6, 50, 4)}, 6),
        ("nodes and edges", {"feat": (6, 7, 6), "edges": (6, 2, 9)}, 6),
        ("two names", {"x": (6, 6), "s": (6, 1)}, 6),
        ("views pooled", {"x": (6, 5, 3, 8, 8)}, 6),
        ("eight views pooled", {"x": (6, 8, 3, 8, 8)}, 6),
        ("time first", {"x": (7, 6, 4)}, 6),
        ("time first", {"x": (6, 7, 1, 4)}, 6),
        ("points and boxes", {"x": (12, 3), "b": (7, 4)}, 1),
    ],
)
def test_arrays_of_many_samples(
    name: str, arrays: Shapes, count: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    network = NETWORKS[name]
    data = {
        key: rng.integers(0, 6, shape)
        if key in network.integers
        else rng.normal(size=shape).astype(np.float32)
        for key, shape in arrays.items()
    }
    np.savez(tmp_path / "s.npz", **data)
    model, samples, _ = settled(tmp_path, network.model(rng), tmp_path / "s.npz")
    assert len(samples) == count
    for spec in calibrators.input_specs(model):
        assert {len(sample.inputs[spec.name].shape) for sample in samples} == {len(spec.shape)}


@pytest.mark.parametrize(
    "name", ["views pooled", "views that see each other", "softmax over samples"]
)
def test_rows_that_may_be_one_sample_are_asked_for(
    name: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    network = NETWORKS[name]
    np.save(tmp_path / "s.npy", rng.normal(size=(9, *network.shapes["x"][1:])).astype(np.float32))
    model = network.model(rng)
    with pytest.raises(DataError, match=r"holds 9 rows; along x=0 .*--batch-axis x=0 .*--whole"):
        settled(tmp_path, model, tmp_path / "s.npy")
    found, samples, said = settled(tmp_path, model, tmp_path / "s.npy", batch_axis={"x": 0})
    assert len(samples) == 9
    assert calibrators.evaluation_batch(calibrators.input_specs(found), 8) == 1
    assert said == "batch axis 0 of the input (as the flags say)"
    _, samples, _ = settled(tmp_path, model, tmp_path / "s.npy", whole_samples=True)
    assert [sample.inputs["x"].shape[0] for sample in samples] == [9]


def test_rows_for_a_fixed_number_of_views(tmp_path: Path, rng: np.random.Generator) -> None:
    model = NETWORKS["eight views pooled"].model(rng)
    rows = rng.normal(size=(24, 3, 8, 8)).astype(np.float32)
    with pytest.raises(DataError, match=r"has shape \[24, 3, 8, 8\].*--batch-axis x=0"):
        settled(tmp_path, model, rows)


def test_no_rows_at_all(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(DataError, match="has 0 samples"):
        settled(tmp_path, NETWORKS["images"].model(rng), np.zeros((0, 3, 8, 8), np.float32))


def test_unequal_numbers_of_one_name_stay_an_error(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    model = NETWORKS["tokens"].model(rng)
    feed = {"ids": np.zeros((3, 5), int), "mask": np.ones((2, 5), np.float32)}
    with pytest.raises(DataError, match="ids 3, mask 2"):
        settled(tmp_path, model, lambda: [feed])


def test_samples_that_are_alike_get_another_neighbour(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """Softmax over samples that are equal gives each the same share, whoever they are."""
    network = NETWORKS["softmax over samples"]
    row = np.repeat(network.feed(rng)["x"][:1], 5, axis=0)
    model, samples, _ = settled(tmp_path, network.model(rng), lambda: [{"x": row}] * 2)
    assert [spec.axis for spec in calibrators.input_specs(model)] == [None]
    assert len(samples) == 2


def test_images_are_samples_whatever_the_axis_is(tmp_path: Path, rng: np.random.Generator) -> None:
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    model = NETWORKS["views pooled"].model(rng)
    _, samples, _ = settled(tmp_path, model, folder, preprocess={"scale": "1/255"})
    assert [sample.inputs["x"].shape for sample in samples] == [(1, 3, 8, 8)] * 3


def test_random_samples(tmp_path: Path, rng: np.random.Generator) -> None:
    model = NETWORKS["two names"].model(rng)
    found, samples, _ = settled(tmp_path, model, None, random_calibration=4)
    assert [spec.axis for spec in calibrators.input_specs(found)] == [0, 0]
    assert [sample.inputs["s"].shape for sample in samples] == [(1, 1)] * 4


def test_without_data_names_decide(tmp_path: Path, rng: np.random.Generator) -> None:
    asked = job(tmp_path, None, precision="fp32")
    found = settle_axes(asked.data, NETWORKS["views pooled"].model(rng), Told())
    assert [spec.axis for spec in calibrators.input_specs(found)] == [0]


def test_a_model_that_does_not_run_here_goes_by_its_names(tmp_path: Path) -> None:
    text = (
        '<ir_version: 8, opset_import: ["": 17, "of.mine": 1]> g (float[N,4] x) => (float[N,4] y) '
        "{ y = of.mine.Twice (x) }"
    )
    model = parser.parse_model(text)
    found, samples, said = settled(tmp_path, model, np.zeros((5, 4), np.float32))
    assert [spec.axis for spec in calibrators.input_specs(found)] == [0]
    assert len(samples) == 5
    assert "not tried: onnxruntime cannot load" in said


def test_flags_that_name_other_inputs(tmp_path: Path, rng: np.random.Generator) -> None:
    model, rows = NETWORKS["images"].model(rng), np.zeros((2, 3, 8, 8), np.float32)
    with pytest.raises(
        DataError, match="batch axis of image is given, expected one of the inputs x"
    ):
        settled(tmp_path, model, rows, batch_axis={"image": 0})
    with pytest.raises(DataError, match=r"batch axis 4 of input x .* expected one below 4"):
        settled(tmp_path, model, rows, batch_axis={"x": 4})
    with pytest.raises(InputError, match="--batch-axis with --whole-samples"):
        job(tmp_path, rows, batch_axis="x=0", whole_samples=True)
    with pytest.raises(InputError, match="'x:0' is not of the form INPUT=0"):
        job(tmp_path, rows, batch_axis="x:0")


def test_the_note_travels_in_the_model(rng: np.random.Generator) -> None:
    model = NETWORKS["state of two layers"].model(rng)
    note = SampleAxes(axes={"x": 0, "state": 1, "rate": None}, apart=False)
    again = onnx.load_from_string(note.note(model).SerializeToString())
    specs = calibrators.input_specs(again)
    assert [(spec.axis, spec.apart) for spec in specs] == [(0, False), (1, False), (None, False)]
    assert not any(entry.key == NOTE for entry in model.metadata_props)


@pytest.mark.parametrize("text", ["[", "3", '{"axes": {"x": "0"}}', '{"axes": {"x": 7}}'])
def test_a_damaged_note(text: str, rng: np.random.Generator) -> None:
    model = NETWORKS["images"].model(rng)
    onnx.helper.set_model_props(model, {NOTE: text})
    with pytest.raises(ModelError, match="sample"):
        calibrators.input_specs(model)
    assert issubclass(ModelError, BuilderError)
