"""The folder that a recorder writes to: its own, within its limits, read as calibration data.

    samples/request-00000.npz     one sample: an array for each input
    samples/inputs.json           what was counted, of a recorder that keeps no inputs
    samples/.recorder.json        whose it is, and how many requests it was drawn from

Hidden files are no samples to ``--calib-data``.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.errors import InputError
from artefacts.files import write_atomic
from engines.monitoring.value_counts import ValueCounts

try:
    import fcntl
except ImportError:  # no POSIX: two recorders of one folder are not kept apart
    fcntl = None  # type: ignore[assignment]

__all__ = ["COUNTS", "RecorderFolder", "encoded"]

COUNTS = "inputs.json"
_STATE = ".recorder.json"
_LOCK = ".recorder.lock"
_SAMPLE = re.compile(r"request-(\d{5,})\.npz")
_PART = re.compile(r"\.(request-\d+\.npz|inputs\.json|\.recorder\.json)\..*\.part")


class RecorderFolder:
    """A folder that belongs to one recorder; refused before the first request where it cannot.

    Args:
        path: made where it does not exist.
        inputs: dtype and shape by input, of the engine whose requests it holds.

    Raises:
        InputError: it cannot be written to, is full, holds other files or another engine's
            requests, or another process records to it.
    """

    def __init__(self, path: str | Path, inputs: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self._inputs = json.loads(json.dumps(inputs))
        self._check_content()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock: int | None = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as err:
            raise self._unusable(err) from err
        try:
            self._claim(self._lock)
            self.considered = self._read_state()
            self._remove_parts()
            found = [path for path in self.path.iterdir() if _SAMPLE.fullmatch(path.name)]
            self.sizes = {_slot(path): path.stat().st_size for path in found}
            # A reservoir of so many samples was drawn from at least as many requests.
            self.considered = max(self.considered, 1 + max(self.sizes, default=-1))
            self.save_state(self.considered)
        except OSError as err:
            self.close()
            raise self._unusable(err) from err
        except InputError:
            self.close()
            raise

    @property
    def size_bytes(self) -> int:
        """Of all samples."""
        return sum(self.sizes.values())

    def check_inputs(self, inputs: Mapping[str, Any]) -> None:
        """Refuse an engine whose requests do not belong here.

        Raises:
            InputError: its inputs are others.
        """
        if inputs != self._inputs:
            raise InputError(
                f"recorder of {self.path} is given an engine with inputs {_said(inputs)}, expected "
                f"{_said(self._inputs)}; give each engine its own recorder"
            )

    def read_counts(self) -> dict[str, ValueCounts]:
        """What an earlier run counted; empty for nothing.

        Raises:
            InputError: the file is damaged.
        """
        path = self.path / COUNTS
        if not path.is_file():
            return {}
        try:
            found = json.loads(path.read_bytes())
            return {name: ValueCounts.from_json(found[name]) for name in self._inputs}
        except (AttributeError, KeyError, TypeError, ValueError) as err:
            raise self._foreign(f"has a damaged {COUNTS}") from err

    def save_sample(self, slot: int, data: bytes) -> None:
        """Write one sample in the place of another.

        Raises:
            OSError, InputError: it cannot be written; what was there stays.
        """
        write_atomic(self._sample(slot), data)
        self.sizes[slot] = len(data)

    def trim(self, limit: int, limit_bytes: int) -> None:
        """Remove what is beyond limits that were wider before; the rest is as fair a sample.

        Raises:
            InputError: a file cannot be removed.
        """
        for slot in sorted(self.sizes, reverse=True):
            if slot >= limit or self.size_bytes > limit_bytes:
                try:
                    self._sample(slot).unlink(missing_ok=True)
                except OSError as err:
                    raise self._unusable(err) from err
                del self.sizes[slot]

    def save_counts(self, counts: Mapping[str, Any]) -> None:
        """Write what was counted.

        Raises:
            OSError, InputError: it cannot be written.
        """
        write_atomic(self.path / COUNTS, json.dumps(counts, indent=2).encode() + b"\n")

    def save_state(self, considered: int) -> None:
        """Write how many requests the samples were drawn from.

        Raises:
            OSError, InputError: it cannot be written.
        """
        state = {"recorder": 1, "inputs": self._inputs, "considered": considered}
        write_atomic(self.path / _STATE, json.dumps(state).encode() + b"\n")

    def close(self) -> None:
        """Let another recorder have it."""
        handle, self._lock = self._lock, None
        if handle is not None:
            os.close(handle)

    def _sample(self, slot: int) -> Path:
        return self.path / f"request-{slot:05d}.npz"

    def _check_content(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise InputError(
                f"recorder's folder {self.path} is a file, expected a folder; name another one"
            )
        found = sorted(entry.name for entry in self._entries() if not self._is_ours(entry.name))
        if found:
            raise InputError(
                f"recorder's folder {self.path} holds {len(found)} other files ({found[0]} …), "
                "expected an empty folder or one that a recorder filled; name another one"
            )

    def _entries(self) -> list[Path]:
        try:
            return list(self.path.iterdir()) if self.path.is_dir() else []
        except OSError as err:
            raise self._unusable(err) from err

    def _is_ours(self, name: str) -> bool:
        known = (_STATE, _LOCK, COUNTS)
        return name in known or bool(_SAMPLE.fullmatch(name) or _PART.fullmatch(name))

    def _claim(self, handle: int) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise InputError(
                f"recorder's folder {self.path} is in use by another recorder, expected a folder "
                "for each; name one by the process, e.g. with os.getpid()"
            ) from err

    def _read_state(self) -> int:
        path = self.path / _STATE
        if not path.exists():
            samples = [entry for entry in self._entries() if _SAMPLE.fullmatch(entry.name)]
            if samples:
                raise self._foreign(f"has {len(samples)} samples without {_STATE}")
            return 0
        try:
            state = json.loads(path.read_bytes())
            inputs, considered = state["inputs"], int(state["considered"])
        except (ValueError, KeyError, TypeError) as err:
            raise self._foreign(f"has a damaged {_STATE}") from err
        if inputs != self._inputs:
            raise self._foreign(f"holds requests of an engine with inputs {_said(inputs)}")
        return considered

    def _remove_parts(self) -> None:
        """Of a process that was killed while it wrote."""
        for entry in self._entries():
            if _PART.fullmatch(entry.name):
                entry.unlink(missing_ok=True)

    def _foreign(self, found: str) -> InputError:
        return InputError(
            f"recorder's folder {self.path} {found}, expected requests of inputs "
            f"{_said(self._inputs)}; name another folder, or empty it"
        )

    def _unusable(self, err: OSError) -> InputError:
        return InputError(
            f"recorder's folder {self.path} cannot be written to ({err.strerror or err}), expected "
            "room and permission for samples; name another one"
        )


def encoded(row: Mapping[str, NDArray[Any]]) -> bytes:
    """An uncompressed ``.npz``; ``numpy.savez`` has no place for an input called ``file``."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in row.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return buffer.getvalue()


def _slot(path: Path) -> int:
    found = _SAMPLE.fullmatch(path.name)
    assert found is not None
    return int(found[1])


def _said(inputs: Any) -> str:
    text = json.dumps(inputs)
    return text if len(text) <= 200 else f"{text[:200]}…"
