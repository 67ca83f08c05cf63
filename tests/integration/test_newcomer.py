"""The first minutes of a newcomer: installed by pip, the README's lines in a real terminal."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

from int8 import __version__

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")
pty, fcntl, termios = (
    pytest.importorskip(name, reason="terminals of this kind are POSIX's")
    for name in ("pty", "fcntl", "termios")
)

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "01_digits"
COLOUR = re.compile(r"\x1b\[\d+m")
BAR = re.compile(r"\d+%\|.*\| *\d+/\d+ \[")


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command as pip installs it from a checkout, into an environment of its own.

    What it depends on is taken from this one: its download is no test of ours.
    """
    folder = tmp_path_factory.mktemp("newcomer")
    kept = shutil.ignore_patterns(".git", ".venv*", "build", "out", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, folder / "checkout", ignore=kept)
    home = folder / "environment"
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    there = sysconfig.get_path("purelib", vars={"base": str(home)})
    # Read last: what is installed here comes before it, also before this project's own link.
    (Path(there) / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--no-index", folder / "checkout"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return home / "bin" / "int8"


def environment() -> dict[str, str]:
    """Without what would find the checkout, or take colours away."""
    env = {n: value for n, value in os.environ.items() if n not in ("NO_COLOR", "PYTHONPATH")}
    return {**env, "TERM": "xterm-256color"}


def in_terminal(folder: Path, *words: object, **more: str) -> tuple[int, str]:
    """Exit code, and everything that was written to the terminal."""
    inside, outside = pty.openpty()
    fcntl.ioctl(outside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    program = subprocess.Popen(
        [*map(str, words)],
        cwd=folder,
        env=environment() | more,
        stdin=outside,
        stdout=outside,
        stderr=outside,
    )
    os.close(outside)
    written = b""
    while True:
        try:
            part = os.read(inside, 1 << 16)
        except OSError:  # Linux says so when the other end is closed
            break
        if not part:
            break
        written += part
    os.close(inside)
    return program.wait(), written.decode()


def in_pipe(folder: Path, *words: object) -> tuple[int, str, str]:
    done = subprocess.run(
        [*map(str, words)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def lines_of(written: str) -> list[str]:
    """What stands on the screen in the end; a carriage return writes over its line."""
    lines = []
    for line in written.split("\r\n"):
        cells: list[str] = []
        for part in COLOUR.sub("", line).split("\r"):
            cells[: len(part)] = part
        lines.append("".join(cells).rstrip())
    return lines


def readme_flags() -> list[str]:
    """Those of "Your model", with paths that hold from any folder."""
    (text,) = re.findall(
        r"build_engine\.py (--onnx examples/.*?--max-drop 1)$",
        (ROOT / "README.md").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    return [
        str(ROOT / word) if word.startswith("examples/") else word
        for word in text.replace("\\\n", " ").split()
    ]


def test_what_is_installed_is_run(int8: Path, tmp_path: Path) -> None:
    """Not the checkout that the tests lie in."""
    code, told, err = in_pipe(
        tmp_path, int8.with_name("python"), "-c", "import int8, pipeline; print(pipeline.__file__)"
    )
    assert code == 0, err
    assert Path(told.strip()).is_relative_to(int8.parents[1])
    assert in_pipe(tmp_path, int8, "--version") == (0, f"int8 {__version__}\n", "")


def test_the_doctor(int8: Path, tmp_path: Path) -> None:
    code, written = in_terminal(tmp_path, int8, "doctor")
    assert code == 0
    assert "\x1b[1mtargets\x1b[0m\r\n  cpu           works" in written
    assert "Traceback" not in written
    code, plain = in_terminal(tmp_path, int8, "doctor", NO_COLOR="1")
    assert code == 0
    assert "\x1b" not in plain
    assert "targets\r\n  cpu           works" in plain


def test_the_readme_in_a_terminal(int8: Path, tmp_path: Path) -> None:
    """The promise is kept; titles are bold; bars come and go and touch no line."""
    code, written = in_terminal(tmp_path, int8, "build", *readme_flags())
    assert code == 0, written
    titles = re.findall(r"\x1b\[1m\[(\d)/5\] (\w+) ", written)
    assert titles == list(
        zip("12345", ["prepare", "calibrate", "quantize", "build", "verify"], strict=True)
    )
    for total, unit in (("200", "samples"), (r"\d+", "steps"), ("250", "samples")):
        assert re.search(rf"\d+/{total} \[[^\]]* {unit}/s\]", written), unit
    assert re.search(r"  0%\|.*\| 0/\d+ \[00:00<\?, \? steps/s\]", written)
    left = lines_of(written)
    assert not [line for line in left if BAR.search(line) or "?" in line]
    assert all(re.match(r"\[\d/5\] |      ", line) for line in left if line), left
    assert any("promise --max-drop 1 kept" in line for line in left)
    assert (tmp_path / "out" / "mine.int8.engine").is_file()


def test_without_colour_quiet_and_for_programs(int8: Path, tmp_path: Path) -> None:
    """One build each, without the improvement, which is not what is looked at."""
    flags = ["--onnx", DIGITS / "digits.onnx", "--engine", "m.int8.engine", "--target", "cpu"]
    flags += ["--calib-data", DIGITS / "calib", "--preprocess", DIGITS / "preprocess.yaml"]
    flags += ["--improve", "0", "--calib-num", "16"]
    code, written = in_terminal(tmp_path, int8, "build", *flags, NO_COLOR="1")
    assert code == 0, written
    assert "[5/5] verify" in written
    assert "\x1b[1m" not in written
    assert in_terminal(tmp_path, int8, "build", *flags, "--quiet") == (0, "")
    code, out, err = in_pipe(tmp_path, int8, "build", *flags)
    assert code == 0, err
    assert "[5/5] verify" in out
    assert not {"\x1b", "\r"} & {*out, *err}
    code, written = in_terminal(tmp_path, int8, "build", *flags, "--json")
    assert code == 0, written
    assert json.loads(written)["engine"] == "m.int8.engine"
    code, written = in_terminal(tmp_path, int8, "build", *flags, "--calib-data", "nowhere")
    assert code == 2
    assert written.startswith("\x1b[31merror:\x1b[0m samples nowhere do not exist")
    assert written.count("\r\n") == 1
