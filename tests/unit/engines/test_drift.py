"""The usual mistakes of preprocessing are noticed within 50 requests; other data raises none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from artefacts.errors import EngineError
from engines import Passport
from engines.monitoring.drift import InputDrift, Watch
from engines.monitoring.grid import BINS, Counter, grid_for
from engines.monitoring.places import Places
from engines.monitoring.summary import FEWEST, WINDOW, InputSummary, Summariser

DIGITS = Path(__file__).parents[3] / "examples" / "01_digits"
Pixels = NDArray[np.float32]
MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
STD = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
SIZE = 48


def scene(rng: np.random.Generator) -> Image.Image:
    """A picture of warm ground, some sky and things on it, in a shape of its own."""
    high, wide = (int(v) for v in rng.integers(40, 120, 2))
    ground, sky = rng.normal([140, 115, 80], 25, 3), rng.normal([150, 170, 200], 25, 3)
    horizon = rng.uniform(0.1, 0.4)
    rows = np.linspace(0, 1, high)[:, None, None]
    picture = np.where(rows < horizon, sky, ground * (0.7 + 0.5 * rows))
    picture = np.broadcast_to(picture, (high, wide, 3)).copy()
    for _ in range(4):
        top, left = int(rng.integers(high - 8)), int(rng.integers(wide - 8))
        thing = picture[top : top + 20, left : left + 20]
        thing[...] = rng.normal([130, 110, 90], 60, 3)
    picture += rng.normal(0, 3, picture.shape)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def stretched(picture: Image.Image) -> Pixels:
    pixels = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32)
    return pixels.transpose(2, 0, 1)


def letterboxed(picture: Image.Image) -> Pixels:
    scale = SIZE / max(picture.size)
    wide, high = (max(1, round(side * scale)) for side in picture.size)
    whole = np.full((3, SIZE, SIZE), 114, np.float32)
    top, left = (SIZE - high) // 2, (SIZE - wide) // 2
    small = np.asarray(picture.resize((wide, high), Image.Resampling.BILINEAR), np.float32)
    whole[:, top : top + high, left : left + wide] = small.transpose(2, 0, 1)
    return whole


def normalised(pixels: Pixels) -> Pixels:
    return ((pixels / 255 - MEAN) / STD)[None]


def summary_of(samples: list[Pixels]) -> InputSummary:
    summariser = Summariser("image")
    for sample in samples:
        summariser.add(sample)
    summary = summariser.summary()
    assert summary is not None
    return summary


def watch_of(summary: InputSummary) -> Watch:
    return Watch(Passport(inputs=(summary,), sample_axes={"axes": {"image": 0}}))


def judged(watch: Watch, requests: list[Pixels]) -> InputDrift:
    for request in requests:
        watch.observe({"image": request})
    return watch.drift()["image"]


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng()
    return [scene(rng) for _ in range(200 + WINDOW)]


@pytest.fixture(scope="module")
def usual(pictures: list[Image.Image]) -> InputSummary:
    return summary_of([normalised(stretched(picture)) for picture in pictures[WINDOW:]])


def noisy(pixels: Pixels) -> Pixels:
    noise = np.random.default_rng().normal(0, 10, pixels.shape).astype(np.float32)
    return (pixels + noise).clip(0, 255)


MISTAKES: dict[str, Callable[[Image.Image], Pixels]] = {
    "brighter": lambda picture: normalised((stretched(picture) + 50).clip(0, 255)),
    "darker": lambda picture: normalised(stretched(picture) * 0.6),
    "colour order": lambda picture: normalised(stretched(picture)[::-1]),
    "not divided by 255": lambda picture: ((stretched(picture) - MEAN) / STD)[None],
    "divided twice": lambda picture: normalised(stretched(picture) / 255),
    "not normalised": lambda picture: stretched(picture)[None] / 255,
    "pixels": lambda picture: stretched(picture)[None],
    "from -1 to 1": lambda picture: stretched(picture)[None] / np.float32(127.5) - 1,
    "letterbox": lambda picture: normalised(letterboxed(picture)),
    "noise": lambda picture: normalised(noisy(stretched(picture))),
    "grey": lambda picture: normalised(stretched(picture).mean(0, keepdims=True).repeat(3, 0)),
    "nothing": lambda picture: np.zeros((1, 3, SIZE, SIZE), np.float32),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_of_preprocessing_is_noticed_within_50_requests(
    mistake: str, pictures: list[Image.Image], usual: InputSummary
) -> None:
    watch = watch_of(usual)
    judged(watch, [normalised(stretched(picture)) for picture in pictures[WINDOW : 2 * WINDOW]])
    found = judged(watch, [MISTAKES[mistake](picture) for picture in pictures[:WINDOW]])
    assert found.verdict == "moved", (found.distances, found.limits)
    assert found.beyond[0] in str(found)


def test_the_other_way_round_stretch_where_letterbox_was_calibrated(
    pictures: list[Image.Image],
) -> None:
    watch = watch_of(summary_of([normalised(letterboxed(p)) for p in pictures[WINDOW:]]))
    found = judged(watch, [normalised(stretched(picture)) for picture in pictures[:WINDOW]])
    assert found.verdict == "moved"


def alarms(watch: Watch, fresh: list[Pixels], rng: np.random.Generator) -> list[str]:
    """What is said of 10,000 requests, asked after every tenth."""
    said = []
    for number in range(10_000):
        watch.observe({"image": fresh[rng.integers(len(fresh))]})
        if number % 10 == 9 and (found := watch.drift()["image"]).verdict == "moved":
            said.append(str(found))
    assert watch.drift()["image"].verdict == "usual"
    return said


def test_10000_requests_as_they_were_raise_no_alarm(
    usual: InputSummary, rng: np.random.Generator
) -> None:
    fresh = [normalised(stretched(scene(rng))) for _ in range(1000)]
    assert alarms(watch_of(usual), fresh, rng) == []


def digits(images: NDArray[np.uint8]) -> list[Pixels]:
    pixels = images.reshape(-1, 1, 1, 32, 32).astype(np.float32)
    return list((pixels / 255 - np.float32(0.3)) / np.float32(0.35))


@pytest.fixture(scope="module")
def usual_digits() -> InputSummary:
    paths = sorted((DIGITS / "calib").glob("*.png"))
    return summary_of(digits(np.stack([np.asarray(Image.open(path)) for path in paths])))


def shipped() -> NDArray[np.uint8]:
    with np.load(DIGITS / "test.npz", allow_pickle=False) as file:
        images: NDArray[np.uint8] = file["images"]
        return images


def test_10000_digits_raise_no_alarm(usual_digits: InputSummary, rng: np.random.Generator) -> None:
    assert alarms(watch_of(usual_digits), digits(shipped()), rng) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda images: 255 - images,
        lambda images: images * 0.8,
        lambda images: np.clip(images + 25.0, 0, 255),
        lambda images: images / 255,
        lambda images: images * 255.0,
        lambda images: np.rot90(images, axes=(1, 2)),
    ],
    ids=["inverted", "darker", "brighter", "divided", "multiplied", "rotated"],
)
def test_changed_digits_are_noticed(
    change: Callable[[NDArray[np.uint8]], NDArray[np.float64]],
    usual_digits: InputSummary,
    rng: np.random.Generator,
) -> None:
    chosen = shipped()[rng.permutation(500)[:WINDOW]]
    found = judged(watch_of(usual_digits), digits(np.ascontiguousarray(change(chosen))))
    assert found.verdict == "moved", (found.distances, found.limits)


def test_a_verdict_needs_50_requests_and_20_samples(rng: np.random.Generator) -> None:
    samples = [rng.normal(size=(1, 8)).astype(np.float32) for _ in range(WINDOW)]
    watch = watch_of(summary_of(samples))
    assert str(watch.drift()["image"]) == "input image: no requests yet"
    found = judged(watch, samples[:-1])
    assert (found.verdict, found.requests) == ("unknown", WINDOW - 1)
    assert "49 requests, a verdict needs 50" in str(found)
    assert judged(watch, samples[-1:]).verdict == "usual"
    few = judged(watch_of(summary_of(samples[: FEWEST - 1])), samples)
    assert (few.verdict, few.limits) == ("unknown", None)
    assert "too few calibration samples" in str(few)


def test_only_the_last_50_requests_count(usual_digits: InputSummary) -> None:
    watch, images = watch_of(usual_digits), shipped()[: 2 * WINDOW]
    assert judged(watch, digits(255 - images)).verdict == "moved"
    assert judged(watch, digits(images)).verdict == "usual"


def test_every_value_is_counted_in_its_bin(rng: np.random.Generator) -> None:
    grid = grid_for((1, 3, 8, 8), -2.0, 3.0)
    assert (grid.width_exponent, grid.first, grid.channel_axis, grid.bins) == (0, -2, 1, 60)
    sample = rng.uniform(-5, 12, (1, 3, 8, 8)).astype(np.float32)
    values = Places(1, 3).values(sample, 0)
    counts = Counter(grid).count(values.astype(np.float64)).reshape(-1, BINS)
    for channel in range(3):
        bins = np.clip(np.floor(values[:, channel]) + 3, 0, BINS - 1)
        expected = np.bincount(bins.astype(int).ravel(), minlength=BINS)
        np.testing.assert_array_equal(counts[channel], expected)
    assert counts.sum(1).tolist() == [128, 128, 128, 192, 64]


def test_neighbours_lie_next_to_each_other() -> None:
    image = np.arange(3 * 5 * 7, dtype=np.float32).reshape(1, 3, 5, 7)
    values = Places(1, 3).values(image, 3)
    np.testing.assert_array_equal(values[1] - values[0], 1)
    np.testing.assert_array_equal(values[0, 1] - values[0, 0], 35)
    last = Places(3, 3).values(image.reshape(1, 5, 7, 3), 3)
    np.testing.assert_array_equal(last[1] - last[0], 3)


def test_values_that_are_none_count_as_below(usual_digits: InputSummary) -> None:
    broken = [np.full((1, 1, 32, 32), np.nan, np.float32)] * WINDOW
    found = judged(watch_of(usual_digits), broken)
    assert "saturation" in found.beyond


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float16, np.float64, np.bool_])
def test_all_types_and_free_axes_are_counted(dtype: type, rng: np.random.Generator) -> None:
    def sample() -> NDArray[np.generic]:
        return rng.integers(0, 100, (1, int(rng.integers(20, 40)))).astype(dtype)

    watch = watch_of(summary_of([sample() for _ in range(200)]))  # type: ignore[misc]
    found = judged(watch, [sample() for _ in range(WINDOW)])  # type: ignore[misc]
    assert found.verdict == "usual", str(found)


def test_a_constant_input_is_usual_while_it_stays(rng: np.random.Generator) -> None:
    for value in (0.0, 1e6, -3.5):
        samples = [np.full((1, 4), value, np.float32)] * FEWEST
        watch = watch_of(summary_of(samples))
        assert judged(watch, samples * 3).verdict == "usual"
        assert judged(watch, [sample + 1 for sample in samples * 3]).verdict == "moved"


def test_samples_that_do_not_compare_have_no_summary() -> None:
    summariser = Summariser("x")
    assert summariser.summary() is None
    for channels in (3, 5):
        summariser.add(np.zeros((1, channels, 4), np.float32))
    assert summariser.summary() is None


def test_the_summary_of_one_set_is_one_and_survives_its_file(usual: InputSummary) -> None:
    passport = Passport(inputs=(usual,))
    stored = json.loads(json.dumps(passport.to_json()))
    assert Passport.from_json(stored) == passport
    assert len(json.dumps(stored)) < 1500
    assert len(usual.shares) == 60


def test_an_engine_without_a_summary_is_not_watched() -> None:
    with pytest.raises(EngineError, match="no summary of its inputs in the manifest"):
        Watch(Passport())
