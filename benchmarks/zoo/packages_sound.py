"""Trained networks for sound and other signals, out of packages of the Python Package Index."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.zoo.inputs_other import magnitudes, mel_frames, voice
from benchmarks.zoo.network import Network, Package, Sample

__all__ = ["SOUND"]

Generator = np.random.Generator


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


def _brain(generator: Generator, channels: int, count: int) -> NDArray[np.float32]:
    """Noise that falls with its frequency, as potentials of a brain do: (1, channels, count)."""
    white = np.fft.rfft(generator.normal(size=(1, channels, count)), axis=-1)
    white /= np.maximum(np.arange(white.shape[-1]), 1) ** 0.7
    signal = np.fft.irfft(white, count, axis=-1)
    return np.asarray(signal / signal.std(axis=-1, keepdims=True), np.float32)


_SPEECHMOS = {
    "name": "speechmos",
    "version": "0.0.1.1",
    "sha256": "31c4c9d3234f6ee10102edff74333014c50006a3f389daf7ecacae34e68ebbf7",
}
_SILERO = {
    "name": "silero-vad",
    "version": "6.2.3",
    "sha256": "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
}
_BRAINMAZE = {
    "name": "brainmaze-eeg-models",
    "version": "0.1.0",
    "sha256": "25ec131ac5ed39cf8032a07cc22f5744f13a589f45b10885726e096e41e1d104",
}

SOUND = (
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
        learned=96,
        judged=32,
    ),
    Network(
        name="silero-vad-sequence",
        kind="sound: speech or not, frames at once",
        source=Package(**_SILERO, member="silero_vad/data/silero_vad_16k_sequence.onnx"),
        adapter=_silero_sequence,
    ),
    Network(
        name="eeg-seizure",
        kind="EEG: seizures, CNN and LSTM",
        source=Package(
            **_BRAINMAZE, member="brainmaze_eeg_models/seizure/_models/modelA_paper.onnx"
        ),
        adapter=lambda g: {"x": _brain(g, 100, 120)},
    ),
    Network(
        name="eeg-spindles",
        kind="EEG: sleep spindles, U-Net",
        source=Package(
            **_BRAINMAZE, member="brainmaze_eeg_models/spindles/_models/spindle-detector-eeg.onnx"
        ),
        adapter=lambda g: {
            "raw_signal": _brain(g, 1, 7500),
            "spectrogram": np.abs(_brain(g, 15, 7500)),
        },
        learned=12,
    ),
)
