"""The two forms of a cpu engine's bytes: a compiled blob, or the network that is compiled on load.

A blob loads at once, but OpenVINO 2026.4.1 does not read every blob of its own back right: stacked
or time-major LSTM, GRU and RNN give other results for batches above 1 (136 dB compiled, 11 dB
imported). Where the two differ, the engine is the network itself, XML and weights in one archive
that is not compressed, and compiled when it is loaded.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

from artefacts.errors import EngineError
from artefacts.faults import DAMAGED
from artefacts.litter import scratch_folder
from engines.openvino.library import DEVICE, core, library_version, openvino, reason

__all__ = ["is_archive", "load_bytes", "network_bytes"]

XML, WEIGHTS = "model.xml", "model.bin"
REFUSED: tuple[type[Exception], ...] = (zipfile.BadZipFile, *DAMAGED)
FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # so that equal networks make equal files


def network_bytes(network: Any) -> bytes:
    """A network as an archive of its XML and weights."""
    with scratch_folder("network") as folder:
        path = folder / XML
        openvino().save_model(network, str(path), compress_to_fp16=False)
        raw = io.BytesIO()
        with zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as archive:
            for name in (XML, WEIGHTS):
                entry = zipfile.ZipInfo(name, FIRST_DATE)
                archive.writestr(entry, (folder / name).read_bytes())
    return raw.getvalue()


def is_archive(data: bytes) -> bool:
    """Whether bytes are a network and not a blob."""
    return data.startswith(b"PK\x03\x04")


def load_bytes(data: bytes, chosen: Mapping[str, Any]) -> Any:
    """A compiled model from either form; the bytes are those whose hash was checked.

    Raises:
        EngineError: OpenVINO refuses them.
    """
    try:
        if is_archive(data):
            return core().compile_model(_network(data), DEVICE, dict(chosen))
        return core().import_model(io.BytesIO(data), DEVICE, dict(chosen))
    except REFUSED as err:
        raise EngineError(
            f"engine is refused by OpenVINO {library_version()} ({reason(err)}), expected a "
            "blob that this release exported on this kind of CPU; build it again here"
        ) from err


def _network(data: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:  # what is stored cannot grow
                raise zipfile.BadZipFile(f"{entry.filename} is compressed")
        xml, weights = archive.read(XML), archive.read(WEIGHTS)
    tensor = openvino().Tensor(openvino().Type.u8, openvino().Shape([len(weights)]))
    tensor.data[:] = memoryview(weights)
    return core().read_model(xml.decode(), tensor)
