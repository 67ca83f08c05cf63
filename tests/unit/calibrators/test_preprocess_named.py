"""Presets, timm's and transformers' files, Ultralytics' metadata, TensorFlow Lite's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from artefacts.errors import DataError, InputError, MissingLibraryError
from calibrators.preprocessing.detect import detect, stated_classes
from calibrators.preprocessing.hugging_face import from_preprocessor_config
from calibrators.preprocessing.named import named_preprocess
from calibrators.preprocessing.preprocess import Letterbox, Preprocess
from calibrators.preprocessing.presets import PRESETS
from calibrators.preprocessing.timm_models import from_pretrained_cfg
from calibrators.preprocessing.ultralytics import names_of

CHW, HWC = ("N", 3, 224, 224), ("N", 224, 224, 3)
IMAGENET = {"scale": 1 / 255, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("torchvision", CHW, Preprocess(resize=256, crop=(224, 224), **IMAGENET)),
        ("torchvision", (1, 3, None, "w"), Preprocess(resize=256, crop=(224, 224), **IMAGENET)),
        ("torchvision", ("N", 3, 299, 299), Preprocess(resize=342, crop=(299, 299), **IMAGENET)),
        ("torchvision-v2", CHW, Preprocess(resize=232, crop=(224, 224), **IMAGENET)),
        ("torchvision", HWC, Preprocess(resize=256, crop=224, layout="nhwc", **IMAGENET)),
        (
            "ultralytics",
            (1, 3, 384, 640),
            Preprocess(letterbox=Letterbox(size=(384, 640)), antialias=False, scale="1/255"),
        ),
        (
            "ultralytics",
            ("batch", 1, "height", "width"),
            Preprocess(letterbox=640, antialias=False, scale="1/255", color="gray"),
        ),
        ("ultralytics-classify", CHW, Preprocess(resize=224, crop=224, scale="1/255")),
        (
            "yolox",
            (1, 3, 416, 416),
            Preprocess(
                letterbox=Letterbox(size=(416, 416), anchor="top-left"),
                antialias=False,
                color="bgr",
                scale=1,
            ),
        ),
        (
            "tf-mobilenet",
            ("N", 128, 128, 3),
            Preprocess(resize=146, crop=128, mean=127.5, std=127.5, layout="nhwc"),
        ),
        (
            "caffe",
            CHW,
            Preprocess(resize=256, crop=224, color="bgr", scale=1, mean=(103.939, 116.779, 123.68)),
        ),
    ],
)
def test_presets(name: str, shape: tuple[Any, ...], expected: Preprocess) -> None:
    assert named_preprocess(name, shape) == expected


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_names_its_source_and_fits_its_input(name: str) -> None:
    assert PRESETS[name].source.startswith("https://")
    side = PRESETS[name].size
    assert named_preprocess(name, ("N", 3, side, side)).shape == (3, side, side)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("torchvison", CHW, r"torchvison is neither a file nor a preset.*did you mean torchvision"),
        ("torchvision", ("N", 3, 224, 192), r"crops squares and the model's input is 224 × 192"),
        ("torchvision", ("N", 1, 28, 28), r"three channels and the model's input has one"),
        ("torchvision", None, r"the model has no single input with four axes"),
        ("torchvision", ("N", 16), r"the model's input is \[N, 16\], expected four axes"),
        ("there/is/none.yaml", CHW, r"none\.yaml does not exist"),
    ],
)
def test_names_that_cannot_be_used(name: str, shape: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        named_preprocess(name, shape)


def test_a_folder_is_no_spec(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is a folder, expected a YAML file or the name.*\.yaml$"):
        named_preprocess(tmp_path, CHW)


def test_a_file_wins_over_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("yolox").write_text("scale: 1")
    assert named_preprocess("yolox", CHW) == Preprocess(scale=1)


def test_timm_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(MissingLibraryError, match=r"pip install '\.\[timm\]'"):
        named_preprocess("timm:resnet50", CHW)


CFG = {
    "input_size": [3, 288, 288],
    "crop_pct": 0.95,
    "crop_mode": "center",
    "interpolation": "bicubic",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
}


def test_timm_as_its_evaluation_transform() -> None:
    spec = from_pretrained_cfg(CFG, ("N", 3, "h", "w"), where="x")
    assert (spec.resize, spec.crop, spec.interpolation) == (303, (288, 288), "bicubic")
    assert (spec.mean, spec.std, spec.scale) == ((0.5,) * 3, (0.25,) * 3, 1 / 255)
    assert from_pretrained_cfg(CFG, CHW, where="x").resize == 235  # the model's size wins
    squash = from_pretrained_cfg(CFG | {"crop_mode": "squash"}, (1, 3, 288, 256), where="x")
    assert (squash.resize, squash.crop) == ((303, 269), (288, 256))
    with pytest.raises(DataError, match=r"x has crop_mode border for 224 × 224"):
        from_pretrained_cfg(CFG | {"crop_mode": "border"}, CHW, where="x")


VIT = {
    "image_processor_type": "ViTImageProcessor",
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 224, "width": 224},
}
CLIP = VIT | {
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "resample": 3,
    "size": {"shortest_edge": 256},
}
CONVNEXT = VIT | {"crop_pct": 0.875, "size": {"shortest_edge": 224}, "resample": 3}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (VIT, {"resize": (224, 224), "crop": None, "interpolation": "bilinear"}),
        (CLIP, {"resize": 256, "crop": (224, 224), "interpolation": "bicubic"}),
        (CLIP | {"size": 256, "crop_size": 224}, {"resize": 256, "crop": (224, 224)}),
        (VIT | {"size": 192}, {"resize": (192, 192)}),
        (CONVNEXT, {"resize": 256, "crop": (224, 224)}),
        (CONVNEXT | {"size": {"shortest_edge": 384}}, {"resize": (384, 384), "crop": None}),
        (VIT | {"do_flip_channel_order": True}, {"color": "bgr"}),
        (VIT | {"do_rescale": False}, {"scale": 1.0}),
        (VIT | {"do_normalize": False}, {"mean": 0.0, "std": 1.0}),
        (VIT | {"do_resize": False}, {"resize": None}),
    ],
)
def test_image_processors_of_transformers(config: dict[str, Any], expected: Any) -> None:
    spec = from_preprocessor_config(config, CHW, where="x")
    assert {key: getattr(spec, key) for key in expected} == expected
    if "scale" not in expected:
        assert spec.scale == pytest.approx(1 / 255)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (VIT | {"do_pad": True}, r"x says do_pad: true"),
        (VIT | {"size": {"shortest_edge": 800, "longest_edge": 1333}}, r"longest_edge.: 1333"),
        (VIT | {"resample": 5}, r"x says resample: 5"),
        ({**VIT, "image_mean": None} | {"image_mean": [0.5]}, r"mean is \[0\.5\]"),
        ({k: v for k, v in VIT.items() if k != "image_std"}, r"do_normalize without image_std"),
    ],
)
def test_what_no_spec_can_say_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_preprocessor_config(config, CHW, where="x")


YOLO = {
    "task": "detect",
    "imgsz": "[320, 640]",
    "names": "{0: 'person', 1: 'bicycle'}",
    "stride": "32",
}


def test_ultralytics_metadata(tmp_path: Path) -> None:
    found = detect(tmp_path / "m.onnx", YOLO, ("batch", 3, "height", "width"))
    assert found is not None
    assert found.origin == f"Ultralytics' metadata in {tmp_path / 'm.onnx'}"
    assert found.preprocess.letterbox == Letterbox(size=(320, 640))
    assert stated_classes(tmp_path / "m.onnx", YOLO) == ("person", "bicycle")
    cls = detect(tmp_path / "m.onnx", YOLO | {"task": "classify", "imgsz": "[224, 224]"}, CHW)
    assert cls is not None
    assert (cls.preprocess.resize, cls.preprocess.crop) == (224, (224, 224))


@pytest.mark.parametrize("names", ["", "__import__('os')", "{1: 'a'}", "{0: ", "(" * 5000])
def test_names_that_are_no_list_of_classes_are_no_names(names: str) -> None:
    assert names_of({"names": names}) == ()


def test_files_beside_the_model(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    assert detect(model, {}, CHW) is None
    assert stated_classes(model, {}) == ()
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"pretrained_cfg": CFG, "label_names": ["a", "b"]}))
    found = detect(model, {}, CHW)
    assert found is not None
    assert (found.origin, found.preprocess.resize) == (str(config), 235)
    assert stated_classes(model, {}) == ("a", "b")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(VIT))
    config.write_text(json.dumps({"id2label": {"0": "cat", "1": "dog"}}))
    found = detect(model, {}, CHW)
    assert found is not None
    assert found.preprocess.resize == (224, 224)
    assert stated_classes(model, {}) == ("cat", "dog")
    assert named_preprocess(tmp_path / "preprocessor_config.json", CHW) == found.preprocess
    config.write_text(json.dumps({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}))
    (tmp_path / "classes.txt").write_text("tench\ngoldfish\n")
    assert stated_classes(model, {}) == ("tench", "goldfish")


def test_a_description_of_sound_is_none_of_images(tmp_path: Path) -> None:
    sound = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(sound))
    assert detect(tmp_path / "m.onnx", {}, CHW) is None


def test_a_damaged_description_is_named(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(DataError, match=r"preprocessor_config\.json beside the model is not JSON"):
        detect(tmp_path / "m.onnx", {}, CHW)
