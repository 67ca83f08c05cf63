"""What the design relies on, asked of NVIDIA's own classes of each generation."""

from __future__ import annotations

from tests.contract.bindings import Bindings


def test_tensorrt_8_and_10_have_calibrators(trt8: Bindings, trt10: Bindings) -> None:
    for bindings in (trt8, trt10):
        seen = bindings.run(
            """
            import tensorrt as trt
            print(trt.__version__, trt.CalibrationAlgoType.ENTROPY_CALIBRATION_2.value)
            print(issubclass(trt.IInt8EntropyCalibrator2, trt.IInt8Calibrator))
            print(hasattr(trt.BuilderFlag, "INT8"))
            """
        )
        assert seen.split() == [bindings.version, "2", "True", "True"]


def test_tensorrt_11_has_none(trt11: Bindings) -> None:
    seen = trt11.run(
        """
        import tensorrt as trt
        print(trt.__version__, hasattr(trt, "IInt8EntropyCalibrator2"))
        print(hasattr(trt.BuilderFlag, "INT8"))
        """
    )
    assert seen.split() == [trt11.version, "False", "False"]
