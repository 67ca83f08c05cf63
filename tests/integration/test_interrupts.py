"""A model that never ends, and Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from artefacts import runs
from artefacts.errors import ModelError
from quantization.measure.execution import load_onnxruntime

ROOT = Path(__file__).parents[2]


def endless() -> onnx.ModelProto:
    """A Loop whose condition stays true."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["again"]),
            helper.make_node("Sin", ["value"], ["next"]),
        ],
        "body",
        [
            info("number", TensorProto.INT64, []),
            info("go_on", TensorProto.BOOL, []),
            info("value", TensorProto.FLOAT, ["N", 4]),
        ],
        [info("again", TensorProto.BOOL, []), info("next", TensorProto.FLOAT, ["N", 4])],
    )
    loop = helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body)
    graph = helper.make_graph(
        [loop],
        "endless",
        [info("x", TensorProto.FLOAT, ["N", 4])],
        [info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(np.array(True), "yes")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_run_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_TICK_S", 0.01)
    run = load_onnxruntime(endless())
    monkeypatch.setattr("quantization.measure.execution.stoppable", lambda: runs.stoppable(0.0))
    with runs.interruptible(), pytest.raises(ModelError, match="still running after 0 s on one s"):
        run({"x": np.ones((1, 4), np.float32)})
    assert not runs._running


PROGRAM = """
import sys, threading
import numpy as np
from artefacts.command import run_command
from artefacts import runs
from calibrators import InputSpec, observe
from quantization.measure.execution import load_onnxruntime
import onnx

def step():
    model = onnx.load(sys.argv[1])
    if sys.argv[2] == "observe":
        from calibrators import open_samples, input_specs
        samples = open_samples(sys.argv[3], inputs=input_specs(model))
        observe(model, ["y"], samples)
    else:
        load_onnxruntime(model)({"x": np.ones((1, 4), np.float32)})

def told():
    while not runs._running: pass
    print("running", flush=True)

threading.Thread(target=told, daemon=True).start()
sys.exit(run_command(step, debug=False))
"""


@pytest.mark.parametrize("where", ["main", "observe"])
def test_ctrl_c_stops_a_model_that_never_ends(tmp_path: Path, where: str) -> None:
    onnx.save(endless(), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", np.ones((4, 4), np.float32))
    command = [sys.executable, "-c", PROGRAM, tmp_path / "m.onnx", where, tmp_path / "x.npy"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}

    def hear() -> None:
        """A shell's background jobs ignore SIGINT, and hand that on."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(command, cwd=ROOT, text=True, preexec_fn=hear, **pipes) as child:
        assert child.stdout.readline() == "running\n", child.stderr.read()
        child.send_signal(signal.SIGINT)
        try:
            said = child.communicate(timeout=120)[1]
        finally:
            child.kill()  # else it is waited for, however long it runs
    assert child.returncode == 130
    # onnxruntime's own line about the run that was ended may come before it or after.
    assert "interrupted\n" in said
    assert "Traceback" not in said


def test_elsewhere_signals_are_left_alone() -> None:
    ended = []

    def inside() -> None:
        with runs.interruptible():
            ended.append(signal.getsignal(signal.SIGINT))

    other = threading.Thread(target=inside)
    other.start()
    other.join()
    assert ended == [signal.getsignal(signal.SIGINT)]
    with runs.interruptible():
        pass
    assert signal.set_wakeup_fd(-1) == -1
