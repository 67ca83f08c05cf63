"""Networks of every common family, built in code: small, deterministic, with sensible ranges."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from tests.networks.builder import Builder
from tests.networks.detector import detector
from tests.networks.mobilenet import efficientnet, mobilenet_v2, mobilenet_v3
from tests.networks.recurrent import lstm
from tests.networks.resnet import resnet, resnet50
from tests.networks.transformer import bert, cross_attention, sliced_attention, vit
from tests.networks.unet import skip_network, unet
from tests.networks.yolo_parts import convolved_attention, pyramid_pooling

__all__ = [
    "NETWORKS",
    "Builder",
    "bert",
    "convolved_attention",
    "cross_attention",
    "detector",
    "efficientnet",
    "lstm",
    "mobilenet_v2",
    "mobilenet_v3",
    "pyramid_pooling",
    "resnet",
    "resnet50",
    "skip_network",
    "sliced_attention",
    "unet",
    "vit",
]

NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {
    "resnet_basic": resnet,
    "resnet_bottleneck": lambda: resnet(bottleneck=True),
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3": mobilenet_v3,
    "efficientnet": efficientnet,
    "detector": detector,
    "unet_transposed": unet,
    "unet_linear": lambda: unet(up="linear"),
    "vit": vit,
    "bert": bert,
    "lstm": lstm,
}
