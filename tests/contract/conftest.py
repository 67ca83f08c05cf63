"""One fixture per TensorRT generation; see bindings.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache

import pytest

from tests.contract.bindings import Bindings, prepare
from tests.contract.driven import GENERATIONS, Seen


@pytest.fixture(scope="session")
def trt8(tmp_path_factory: pytest.TempPathFactory) -> Bindings:
    return prepare("8.6.1", tmp_path_factory.mktemp("trt8"))


@pytest.fixture(scope="session")
def trt10_3(tmp_path_factory: pytest.TempPathFactory) -> Bindings:
    return prepare("10.3.0", tmp_path_factory.mktemp("trt10_3"))


@pytest.fixture(scope="session")
def trt10(tmp_path_factory: pytest.TempPathFactory) -> Bindings:
    return prepare("10.16.1.11", tmp_path_factory.mktemp("trt10"))


@pytest.fixture(scope="session")
def trt11(tmp_path_factory: pytest.TempPathFactory) -> Bindings:
    return prepare("11.4.0.106", tmp_path_factory.mktemp("trt11"))


@pytest.fixture(scope="session")
def driven(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Bindings], Seen]:
    """Drive every scenario over some bindings, once."""
    program = "import runpy; runpy.run_module('tests.contract.engine_drive', run_name='__main__')"

    @cache
    def drive(version: str, run: Callable[..., str]) -> Seen:
        folder = tmp_path_factory.mktemp("drive")
        return {"folder": folder, "version": version, **json.loads(run(program, folder))}

    return lambda bindings: drive(bindings.version, bindings.run)


@pytest.fixture(params=GENERATIONS)
def generation(
    request: pytest.FixtureRequest, driven: Callable[[Bindings], Seen]
) -> tuple[str, Seen]:
    return request.param, driven(request.getfixturevalue(request.param))
