"""Labels that are not there are missed before anything is calibrated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import parser

from artefacts.errors import DataError
from pipeline.checked_first import check_evaluation
from pipeline.keywords import job_of

PER_TOKEN = """
<ir_version: 10, opset_import: ["" : 17]>
tagger (float[N, L, 4] x) => (float[N, L, 3] y) <float[4, 3] w> { y = MatMul(x, w) }
"""


def test_a_loader_without_labels_is_refused_where_the_output_names_no_classes(
    tmp_path: Path,
) -> None:
    model = parser.parse_model(PER_TOKEN)
    sample = {"x": np.zeros((1, 5, 4), np.float32)}
    given = {"calib_data": lambda: [sample], "eval_data": lambda: [sample]}
    with (
        job_of(tmp_path / "m.onnx", tmp_path / "m.engine", given) as job,
        pytest.raises(DataError, match="sample 0 has no label, expected one class number"),
    ):
        check_evaluation(job.data, model)
