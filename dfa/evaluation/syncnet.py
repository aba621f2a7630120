"""The official SyncNet (Chung & Zisserman 2016), for whoever has its weights: they are not ours.

Layout, input and crop follow https://github.com/joonson/syncnet_python (MIT): SyncNetModel.py,
SyncNetInstance.py and run_pipeline.py. It judges faces of 224x224 pixels by five frames and 0.2 s
of sound; the search over offsets and the confidence are those of `sync`, which differ from theirs
in one thing: at a clip's ends, frames without a partner are left out, not compared with zeros.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from python_speech_features import mfcc
from scipy.signal import medfilt
from torch import Tensor, nn

from .audio import PER_FRAME
from .media import SAMPLE_RATE, SAMPLES_PER_FRAME, InputError

FRAMES = 5  # of a window
SIDE = 224  # pixels of a face
MARGIN = 0.40  # their crop_scale
BORDER = 110  # their grey outside the picture


class SyncNet(nn.Module):
    """Both towers, named as in the official state dict: 1024-d embeddings."""

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
        """(T, 224, 224, 3) BGR faces in 0..255 -> (T - 4, 1024), one embedding for each 5 frames.

        Only the first layer looks across time, so all windows share one pass; it takes about 10 MB
        a window.
        """
        code = self.netcnnlip(faces.permute(3, 0, 1, 2)[None].float())  # (1, 512, T - 4, 1, 1)
        return self.netfclip(code[0, :, :, 0, 0].mT)

    def audio(self, sound: Tensor) -> Tensor:
        """(4T, 13) `sound_features` -> (T - 4, 1024); window t hears the vectors 4t to 4t + 19."""
        windows = sound.unfold(0, FRAMES * PER_FRAME, PER_FRAME)  # (T-4, 13, 20)
        return self.netfcaud(self.netcnnaud(windows.unsqueeze(1)).flatten(1))


def load_syncnet(path: str | Path) -> SyncNet:
    """The official weights: `syncnet_v2.model`, or the same state dict as .safetensors.

    Neither way runs code from the file. Raises InputError for any other file.
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
    except Exception as e:  # noqa: BLE001  what a reader raises on a foreign file has no end
        raise InputError(
            f"{path} does not hold the official SyncNet weights: give syncnet_v2.model of"
            " joonson/syncnet_python, or its state dict as .safetensors"
        ) from e
    return model.eval()


def sound_features(audio: np.ndarray, n_frames: int) -> Tensor:
    """Their 13 MFCC at 100 Hz of (n,) 16 kHz sound in [-1, 1], as (4 * n_frames, 13).

    Vector k hears 25 ms from k * 10 ms on. They read 16-bit sound, and its scale matters. The sound
    is cut or filled with silence where the last vector ends.
    """
    n = n_frames * SAMPLES_PER_FRAME + 240  # the last of them reaches 15 ms beyond its step
    pcm = np.clip(np.round(audio[:n] * 32768.0), -32768, 32767)
    return torch.from_numpy(mfcc(np.pad(pcm, (0, n - len(pcm))), SAMPLE_RATE)).float()


def face_crops(frames: np.ndarray, points: np.ndarray) -> Tensor:
    """Faces as SyncNet was shown them, (T, 224, 224, 3) uint8, BGR.

    The arithmetic is theirs: a square around a detector's box, with room to the sides and below,
    its place and size smoothed by a median over 13 frames. The box is an approximation, for theirs
    comes from the detector S3FD: it spans the points, and its top lies a quarter of their height
    higher, since a detector's box takes in the forehead. So figures may differ slightly from their
    pipeline's. (DECA converts the other way with about the same figures.)

    Args:
        frames: (T, S, S, 3) uint8 RGB, 13 at least. points: (T, 68, 2) in unit coordinates, finite.
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
        room = int(half[t] * (1 + 2 * MARGIN))
        wide = np.pad(frame, ((room, room), (room, room), (0, 0)), constant_values=BORDER)
        rows = slice(int(y[t] + room - half[t]), int(y[t] + room + half[t] * (1 + 2 * MARGIN)))
        aside = half[t] * (1 + MARGIN)
        columns = slice(int(x[t] + room - aside), int(x[t] + room + aside))
        out[t] = cv2.resize(wide[rows, columns], (SIDE, SIDE))[..., ::-1]
    return torch.from_numpy(out)
