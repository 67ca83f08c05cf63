"""A killed calibration goes on where it was."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from artefacts.errors import ArtefactError
from calibrators.statistics.observe import observe
from calibrators.statistics.statistics import Statistics
from tests.integration.command import ROOT
from tests.integration.test_calib_observe import activations, images, small

RESUMED = """
import sys, time
from pathlib import Path
from calibrators.statistics.collector import Checkpoint
from calibrators.statistics.observe import observe
from tests.integration.test_calib_observe import activations, images, small

class Slow(list):
    def __iter__(self):
        for sample in super().__iter__():
            time.sleep(0.01)
            yield sample

model = small()
checkpoint = Checkpoint(path=Path(sys.argv[1]), every_samples=1)
observe(model, activations(model), Slow(images(60)), checkpoint=checkpoint)
"""


def test_killed_and_continued_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """SIGKILL at three moments that nobody chose, then a run to the end."""
    path, seen = tmp_path / "killed.stats.npz", 0
    command = [sys.executable, "-c", RESUMED, str(path)]
    for _ in range(3):
        running = subprocess.Popen(command, cwd=ROOT)
        while running.poll() is None and seen_by(path) <= seen:
            time.sleep(0.002)
        assert running.poll() is None, "it ended before it could be killed"
        running.send_signal(signal.SIGKILL)
        running.wait()
        seen = seen_by(path)
        assert seen > 0
    assert seen < 60
    subprocess.run(command, cwd=ROOT, check=True)
    whole = tmp_path / "whole.stats.npz"
    observe(small(), activations(small()), images(60)).save(whole)
    assert path.read_bytes() == whole.read_bytes()


def seen_by(path: Path) -> int:
    """Samples in a checkpoint that is being written; reading it must never fail."""
    return len(Statistics.load(path).samples) if path.exists() else 0


def test_finished_checkpoint_runs_nothing_again(tmp_path: Path) -> None:
    path, model = tmp_path / "x.stats.npz", small()
    first = observe(model, ["images"], images(4), checkpoint=path)
    written = path.stat().st_mtime_ns
    assert observe(model, ["images"], images(4), checkpoint=path) == first == Statistics.load(path)
    more = observe(model, ["images"], images(6), checkpoint=path)
    assert more == observe(model, ["images"], images(6))
    assert path.stat().st_mtime_ns > written


def test_checkpoint_of_other_samples_is_refused(tmp_path: Path) -> None:
    path, model = tmp_path / "x.stats.npz", small()
    observe(model, ["images"], images(4), checkpoint=path)
    with pytest.raises(
        ArtefactError, match=r"counted 4 samples that are not in this data \(of 4\)"
    ):
        observe(model, ["images"], images(4, seed=1), checkpoint=path)
