"""TensorRT's timing cache: read before a build, merged and written back after it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from artefacts.files import read_bounded, write_atomic
from engines.tensorrt.library import title

__all__ = ["attach_timing_cache", "save_timing_cache"]

logger = logging.getLogger(__name__)

LIMIT_BYTES = 1 << 30


def attach_timing_cache(trt: Any, config: Any, path: Path | None) -> bool:
    """Give the configuration a cache, from ``path`` where that fits; say whether it has one.

    A cache of another GPU, release or with damage is not an error: the builder times again.
    """
    if path is None:
        return False
    if hasattr(trt, "ComputeCapability"):
        logger.warning("%s has no timing cache: %s is left alone", title(trt), path)
        return False
    if path.is_file():
        stored = read_bounded(path, limit_bytes=LIMIT_BYTES, what="timing cache")
        cache = config.create_timing_cache(stored)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return True
        logger.warning("timing cache %s is of another GPU or TensorRT: starting afresh", path)
    config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    return True


def save_timing_cache(config: Any, path: Path) -> None:
    """Write the cache back, with what other builds have written meanwhile.

    Two builds that end in the same instant may still lose the entries of one: they are timed
    again then, and nothing is ever half-written.
    """
    cache = config.get_timing_cache()
    if path.is_file():
        stored = read_bounded(path, limit_bytes=LIMIT_BYTES, what="timing cache")
        other = config.create_timing_cache(stored)
        if other is not None:
            cache.combine(other, ignore_mismatch=False)
    write_atomic(path, bytes(cache.serialize()))
