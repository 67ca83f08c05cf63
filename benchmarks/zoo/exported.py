"""Architectures with random weights: what a sample of each is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.zoo.inputs_images import IMAGENET, photo, planes
from benchmarks.zoo.inputs_other import mel_frames, tokens, voice
from benchmarks.zoo.network import Architecture, Network, Sample

__all__ = ["EXPORTED"]

Generator = np.random.Generator
Adapter = Callable[[Generator], Sample]


def _image(size: int, name: str = "image") -> Adapter:
    """A photograph, normalised as ImageNet's are."""
    return lambda generator: {name: planes(photo(generator, size, size), *IMAGENET)}


def _light(size: int, name: str = "image") -> Adapter:
    """A photograph, 0 to 1."""
    return lambda generator: {name: planes(photo(generator, size, size))}


def _text(generator: Generator) -> Sample:
    ids = tokens(generator, 64, 1000)[None]
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def _sound(generator: Generator) -> Sample:
    sound = voice(generator, 16000)
    return {"input_values": ((sound - sound.mean()) / sound.std())[None]}


def _mel(generator: Generator) -> Sample:
    frames = mel_frames(voice(generator, 96300), 80)[:600]
    return {"mel": np.ascontiguousarray((np.maximum(frames, frames.max() - 8) + 4).T[None] / 4)}


_ROWS: tuple[tuple[str, str, Adapter], ...] = (
    ("timm efficientnet_b0", "images: classes", _image(128)),
    ("timm convnext_atto", "images: classes", _image(128)),
    ("timm swin_tiny", "images: classes, windows of attention", _image(112)),
    ("timm regnety_002", "images: classes", _image(128)),
    ("timm mobilenetv3_small", "images: classes", _image(128)),
    ("timm mobilenetv4_small", "images: classes", _image(128)),
    ("timm hrnet_w18_small", "images: classes, four scales", _image(128)),
    ("timm vit_tiny", "images: classes, attention", _image(112)),
    ("torchvision deeplabv3", "images: segmentation", _image(128)),
    ("torchvision ssdlite", "images: boxes, NMS inside", _light(160)),
    ("torchvision retinanet", "images: boxes, NMS inside", _light(128)),
    ("torchvision faster_rcnn", "images: boxes, two stages", _light(128)),
    ("torchvision mask_rcnn", "images: boxes and masks, two stages", _light(128)),
    ("ultralytics yolo11n", "images: boxes", _light(160)),
    ("transformers rt_detr", "images: boxes, deformable attention", _light(160, "pixel_values")),
    ("transformers sam", "images: encoder of masks", _image(256, "pixel_values")),
    ("transformers segformer", "images: segmentation", _image(128, "pixel_values")),
    ("transformers bert", "text: encoder", _text),
    ("transformers t5", "text: encoder", _text),
    ("transformers whisper", "sound: encoder", _mel),
    ("transformers clip", "images: embedding", _image(128, "pixel_values")),
    ("transformers wav2vec2", "sound: letters", _sound),
)

EXPORTED = tuple(
    Network(
        name=name.split()[1].replace("_", "-"),
        kind=kind,
        source=Architecture(name=name),
        adapter=adapter,
        learned=8,
        judged=4,
    )
    for name, kind, adapter in _ROWS
)
