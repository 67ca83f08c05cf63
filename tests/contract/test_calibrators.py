"""Our calibrators on NVIDIA's real classes, driven from C++ in the builder's order."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibrators.tensorrt.cache import read_cache
from tests.contract.bindings import Bindings

# Common to the programs below: three samples of two inputs, and "device" memory on the host.
SETUP = """
    import ctypes, sys
    from pathlib import Path
    import numpy as np
    import tensorrt as trt
    from artefacts.errors import BuilderError
    from calibrators.samples.data import batches
    from calibrators.samples.samples import InputSpec, Sample
    from calibrators.tensorrt.calibrator import calibrator
    from tests.contract.builder_side import BuilderSide

    class HostMemory:
        def __init__(self):
            self.buffers, self.closed = {}, False

        def upload(self, name, array):
            assert not self.closed
            buffer = self.buffers.setdefault(name, np.empty_like(array))
            assert buffer.dtype == array.dtype and buffer.shape == array.shape
            buffer[...] = array
            return buffer.ctypes.data

        def close(self):
            self.closed = True

    def at(pointer, dtype, *shape):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer(ctypes.string_at(pointer, size), dtype).reshape(shape)

    specs = (
        InputSpec(name="image:0", dtype=np.dtype("float16"), shape=("N", 2)),
        InputSpec(name="token ids", dtype=np.dtype("int64"), shape=("N", 1)),
    )
    samples = [
        Sample(
            inputs={"image:0": np.full((1, 2), i, np.float16), "token ids": np.full((1, 1), 7 * i)},
            name=str(i),
        )
        for i in range(5)
    ]
    memory = HostMemory()
    int64 = hasattr(trt.DataType, "INT64")
    def make(name, size, cache=None, samples=samples):
        made = calibrator(name, batches(samples, size, inputs=specs), memory=memory, cache=cache)
        return made[1], BuilderSide(made[0], trt.__version__)
"""


@pytest.fixture(params=["trt8", "trt10"])
def bindings(request: pytest.FixtureRequest) -> Bindings:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Bindings)
    return found


@pytest.mark.parametrize(("name", "algorithm"), [("entropy", 2), ("minmax", 3)])
def test_whole_protocol(bindings: Bindings, tmp_path: Path, name: str, algorithm: int) -> None:
    program = (
        SETUP
        + """
    name, algorithm, path = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    feeder, builder = make(name, 2, cache=path)
    assert feeder.shapes == {"image:0": (2, 2), "token ids": (2, 1)}, feeder.shapes
    with feeder:
        assert builder.get_algorithm() == algorithm
        assert builder.get_batch_size() == 1
        assert builder.read_calibration_cache() is None
        # The builder's order of names decides, not the samples'.
        for names in (["image:0", "token ids"], ["token ids", "image:0"]):
            pointers = dict(zip(names, builder.get_batch(names), strict=True))
            first = 0 if names[0] == "image:0" else 2
            images = at(pointers["image:0"], "float32", 2, 2)  # FP32 also for an FP16 input
            assert images.tolist() == [[first] * 2, [first + 1] * 2], images
            ids = at(pointers["token ids"], "int64" if int64 else "int32", 2, 1)
            assert ids.tolist() == [[7 * first], [7 * first + 7]], ids
        assert builder.get_batch(names) is None  # the fifth sample fills no batch
        assert not memory.closed
        word = {2: "EntropyCalibration2", 3: "MinMaxCalibration"}[algorithm]
        number = {"8.6.1": "8601", "10.16.1.11": "101601"}[trt.__version__]
        builder.write_calibration_cache(f"TRT-{number}-{word}\\nimage:0: 3c010204\\n".encode())
    assert memory.closed
    # A second build reads what the first one wrote, and asks for no data.
    memory.closed = False
    feeder, builder = make(name, 2, cache=path, samples=[])
    assert builder.read_calibration_cache() == path.read_bytes()
    print("done")
    """
    )
    path = tmp_path / "model.calib.cache"
    assert bindings.run(program, name, str(algorithm), path).endswith("done\n")
    assert read_cache(path.read_bytes()).scales == {"image:0": pytest.approx(1 / 127)}


def test_error_inside_a_callback_is_raised_after_the_build(bindings: Bindings) -> None:
    program = (
        SETUP
        + """
    odd = Sample(
        inputs={"image:0": np.zeros((1, 3), np.float16), "token ids": np.zeros((1, 1), np.int64)},
        name="odd",
    )
    feeder, builder = make("entropy", 2, samples=[*samples[:2], odd, odd])
    try:
        with feeder:
            assert builder.get_batch(["image:0", "token ids"]) is None  # the next one is odd
            assert builder.get_batch(["image:0", "token ids"]) is None
            builder.write_calibration_cache(b"TRT-8601-EntropyCalibration2\\n")
    except BuilderError as err:
        print(err)
    assert memory.closed
    feeder, builder = make("entropy", 2)
    try:
        with feeder:
            assert builder.get_batch(["pixels"]) is None
    except BuilderError as err:
        print(err)
    """
    )
    shown = bindings.run(program)
    assert "calibration batch 2 has shapes {'image:0': (2, 3), 'token ids': (2, 1)}" in shown
    assert "samples name inputs ['image:0', 'token ids'], expected pixels" in shown


def test_cache_of_another_version_or_algorithm_is_refused(
    bindings: Bindings, tmp_path: Path
) -> None:
    path = tmp_path / "old.cache"
    path.write_bytes(b"TRT-8503-EntropyCalibration2\nx: 3c010204\n")
    program = (
        SETUP
        + """
    for name in ("entropy", "minmax"):
        try:
            make(name, 2, cache=Path(sys.argv[1]))
        except BuilderError as err:
            print(err)
    """
    )
    version, algorithm = bindings.run(program, path).splitlines()
    assert "written by TRT-8503-EntropyCalibration2, expected TRT-" in version
    assert "rejects another version" in version
    assert "rejects another algorithm" in algorithm
    assert "--rewrite-header" in algorithm


def test_tensorrt_11_says_what_to_do_instead(trt11: Bindings) -> None:
    program = """
        from artefacts.errors import UnsupportedError
        from calibrators.tensorrt.calibrator import calibrator
        try:
            calibrator("entropy", [])
        except UnsupportedError as err:
            print(err)
    """
    shown = trt11.run(program)
    assert "TensorRT 11.4.0.106 has no IInt8EntropyCalibrator2, expected 8.5 to 10.16" in shown
    assert "build from the INT8 ONNX model instead" in shown
