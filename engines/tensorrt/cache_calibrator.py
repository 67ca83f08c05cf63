"""Implicit quantization from a calibration cache, without any data (TensorRT up to 10.16)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from artefacts.errors import ArtefactError
from artefacts.files import read_bounded

__all__ = ["CALIBRATORS", "create_cache_calibrator"]

LIMIT_BYTES = 64 << 20
HEADER = re.compile(rb"TRT-(\d+)-(\w+)\n")
# algorithm in the header → the class whose caches carry it
CALIBRATORS = {
    "EntropyCalibration2": "IInt8EntropyCalibrator2",
    "MinMaxCalibration": "IInt8MinMaxCalibrator",
}


def create_cache_calibrator(trt: Any, path: Path) -> Any:
    """A calibrator that hands TensorRT the bytes of a cache file.

    The builder checks the header itself; when it rejects the cache it asks for batches, of
    which there are none, and ``.rejected`` tells why the build then fails.

    Raises:
        ArtefactError: not a TensorRT calibration cache.
    """
    data = read_bounded(path, limit_bytes=LIMIT_BYTES, what="calibration cache")
    header = HEADER.match(data)
    algorithm = header.group(2).decode() if header else ""
    if algorithm not in CALIBRATORS:
        raise ArtefactError(
            f"calibration cache {path} begins with {data[:40]!r}, expected TRT-<version>- and one "
            f"of {', '.join(CALIBRATORS)}; write it again"
        )
    base = getattr(trt, CALIBRATORS[algorithm])

    class CacheCalibrator(base):  # type: ignore[misc, valid-type]  # the base exists at run time only
        def __init__(self) -> None:
            base.__init__(self)  # TensorRT crashes without it
            self.rejected = False

        def get_batch_size(self) -> int:
            return 1  # what explicit batch demands

        def get_batch(self, names: list[str]) -> None:
            self.rejected = True

        def read_calibration_cache(self) -> bytes:
            return data

        def write_calibration_cache(self, cache: Any) -> None:
            """Nothing new was calibrated."""

    return CacheCalibrator()
