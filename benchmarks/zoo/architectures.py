"""Architectures with seeded random weights as ONNX: ``python architectures.py NAME OUTPUT.onnx``.

Runs in ``.venv-zoo``, which has torch, timm, torchvision, transformers and ultralytics, so it
imports nothing of the project. Nothing is downloaded: networks are made from configurations, small
ones, and BatchNormalization takes its statistics from a few smooth random images, as if trained.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Inputs = dict[str, Tensor]
SEED = 0


class Named(nn.Module):
    """A module whose answer is a tensor or a tuple of them.

    Args:
        module: called with the inputs by position.
        chosen: picks outputs.
    """

    def __init__(self, module: nn.Module, chosen: Callable[[Any], Any]) -> None:
        super().__init__()
        self.module, self.chosen = module, chosen

    def forward(self, *inputs: Tensor) -> Any:
        """The chosen outputs."""
        return self.chosen(self.module(*inputs))


def smooth_images(count: int, size: int) -> Tensor:
    """Random images as smooth as photographs are, normalised."""
    coarse = torch.randn(count, 3, size // 8, size // 8)
    smooth = nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    return smooth + 0.1 * torch.randn(count, 3, size, size)


def of_timm(name: str, size: int = 128, **options: Any) -> tuple[nn.Module, Inputs]:
    """A classifier of timm."""
    import timm

    return timm.create_model(name, num_classes=100, **options), {"image": smooth_images(1, size)}


def of_torchvision(name: str, size: int, chosen: Callable[[Any], Any]) -> tuple[nn.Module, Inputs]:
    """A segmentation network or a detector of torchvision."""
    from torchvision import models

    folder = models.segmentation if hasattr(models.segmentation, name) else models.detection
    module = getattr(folder, name)(weights=None, weights_backbone=None)
    return Named(module, chosen), {"image": smooth_images(1, size)}


class Detector(nn.Module):
    """A detector of torchvision for one image, boxes and scores out."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Boxes, scores, labels, and masks where there are any."""
        found = self.module(list(image))[0]
        return tuple(found[key] for key in ("boxes", "scores", "labels", "masks") if key in found)


def detector(name: str, size: int, **options: Any) -> tuple[nn.Module, Inputs]:
    """The same with its proposals and non-maximum suppression."""
    from torchvision.models import detection

    module = getattr(detection, name)(weights=None, weights_backbone=None, **options)
    module.transform.min_size, module.transform.max_size = (size,), size
    return Detector(module), {"image": smooth_images(1, size).sigmoid()}


def yolo11() -> tuple[nn.Module, Inputs]:
    """YOLO11n without non-maximum suppression."""
    from ultralytics.nn.tasks import DetectionModel

    module = DetectionModel("yolo11n.yaml", verbose=False)
    head = module.model[-1]
    head.export, head.format = True, "onnx"
    return module, {"image": smooth_images(1, 160).sigmoid()}


def of_transformers(
    model: str, config: str, settings: dict[str, Any], inputs: Inputs, output: str
) -> tuple[nn.Module, Inputs]:
    """A model of transformers from its configuration."""
    import transformers

    made = getattr(transformers, config)(**settings)
    made._attn_implementation = "eager"
    module = getattr(transformers, model)(made)

    class Called(nn.Module):
        """Inputs by name, one output."""

        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *values: Tensor) -> Tensor:
            """The output."""
            named = dict(zip(inputs, values, strict=True))
            found: Tensor = getattr(self.module(**named), output)
            return found

    return Called(), inputs


def text(**settings: Any) -> Inputs:
    """Token ids and their mask."""
    ids = torch.randint(1, 1000, (1, settings.get("length", 64)))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


SMALL = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
SMALL |= {"intermediate_size": 512}


def bert() -> tuple[nn.Module, Inputs]:
    """BERT, three layers."""
    settings = {**SMALL, "vocab_size": 1000}
    return of_transformers("BertModel", "BertConfig", settings, text(), "last_hidden_state")


def t5() -> tuple[nn.Module, Inputs]:
    """T5's encoder, three layers: relative positions, RMS normalisation."""
    settings = {"vocab_size": 1000, "d_model": 128, "d_kv": 32, "d_ff": 512, "num_layers": 3}
    settings |= {"num_heads": 4}
    return of_transformers("T5EncoderModel", "T5Config", settings, text(), "last_hidden_state")


def whisper() -> tuple[nn.Module, Inputs]:
    """Whisper's encoder, two layers, 6 seconds."""
    import transformers

    config = transformers.WhisperConfig(
        d_model=128, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=512,
        decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=512, max_source_positions=300,
    )  # fmt: skip
    config._attn_implementation = "eager"
    encoder = transformers.WhisperModel(config).get_encoder()
    chosen = Named(encoder, lambda found: found.last_hidden_state)
    return chosen, {"mel": torch.randn(1, 80, 600)}


def wav2vec2() -> tuple[nn.Module, Inputs]:
    """Wav2Vec2 with letters out: weight_norm, group normalisation, a second of sound."""
    settings = {**SMALL, "conv_dim": (64,) * 7, "num_conv_pos_embeddings": 32, "vocab_size": 32}
    settings |= {"num_conv_pos_embedding_groups": 8}
    inputs = {"input_values": torch.randn(1, 16000)}
    return of_transformers("Wav2Vec2ForCTC", "Wav2Vec2Config", settings, inputs, "logits")


def clip() -> tuple[nn.Module, Inputs]:
    """CLIP's image tower, three layers."""
    settings = {**SMALL, "image_size": 128, "patch_size": 16, "projection_dim": 64}
    inputs = {"pixel_values": smooth_images(1, 128)}
    return of_transformers(
        "CLIPVisionModelWithProjection", "CLIPVisionConfig", settings, inputs, "image_embeds"
    )


def segformer() -> tuple[nn.Module, Inputs]:
    """SegFormer B0 for 20 classes."""
    inputs = {"pixel_values": smooth_images(1, 128)}
    return of_transformers(
        "SegformerForSemanticSegmentation", "SegformerConfig", {"num_labels": 20}, inputs, "logits"
    )


def sam() -> tuple[nn.Module, Inputs]:
    """SAM's image encoder: windows, relative positions, a neck of convolutions."""
    settings = {
        "hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "mlp_dim": 384,
        "image_size": 256, "patch_size": 16, "window_size": 7, "global_attn_indexes": [1, 3],
        "output_channels": 64,
    }  # fmt: skip
    inputs = {"pixel_values": smooth_images(1, 256)}
    return of_transformers(
        "SamVisionModel", "SamVisionConfig", settings, inputs, "last_hidden_state"
    )


def rt_detr() -> tuple[nn.Module, Inputs]:
    """RT-DETR with a small ResNet: hybrid encoder, deformable attention, chosen queries."""
    import transformers

    backbone = transformers.RTDetrResNetConfig(
        embedding_size=32, hidden_sizes=[32, 64, 128, 256], depths=[1, 1, 1, 1],
        layer_type="basic", out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    settings = {
        "backbone_config": backbone, "encoder_in_channels": [64, 128, 256], "d_model": 128,
        "encoder_hidden_dim": 128, "encoder_ffn_dim": 256, "decoder_in_channels": [128, 128, 128],
        "decoder_ffn_dim": 256, "decoder_layers": 2, "num_queries": 50, "num_labels": 20,
        "anchor_image_size": [160, 160],
    }  # fmt: skip
    inputs = {"pixel_values": smooth_images(1, 160).sigmoid()}
    return of_transformers("RTDetrForObjectDetection", "RTDetrConfig", settings, inputs, "logits")


ARCHITECTURES: dict[str, Callable[[], tuple[nn.Module, Inputs]]] = {
    "timm efficientnet_b0": lambda: of_timm("efficientnet_b0"),
    "timm convnext_atto": lambda: of_timm("convnext_atto"),
    "timm swin_tiny": lambda: of_timm(
        "swin_tiny_patch4_window7_224", 112, img_size=112, embed_dim=48, depths=(1, 1, 2, 1)
    ),
    "timm regnety_002": lambda: of_timm("regnety_002"),
    "timm mobilenetv3_small": lambda: of_timm("mobilenetv3_small_100"),
    "timm mobilenetv4_small": lambda: of_timm("mobilenetv4_conv_small"),
    "timm hrnet_w18_small": lambda: of_timm("hrnet_w18_small"),
    "timm vit_tiny": lambda: of_timm("vit_tiny_patch16_224", 112, img_size=112, depth=4),
    "torchvision deeplabv3": lambda: of_torchvision(
        "deeplabv3_mobilenet_v3_large", 128, lambda found: found["out"]
    ),
    "torchvision ssdlite": lambda: detector("ssdlite320_mobilenet_v3_large", 160),
    "torchvision retinanet": lambda: detector("retinanet_resnet50_fpn", 128),
    "torchvision faster_rcnn": lambda: detector("fasterrcnn_mobilenet_v3_large_320_fpn", 128),
    "torchvision mask_rcnn": lambda: detector("maskrcnn_resnet50_fpn", 128),
    "ultralytics yolo11n": yolo11,
    "transformers rt_detr": rt_detr,
    "transformers sam": sam,
    "transformers segformer": segformer,
    "transformers bert": bert,
    "transformers t5": t5,
    "transformers whisper": whisper,
    "transformers clip": clip,
    "transformers wav2vec2": wav2vec2,
}


def settle_statistics(module: nn.Module, inputs: Inputs) -> None:
    """Statistics of BatchNormalization, of a few images like the first."""
    norms = [part for part in module.modules() if type(part).__name__.startswith("BatchNorm")]
    image = next(iter(inputs.values()))
    if not norms or image.ndim != 4:
        return
    module.eval()
    for norm in norms:
        norm.train()
        norm.momentum = None  # type: ignore[assignment] # the mean of all, not a moving one
        norm.num_batches_tracked = torch.tensor(0)
    with torch.no_grad():
        for _ in range(4):
            fresh = smooth_images(2, image.shape[-1])  # one has no variance where 1 × 1 is left
            module(fresh.sigmoid() if float(image.min()) >= 0 else fresh)


def main() -> None:
    """Make, settle, export."""
    name, output = sys.argv[1:]
    torch.manual_seed(SEED)
    module, inputs = ARCHITECTURES[name]()
    settle_statistics(module, inputs)
    module.eval()
    legacy = name.startswith("torchvision") and name != "torchvision deeplabv3"
    torch.onnx.export(
        module,
        tuple(inputs.values()),
        output,
        input_names=list(inputs),
        dynamo=not legacy,
        external_data=False,
    )


if __name__ == "__main__":
    main()
