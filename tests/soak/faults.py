"""Kills, two builds at once, loads while an engine is rebuilt, and disks that are full."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from artefacts.errors import BuilderError
from engines.manifest import read_verified
from tests.soak.commands import (
    COMMANDS,
    ROOT,
    killed_at,
    left_over,
    make,
    prepare_out,
    run,
    start,
    wrong_files,
)
from tests.soak.figures import Figure

__all__ = ["LIMITED", "double_builds", "full_disks", "kills", "loads_during_rebuilds"]


def kills(count: int, seed: int) -> Iterator[Figure]:
    """Each command killed at random changes of files, over what an earlier run left; run again."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made"
        make(made)
        for name, writer in COMMANDS.items():
            figure = Figure(attack=f"killed: {name}")
            out, temporary = Path(folder) / name.replace(" ", "_"), Path(folder) / "tmp"
            temporary.mkdir(exist_ok=True)
            prepare_out(name, out, made)
            words = writer.command(out, made)
            changes = int(run(killed_at(-1, words), temporary)[1].rpartition("changes ")[2])
            steps = rng.permutation(changes)  # the last are those that matter, so they come first
            for step in sorted(steps[: count * 2], reverse=True)[:count]:
                run(killed_at(int(step), words), temporary)
                wrong = [f"after the kill, {each}" for each in wrong_files(out)]
                code, said = run(words, temporary)
                wrong += [f"run again: {said[-80:]!r}"] if code else []
                wrong += [f"after another run, {each}" for each in wrong_files(out)]
                wrong += left_over(out, temporary)
                figure.count(*wrong)
                for each in temporary.iterdir():
                    shutil.rmtree(each, ignore_errors=True)
                for each in out.rglob(".*.part"):
                    each.unlink()
            yield figure


def double_builds(count: int) -> Figure:
    """Two builds of one engine at the same time; the pair must load afterwards."""
    figure = Figure(attack="two builds of one engine at once")
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / "tmp"
        temporary.mkdir()
        for number in range(count):
            out = Path(folder) / str(number)
            names = ("build", "build --precision fp32") if number % 2 else ("build", "build")
            both = [start(COMMANDS[name].command(out, out), temporary) for name in names]
            said = [process.communicate()[1] for process in both]
            codes = [process.returncode for process in both]
            wrong = [f"exit {codes}: {said[0][-80:]!r}"] if any(codes) else []
            figure.count(*wrong, *wrong_files(out), *left_over(out, temporary))
            shutil.rmtree(out)
    return figure


REBUILD = """
import sys, time
from pathlib import Path
import engines
options = engines.BuildOptions(target="cpu", precision="fp32", threads=1)
end = time.monotonic() + float(sys.argv[3])
while time.monotonic() < end:
    engines.build(sys.argv[1], sys.argv[2], options)
"""


def loads_during_rebuilds(seconds: float) -> Figure:
    """An engine is rebuilt again and again; nobody who reads it may be refused."""
    figure = Figure(attack="an engine read while it is rebuilt")
    with tempfile.TemporaryDirectory() as folder:
        engine = Path(folder) / "m.engine"
        model = ROOT / "examples" / "01_digits" / "digits.onnx"
        words = [sys.executable, "-c", REBUILD, str(model), str(engine)]
        subprocess.run([*words, "0.01"], cwd=ROOT, check=True)
        process = subprocess.Popen([*words, str(seconds)], cwd=ROOT)
        while process.poll() is None:
            try:
                read_verified(engine)
                figure.count()
            except BuilderError as err:
                figure.count(type(err).__name__)
            time.sleep(0.001)
    return figure


# Python writes half of a module's bytecode under such a limit, and does not notice.
LIMITED = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def full_disks(count: int, seed: int) -> Iterator[Figure]:
    """Commands that have no room for what they write, by turns on a small disk and under a limit.

    The disk is a tmpfs, where it may be mounted; the limit of the process (``RLIMIT_FSIZE``) needs
    no rights.
    """
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        made, temporary = Path(folder) / "made", Path(folder) / "tmp"
        make(made)
        temporary.mkdir()
        for name, writer in COMMANDS.items():
            limited = Figure(attack=f"files limited in size: {name}")
            full = Figure(attack=f"full disk: {name}")
            for number in range(count):
                out = Path(folder) / f"{name.replace(' ', '_')}{number}"
                out.mkdir()
                on_disk = number % 2 == 0 and _mount(out, int(2 ** rng.uniform(12, 21)), made)
                try:
                    prepare_out(name, out, made)
                    limit = None if on_disk else int(2 ** rng.uniform(4, 19))
                    wrong = _without_room(writer.command(out, made), limit, temporary)
                    wrong += wrong_files(out) + left_over(out, temporary)
                    (full if on_disk else limited).count(*wrong)
                finally:
                    if on_disk:
                        subprocess.run(["umount", str(out)], check=True)
                shutil.rmtree(out)
                for each in temporary.iterdir():
                    shutil.rmtree(each, ignore_errors=True)
            yield limited
            if full.tried:
                yield full


def _mount(out: Path, room: int, made: Path) -> bool:
    """Make ``out`` a disk with room for so many bytes more, where that is allowed."""
    if shutil.which("mount") is None:
        return False
    room += sum((made / name).stat().st_size for name in ("m.engine", "m.engine.json"))
    words = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(out)]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def _without_room(words: list[str], limit: int | None, temporary: Path) -> list[str]:
    """What is wrong with how a command ends."""

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        words,
        cwd=ROOT,
        preexec_fn=limited,
        env={"PATH": "", "TMPDIR": str(temporary)} | LIMITED,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    wrong = [f"exit {done.returncode}"] if done.returncode not in (0, 2) else []
    return wrong + (["a trace"] if "Traceback" in done.stderr else [])
