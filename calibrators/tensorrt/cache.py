"""TensorRT's calibration cache: a header and one scale per tensor, in text.

    TRT-100300-MinMaxCalibration
    images: 3c010204

The number is the library's version, the hexadecimal digits are a float32 scale (amax / 127), most
significant byte first, without leading zeros. A name may hold colons and spaces: the last colon of
a line ends it. TensorRT writes a scale of 0 for tensors it saw only zeros in, and an infinite one
(7f800000) where a calibration overflowed; both are kept as read and left out of ranges.
Nothing in the file ties it to a model or to data, so this module never guesses either.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from artefacts.errors import ArtefactError, InputError
from calibrators.ranges.ranges import Ranges

__all__ = [
    "ALGORITHMS",
    "CalibrationCache",
    "cache_from_ranges",
    "check_cache",
    "read_cache",
    "rewrite_header",
    "version_number",
    "write_cache",
]

# Algorithms of NvInfer.h and the word each writes into the header.
ALGORITHMS = (
    "EntropyCalibration2",
    "MinMaxCalibration",
    "EntropyCalibration",
    "LegacyCalibration",
)
_LIMIT_BYTES = 64 << 20
_HEADER = re.compile(r"TRT-([0-9]{4,6})-([A-Za-z0-9]+)")
_LINE = re.compile(r"(.+): ([0-9a-fA-F]{1,8})")


@dataclass(frozen=True, kw_only=True)
class CalibrationCache:
    """The content of a calibration cache.

    Attributes:
        version: digits of the header, e.g. "8601" or "100300" (``version_number``).
        algorithm: word of the header, e.g. "EntropyCalibration2".
        scales: tensor name → scale, a float that a float32 holds exactly, in the file's order.
    """

    version: str
    algorithm: str
    scales: Mapping[str, float]

    def __post_init__(self) -> None:
        if not _HEADER.fullmatch(self.header):
            raise ArtefactError(
                f"calibration cache header {self.header!r}, expected TRT-<4 to 6 digits>-<word>, "
                "e.g. TRT-100300-EntropyCalibration2; correct version or algorithm"
            )
        for name, scale in self.scales.items():
            _check_name(name)
            _check_scale(name, scale)
        object.__setattr__(self, "scales", dict(self.scales))

    @property
    def header(self) -> str:
        """The first line, e.g. "TRT-100300-EntropyCalibration2"."""
        return f"TRT-{self.version}-{self.algorithm}"


def version_number(version: str) -> str:
    """The header's digits for a TensorRT version, e.g. "10.3.0" → "100300", "8.6.1" → "8601".

    NV_TENSORRT_VERSION of NvInferRuntimeBase.h: major * 1000 + minor * 100 + patch up to 9.x,
    major * 10000 + minor * 100 + patch from 10.0.

    Raises:
        InputError: not three numbers with dots (a fourth is ignored), or out of their ranges.
    """
    match = re.fullmatch(r"([0-9]{1,2})\.([0-9]{1,2})\.([0-9]{1,2})(\.[0-9]+)*", version)
    if match is None:
        raise InputError(
            f"TensorRT version {version!r}, expected three numbers, e.g. 10.3.0; find yours with "
            "python3 -c 'import tensorrt; print(tensorrt.__version__)'"
        )
    major, minor, patch = (int(part) for part in match.groups()[:3])
    if major < 10:
        return str(major * 1000 + minor * 100 + patch)
    return str(major * 10000 + minor * 100 + patch)


def read_cache(data: bytes) -> CalibrationCache:
    """Parse a cache that TensorRT or ``write_cache`` wrote.

    Raises:
        ArtefactError: it is none, with line and reason.
    """
    if len(data) > _LIMIT_BYTES:
        raise ArtefactError(
            f"calibration cache has {len(data)} bytes, expected at most {_LIMIT_BYTES}; "
            "is it the right file?"
        )
    lines = _text(data).split("\n")
    header = _HEADER.fullmatch(lines[0].rstrip("\r"))
    if header is None:
        raise ArtefactError(_explain_header(lines[0]))
    if lines[-1]:
        # Digits have no fixed number: what is left of a cut line would read as another scale.
        raise ArtefactError(
            f"calibration cache ends within line {len(lines)}, {lines[-1][:80]!r}, expected a "
            "line feed; the file was cut off: calibrate again"
        )
    scales: dict[str, float] = {}
    for number, line in enumerate(lines[1:], start=2):
        entry = line.rstrip("\r")
        if not entry:
            continue
        match = _LINE.fullmatch(entry)
        if match is None:
            raise ArtefactError(
                f"line {number} of the calibration cache is {entry[:80]!r}, expected "
                "'<tensor>: <up to 8 hexadecimal digits>'; the file is damaged: calibrate again"
            )
        name, digits = match.groups()
        if name in scales:
            raise ArtefactError(
                f"line {number} of the calibration cache gives tensor {name!r} a second scale, "
                "expected one; the file is damaged: calibrate again"
            )
        scales[name] = struct.unpack(">f", int(digits, 16).to_bytes(4, "big"))[0]
    return CalibrationCache(version=header[1], algorithm=header[2], scales=scales)


def write_cache(cache: CalibrationCache) -> bytes:
    """The bytes that TensorRT reads; ``read_cache`` gives ``cache`` back."""
    lines = [cache.header]
    for name, scale in cache.scales.items():
        digits = int.from_bytes(struct.pack(">f", scale), "big")
        lines.append(f"{name}: {digits:x}")
    return ("\n".join(lines) + "\n").encode()


def cache_from_ranges(
    ranges: Ranges, *, version: str, algorithm: str = "EntropyCalibration2"
) -> CalibrationCache:
    """Our ranges as a cache for one TensorRT version, e.g. "10.3.0".

    The algorithm is the one whose calibrator class will read the cache; TensorRT refuses another.
    It need not be how the ranges were chosen.

    Raises:
        InputError: no such algorithm, or not a version that reads caches.
        ArtefactError: a tensor whose name a cache cannot hold.
    """
    if algorithm not in ALGORITHMS:
        raise InputError(
            f"calibration algorithm {algorithm!r}, expected one of {', '.join(ALGORITHMS)}; "
            "name the class of the calibrator that will read the cache"
        )
    scales = {name: entry.scale for name, entry in ranges.tensors.items()}
    return CalibrationCache(version=version_number(version), algorithm=algorithm, scales=scales)


def check_cache(cache: CalibrationCache, *, version: str, algorithm: str) -> None:
    """Refuse a cache that this TensorRT version or calibrator would reject.

    Raises:
        ArtefactError: another version or algorithm, with what to do.
    """
    expected = f"TRT-{version_number(version)}-{algorithm}"
    if cache.header != expected:
        what = "algorithm" if cache.algorithm != algorithm else "version"
        raise ArtefactError(
            f"calibration cache was written by {cache.header}, expected {expected}: TensorRT "
            f"rejects another {what} and calibrates again; calibrate with this version, or, where "
            "you know that the scales fit this network, change the header with "
            "'python -m calibrators cache FILE --rewrite-header'"
        )


def rewrite_header(cache: CalibrationCache, *, version: str, algorithm: str) -> CalibrationCache:
    """The same scales under another header.

    NVIDIA states that caches are in general not portable between releases: only for who knows
    that tensor names and scales fit.
    """
    return replace(cache, version=version_number(version), algorithm=algorithm)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as err:
        raise ArtefactError(
            f"calibration cache is not text (byte {err.start}), expected lines of UTF-8 after a "
            "header TRT-<version>-<algorithm>; is it the right file?"
        ) from err


def _explain_header(line: str) -> str:
    found = f"calibration cache starts with {line[:80]!r}, expected TRT-<version>-<algorithm>"
    parts = line.rsplit(" ", 1)
    if len(parts) == 2 and _is_number(parts[1]):
        return (
            f"{found}: this is onnxruntime's text table of ranges (amax, not scales), which "
            "TensorRT does not read; calibrate again, or give TensorRT's own cache"
        )
    return f"{found}; is it the right file?"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_name(name: str) -> None:
    if not name or "\n" in name or "\r" in name or not _is_utf8(name):
        raise ArtefactError(
            f"tensor name {name!r} cannot stand in a calibration cache, expected one line of "
            "text; rename the tensor"
        )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_scale(name: str, scale: float) -> None:
    with np.errstate(over="ignore"):
        exact = float(np.float32(scale)) == scale
    if scale < 0 or not exact:
        raise ArtefactError(
            f"scale of tensor {name!r} is {scale}, expected a float32 that is not negative; the "
            "calibration went wrong or the file is damaged: calibrate again"
        )
