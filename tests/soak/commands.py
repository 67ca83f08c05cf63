"""Every command that writes: how it is called, and whether what lies there afterwards is whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from artefacts.errors import BuilderError
from benchmarks.report import load_report
from calibrators import Ranges, Statistics
from calibrators.tensorrt.cache import read_cache
from engines.manifest import read_verified
from quantization import load_model
from quantization.search.recipe import Recipe

__all__ = ["COMMANDS", "ROOT", "Writer", "killed_at", "run", "start", "wrong_files"]

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "01_digits"
LEFT_OVER = (".part", ".lock", ".group")


@dataclass(frozen=True, kw_only=True)
class Writer:
    """A command that writes.

    Attributes:
        arguments: after ``python``; ``{out}`` is its folder, ``{made}`` one with an engine, its
            ranges, statistics and a key.
    """

    arguments: tuple[str, ...]

    def command(self, out: Path, made: Path) -> list[str]:
        """The words."""
        return [sys.executable, *(a.format(out=out, made=made) for a in self.arguments)]


SAMPLES = ("--data", str(DIGITS / "calib"), "--preprocess", str(DIGITS / "preprocess.yaml"))


def _build(*more: str) -> Writer:
    words = ("build_engine.py", "--onnx", str(DIGITS / "digits.onnx"), "--target", "cpu")
    data = ("--calib-data", str(DIGITS / "calib"), "--calib-num", "16", "--threads", "1")
    spec = ("--preprocess", str(DIGITS / "preprocess.yaml"), "--calibrator", "minmax")
    return Writer(arguments=(*words, "--engine", "{out}/m.engine", *data, *spec, *more))


def _python(module: str, *words: str) -> Writer:
    return Writer(arguments=("-m", module, *words))


COMMANDS: dict[str, Writer] = {
    "build": _build(),
    "build --precision fp32": Writer(
        arguments=(
            *("build_engine.py", "--onnx", str(DIGITS / "digits.onnx"), "--target", "cpu"),
            *("--precision", "fp32", "--engine", "{out}/m.engine", "--threads", "1"),
        )
    ),
    "build --stop-after onnx": _build("--stop-after", "onnx"),
    "calibrators merge": _python(
        "calibrators", "merge", "{made}/m.stats.npz", "-o", "{out}/all.stats.npz"
    ),
    "calibrators ranges": _python(
        "calibrators", "ranges", "{made}/m.stats.npz", "-o", "{out}/m.ranges.json"
    ),
    "calibrators cache": _python(
        *("calibrators", "cache", "{made}/m.ranges.json", "--version", "10.3.0"),
        *("-o", "{out}/m.calib.cache"),
    ),
    "build --min-sqnr": _build("--min-sqnr", "28", "--search-time", "5"),
    "calibrators observe": _python(
        *("calibrators", "observe", "{made}/m.prepared.onnx", *SAMPLES, "--num", "16"),
        *("-o", "{out}/m.stats.npz"),
    ),
    "quantization insert": _python(
        *("quantization", "insert", "{made}/m.prepared.onnx", "--ranges", "{made}/m.ranges.json"),
        *("--output", "{out}/m.int8.onnx"),
    ),
    "quantization strip": _python(
        *("quantization", "strip", "{made}/m.int8.onnx", "--output", "{out}/m.onnx"),
        *("--ranges", "{out}/m.ranges.json", "--cache", "{out}/m.calib.cache"),
    ),
    "quantization fp16": _python(
        "quantization", "fp16", "{made}/m.prepared.onnx", "--output", "{out}/m.fp16.onnx"
    ),
    "quantization simulate": _python(
        *("quantization", "simulate", "{made}/m.prepared.onnx", "{made}/m.int8.onnx", *SAMPLES),
        *("--num", "4", "--json", "{out}/m.simulated.json"),
    ),
    "benchmarks": _python(
        *("benchmarks", "{made}/m.engine", "--data", str(DIGITS / "test.npz"), *SAMPLES[2:]),
        *("--num", "4", "--no-probe"),
        *("--duration", "0.1", "--json", "{out}/report.json", "--report", "{out}/report.html"),
        *("--markdown", "{out}/report.md", "--csv", "{out}/report.csv"),
    ),
    "quantization prepare": _python(
        "quantization", "prepare", str(DIGITS / "digits.onnx"), "--output", "{out}/m.prepared.onnx"
    ),
    "engines sign": _python("engines", "sign", "{out}/m.engine", "--key", "{made}/key.pem"),
    "engines triton-export": _python(
        "engines", "triton-export", "{made}/m.engine", "{out}/models", "--name", "m"
    ),
}


# Runs a command and kills it at its n-th change of a file; prints how many there were.
KILLED = """
import os, runpy, sys
left = int(sys.argv[1])
count = 0
def at_each_change(event, arguments):
    global count
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & 3
    if writes or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link"):
        count += 1
        if count > left >= 0:
            os.kill(os.getpid(), 9)
sys.addaudithook(at_each_change)
sys.argv = sys.argv[2:]
try:
    if sys.argv[0] == "-m":
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    sys.stderr.write(f"changes {count}")
"""


def killed_at(change: int, words: list[str]) -> list[str]:
    """The same command, killed before so many changes of files are over; never where negative."""
    return [words[0], "-c", KILLED, str(change), *words[1:]]


def start(words: list[str], temporary: Path) -> subprocess.Popen[str]:
    """The command in the background, with a TMPDIR of its own."""
    environment = os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        words,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(words: list[str], temporary: Path) -> tuple[int, str]:
    """Exit code and what it said on stderr."""
    process = start(words, temporary)
    said = process.communicate()[1]
    return process.returncode, said


def make(folder: Path) -> None:
    """What some commands read: an engine with all its files, and a key."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder.mkdir(parents=True)
    code, said = run(COMMANDS["build"].command(folder, folder), folder)
    if code:
        raise RuntimeError(said)
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    (folder / "key.pem").write_bytes(key)


def prepare_out(name: str, out: Path, made: Path) -> None:
    """The folder of a command before it runs."""
    out.mkdir(parents=True, exist_ok=True)
    if name == "engines sign":
        for each in ("m.engine", "m.engine.json"):
            shutil.copy(made / each, out / each)


def wrong_files(out: Path) -> list[str]:
    """What in a folder is not whole, or does not fit what lies beside it."""
    readers: dict[str, Callable[[Path], object]] = {
        "*.ranges.json": Ranges.load,
        "*.stats.npz": Statistics.load,
        "*.calib.cache": lambda path: read_cache(path.read_bytes()),
        "*.onnx": load_model,
        "*.recipe.yaml": Recipe.load,
        "report.json": load_report,
        "**/*.engine": read_verified,
    }
    wrong = [
        f"{pattern}: {said}"
        for pattern, read in readers.items()
        for path in out.glob(pattern)
        if not path.parent.name.startswith((".", "int8-builder-"))  # what is being written
        if path.parent.name != "version"
        if (said := _refusal(read, path))
    ]
    alone = [p for p in out.glob("**/*.engine.json") if not p.with_suffix("").exists()]
    return wrong + ["a manifest without its engine" for _ in alone]


def _refusal(read: Callable[[Path], object], path: Path) -> str:
    try:
        read(path)
    except BuilderError as err:
        return type(err).__name__
    return ""


def left_over(*folders: Path) -> list[str]:
    """Temporary files and folders that nobody will use again."""
    found = [path.name for folder in folders[:1] for path in folder.rglob("*")]
    wrong = ["a temporary file left" for name in found if name.endswith(LEFT_OVER)]
    wrong += ["a temporary folder left" for name in found if ".version." in name]
    # onnxruntime writes a file of its own there.
    temporary = [each for folder in folders[1:] for each in folder.iterdir() if each.is_dir()]
    return wrong + ["a folder left in TMPDIR" for _ in temporary]
