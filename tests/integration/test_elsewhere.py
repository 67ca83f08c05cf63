"""The cpu target and ONNX output without what only POSIX has: as near to Windows as Linux gets.

Libraries are imported first, since theirs are the wheels of this system; our own code then finds
neither POSIX's modules nor calls, a narrow encoding, and no sync of files opened for reading.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "01_digits"
WITHOUT_POSIX = """
import concurrent.futures.thread, importlib.metadata, platform, subprocess, tempfile, uuid
import jsonschema, numpy, onnx, onnxruntime, openvino, PIL.Image, tqdm, yaml
import os, signal, sys

for name in ("fcntl", "resource", "pwd", "grp", "termios", "pty", "tty"):
    sys.modules[name] = None
CALLS = {
    os: ("sched_getaffinity", "fork", "forkpty", "register_at_fork", "uname", "getuid", "geteuid",
         "getpgid", "setsid", "killpg", "chown", "mkfifo", "O_DIRECTORY", "O_NOFOLLOW"),
    signal: ("SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1", "alarm", "setitimer", "pthread_sigmask"),
}
for module, names in CALLS.items():
    for name in names:
        delattr(module, name)
synced = os.fsync

def fsync(file):
    os.write(file, b"")  # fails for a file that was opened for reading, as Windows does
    synced(file)

os.fsync = fsync
from int8.main import main
sys.exit(main())
"""


def without_posix(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Run ``int8`` there; our files must name the encoding of what they read and write.

    Something that died has left a lock, which nothing there can tell from a living one's.
    """
    temporary = folder / "temporary"
    temporary.mkdir()
    (temporary / "int8-builder-calibration-00.lock").touch()
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", WITHOUT_POSIX, *map(str, words)],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONIOENCODING": "cp1252",
            "TMPDIR": str(temporary),
        },
        capture_output=True,
        encoding="cp1252",
        check=False,
    )
    ours = [
        line
        for line in done.stderr.splitlines()
        if "EncodingWarning" in line and "site-packages" not in line and str(ROOT) in line
    ]
    assert ours == []
    return done


def test_the_doctor(tmp_path: Path) -> None:
    done = without_posix(tmp_path, "doctor")
    assert done.returncode == 0, done.stderr
    assert "\n  cpu           works" in done.stdout


@pytest.mark.parametrize(
    ("flags", "file"),
    [(["--target", "cpu"], "m.int8.engine"), (["--stop-after", "onnx"], "m.int8.onnx")],
)
def test_a_build(flags: list[str], file: str, tmp_path: Path) -> None:
    words = ["--onnx", DIGITS / "digits.onnx", "--engine", "m.int8.engine"]
    words += ["--calib-data", DIGITS / "calib", "--preprocess", DIGITS / "preprocess.yaml"]
    done = without_posix(tmp_path, "build", *words, "--calib-num", 24, "--improve", 8, *flags)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / file).is_file()
    assert "nodes ? 19" in done.stdout  # an arrow, which the encoding lacks
