"""A built engine with what it came from, and the models that it is held against."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx

import engines
import quantization
from artefacts.errors import ModelError
from pipeline.job import Paths
from quantization.measure.execution import Run, load_int8, load_onnxruntime

__all__ = ["Built", "Sessions"]

FP32, INT8 = "FP32 ONNX", "INT8 ONNX"


@dataclass(frozen=True, kw_only=True, eq=False)
class Built:
    """One engine.

    Attributes:
        paths: where it lies.
        prepared: the float model, its large weights in its file only; of a model that came
            quantized, its graph with all weights.
        source: the model that was built, without the float16 of its floating-point part.
        options: of the build.
        implicit: TensorRT quantized it.
        manifest: of the engine.
    """

    paths: Paths
    prepared: onnx.ModelProto
    source: Path
    options: engines.BuildOptions
    implicit: bool
    manifest: engines.Manifest

    @cached_property
    def came_quantized(self) -> bool:
        """Whether there is no float model."""
        return quantization.quantized_format(self.prepared) is not None

    @property
    def written_in_int8(self) -> bool:
        """Whether the graph itself says what is INT8."""
        return self.options.precision == "int8" and not self.implicit

    @property
    def reference(self) -> str:
        """What others are compared with: the float model, or the graph that came quantized."""
        return "its ONNX" if self.came_quantized else FP32


class Sessions:
    """The models that an engine is held against, each opened once, when it is first asked for."""

    def __init__(self, built: Built) -> None:
        self._built = built

    @cached_property
    def graph(self) -> Run:
        """What was built, as it is written.

        Raises:
            ModelError: onnxruntime does not run it.
        """
        return load_int8(self._built.source)

    @cached_property
    def reference(self) -> Run:
        """The prepared model, since the user's file may be one that onnxruntime does not run.

        Raises:
            ModelError: onnxruntime does not run it.
        """
        built = self._built
        if built.came_quantized:
            as_it_came = built.source == built.paths.beside(".int8.onnx")
            return self.graph if as_it_came else load_int8(built.prepared)
        # Beside the INT8 graph and the engine: it is as fast without an arena, which keeps the most
        # that a batch ever took.
        return load_onnxruntime(built.paths.beside(".prepared.onnx"), arena=False)

    @cached_property
    def plain(self) -> Run | None:
        """The float network beside an INT8 graph; what came quantized without its rounding."""
        built = self._built
        if not built.written_in_int8:
            return None
        if not built.came_quantized:
            return self.reference
        try:
            return load_onnxruntime(quantization.strip(built.prepared).model)
        except ModelError:  # codes at the edge of the graph: it is held to the least limit
            return None

    @property
    def others(self) -> dict[str, Run]:
        """Reference, and the INT8 graph where it is another; by the names that results go by.

        Raises:
            ModelError: onnxruntime does not run one of them.
        """
        built = self._built
        found = {built.reference: self.reference}
        if built.written_in_int8 and self.graph is not self.reference:
            found[INT8] = self.graph
        return found
