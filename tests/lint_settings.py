"""Operators as TensorRT's parser does not take them: what the linter finds → the model's body."""

from __future__ import annotations

from typing import Any

import numpy as np

UNREAD: dict[str, tuple[str, dict[str, Any], int]] = {
    "MaxPool with dilations 2, 1": (
        "y = MaxPool <kernel_shape=[2,2], dilations=[2,1]> (x)",
        {},
        17,
    ),
    "AveragePool with dilations 2, 2": (
        "y = AveragePool <kernel_shape=[2,2], dilations=[2,2]> (x)",
        {},
        19,
    ),
    "MaxPool that gives indices, too": ("y, k = MaxPool <kernel_shape=[2,2]> (x)", {}, 17),
    "Resize with antialias 1": ('y = Resize <mode="linear", antialias=1> (x, , halves)', {}, 18),
    "Resize with coordinate_transformation_mode tf_crop_and_resize": (
        'y = Resize <mode="linear", coordinate_transformation_mode="tf_crop_and_resize"> '
        "(x, roi, halves)",
        {},
        18,
    ),
    "Resize with keep_aspect_ratio_policy not_larger": (
        'y = Resize <mode="linear", axes=[2,3], keep_aspect_ratio_policy="not_larger"> '
        "(x, , , sides)",
        {},
        18,
    ),
    "Resize to sizes of axes 2, -1 beside free ones": (
        'y = Resize <mode="linear", axes=[2,-1]> (x, , , sides)',
        {},
        18,
    ),
    "ScatterND with reduction add": ('y = ScatterND <reduction="add"> (x, first, row)', {}, 18),
    "ScatterElements with reduction max": (
        'y = ScatterElements <reduction="max"> (x, places, row)',
        {},
        18,
    ),
    "statistics as outputs": ("y, t, k, o, p = BatchNormalization (x, vs, vs, vs, vs)", {}, 13),
    "Cast to int16": ("k = Cast <to=5> (x) y = Cast <to=1> (k)", {}, 17),
    "Cast to uint8": ("k = Cast <to=2> (x) y = Cast <to=1> (k)", {}, 17),
    "ReduceSum over axes that are computed": (
        "m = ReduceMax <keepdims=0> (x) k = Cast <to=7> (m) r = Reshape (k, flat) "
        "y = ReduceSum (x, r)",
        {"flat": np.array([1])},
        17,
    ),
    "LpPool with p 3": ("y = LpPool <kernel_shape=[2,2], p=3> (x)", {}, 18),
    "LpPool with dilations 2, 2": (
        "y = LpPool <kernel_shape=[2,2], dilations=[2,2]> (x)",
        {},
        18,
    ),
    "LayerNormalization that gives mean or deviation, too": (
        "y, m, d = LayerNormalization <axis=-1> (x, vs)",
        {},
        17,
    ),
    "Mod of floats without fmod": ("y = Mod (x, half)", {}, 17),
    "ReduceMax of bool": (
        "k = Cast <to=9> (x) r = ReduceMax (k, axes) y = Cast <to=1> (r)",
        {},
        20,
    ),
    "Resize of int64": (
        "k = Cast <to=7> (x) r = Resize (k, , halves) y = Cast <to=1> (r)",
        {},
        17,
    ),
    "RoiAlign": ("y = RoiAlign (x, box, which)", {}, 17),
    "Attention with softcap 2.0": ("y = Attention <softcap=2.0> (x, x, x)", {}, 23),
    "Attention that gives its keys, values or scores, too": (
        "y, k, v = Attention (x, x, x)",
        {},
        23,
    ),
}
