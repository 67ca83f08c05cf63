"""Arrays and loaders: which axis is samples, what converts to what, what is refused."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artefacts.errors import DataError
from calibrators.preprocessing.preprocess import Preprocess
from calibrators.samples.data import InputSpec, Sample, open_samples, require_labels

F32 = np.dtype(np.float32)
I64 = np.dtype(np.int64)
IMAGE = (InputSpec(name="pixels", dtype=F32, shape=("N", 3, 4, 5)),)
FEATURES = (InputSpec(name="mfcc", dtype=F32, shape=("N", 1, 7, 3)),)
TOKENS = (
    InputSpec(name="input_ids", dtype=I64, shape=("batch", "sequence")),
    InputSpec(name="attention_mask", dtype=I64, shape=("batch", "sequence")),
)
UNIT = Preprocess(scale="1/255")


def npz(folder: Path, **arrays: Any) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def refusal(path: object, inputs: tuple[InputSpec, ...], **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        list(open_samples(path, inputs=inputs, **options))
    return str(caught.value)


@pytest.mark.parametrize(
    "name", ["pixels", "images", "image", "x", "X", "data", "input", "arr_0", "anything"]
)
def test_one_input_takes_any_sensible_name(
    name: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    array = rng.normal(size=(6, 3, 4, 5)).astype(np.float32)
    samples = open_samples(npz(tmp_path, **{name: array}, labels=np.arange(6)), inputs=IMAGE)
    assert len(samples) == 6
    for index, sample in enumerate(samples):
        np.testing.assert_array_equal(sample.inputs["pixels"], array[index : index + 1])
        assert (sample.label, sample.name) == (index, f"data.npz#{index}")
    require_labels(samples)


def test_the_input_s_own_name_wins(tmp_path: Path) -> None:
    path = npz(tmp_path, x=np.zeros((2, 3, 4, 5), "f4"), pixels=np.ones((2, 3, 4, 5), "f4"))
    assert next(iter(open_samples(path, inputs=IMAGE))).inputs["pixels"].min() == 1


@pytest.mark.parametrize("name", ["labels", "label", "y", "Y", "targets"])
def test_names_of_labels(name: str, tmp_path: Path) -> None:
    path = npz(tmp_path, x=np.zeros((2, 3, 4, 5), "f4"), **{name: np.array([[4], [5]])})
    assert [s.label for s in open_samples(path, inputs=IMAGE)] == [4, 5]


def test_labels_may_be_arrays(tmp_path: Path) -> None:
    boxes = np.arange(16.0).reshape(2, 2, 4)
    path = npz(tmp_path, x=np.zeros((2, 3, 4, 5), "f4"), labels=boxes)
    for sample, label in zip(open_samples(path, inputs=IMAGE), boxes, strict=True):
        np.testing.assert_array_equal(sample.label, label)


def test_labels_that_are_missing_or_too_few(tmp_path: Path) -> None:
    x = np.zeros((3, 3, 4, 5), "f4")
    samples = open_samples(npz(tmp_path, x=x), inputs=IMAGE)
    with pytest.raises(DataError, match="an array named labels, label, y, Y"):
        require_labels(samples)
    said = refusal(npz(tmp_path, x=x, y=np.arange(2)), IMAGE)
    assert "(y) has shape [2], expected 3 labels" in said


def test_npy_with_labels_beside(tmp_path: Path) -> None:
    np.save(tmp_path / "x_test.npy", np.zeros((3, 3, 4, 5), "f4"))
    assert [s.label for s in open_samples(tmp_path / "x_test.npy", inputs=IMAGE)] == [None] * 3
    np.save(tmp_path / "labels.npy", np.arange(5))
    assert [s.label for s in open_samples(tmp_path / "x_test.npy", inputs=IMAGE)] == [None] * 3
    np.save(tmp_path / "y_test.npy", np.array([2, 1, 0]))
    assert [s.label for s in open_samples(tmp_path / "x_test.npy", inputs=IMAGE)] == [2, 1, 0]
    with pytest.raises(DataError, match="array for input input_ids"):
        open_samples(tmp_path / "x_test.npy", inputs=TOKENS)


@pytest.mark.parametrize(
    "array_shape", [(6, 4, 5, 3), (6, 3, 4, 5), (4, 5, 3)], ids=["nhwc", "nchw", "one"]
)
@pytest.mark.parametrize("how", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
def test_uint8_images_go_through_the_spec(
    array_shape: tuple[int, ...],
    how: Callable[..., None],
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    array = rng.integers(0, 256, array_shape, dtype=np.uint8)
    how(tmp_path / "a.npz", images=array)
    samples = list(open_samples(tmp_path / "a.npz", inputs=IMAGE, preprocess=UNIT))
    rows = array[None] if array.ndim == 3 else array
    rows = rows if rows.shape[3] == 3 else rows.transpose(0, 2, 3, 1)
    assert len(samples) == len(rows)
    for sample, row in zip(samples, rows, strict=True):
        np.testing.assert_array_equal(sample.inputs["pixels"][0], UNIT(row))


def test_gray_images_without_channel_axis(tmp_path: Path, rng: np.random.Generator) -> None:
    array = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)  # looks like one RGB image
    inputs = (InputSpec(name="x", dtype=F32, shape=("N", 1, 9, 8)),)
    spec = Preprocess(color="gray", scale=1)
    digits = rng.integers(0, 256, (6, 9, 8), dtype=np.uint8)
    found = list(open_samples(npz(tmp_path, x=digits), inputs=inputs, preprocess=spec))
    np.testing.assert_array_equal(np.stack([s.inputs["x"][0, 0] for s in found]), digits)
    assert "has shape [1, 1, 6, 7]" in refusal(npz(tmp_path, x=array), inputs, preprocess=spec)


def test_integers_for_real_inputs_need_a_meaning(tmp_path: Path) -> None:
    path = npz(tmp_path, x=np.zeros((2, 4, 5, 3), np.uint8))
    said = refusal(path, IMAGE)
    assert "(x) is uint8, expected real values for input pixels float32 [N, 3, 4, 5]" in said
    assert "'scale: 1/255'" in said
    assert "'inputs: {pixels: {scale: 1}}'" in said


def test_features_stored_as_integers(tmp_path: Path, rng: np.random.Generator) -> None:
    array = rng.integers(-128, 128, (9, 7, 3), dtype=np.int8)
    spec = Preprocess(inputs={"mfcc": {"scale": 0.58, "zero_point": 83}})
    samples = list(open_samples(npz(tmp_path, X=array), inputs=FEATURES, preprocess=spec))
    assert [sample.inputs["mfcc"].shape for sample in samples] == [(1, 1, 7, 3)] * 9
    expected = ((array.astype(np.float64) - 83) * 0.58).astype(np.float32)
    np.testing.assert_array_equal(np.stack([s.inputs["mfcc"][0, 0] for s in samples]), expected)


@pytest.mark.parametrize(
    ("shape", "count"), [((9, 1, 7, 3), 9), ((9, 7, 3), 9), ((1, 7, 3), 1), ((7, 3), 1)]
)
def test_axes_of_length_one_may_be_missing(
    shape: tuple[int, ...], count: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    array = rng.normal(size=shape).astype(np.float32)
    samples = list(open_samples(npz(tmp_path, x=array), inputs=FEATURES))
    assert len(samples) == count
    fed = np.concatenate([sample.inputs["mfcc"] for sample in samples])
    np.testing.assert_array_equal(fed, array.reshape(count, 1, 7, 3))


def test_folder_of_array_files(tmp_path: Path, rng: np.random.Generator) -> None:
    """Speech commands and their like: one file of features each, a folder for each class."""
    arrays = {}
    for name in ("no/b.npy", "no/a.npy", "yes/c.npy"):
        arrays[name] = rng.normal(size=(7, 3)).astype(np.float32)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / name, arrays[name])
    samples = open_samples(tmp_path, inputs=FEATURES)
    assert [(s.name, s.label) for s in samples] == [
        ("no/a.npy", 0),
        ("no/b.npy", 0),
        ("yes/c.npy", 1),
    ]
    for sample in samples:
        np.testing.assert_array_equal(sample.inputs["mfcc"][0, 0], arrays[sample.name])
    require_labels(samples)


def test_folder_of_npz_batches(tmp_path: Path) -> None:
    for part, count in (("b", 2), ("a", 3)):
        ids = np.full((count, 8), ord(part))
        np.savez(tmp_path / f"{part}.npz", input_ids=ids, attention_mask=ids, labels=ids[:, 0])
    samples = open_samples(tmp_path, inputs=TOKENS)
    expected = ["a.npz#0", "a.npz#1", "a.npz#2", "b.npz#0", "b.npz#1"]
    assert [sample.name for sample in samples] == expected
    assert [sample.label for sample in samples[1::2]] == [ord("a"), ord("b")]
    assert [sample.name for sample in samples[1::2]] == expected[1::2]


def test_token_ids_pass_through(tmp_path: Path, rng: np.random.Generator) -> None:
    ids = rng.integers(0, 30_000, (4, 9), dtype=np.int32)
    mask = np.ones((4, 9), bool)
    samples = list(open_samples(npz(tmp_path, input_ids=ids, attention_mask=mask), inputs=TOKENS))
    assert len(samples) == 4
    for index, sample in enumerate(samples):
        assert sample.inputs["input_ids"].dtype == np.int64
        np.testing.assert_array_equal(sample.inputs["input_ids"], ids[index : index + 1])
        np.testing.assert_array_equal(sample.inputs["attention_mask"], mask[index : index + 1])


def test_images_beside_tokens(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    path = npz(
        tmp_path, pixels=pixels, input_ids=np.ones((2, 6), int), attention_mask=np.ones((2, 6)) > 0
    )
    sample = next(iter(open_samples(path, inputs=(*TOKENS, *IMAGE), preprocess=UNIT)))
    np.testing.assert_array_equal(sample.inputs["pixels"][0], UNIT(pixels[0]))


def test_real_arrays_are_fed_as_they_are_even_beside_a_spec(tmp_path: Path) -> None:
    array = np.full((2, 3, 4, 5), 0.25, np.float64)
    spec = Preprocess(resize=9, scale="1/255")
    for sample in open_samples(npz(tmp_path, x=array), inputs=IMAGE, preprocess=spec):
        assert sample.inputs["pixels"].dtype == np.float32
        np.testing.assert_array_equal(sample.inputs["pixels"], array[:1])


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"ids": 1, "mask": 1}, "has ids, mask, expected an array for input input_ids"),
        ({"input_idx": 1, "mask": 1}, "did you mean input_idx?"),
        (
            {"input_ids": np.ones((3, 4), int), "attention_mask": np.ones((2, 4), int)},
            "input_ids 3, attention_mask 2",
        ),
        (
            {"input_ids": np.ones((0, 4), int), "attention_mask": np.ones((0, 4), int)},
            "has 0 samples",
        ),
        (
            {"input_ids": np.ones((3, 4)), "attention_mask": np.ones((3, 4), int)},
            "(input_ids) is float64, expected int64",
        ),
        (
            {"input_ids": np.ones((2, 3, 4, 5), int), "attention_mask": np.ones((3, 4), int)},
            "shape [2, 3, 4, 5], expected one for input input_ids int64 [batch, sequence]",
        ),
        (
            {"input_ids": np.array([[2**63]], np.uint64), "attention_mask": np.ones((1, 1), int)},
            "9223372036854775808..9223372036854775808",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arrays_that_do_not_fit(arrays: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert said in refusal(npz(tmp_path, **arrays), TOKENS)


def test_several_candidates_for_one_input(tmp_path: Path) -> None:
    path = npz(tmp_path, left=np.zeros(3), right=np.zeros(3), y=np.zeros(3))
    assert "has left, right, y, expected an array for input pixels" in refusal(path, IMAGE)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("how", ["npz", "loader"])
def test_nan_and_inf_are_named_by_sample(how: str, bad: float, tmp_path: Path) -> None:
    array = np.zeros((5, 3, 4, 5), np.float32)
    array[3, 1, 2, :2] = bad
    source = npz(tmp_path, x=array) if how == "npz" else (lambda: [{"pixels": array}])
    said = refusal(source, IMAGE)
    assert "sample 3 (pixels)" in said
    kinds = "2 NaN and 0 Inf" if np.isnan(bad) else "0 NaN and 2 Inf"
    assert f"holds {kinds} among 60 values" in said


def test_values_beyond_half_precision(tmp_path: Path) -> None:
    inputs = (InputSpec(name="x", dtype=np.dtype(np.float16), shape=("N", 2)),)
    assert "values up to 7e+04" in refusal(npz(tmp_path, x=np.array([[7e4, 0]])), inputs)


def test_spec_that_names_other_inputs(tmp_path: Path) -> None:
    path = npz(tmp_path, x=np.zeros((2, 3, 4, 5), "f4"))
    said = refusal(path, IMAGE, preprocess=Preprocess(input="pixel", scale=1))
    assert "names input pixel, expected pixels of the model; did you mean pixels?" in said
    said = refusal(path, IMAGE, preprocess=Preprocess(inputs={"mel": {"scale": 1}}))
    assert "names input mel" in said


def test_model_without_batch_axis(tmp_path: Path, rng: np.random.Generator) -> None:
    inputs = (
        InputSpec(name="x", dtype=F32, shape=(3, 4)),
        InputSpec(name="t", dtype=F32, shape=()),
    )
    x, t = rng.normal(size=(6, 3, 4)).astype("f4"), rng.normal(size=6).astype("f4")
    samples = list(open_samples(npz(tmp_path, x=x, t=t), inputs=inputs))
    assert len(samples) == 6
    np.testing.assert_array_equal(samples[4].inputs["x"], x[4])
    np.testing.assert_array_equal(samples[4].inputs["t"], t[4])
    # One value for all samples.
    samples = list(open_samples(npz(tmp_path, x=x, t=t[0]), inputs=inputs))
    assert [float(sample.inputs["t"]) for sample in samples] == [float(t[0])] * 6


STATE = (
    InputSpec(name="x", dtype=F32, shape=("N", 4)),
    InputSpec(name="state", dtype=F32, shape=(2, "N", 5)),
    InputSpec(name="rate", dtype=I64, shape=()),
)


def test_states_whose_first_axis_is_layers(rng: np.random.Generator) -> None:
    """As recurrent exports have them: an axis of fixed length is not one of samples."""
    x, state = rng.normal(size=(3, 1, 4)), rng.normal(size=(3, 2, 1, 5))
    given = [{"x": a, "state": b, "rate": np.array(8)} for a, b in zip(x, state, strict=True)]
    samples = list(open_samples(lambda: iter(given), inputs=STATE))
    assert len(samples) == 3
    for sample, feed in zip(samples, given, strict=True):
        for name, value in feed.items():
            assert sample.inputs[name].shape == value.shape
            np.testing.assert_allclose(sample.inputs[name], value, rtol=1e-6)


@pytest.mark.parametrize("each", [True, False], ids=["a state each", "one state"])
def test_arrays_of_samples_with_a_state(
    each: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    x, states = rng.normal(size=(6, 4)), rng.normal(size=(6, 2, 1, 5))
    path = npz(tmp_path, x=x, state=states if each else states[0], rate=np.array(8))
    samples = list(open_samples(path, inputs=STATE))
    assert [sample.inputs["x"].shape for sample in samples] == [(1, 4)] * 6
    for number, sample in enumerate(samples):
        wanted = states[number if each else 0]
        np.testing.assert_allclose(sample.inputs["state"], wanted, rtol=1e-6)


def test_inputs_of_unequal_length_are_one_feed(tmp_path: Path) -> None:
    inputs = (
        InputSpec(name="points", dtype=F32, shape=("points", 3)),
        InputSpec(name="boxes", dtype=F32, shape=("boxes", 4)),
    )
    path = npz(tmp_path, points=np.zeros((120, 3)), boxes=np.zeros((7, 4)))
    (sample,) = open_samples(path, inputs=inputs)
    assert sample.inputs["points"].shape == (120, 3)
    assert sample.inputs["boxes"].shape == (7, 4)
    assert sample.name == "data.npz"


def test_loader_functions(rng: np.random.Generator) -> None:
    array = rng.normal(size=(5, 3, 4, 5)).astype(np.float32)

    def load() -> Iterator[Mapping[str, Any]]:
        yield {"pixels": array[:2]}
        yield {"pixels": array[2:], "labels": [7, 8, 9]}

    samples = open_samples(load, inputs=IMAGE)
    for _ in range(2):  # a generator function is called anew
        found = list(samples)
        assert [(s.name, s.label) for s in found] == [
            ("0", None),
            ("1", None),
            ("2", 7),
            ("3", 8),
            ("4", 9),
        ]
        np.testing.assert_array_equal(np.concatenate([s.inputs["pixels"] for s in found]), array)
    with pytest.raises(TypeError, match="known after reading"):
        len(samples)
    assert [sample.name for sample in samples[1:]] == ["1", "2", "3", "4"]
    assert [sample.name for sample in samples[1::2]] == ["1", "3"]
    assert [sample.name for sample in samples[1:][::2][:1]] == ["1"]
    assert [sample.name for sample in samples[:4][1:9:2]] == ["1", "3"]
    assert len(list(open_samples(load, inputs=IMAGE, limit=3))) == 3


def test_loader_files(tmp_path: Path) -> None:
    (tmp_path / "shapes_of_mine.py").write_text("SHAPE = (2, 3, 4, 5)\n")
    path = tmp_path / "loader.py"
    path.write_text(
        "import numpy as np\n"
        "from shapes_of_mine import SHAPE\n"
        "def load_data():\n"
        "    yield {'pixels': np.zeros(SHAPE, np.float32)}\n"
        "def other():\n"
        "    return [{'pixels': np.ones(SHAPE, np.float32)}] * 2\n"
    )
    samples = list(open_samples(path, inputs=IMAGE))
    assert [sample.inputs["pixels"].max() for sample in samples] == [0, 0]
    samples = list(open_samples(f"{path}:other", inputs=IMAGE))
    assert [sample.inputs["pixels"].max() for sample in samples] == [1] * 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", "has no function load_data(), expected one that yields"),
        ("load_data = 3\n", "has no function load_data()"),
        ("def load_data(:\n", "raised SyntaxError"),
        ("import no_such_module\n", "raised ModuleNotFoundError: No module named 'no_such_module'"),
        ("def load_data():\n    raise KeyError('gone')\n    yield\n", "raised KeyError: 'gone'"),
        ("def load_data():\n    return 3\n", "raised TypeError"),
        ("def load_data(size):\n    yield {}\n", "raised TypeError"),
        ("def load_data():\n    return []\n", "yields nothing"),
        ("def load_data():\n    yield 3\n", "sample 0 is of type int, expected a dict {input name"),
        ("def load_data():\n    yield {}\n", "has nothing, expected an array for input pixels"),
        ("def load_data():\n    yield {'pixel': [1.0], 'ids': [1]}\n", "did you mean pixel?"),
        ("def load_data():\n    yield {'pixels': 'a.jpg'}\n", "(pixels) is str (<U5), expected"),
        ("def load_data():\n    yield {'pixels': [[1.0], [1.0, 2.0]]}\n", "raised ValueError"),
        ("def load_data():\n    yield {1: 2}\n", "has key 1, expected the name of a model input"),
        ("raise SystemExit(3)\n", "SystemExit"),
    ],
    ids=lambda value: value[:40],
)  # fmt: skip
def test_loaders_that_fail(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "loader.py"
    path.write_text(text)
    found = refusal(path, IMAGE)
    assert said in found
    assert str(path) in found


def test_loaders_of_one_name_and_with_dataclasses(tmp_path: Path) -> None:
    for level in (1, 2):
        path = tmp_path / str(level) / "loader.py"
        path.parent.mkdir()
        path.write_text(
            "from __future__ import annotations\n"
            "from dataclasses import dataclass\n"
            "import numpy as np\n"
            "@dataclass\n"
            "class Row:\n"
            "    level: float\n"
            "def load_data():\n"
            f"    yield {{'pixels': np.full((1, 3, 4, 5), Row({level}).level, np.float32)}}\n"
        )
    for level in (2, 1):
        (sample,) = open_samples(tmp_path / str(level) / "loader.py", inputs=IMAGE)
        assert sample.inputs["pixels"].max() == level


def test_loader_cause_is_kept_for_debug(tmp_path: Path) -> None:
    path = tmp_path / "loader.py"
    path.write_text("def load_data():\n    yield {}['missing']\n")
    with pytest.raises(DataError) as caught:
        list(open_samples(path, inputs=IMAGE))
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(DataError, match=r"loader .*none\.py does not exist"):
        open_samples(tmp_path / "none.py", inputs=IMAGE)


def test_errors_of_the_consumer_are_its_own() -> None:
    samples = open_samples(lambda: [{"pixels": np.zeros((3, 3, 4, 5), "f4")}], inputs=IMAGE)

    def consume(sample: Sample) -> None:
        raise ZeroDivisionError(sample.name)

    with pytest.raises(ZeroDivisionError):
        deque(map(consume, samples))


def test_torch_tensors_are_arrays() -> None:
    torch = pytest.importorskip("torch")
    samples = open_samples(lambda: [{"pixels": torch.ones(2, 3, 4, 5)}], inputs=IMAGE)
    assert [sample.inputs["pixels"].dtype for sample in samples] == [np.float32] * 2
    grad = open_samples(
        lambda: [{"pixels": torch.ones(2, 3, 4, 5, requires_grad=True)}], inputs=IMAGE
    )
    with pytest.raises(DataError, match=r"raised RuntimeError: .*detach"):
        list(grad)


@pytest.mark.parametrize("limit", [0, -1])
def test_limits(limit: int, tmp_path: Path) -> None:
    path = npz(tmp_path, x=np.zeros((3, 3, 4, 5), "f4"))
    assert f"limit of samples is {limit}" in refusal(path, IMAGE, limit=limit)
    assert len(open_samples(path, inputs=IMAGE, limit=2)) == 2
    assert len(open_samples(path, inputs=IMAGE, limit=9)) == 3
