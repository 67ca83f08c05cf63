"""What Tab offers, as a real bash finds it with the script that the command prints."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from int8.main import main
from int8.subcommands import SUBCOMMANDS

pytest.importorskip("shtab", reason="it came later: pip install '.[cpu]'")

# As bash does when Tab is pressed: the words so far, the function that `complete` was given.
PRESS_TAB = """
source "$1"; shift
function=$(complete -p int8 | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
"$function"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "int8.bash"
    with pytest.MonkeyPatch.context() as patch, path.open("w") as file:
        patch.setattr("sys.stdout", file)
        assert main(["completion", "bash"]) == 0
    return path


def offered(script: Path, *words: str, cwd: Path | None = None) -> set[str]:
    done = subprocess.run(
        ["bash", "--norc", "-euo", "pipefail", "-c", PRESS_TAB, "bash", script, "int8", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_every_subcommand(script: Path) -> None:
    assert offered(script, "") >= set(SUBCOMMANDS)
    assert offered(script, "b") == {"build", "bench"}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["build", "--calib-d"], {"--calib-data"}),
        (
            ["build", "--onnx", "m.onnx", "--target", ""],
            {"auto", "cpu", "tensorrt", "tensorrt-rtx"},
        ),
        (["bench", "a.engine", "--mark"], {"--markdown"}),
        (["calibrate", "r"], {"ranges"}),
        (["calibrate", "ranges", "--meth"], {"--method"}),
        (["lint", "--targ"], {"--target"}),
        (["sign", "--k"], {"--key"}),
        (["doctor", "--j"], {"--json"}),
        (["completion", ""], {"bash", "zsh"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_and_choices(words: list[str], found: set[str], script: Path) -> None:
    assert offered(script, *words) == found


def test_files(script: Path, tmp_path: Path) -> None:
    for name in ("model.onnx", "mine.yaml", "other"):
        (tmp_path / name).touch()
    wanted = {"model.onnx", "mine.yaml"}
    assert offered(script, "build", "--onnx", "m", cwd=tmp_path) == wanted
    assert offered(script, "simulate", "m", cwd=tmp_path) == wanted


def test_zsh_gets_a_script_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("#compdef int8\n")
    assert all(f"\n    {name}:" in out for name in SUBCOMMANDS)
