"""What NVIDIA's bindings make of shapes that do not fit each other, in each release."""

from __future__ import annotations

import pytest

from tests.contract.bindings import Bindings


@pytest.mark.parametrize("name", ["trt8", "trt10_3", "trt10", "trt11"])
def test_inputs_that_do_not_fit_each_other_are_one_sentence(
    name: str, request: pytest.FixtureRequest
) -> None:
    """Up to 10.16 the length of the answer is -1, 11 raises RuntimeError."""
    bindings: Bindings = request.getfixturevalue(name)
    seen = bindings.run(
        """
        import os
        from types import SimpleNamespace
        from artefacts.errors import RequestError
        from engines.tensorrt.execution_context import Execution
        from engines.tensors import TensorSpec
        from tests.contract.made_up import context_without_shapes

        spec = TensorSpec(name="output", dtype="float32", shape=(None, 4))
        execution = object.__new__(Execution)
        execution.context = context_without_shapes()
        execution._plan = SimpleNamespace(outputs=(spec,), reasons=lambda: "mismatch of axis 0")
        try:
            execution.output_shapes()
        except RequestError as err:
            print(err, flush=True)
        os._exit(0)  # the made-up object must not be destroyed
        """
    )
    assert "inputs do not fit each other (mismatch of axis 0), expected shapes" in seen
    assert "output 'output'" in seen
