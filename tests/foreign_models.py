"""Quantized models as other tools write them, by those tools."""

from __future__ import annotations

import logging
from pathlib import Path

import onnx
from onnxruntime import quantization as ort_quantization

from quantization import load_model
from tests.odd_models import Feeds


class _Once(ort_quantization.CalibrationDataReader):
    """One batch for onnxruntime's quantizer."""

    def __init__(self, feeds: Feeds) -> None:
        self.feeds: list[Feeds] = [feeds]

    def get_next(self) -> Feeds | None:
        return self.feeds.pop() if self.feeds else None


def by_onnxruntime(
    model: onnx.ModelProto, feeds: Feeds, folder: Path, *, operators: bool, unsigned: bool
) -> onnx.ModelProto:
    """What onnxruntime's own quantizer makes of a model, with symmetric activations.

    Weights of 7 bits where its own integer kernels are the reference: with 8 they saturate on CPUs
    without VNNI.
    """
    kind = ort_quantization.QuantType.QUInt8 if unsigned else ort_quantization.QuantType.QInt8
    formats = ort_quantization.QuantFormat
    onnx.save(model, folder / "float.onnx")
    logging.disable(logging.WARNING)
    try:
        ort_quantization.quantize_static(
            folder / "float.onnx",
            folder / "int8.onnx",
            _Once(feeds),
            quant_format=formats.QOperator if operators else formats.QDQ,
            activation_type=kind,
            weight_type=kind,
            per_channel=True,
            reduce_range=operators,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
        )
    finally:
        logging.disable(logging.NOTSET)
    return load_model(folder / "int8.onnx")
