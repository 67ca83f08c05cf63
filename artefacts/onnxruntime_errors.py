"""What onnxruntime raises, and the sentence that a person reads of it."""

from __future__ import annotations

from artefacts.libraries import require

__all__ = ["onnxruntime_errors", "refusal"]

_UNKNOWN_OPERATOR = "is not a registered function/op"
_UNKNOWN_TYPE = "Could not find an implementation"


def onnxruntime_errors() -> tuple[type[Exception], ...]:
    """Classes of its own, with no common base but Exception, and what its binding raises."""
    state = require("onnxruntime.capi.onnxruntime_pybind11_state", extra="cpu")
    models = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile")
    names = (*models, "NotImplemented", "RuntimeException")
    found: list[type[Exception]] = [getattr(state, name) for name in names if hasattr(state, name)]
    return (*found, RuntimeError, ValueError)


def refusal(what: str, verb: str, err: BaseException) -> str:
    """One sentence: what it cannot do, why, and what helps.

    Args:
        what: e.g. ``"graph 'g'"``.
        verb: "load" or "run".
        err: that it raised.
    """
    reason = str(err).splitlines()[0] if str(err) else type(err).__name__
    if _UNKNOWN_OPERATOR in reason:
        return (
            f"onnxruntime cannot {verb} {what} ({reason}), expected operators that it has: ranges "
            "are observed by running the model; write the operator in ONNX's own, or let TensorRT "
            "calibrate with its plugin (--implicit)"
        )
    if _UNKNOWN_TYPE in reason:
        return (
            f"onnxruntime cannot {verb} {what} ({reason}), expected an element type that it "
            "computes this operator in: ranges are observed by running the model; cast what the "
            "node reads, e.g. int64 to int32, and its result back"
        )
    return (
        f"onnxruntime cannot {verb} {what} ({reason}), expected a model it supports; check it "
        "with onnx.checker and the samples with its inputs"
    )
