"""``preprocessor_config.json`` of Hugging Face's transformers, as a preprocessing spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from artefacts.errors import DataError
from calibrators.preprocessing.preprocess import Preprocess
from calibrators.preprocessing.presets import Dims, layout_of

__all__ = ["from_preprocessor_config", "is_image_config"]

# Pillow's numbers, which transformers writes.
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}
_SQUASHED_FROM = 384  # ConvNeXT: from this side on nothing is cropped


def is_image_config(config: Mapping[str, Any]) -> bool:
    """Whether the file is of an image processor; audio models have one of the same name."""
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    return "image_mean" in config or "Image" in kind or "rescale_factor" in config


def from_preprocessor_config(config: Mapping[str, Any], shape: Dims, *, where: str) -> Preprocess:
    """The spec that an image processor's file says.

    Args:
        config: its values.
        shape: of the model's input, for the layout.
        where: for errors.

    Raises:
        DataError: something that no spec has (a longest edge, padding), or a missing number.
    """
    for key in ("do_pad", "do_align_long_axis", "do_thumbnail", "do_resample"):
        if config.get(key):
            raise _beyond(where, f"{key}: true")
    spec: dict[str, Any] = {**_places(config, where), "layout": layout_of(shape)}
    spec["color"] = "bgr" if config.get("do_flip_channel_order") else "rgb"
    rescaled = config.get("do_rescale", True)
    spec["scale"] = config.get("rescale_factor", 1 / 255) if rescaled else 1
    if config.get("do_normalize", "image_mean" in config):
        for key, found in (("mean", "image_mean"), ("std", "image_std")):
            if found not in config:
                raise _beyond(where, f"do_normalize without {found}")
            spec[key] = config[found]
    return Preprocess.from_dict(spec, where=where)


def _places(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Resize, crop and interpolation."""
    places: dict[str, Any] = {}
    share = config.get("crop_pct")
    if config.get("do_resize", "size" in config):
        number = config.get("resample", 2)
        if number not in _RESAMPLE:
            raise _beyond(where, f"resample: {number}")
        places["interpolation"] = _RESAMPLE[number]
        places["resize"] = _size(config, where)
        if share and isinstance(places["resize"], int):  # ConvNeXT
            side = places["resize"]
            if side >= _SQUASHED_FROM:
                return {**places, "resize": [side, side]}
            return {**places, "resize": int(side / share), "crop": side}
    if config.get("do_center_crop"):
        crop = config.get("crop_size")
        places["crop"] = [crop["height"], crop["width"]] if isinstance(crop, Mapping) else crop
    return places


def _size(config: Mapping[str, Any], where: str) -> int | list[int]:
    """A short side, or (height, width)."""
    size = config.get("size")
    if isinstance(size, int):  # of releases before 4.27: the short side where something is cropped
        cropped = config.get("do_center_crop") or config.get("crop_pct")
        return size if cropped else [size, size]
    if isinstance(size, Mapping) and set(size) == {"height", "width"}:
        return [size["height"], size["width"]]
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        return int(size["shortest_edge"])
    raise _beyond(where, f"size: {size}")


def _beyond(where: str, found: str) -> DataError:
    return DataError(
        f"{where} says {found}, expected a size by height and width or by its shortest edge, and "
        "numbers for what is normalised; write a spec file for --preprocess, or prepare the images "
        "yourself and give arrays"
    )
