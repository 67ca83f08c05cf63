"""One fixture per TensorRT generation; see bindings.py."""

from __future__ import annotations

import pytest

from tests.contract.bindings import Bindings, prepare


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
