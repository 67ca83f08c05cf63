"""NVIDIA's real Python bindings of three TensorRT generations, on any machine.

The bindings come as wheels of about 1 MB (``make build/bindings``), without the gigabytes of
libraries that they link to. Empty libraries with the same entry points, compiled here, let them
load: enums, classes and their methods are NVIDIA's, only building and running needs the rest. Each
generation lives in a process of its own, since one process can hold one TensorRT.

    def test_entropy_calibrator(trt10):
        trt10.run("import tensorrt as trt; assert trt.IInt8EntropyCalibrator2")
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WHEELS = ROOT / "build" / "bindings"

_LIBRARIES = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser", "libnvparsers")
_ENTRY_POINTS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
    # TensorRT 8 links its Caffe and UFF parsers by their C++ names.
    "_ZN11nvuffparser15createUffParserEv",
    "_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi",
    "_ZN14nvcaffeparser117createCaffeParserEv",
    "_ZN14nvcaffeparser123shutdownProtobufLibraryEv",
)


@dataclass(frozen=True, kw_only=True)
class Bindings:
    """One generation, ready to be driven.

    Attributes:
        version: e.g. "10.16.1.11".
        environment: environment variables under which ``import tensorrt`` finds it.
    """

    version: str
    environment: dict[str, str]

    def run(self, program: str, *arguments: str | Path) -> str:
        """Run a program in a new process; its standard output. Fails the test if it fails."""
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def prepare(version: str, folder: Path) -> Bindings:
    """Compile the empty libraries into ``folder``; skips where wheel or compiler are missing."""
    wheel = WHEELS / version
    if not wheel.is_dir():
        pytest.skip(f"no bindings of TensorRT {version} in {WHEELS}: run 'make build/bindings'")
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (gcc or cc) to make the empty libraries with")
    source = folder / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in _ENTRY_POINTS))
    for library in _LIBRARIES:
        name = f"{library}.so.{version.split('.')[0]}"
        command = [compiler, "-shared", "-fPIC", "-w", f"-Wl,-soname,{name}", "-o"]
        subprocess.run([*command, str(folder / name), str(source)], check=True, timeout=60)
    package = folder / "tensorrt"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import sys, tensorrt_bindings\nsys.modules[__name__] = tensorrt_bindings\n"
    )
    paths = (folder, wheel, ROOT)
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return Bindings(version=version, environment=environment)
