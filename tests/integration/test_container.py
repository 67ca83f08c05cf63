"""What the image runs, as far as it shows without Docker: NVIDIA's entry point is kept in front."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

import build_engine

try:
    import tomllib
except ImportError:  # Python 3.10
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[2]
NVIDIA = "/opt/nvidia/nvidia_entrypoint.sh"


def script(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("in_front", [True, False])
def test_the_command_goes_through_nvidias_entry_point(tmp_path: Path, in_front: bool) -> None:
    nvidia = tmp_path / "nvidia_entrypoint.sh"
    if in_front:
        script(nvidia, 'echo "forward compatibility"', 'exec "$@"')
    script(tmp_path / "build-engine", 'for word in "$@"; do echo "[$word]"; done')
    text = (ROOT / "entrypoint.sh").read_text()
    assert NVIDIA in text
    entry = script(tmp_path / "entry", text.replace(NVIDIA, str(nvidia)))
    done = subprocess.run(
        [entry, "--onnx", "a model.onnx"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = ["forward compatibility"] if in_front else []
    assert done.stdout.splitlines() == [*expected, "[--onnx]", "[a model.onnx]"]


def test_the_installation_brings_the_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"build-engine": "build_engine:main", "int8": "int8.main:main"}
    assert callable(build_engine.main)


def test_nothing_of_the_sources_stays_in_the_image() -> None:
    """Python finds modules beside it first: there, without what was compiled."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "rm -rf /opt/int8/*" in dockerfile
    assert 'ENTRYPOINT ["int8-entrypoint"]' in dockerfile


def test_the_image_of_the_service_has_all_packages_and_pins_what_they_need() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = tool["project"]
    service = ROOT / "examples" / "04_fastapi_service"
    dockerfile = (service / "Dockerfile").read_text()
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    for pattern in tool["tool"]["setuptools"]["packages"]["find"]["include"]:
        name = pattern.rstrip("*")
        assert f"COPY {name} source/{name}\n" in dockerfile
        assert f"!{name}" in sent
    pinned = re.findall(
        r"^([a-z0-9-]+)==", (service / "requirements.txt").read_text(), re.MULTILINE
    )
    extras = [project["optional-dependencies"][name] for name in ("cpu", "serve", "signing")]
    needed = [re.split(r"[\[<>=;]", each)[0] for each in sum(extras, project["dependencies"])]
    assert {each.replace("_", "-").lower() for each in needed} <= set(pinned)
