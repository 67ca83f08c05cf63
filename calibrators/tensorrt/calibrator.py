"""TensorRT's own calibrators (8.5 to 10.16), fed with our batches. The one file with tensorrt.

For the routes that nothing else serves: implicit quantization and DLA. TensorRT measures its own
histograms; its entropy depends on batch size and order, so prefer one large shuffled batch. What
a builder asks, in this order (NvInfer.h of 10.16):

    get_batch_size()             1: with an explicit batch, the shape is the profile's
    read_calibration_cache()     bytes end the matter, None starts the calibration
    get_batch(names)             device pointers in the order of the names, None at the end
    write_calibration_cache()    the result

The builder holds raw pointers to the calibrator and its buffers: keep both until the engine is
built. An exception inside a callback is swallowed by the bindings, and the builder would go on
with less data; ``Feeder`` keeps it, and leaving the ``with`` block raises it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.errors import BuilderError, DataError, InputError, UnsupportedError
from artefacts.files import read_bounded, write_atomic
from artefacts.libraries import require
from calibrators.samples.data import Batch
from calibrators.tensorrt.cache import check_cache, read_cache
from calibrators.tensorrt.device_memory import CudaMemory, DeviceMemory

__all__ = ["CALIBRATORS", "Feeder", "calibrator"]

logger = logging.getLogger(__name__)

# Our name → base class, and the word that it writes into the header of its cache.
CALIBRATORS = {
    "entropy": ("IInt8EntropyCalibrator2", "EntropyCalibration2"),
    "minmax": ("IInt8MinMaxCalibrator", "MinMaxCalibration"),
}
_CACHE_LIMIT_BYTES = 64 << 20


class Feeder:
    """What a calibrator does, without TensorRT: batches in, pointers and a cache out.

    Args:
        batches: stacked samples; all of one shape. A last one that is not full is left out, since
            TensorRT calibrates with exactly one shape.
        memory: where the batches go.
        cache: read where it exists, written else; None for neither.
        header: (version, algorithm) that a cache must have, e.g. ("10.3.0", "MinMaxCalibration").
        int64: whether TensorRT takes 64-bit integers (from 10.0); else they are fed as 32-bit.
        progress: called with the number of batches fed.

    Raises:
        ArtefactError: the cache is damaged, or of another version or algorithm.
        DataError: there is no full batch to calibrate with, and no cache.
    """

    def __init__(
        self,
        batches: Iterable[Batch],
        *,
        memory: DeviceMemory,
        cache: Path | None,
        header: tuple[str, str],
        int64: bool = True,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._batches = iter(batches)
        self._memory = memory
        self._cache_path = cache
        self._int64 = int64
        self._progress = progress
        self._cache = _read_checked(cache, header)
        self._fed = 0
        self._error: BuilderError | None = None
        self._next = self._full(None) if self._cache is None else None
        if self._cache is None and self._next is None:
            raise DataError(
                "samples do not fill a single calibration batch, expected at least one full "
                "batch; lower --calib-batch or give more samples"
            )
        arrays = {} if self._next is None else self._next.inputs
        self.shapes: dict[str, tuple[int, ...]] = {name: a.shape for name, a in arrays.items()}

    def get_batch(self, names: Sequence[str]) -> list[int] | None:
        """Addresses of the next batch in the order of ``names``; None after the last."""
        if self._next is None:
            return None
        try:
            pointers = [self._memory.upload(name, self._fed_as(name)) for name in names]
            self._fed += 1
            self._next = self._full(self.shapes)
        except BuilderError as err:
            self._error, self._next = err, None
            return None
        if self._progress is not None:
            self._progress(self._fed)
        return pointers

    def read_calibration_cache(self) -> bytes | None:
        """The cache's bytes; None to calibrate."""
        return self._cache

    def write_calibration_cache(self, cache: bytes) -> None:
        """Keep what TensorRT calibrated, unless the data failed on the way."""
        if self._error is not None:
            return
        self._cache = cache
        try:
            if self._cache_path is not None:
                write_atomic(self._cache_path, cache)
        except BuilderError as err:
            self._error = err

    def check(self) -> None:
        """Raise what went wrong inside a callback."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Free the device memory; only after the engine was built."""
        self._memory.close()

    def _full(self, shapes: Mapping[str, tuple[int, ...]] | None) -> Batch | None:
        """The next batch to feed; None at the end."""
        batch = next(self._batches, None)
        if batch is None:
            return None
        found = {name: array.shape for name, array in batch.inputs.items()}
        if batch.padding or (shapes is not None and _is_shorter(found, shapes)):
            logger.warning(
                "the last %d samples do not fill a batch and are left out of the calibration",
                batch.count,
            )
            return None
        if shapes is not None and found != shapes:
            raise DataError(
                f"calibration batch {self._fed + 1} has shapes {found}, expected {dict(shapes)} "
                "like the first (TensorRT calibrates with one shape); give samples of one size"
            )
        return batch

    def _fed_as(self, name: str) -> NDArray[Any]:
        assert self._next is not None
        if name not in self._next.inputs:
            raise DataError(
                f"samples name inputs {sorted(self._next.inputs)}, expected {name}, which "
                "TensorRT asks for; correct the names"
            )
        array = self._next.inputs[name]
        if array.dtype.kind == "f":
            # TensorRT wants FP32 here even where the network's input is FP16 or INT8.
            return np.ascontiguousarray(array, np.float32)
        if array.dtype == np.int64 and not self._int64:
            low, high = int(array.min(initial=0)), int(array.max(initial=0))
            if low < -(2**31) or high >= 2**31:
                raise DataError(
                    f"input {name} holds integers {low}..{high}, expected 32-bit ones (this "
                    "TensorRT has no 64-bit integers); correct the samples"
                )
            return np.ascontiguousarray(array, np.int32)
        return np.ascontiguousarray(array)

    def __enter__(self) -> Feeder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if error is None or self._error is not None:
            self.check()


def calibrator(
    name: str,
    batches: Iterable[Batch],
    *,
    cache: Path | None = None,
    memory: DeviceMemory | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Any, Feeder]:
    """A calibrator of TensorRT, and what feeds it.

        trt_calibrator, feeder = calibrator("entropy", batches(samples, 8, inputs=specs))
        with feeder:
            ...  # set profile shapes to feeder.shapes, config.int8_calibrator, build

    Args:
        name: one of ``CALIBRATORS``.
        batches: see ``Feeder``.
        cache: see ``Feeder``.
        memory: None for ``CudaMemory``.
        progress: see ``Feeder``.

    Raises:
        InputError: no such calibrator.
        MissingLibraryError: TensorRT or PyCUDA is not installed.
        UnsupportedError: this TensorRT has no calibrators, or there is no GPU.
        ArtefactError: the cache is damaged, or of another version or algorithm.
        DataError: there is no full batch.
    """
    if name not in CALIBRATORS:
        raise InputError(
            f"TensorRT calibrator {name!r}, expected one of {', '.join(CALIBRATORS)}; "
            "choose one of them"
        )
    trt = require("tensorrt", extra="tensorrt")
    class_name, algorithm = CALIBRATORS[name]
    base = getattr(trt, class_name, None)
    if base is None:
        raise UnsupportedError(
            f"TensorRT {trt.__version__} has no {class_name}, expected 8.5 to 10.16 (11.0 removed "
            "calibrators); build from the INT8 ONNX model instead, which every version takes"
        )
    feeder = Feeder(
        batches,
        memory=CudaMemory() if memory is None else memory,
        cache=cache,
        header=(trt.__version__, algorithm),
        int64=hasattr(trt.DataType, "INT64"),
        progress=progress,
    )
    return _subclass(base)(feeder), feeder


def _subclass(base: Any) -> Any:
    class Calibrator(base):  # type: ignore[misc]  # TensorRT has no types
        def __init__(self, feeder: Feeder) -> None:
            base.__init__(self)  # TensorRT crashes the process where this call is missing
            self.feeder = feeder

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: Sequence[str]) -> list[int] | None:
            return self.feeder.get_batch(names)

        def read_calibration_cache(self) -> bytes | None:
            return self.feeder.read_calibration_cache()

        def write_calibration_cache(self, cache: Any) -> None:
            self.feeder.write_calibration_cache(bytes(cache))

    return Calibrator


def _read_checked(path: Path | None, header: tuple[str, str]) -> bytes | None:
    if path is None or not path.exists():
        return None
    data = read_bounded(path, limit_bytes=_CACHE_LIMIT_BYTES, what="calibration cache")
    check_cache(read_cache(data), version=header[0], algorithm=header[1])
    return data


def _is_shorter(
    found: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]]
) -> bool:
    """Whether a batch differs from the others only by fewer rows."""
    return all(
        name in found and found[name][1:] == shape[1:] and found[name][:1] < shape[:1]
        for name, shape in shapes.items()
    )
