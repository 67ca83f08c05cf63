"""What one picture of somebody else may cost, and the file that a decoder reads it through."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass

from artefacts.errors import BusyError, DataError
from calibrators.preprocessing.geometry import MAX_PIXELS

__all__ = ["FILES", "UPLOADS", "ImageLimits", "MeteredFile"]

# A progressive JPEG writes the whole picture once a scan; cameras and libjpeg write up to 10, and
# 18 for CMYK.
_SCANS_OF_FULL_SIZE = 20
# The longest side of a JPEG. One run of a BMP may fill 255 rows, however long they are.
_LONGEST_SIDE = 65535
# Pillow walks chunks and markers in Python. Encoders write chunks of 8 kB and more, three reads
# each; a file of nothing but empty chunks is refused after a fraction of a second.
_READS = 10_000
_BYTES_PER_READ = 256


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """How much a picture may be, by its header, before anything is decoded.

    Decoding takes at most about 12 bytes a pixel, and for a JPEG 2 ns a pixel and scan.

    Attributes:
        file_bytes: of the encoded file.
        pixels: of the picture, and of what a spec resizes it to; of all scans of a JPEG together,
            20 times as many.

    Raises:
        DataError: a limit that lets nothing through.
    """

    file_bytes: int = 1 << 28
    pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.file_bytes < 1 or not 1 <= self.pixels <= MAX_PIXELS:
            raise DataError(
                f"image limits are {self.file_bytes} bytes and {self.pixels} pixels, expected at "
                f"least 1 byte and 1 to {MAX_PIXELS} pixels; correct them"
            )

    def check_bytes(self, raw: bytes, name: str) -> None:
        """Refuse a file that is too large.

        Raises:
            DataError: it is.
        """
        if len(raw) > self.file_bytes:
            raise DataError(
                f"image {name} has {len(raw)} bytes, expected at most {self.file_bytes}; scale it "
                "down or compress it more"
            )

    def check_size(self, width: int, height: int, name: str) -> None:
        """Refuse a picture that is too large.

        Raises:
            DataError: it is.
        """
        if width * height > self.pixels or max(width, height) > _LONGEST_SIDE:
            raise DataError(
                f"image {name} has {width} × {height} pixels, expected at most {self.pixels} and "
                f"sides of at most {_LONGEST_SIDE} (a decompression bomb would be larger); scale "
                "it down or remove it"
            )

    def check_resized(self, height: int, width: int) -> None:
        """Refuse what a picture of extreme proportions becomes when its short side is resized.

        Raises:
            DataError: it is too large.
        """
        if width * height > self.pixels:
            raise DataError(
                f"resize makes {height} × {width} pixels of the image, expected at most "
                f"{self.pixels}; remove the image or set resize: [height, width]"
            )

    def check_scans(self, raw: bytes, width: int, height: int, name: str) -> None:
        """Refuse a JPEG whose scans write more than the limit all together.

        Every scan begins with FF DA, and coded data never holds these two bytes. Those of an
        embedded preview are counted, too: more scans than there are, never fewer.

        Raises:
            DataError: they do.
        """
        scans = raw.count(b"\xff\xda")
        if scans * width * height > _SCANS_OF_FULL_SIZE * self.pixels:
            raise DataError(
                f"image {name} has {scans} scans of {width} × {height} pixels, expected at most "
                f"{_SCANS_OF_FULL_SIZE * self.pixels} pixels in all of them; save it as a "
                "baseline JPEG"
            )


FILES = ImageLimits()
"""For files of one's own."""

UPLOADS = ImageLimits(file_bytes=10 << 20, pixels=1 << 24)
"""For uploads: 4096 × 4096 pixels, 200 MB while decoded."""


class MeteredFile(io.BytesIO):
    """Bytes whose reader is stopped after too many reads, or when its time is up.

    Args:
        raw: of the file.
        name: named in errors.
        deadline_s: on ``time.monotonic``'s clock; None for no end.
        small_reads: whether the format is read in pieces of any size (run lengths of a BMP).
    """

    def __init__(
        self, raw: bytes, *, name: str, deadline_s: float | None, small_reads: bool = False
    ) -> None:
        super().__init__(raw)
        self._name, self._deadline_s = name, deadline_s
        self._left = None if small_reads else _READS + len(raw) // _BYTES_PER_READ

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes.

        Raises:
            BusyError: the time is up.
            DataError: too many reads.
        """
        if self._deadline_s is not None and time.monotonic() > self._deadline_s:
            raise BusyError(
                f"image {self._name} was still being decoded when its time was up, expected an "
                "answer by then; retry later or scale it down"
            )
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise DataError(
                    f"image {self._name} consists of too many small parts, expected chunks of "
                    f"{_BYTES_PER_READ} bytes and more on average; save it again"
                )
        return super().read(size)
