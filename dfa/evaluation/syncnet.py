"""The official SyncNet (Chung & Zisserman 2016). Its weights are not part of this package.

Layers, input and crop follow https://github.com/joonson/syncnet_python (MIT): SyncNetModel.py,
SyncNetInstance.py and run_pipeline.py. The input is five faces of 224 x 224 pixels and 0.2 s of
audio. The search over offsets and the confidence are those of `expert`. They differ from the
official ones in one point: at a clip's ends, frames without a partner are left out; the official
code compares them with zeros.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy.signal import medfilt
from torch import Tensor, nn

from ..media import SAMPLE_RATE, SAMPLES_PER_FRAME, InputError
from ..method.audio import PER_FRAME

FRAMES = 5  # video frames per window
SIDE = 224  # pixels, side of a face crop
MARGIN = 0.40  # official crop_scale: margin around the face, in half sides of its box
BORDER = 110  # official grey level (0..255) outside the picture


class SyncNet(nn.Module):
    """Both towers, with the names of the official state dict. Embeddings have 1024 dimensions."""

    def __init__(self):
        super().__init__()

        def tower(conv: type, norm: type, pool: type, layers: list) -> nn.Sequential:
            modules: list[nn.Module] = []
            for kind, *sizes in layers:
                if kind == "pool":
                    modules.append(pool(*sizes))
                else:
                    c_in, c_out, *shape = sizes
                    modules += [conv(c_in, c_out, *shape), norm(c_out), nn.ReLU()]
            return nn.Sequential(*modules)

        def head() -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024)
            )

        # conv: channels in and out, kernel, stride, padding; pool: kernel, stride, padding
        self.netcnnaud = tower(nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, [
            ("conv", 1, 64, 3, 1, 1),
            ("pool", 1, 1),
            ("conv", 64, 192, 3, 1, 1),
            ("pool", 3, (1, 2)),
            ("conv", 192, 384, 3, 1, 1),
            ("conv", 384, 256, 3, 1, 1),
            ("conv", 256, 256, 3, 1, 1),
            ("pool", 3, 2),
            ("conv", 256, 512, (5, 4)),
        ])  # fmt: skip
        self.netfcaud = head()
        self.netfclip = head()
        self.netcnnlip = tower(nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d, [
            ("conv", 3, 96, (5, 7, 7), (1, 2, 2)),
            ("pool", (1, 3, 3), (1, 2, 2)),
            ("conv", 96, 256, (1, 5, 5), (1, 2, 2), (0, 1, 1)),
            ("pool", (1, 3, 3), (1, 2, 2), (0, 1, 1)),
            ("conv", 256, 256, (1, 3, 3), 1, (0, 1, 1)),
            ("conv", 256, 256, (1, 3, 3), 1, (0, 1, 1)),
            ("conv", 256, 256, (1, 3, 3), 1, (0, 1, 1)),
            ("pool", (1, 3, 3), (1, 2, 2)),
            ("conv", 256, 512, (1, 6, 6)),
        ])  # fmt: skip

    def video(self, faces: Tensor) -> Tensor:
        """BGR faces (T, 224, 224, 3) in 0..255 -> (T - 4, 1024), one embedding for each 5 frames.

        Only the first layer convolves in time, so one pass computes all windows. It takes about
        10 MB per window.
        """
        code = self.netcnnlip(faces.permute(3, 0, 1, 2)[None].float())  # (1, 512, T - 4, 1, 1)
        return self.netfclip(code[0, :, :, 0, 0].mT)  # (T - 4, 1024)

    def audio(self, sound: Tensor) -> Tensor:
        """`sound_features` (4T, 13) -> (T - 4, 1024); window t covers the vectors 4t to 4t + 19."""
        windows = sound.unfold(0, FRAMES * PER_FRAME, PER_FRAME)  # (T-4, 13, 20)
        return self.netfcaud(self.netcnnaud(windows.unsqueeze(1)).flatten(1))


def load_syncnet(path: str | Path) -> SyncNet:
    """SyncNet with the official weights: `syncnet_v2.model`, or its state dict as .safetensors.

    Code in the file is never run. Raises InputError if the file is missing or holds something else.
    """
    from safetensors.torch import load_file

    model = SyncNet()
    try:
        if Path(path).suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state)
    except OSError as e:
        raise InputError(f"{path} cannot be read ({e.strerror or e})") from e
    except Exception as e:  # noqa: BLE001  readers raise many kinds of errors on a foreign file
        raise InputError(
            f"{path} does not hold the official SyncNet weights: give syncnet_v2.model of"
            " joonson/syncnet_python, or its state dict as .safetensors"
        ) from e
    return model.eval()


def sound_features(audio: np.ndarray, n_frames: int) -> Tensor:
    """The official 13 MFCC at 100 Hz of 16 kHz audio (n,) in [-1, 1]: (4 * n_frames, 13).

    Vector k covers 25 ms, beginning at k * 10 ms. The official code reads 16-bit audio, so the
    samples are scaled to that range. The audio is cut or padded with silence to the end of the last
    vector.
    """
    from python_speech_features import mfcc  # the library that the official code uses

    n = n_frames * SAMPLES_PER_FRAME + 240  # 240 samples: the last vector ends 15 ms later
    pcm = np.clip(np.round(audio[:n] * 32768.0), -32768, 32767)
    return torch.from_numpy(mfcc(np.pad(pcm, (0, n - len(pcm))), SAMPLE_RATE)).float()


def face_crops(frames: np.ndarray, points: np.ndarray) -> Tensor:
    """Face crops as in the official pipeline, (T, 224, 224, 3) uint8, BGR.

    A crop is a square around the face detector's box, with a margin on both sides and below. Its
    position and size are smoothed by a median over 13 frames. The official box comes from the
    detector S3FD. Here it is approximated: it spans the 68 points, and its top is a quarter of
    their height higher, because a detector's box includes the forehead. So the results may differ
    slightly from the official ones.

    Args:
        frames: (T, S, S, 3) uint8 RGB, T at least 13.
        points: (T, 68, 2) in units of the image's side, finite.
    """
    import cv2

    (left, top), (right, bottom) = (f(points * frames.shape[1], 1).T for f in (np.min, np.max))
    top = top - 0.25 * (bottom - top)
    half, x, y = (
        medfilt(v, 13)
        for v in (
            np.maximum(right - left, bottom - top) / 2,
            (left + right) / 2,
            (top + bottom) / 2,
        )
    )
    out = np.empty((len(frames), SIDE, SIDE, 3), np.uint8)
    for t, frame in enumerate(frames):
        pad = int(half[t] * (1 + 2 * MARGIN))
        padded = np.pad(frame, ((pad, pad), (pad, pad), (0, 0)), constant_values=BORDER)
        rows = slice(int(y[t] + pad - half[t]), int(y[t] + pad + half[t] * (1 + 2 * MARGIN)))
        half_width = half[t] * (1 + MARGIN)
        columns = slice(int(x[t] + pad - half_width), int(x[t] + pad + half_width))
        out[t] = cv2.resize(padded[rows, columns], (SIDE, SIDE))[..., ::-1]
    return torch.from_numpy(out)
