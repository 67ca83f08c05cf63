"""What a TensorFlow Lite file says of its preprocessing."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import flatbuffers
import numpy as np

from artefacts.errors import DataError
from calibrators.preprocessing.detect import detect, stated_classes
from calibrators.preprocessing.preprocess import Preprocess

CHW, HWC = ("N", 3, 224, 224), ("N", 224, 224, 3)


def tflite(mean: list[float], std: list[float], labels: str) -> bytes:
    """A model without layers that has metadata, as the schemas of TensorFlow Lite lay it out."""

    def vector(builder: flatbuffers.Builder, entries: list[int]) -> int:
        builder.StartVector(4, len(entries), 4)
        for entry in reversed(entries):
            builder.PrependUOffsetTRelative(entry)
        return int(builder.EndVector())

    def table(builder: flatbuffers.Builder, **fields: int) -> int:
        builder.StartObject(8)
        for name, value in fields.items():
            kind, slot = name.split("_")
            if kind == "t":
                builder.PrependUOffsetTRelativeSlot(int(slot), value, 0)
            elif kind == "b":
                builder.PrependByteSlot(int(slot), value, 0)
            else:
                builder.PrependUint32Slot(int(slot), value, 0)
        return int(builder.EndObject())

    b = flatbuffers.Builder(0)
    numbers = [b.CreateNumpyVector(np.array(v, np.float32)) for v in (mean, std)]
    options = table(b, t_0=numbers[0], t_1=numbers[1])
    unit = table(b, b_0=1, t_1=options)
    name = b.CreateString("labels.txt")
    file = table(b, t_0=name, b_2=2)
    inputs = vector(b, [table(b, t_4=vector(b, [unit]))])
    outputs = vector(b, [table(b, t_6=vector(b, [file]))])
    graphs = vector(b, [table(b, t_2=inputs, t_3=outputs)])
    b.Finish(table(b, t_3=graphs), file_identifier=b"M001")
    metadata = bytes(b.Output())

    b = flatbuffers.Builder(0)
    data = b.CreateByteVector(metadata)
    buffers = vector(b, [table(b), table(b, t_0=data)])
    name = b.CreateString("TFLITE_METADATA")
    entry = vector(b, [table(b, t_0=name, n_1=1)])
    b.Finish(table(b, n_0=3, t_4=buffers, t_6=entry), file_identifier=b"TFL3")
    whole = io.BytesIO(bytes(b.Output()))
    with zipfile.ZipFile(whole, "a") as archive:
        archive.writestr("labels.txt", labels)
    return whole.getvalue()


def test_tensorflow_lite_metadata(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(tflite([127.5], [128.0], "cat\ndog\n"))
    found = detect(tmp_path / "m.onnx", {}, HWC)
    assert found is not None
    assert found.preprocess == Preprocess(resize=(224, 224), mean=127.5, std=128.0, layout="nhwc")
    assert stated_classes(tmp_path / "m.onnx", {}) == ("cat", "dog")


def test_a_damaged_tensorflow_lite_file_is_one_sentence(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path, whole = tmp_path / "m.tflite", tflite([127.5], [128.0], "cat\n")
    for _ in range(200):
        broken = bytearray(whole[: int(rng.integers(0, len(whole) + 1))])
        for place in rng.integers(0, max(len(broken), 1), 3) if broken else ():
            broken[place] = rng.integers(0, 256)
        path.write_bytes(broken)
        try:
            detect(tmp_path / "m.onnx", {}, HWC)
            stated_classes(tmp_path / "m.onnx", {})
        except DataError as err:
            assert "m.tflite" in str(err) or "preprocessing" in str(err)  # noqa: PT017 - or none
