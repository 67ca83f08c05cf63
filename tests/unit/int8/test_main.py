"""The face of all commands: what it lists is there, and a mistake is two lines."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from int8 import __version__
from int8.main import help_text, main
from int8.subcommands import SUBCOMMANDS


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"int8 {__version__}\n"


def test_help_has_every_subcommand_with_its_example() -> None:
    text = help_text()
    for name, entry in SUBCOMMANDS.items():
        assert f"  {name} " in text
        assert entry.example.startswith(f"int8 {name}")
        assert entry.example in text


def test_no_subcommand_shows_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.count("usage: int8") == 2


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_each_is_a_main_that_takes_its_name(name: str) -> None:
    command = importlib.import_module(SUBCOMMANDS[name].module).main
    assert list(inspect.signature(command).parameters) == ["argv", "prog"]


@pytest.mark.parametrize("name", sorted(SUBCOMMANDS.keys() - {"serve"}))
def test_each_explains_itself_by_this_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: int8 {name} ")


def test_a_typo_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["biuld"]) == 2
    err = capsys.readouterr().err
    assert "no subcommand 'biuld'; did you mean build?" in err
    assert err.count("\n") == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["build", "--onnx", "m.onnx"], "required: --engine"),
        (
            ["build", "--onnx", "m", "--engine", "e", "--calibdata", "x"],
            "did you mean --calib-data",
        ),
        (["build", "--onnx", "m", "--engine", "e", "--require-int8", "90"], "write 90%?"),
        (["lint"], "required: model"),
        (["calibrate", "rangs"], "invalid choice: 'rangs'"),
        (["bench", "a.engine"], "required: --data"),
    ],
)
def test_a_wrong_flag_is_one_line_of_usage_and_a_sentence(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert err.startswith(f"usage: int8 {words[0]}")
    assert err.count("\n") == 2
    assert said in err


def test_serve_without_a_checkout_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("int8.serve.PROGRAM", tmp_path / "app.py")
    assert main(["serve", "--engine", "m.engine"]) == 2
    assert "expected a checkout" in capsys.readouterr().err
