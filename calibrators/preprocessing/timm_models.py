"""timm's models: the preprocessing that its table, or a model's config.json, says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from artefacts.errors import DataError
from artefacts.libraries import require
from calibrators.preprocessing.preprocess import Preprocess
from calibrators.preprocessing.presets import Dims, layout_of, sides_of

__all__ = ["from_pretrained_cfg", "timm_model"]


def timm_model(name: str, shape: Dims) -> Preprocess:
    """The preprocessing of timm's model ``name``, from the table in the installed package.

    Raises:
        MissingLibraryError: timm is not installed.
        DataError: it has no such model, or prepares its images in a way that no spec has.
    """
    timm = require("timm", extra="timm")
    try:  # "resnet50" has the weights that timm takes by default, "resnet50.a1_in1k" these
        cfg = timm.models.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as err:
        raise DataError(
            f"timm {timm.__version__} has no pretrained model {name} ({err}), expected one of "
            "timm.list_models(pretrained=True); correct the name, or write the numbers into a file"
        ) from err
    return from_pretrained_cfg(cfg.to_dict(), shape, where=f"timm:{name}")


def from_pretrained_cfg(cfg: Mapping[str, Any], shape: Dims, *, where: str) -> Preprocess:
    """A ``pretrained_cfg`` as timm's evaluation transform reads it.

    Source: ``transforms_imagenet_eval`` of timm/data/transforms_factory.py: the short side becomes
    ``floor(size / crop_pct)``, the centre is cropped; ``squash`` resizes both sides.

    Args:
        cfg: its values.
        shape: of the model's input; a size that it fixes wins.
        where: for errors.

    Raises:
        DataError: a size that is not square, borders, or an interpolation that no spec has.
    """
    channels, *stated = cfg.get("input_size") or (3, 224, 224)
    height, width = (side or said for side, said in zip(sides_of(shape), stated, strict=True))
    mode = cfg.get("crop_mode") or "center"
    if mode not in ("center", "squash") or (mode == "center" and height != width):
        raise DataError(
            f"{where} has crop_mode {mode} for {height} × {width}, expected center for a square, "
            "or squash; prepare the images yourself and give arrays"
        )
    share = cfg.get("crop_pct") or 0.875
    scaled = [math.floor(side / share) for side in (height, width)]
    return Preprocess.from_dict(
        {
            "resize": scaled if mode == "squash" else scaled[0],
            "crop": [height, width],
            "interpolation": cfg.get("interpolation") or "bicubic",
            "color": "gray" if channels == 1 else "rgb",
            "scale": "1/255",
            "mean": list(cfg.get("mean") or (0.485, 0.456, 0.406)),
            "std": list(cfg.get("std") or (0.229, 0.224, 0.225)),
            "layout": layout_of(shape),
        },
        where=where,
    )
