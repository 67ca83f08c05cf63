"""The networks that placements are compared on: small, random weights, samples of their kind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

from artefacts.errors import BuilderError
from benchmarks.peers.resnet50 import build_resnet50
from benchmarks.zoo.exported import EXPORTED
from benchmarks.zoo.inputs_images import IMAGENET, photo, planes
from benchmarks.zoo.inputs_other import mel_frames, tokens, voice
from benchmarks.zoo.network import Sample

__all__ = ["NETWORKS", "model_of", "samples_of"]

ROOT = Path(__file__).parents[2]
ZOO = ROOT / ".venv-zoo/bin/python"
SAMPLES, JUDGED = 8, 32
_PAST, _HEADS, _HEAD, _VOCABULARY = 192, 2, 64, 1000  # of the decoder in placement_models.py
Generator = np.random.Generator
Adapter = Callable[[Generator], Sample]
_ZOO = {network.name: network for network in EXPORTED}


def _image(size: int, name: str = "image") -> Adapter:
    """A photograph, normalised as ImageNet's are."""
    return lambda generator: {name: planes(photo(generator, size, size), *IMAGENET)}


def _text(length: int) -> Adapter:
    """Tokens of which the last eighth is padding."""

    def sample(generator: Generator) -> Sample:
        ids = tokens(generator, length, _VOCABULARY)[None]
        mask = np.ones_like(ids)
        mask[:, -(length // 8) :] = 0
        return {"input_ids": ids, "attention_mask": mask}

    return sample


def _mel(generator: Generator) -> Sample:
    frames = mel_frames(voice(generator, 480_300), 80)[:3000]
    return {"mel": np.ascontiguousarray((np.maximum(frames, frames.max() - 8) + 4).T[None] / 4)}


def _decoder(length: int) -> Adapter:
    """New tokens behind a cache of noise; none sees one that comes later."""

    def sample(generator: Generator) -> Sample:
        mask = np.triu(np.full((length, _PAST + length), -10000.0, np.float32), _PAST + 1)
        shape = (1, _HEADS, _PAST, _HEAD)
        caches = {f"{kind}_{n}": generator.standard_normal(shape, np.float32)
                  for n in range(2) for kind in "kv"}  # fmt: skip
        return {
            "ids": generator.integers(1, _VOCABULARY, (1, length)),
            "mask": mask[None, None],
            **caches,
        }

    return sample


# Name in the table → how its file is made ("zoo": benchmarks/zoo/architectures.py, "torch":
# placement_models.py, "code": here), its name there, and samples.
NETWORKS: dict[str, tuple[str, str, Adapter]] = {
    "ResNet-50's shape": ("code", "resnet50", _image(224, "images")),
    "MobileNetV3 small": ("zoo", "timm mobilenetv3_small", _image(128)),
    "EfficientNet-B0": ("zoo", "timm efficientnet_b0", _image(128)),
    "ConvNeXt atto": ("zoo", "timm convnext_atto", _image(128)),
    "YOLO11n": ("zoo", "ultralytics yolo11n", _ZOO["yolo11n"].adapter),
    "U-Net": ("torch", "unet", _image(128)),
    "SegFormer B0": ("zoo", "transformers segformer", _ZOO["segformer"].adapter),
    "Swin tiny, 112²": ("zoo", "timm swin_tiny", _image(112)),
    "ViT tiny, 50 tokens": ("zoo", "timm vit_tiny", _image(112)),
    "ViT tiny, 197 tokens": ("zoo", "timm vit_tiny_197", _image(224)),
    "ViT tiny, 577 tokens": ("zoo", "timm vit_tiny_577", _image(384)),
    "CLIP image, 65 tokens": ("zoo", "transformers clip", _ZOO["clip"].adapter),
    "BERT, 64 tokens, mask": ("zoo", "transformers bert", _text(64)),
    "BERT, 384 tokens, mask": ("zoo", "transformers bert_384", _text(384)),
    "T5 encoder, 64 tokens": ("zoo", "transformers t5", _text(64)),
    "Whisper encoder, 300": ("zoo", "transformers whisper", _ZOO["whisper"].adapter),
    "Whisper encoder, 1500": ("zoo", "transformers whisper_1500", _mel),
    "Decoder, 64 new of 256": ("torch", "decoder-64", _decoder(64)),
}


def model_of(name: str, folder: Path) -> Path:
    """A network's ONNX file, made where it is missing.

    Raises:
        BuilderError: the export fails, or its environment is missing.
    """
    maker, model, _ = NETWORKS[name]
    path = folder / f"{model.rpartition(' ')[2]}.onnx"
    if path.is_file():
        return path
    if maker == "code":
        made = build_resnet50()
        for value in (*made.graph.input, *made.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1
        onnx.save(made, path)
        return path
    python = ZOO if maker == "zoo" else Path(sys.executable)
    script = "zoo/architectures.py" if maker == "zoo" else "peers/placement_models.py"
    if not python.exists():
        raise BuilderError(
            f"{python} does not exist, expected the zoo's environment; make .venv-zoo"
        )
    command = [str(python), str(ROOT / "benchmarks" / script), model, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not path.is_file():
        path.unlink(missing_ok=True)
        last = done.stderr.strip().splitlines()[-1:] or ["no word"]
        raise BuilderError(f"the export of {model} ends with: {last[0]}; correct what it names")
    return path


def samples_of(name: str) -> tuple[list[Sample], list[Sample]]:
    """Samples to calibrate on and others to judge by: the same on every run."""
    generator = np.random.default_rng(0)
    made = [NETWORKS[name][2](generator) for _ in range(SAMPLES + JUDGED)]
    return made[:SAMPLES], made[SAMPLES:]
