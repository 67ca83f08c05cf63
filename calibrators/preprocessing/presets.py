"""Preprocessing by name: what the libraries do whose models most people have.

A preset says everything but the size, which the model's input has.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from artefacts.errors import DataError
from calibrators.preprocessing.preprocess import Preprocess

__all__ = ["PRESETS", "Dims", "Preset", "channels_of", "layout_of", "preset", "sides_of"]

Dims = Sequence[int | str | None]
"""Shape of a model's input: a string or None is a dynamic dimension."""

_IMAGENET = {
    "scale": "1/255",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A spec without its size.

    Attributes:
        source: where the numbers are from.
        size: side of the input where the model leaves it open.
        crop: side of the centre crop relative to the short side before it; None for a letterbox.
        letterbox: the other keys of the letterbox.
        spec: all other keys.
    """

    source: str
    size: int
    crop: float | None = None
    letterbox: Mapping[str, Any] = field(default_factory=dict)
    spec: Mapping[str, Any]

    def sized(self, name: str, shape: Dims) -> Preprocess:
        """The spec for an input of this shape, e.g. ``("N", 3, 224, 224)``.

        Raises:
            DataError: a crop is asked for, and the input is not square; or it is grey, and the
                numbers are for colours.
        """
        height, width = (side or self.size for side in sides_of(shape))
        spec = {**self.spec, "layout": layout_of(shape)}
        if channels_of(shape) == 1:
            if isinstance(spec.get("mean"), list):
                raise DataError(
                    f"preset {name} has numbers for three channels and the model's input has one, "
                    "expected a colour model; write a spec file with color: gray (docs/data.md)"
                )
            spec["color"] = "gray"
        if self.crop is None:
            spec["letterbox"] = {"size": [height, width], **self.letterbox}
            return Preprocess.from_dict(spec, where=f"preset {name}")
        if height != width:
            raise DataError(
                f"preset {name} crops squares and the model's input is {height} × {width}, "
                "expected a square; write the numbers into a file (docs/data.md) and give that"
            )
        short = round(height / self.crop)
        spec |= {"resize": short, "crop": height}
        return Preprocess.from_dict(spec, where=f"preset {name}")


PRESETS: Mapping[str, Preset] = {
    "torchvision": Preset(
        source="https://docs.pytorch.org/vision/stable/models/generated/"
        "torchvision.models.resnet50.html (IMAGENET1K_V1: resize_size=[256], crop_size=[224])",
        size=224,
        crop=224 / 256,
        spec=_IMAGENET,
    ),
    "torchvision-v2": Preset(
        source="https://docs.pytorch.org/vision/stable/models/generated/"
        "torchvision.models.resnet50.html (IMAGENET1K_V2: resize_size=[232], crop_size=[224])",
        size=224,
        crop=224 / 232,
        spec=_IMAGENET,
    ),
    "ultralytics": Preset(
        source="https://github.com/ultralytics/ultralytics/blob/main/ultralytics/data/augment.py "
        "(LetterBox: centred, 114, INTER_LINEAR; the predictor divides RGB by 255)",
        size=640,
        letterbox={"pad": 114, "anchor": "centre"},
        spec={"antialias": False, "scale": "1/255"},
    ),
    "ultralytics-classify": Preset(
        source="https://github.com/ultralytics/ultralytics/blob/main/ultralytics/data/augment.py "
        "(classify_transforms: Resize(224), CenterCrop(224), mean 0, std 1)",
        size=224,
        crop=1.0,
        spec={"scale": "1/255"},
    ),
    "yolox": Preset(
        source="https://github.com/Megvii-BaseDetection/YOLOX/blob/main/yolox/data/"
        "data_augment.py (preproc: top left, 114, INTER_LINEAR, BGR 0..255)",
        size=640,
        letterbox={"pad": 114, "anchor": "top-left"},
        spec={"antialias": False, "color": "bgr", "scale": 1},
    ),
    "tf-mobilenet": Preset(
        source="https://github.com/tensorflow/models/blob/master/research/slim/preprocessing/"
        "inception_preprocessing.py (central_fraction=0.875, then (x/255 - 0.5) * 2)",
        size=224,
        crop=0.875,
        spec={"mean": 127.5, "std": 127.5},
    ),
    "caffe": Preset(
        source="https://github.com/keras-team/keras/blob/master/keras/src/applications/"
        "imagenet_utils.py (mode caffe: BGR 0..255 less the ImageNet mean; Keras's ResNet and VGG)",
        size=224,
        crop=224 / 256,
        spec={"color": "bgr", "scale": 1, "mean": [103.939, 116.779, 123.68]},
    ),
}
"""Name → preset; ``timm:NAME`` is looked up in timm (see ``timm_models``)."""


def preset(name: str, shape: Dims) -> Preprocess:
    """The spec of this name for a model's image input.

    Raises:
        DataError: no such preset, or it does not fit the input.
    """
    found = PRESETS.get(name)
    if found is None:
        near = difflib.get_close_matches(name.lower(), PRESETS, n=1, cutoff=0.0)[0]
        raise DataError(
            f"preprocessing {name} is neither a file nor a preset, expected a YAML file, timm:NAME "
            f"or one of {', '.join(PRESETS)}; did you mean {near}?"
        )
    return found.sized(name, shape)


def layout_of(shape: Dims) -> str:
    """``nhwc`` where the channels of a four-dimensional input come last, else ``nchw``.

    Raises:
        DataError: the input has not four axes.
    """
    if len(shape) != 4:
        shown = ", ".join("?" if dim is None else str(dim) for dim in shape)
        raise DataError(
            f"a preset is for images and the model's input is [{shown}], expected four axes such "
            "as [N, 3, 224, 224]; write the preprocessing into a file (docs/data.md)"
        )
    return "nhwc" if shape[3] in (1, 3) and shape[1] not in (1, 3) else "nchw"


def sides_of(shape: Dims) -> tuple[int | None, int | None]:
    """(height, width) of an image input; None where it is dynamic."""
    sides = shape[1:3] if layout_of(shape) == "nhwc" else shape[2:]
    height, width = (side if isinstance(side, int) else None for side in sides)
    return height, width


def channels_of(shape: Dims) -> int | None:
    """Channels of an image input; None where they are dynamic."""
    channels = shape[3] if layout_of(shape) == "nhwc" else shape[1]
    return channels if isinstance(channels, int) else None
