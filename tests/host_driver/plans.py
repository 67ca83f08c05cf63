"""Plans of NVIDIA's classes (tests/contract/surface.py) that run on the driver of host memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorrt as trt
from numpy.typing import NDArray

from engines import Manifest, Passport, Profile, TensorSpec
from engines.dlpack import CUDA, DeviceArray
from engines.engine import Engine
from engines.tensorrt.plan import Plan
from engines.tensorrt.runner import TensorrtRunner
from tests.contract.surface import Surface
from tests.host_driver.control import HostDriver

__all__ = ["engine", "on_gpu", "plan", "profile", "read", "rows", "runner"]

HASH = "0" * 64
SCRATCH_BYTES = 1 << 16
SPEC: dict[str, Any] = {"dtype": "float32", "shape": (None, 4)}
Floats = NDArray[np.float32]
driver = HostDriver()


def doubling() -> dict[str, Any]:
    """Answers of an execution context whose plan has output = 2 · input, through its scratch."""

    def execute(context: Any, stream: int) -> bool:
        values = context.values
        size = 4 * int(np.prod(values["shape"], dtype=np.int64))
        scratch = values["device_memory" if "device_memory" in values else "scratch"]
        return not driver.double(stream, values["output"], values["input"], scratch, size)

    def set_shape(context: Any, name: str, shape: tuple[int, ...]) -> bool:
        context.values["shape"] = tuple(shape)
        return True

    def set_address(context: Any, name: str, address: int) -> bool:
        context.values[name] = address
        return True

    def set_memory(context: Any, address: int, size: int) -> None:
        assert size == SCRATCH_BYTES
        context.values["scratch"] = address

    return {
        "ICudaEngine.device_memory_size": SCRATCH_BYTES,
        "ICudaEngine.device_memory_size_v2": SCRATCH_BYTES,
        "ICudaEngine.get_tensor_location": trt.TensorLocation.DEVICE,
        "IExecutionContext.execute_async_v3": execute,
        "IExecutionContext.set_input_shape": set_shape,
        "IExecutionContext.set_tensor_address": set_address,
        "IExecutionContext.set_device_memory": set_memory,
        "IExecutionContext.get_tensor_shape": lambda context, name: context.values["shape"],
        "IExecutionContext.active_optimization_profile": -1,
        "EngineInspector.get_engine_information": '{"Layers": ["first", "second + third"]}',
    }


def profile(low: int, high: int) -> Profile:
    return Profile(min={"input": (low, 4)}, opt={"input": (low, 4)}, max={"input": (high, 4)})


def plan(*profiles: Profile, device: int = 0, **answers: Any) -> Plan:
    """One input, one output; ``IExecutionContext__set_input_shape=False`` changes an answer."""
    named = {key.replace("__", "."): value for key, value in answers.items()}
    return Plan(
        Surface(trt, doubling() | named),
        b"plan",
        (TensorSpec(name="input", **SPEC),),
        (TensorSpec(name="output", **SPEC),),
        profiles or (profile(1, 64),),
        device=device,
    )


def runner(*profiles: Profile, device: int = 0, **answers: Any) -> TensorrtRunner:
    return TensorrtRunner(plan(*profiles, device=device, **answers))


def engine(made: TensorrtRunner, *profiles: Profile) -> Engine:
    manifest = Manifest(
        engine_sha256=HASH,
        engine_bytes=4,
        target="tensorrt",
        precision="fp32",
        onnx={"name": "m.onnx", "sha256": HASH, "external": {}},
        library={"name": "tensorrt", "version": "0"},
        device={"name": "host"},
        inputs=(TensorSpec(name="input", **SPEC),),
        outputs=(TensorSpec(name="output", **SPEC),),
        profiles=profiles or (profile(1, 64),),
        options={},
        build={},
        coverage=None,
        passport=Passport(),
    )
    return Engine(made, manifest)


def rows(rng: np.random.Generator, batch: int) -> Floats:
    return rng.standard_normal((batch, 4)).astype(np.float32)


def on_gpu(values: Floats, *, offset_bytes: int = 0, device: int = 0) -> DeviceArray:
    """A tensor of another framework: device memory of its own, or a slice of one."""
    import pycuda.driver

    from artefacts.cuda import cuda_context
    from engines.cuda.memory import DeviceBuffer

    context = cuda_context(device)
    with context.current():
        memory = DeviceBuffer(context, values.nbytes + offset_bytes)
        pycuda.driver.memcpy_htod(memory.address + offset_bytes, np.ascontiguousarray(values))
    address = memory.address + offset_bytes
    return DeviceArray(address, values.shape, "float32", (CUDA, device), memory)


def read(lent: DeviceArray) -> Floats:
    """What lies in a tensor on the device."""
    import pycuda.driver

    from artefacts.cuda import cuda_context

    values = np.empty(lent.shape, np.float32)
    with cuda_context(lent.device[1]).current():
        pycuda.driver.memcpy_dtoh(values, lent.address)
    return values
