"""The Sync expert: a SyncNet (Chung & Zisserman 2016) on pixels, and its search over offsets.

It measures the Sync confidence of table 2. No stage of the method is trained with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..method.audio import PER_FRAME, mfcc
from ..method.face import LEFT_EYE, NOSE, RIGHT_EYE
from ..recipe import Recipe, digest
from ..training import WEIGHTS, load, pick_device, random_windows, save, train
from .statistics import clips, estimate
from .syncnet import SyncNet, face_crops, sound_features

MAX_OFFSET = 15  # frames: SyncNet's search covers -15 to 15


class SyncExpert(nn.Module):
    """SyncNet's two towers with fewer channels: 5 mouth frames, 20 MFCC vectors -> 256-d each.

    A mouth is a grey picture of 48 x 64 pixels; 20 MFCC vectors are 0.2 s.
    """

    FRAMES, HEIGHT, WIDTH, DIM = 5, 48, 64, 256

    def __init__(self, w: int = 24):
        super().__init__()

        def conv(c_in: int, c_out: int, stride: tuple[int, int] | int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(c_out),
                nn.ReLU(),
            )

        self.video_tower = nn.Sequential(
            conv(self.FRAMES, w, 2), conv(w, 2 * w, 2), conv(2 * w, 4 * w, 2),
            conv(4 * w, 4 * w, 2),
            nn.Flatten(), nn.Linear(4 * w * 3 * 4, self.DIM),
        )  # fmt: skip
        self.audio_tower = nn.Sequential(
            conv(1, w, (1, 1)), conv(w, 2 * w, 2), conv(2 * w, 4 * w, 2), conv(4 * w, 4 * w, 2),
            nn.Flatten(), nn.Linear(4 * w * 3 * 3, self.DIM),
        )  # fmt: skip

    def video(self, mouths: Tensor) -> Tensor:
        """Grey mouths (T, 48, 64) in 0..1 -> (T - 4, 256), one embedding for each 5 frames."""
        windows = mouths.unfold(0, self.FRAMES, 1).permute(0, 3, 1, 2)  # (T-4, 5, H, W)
        # remove brightness and contrast: they depend on the person, not on sync
        centred = windows - windows.mean((1, 2, 3), keepdim=True)
        return self.video_tower(centred / centred.std((1, 2, 3), keepdim=True).clamp_min(1e-3))

    def audio(self, mfcc: Tensor) -> Tensor:
        """MFCC (4T, 20) -> (T - 4, 256), one embedding for the 20 vectors of each 5 frames."""
        windows = mfcc.unfold(
            0, self.FRAMES * PER_FRAME, PER_FRAME
        )  # (T-4, 20 coefficients, 20 steps)
        return self.audio_tower(windows.unsqueeze(1))


def expert_loss(expert: SyncExpert, mouths: list[Tensor], mfccs: list[Tensor]) -> Tensor:
    """Contrastive loss: which audio window belongs to which 5 frames, and the reverse.

    Cross-entropy over the negative L2 distances (SyncNet's metric). The negatives are all other
    windows of the same clip and of the other clips.

    Args:
        mouths: clips (T, 48, 64). mfccs: their MFCC (4T, 20).

    Returns a scalar, in nats.
    """
    v = torch.cat([expert.video(m) for m in mouths])  # (N, 256)
    a = torch.cat([expert.audio(m) for m in mfccs])  # (N, 256)
    logits = -torch.cdist(v, a)  # (N, N)
    target = torch.arange(len(v), device=v.device)
    return F.cross_entropy(logits, target) + F.cross_entropy(logits.mT, target)


def mouth_crops(frames: np.ndarray, points: np.ndarray) -> Tensor:
    """Crop grey mouths, upright and of one size: the expert's input.

    Args:
        frames: (T, S, S, 3) uint8.
        points: (T, 68, 2) tracked points in units of the image's side.

    Returns (T, 48, 64) float32 in 0..1; 64 pixels are 1.1 inter-ocular distances wide.
    """
    import cv2

    side, out = frames.shape[1], []
    eyes = (
        np.stack([points[:, RIGHT_EYE].mean(1), points[:, LEFT_EYE].mean(1)], 1) * side
    )  # (T, 2, 2)
    axis = eyes[:, 1] - eyes[:, 0]
    # one size for the clip: with a size for each frame, tracking noise of the eyes would scale it
    scale = SyncExpert.WIDTH / (1.1 * np.median(np.linalg.norm(axis, axis=1)))
    # centre on the base of the nose, not on the lips: the motion of the lips must stay visible
    anchor = points[:, NOSE] * side
    for t in range(len(frames)):
        c, s = axis[t] / np.linalg.norm(axis[t]) * scale
        rotation = np.array([[c, s], [-s, c]])  # and scaling
        centre = np.array([SyncExpert.WIDTH / 2, SyncExpert.HEIGHT * 0.2])
        matrix = np.concatenate([rotation, (centre - rotation @ anchor[t])[:, None]], 1)
        grey = cv2.cvtColor(frames[t], cv2.COLOR_RGB2GRAY)
        out.append(
            cv2.warpAffine(
                grey, matrix, (SyncExpert.WIDTH, SyncExpert.HEIGHT), borderMode=cv2.BORDER_REPLICATE
            )
        )
    return torch.from_numpy(np.stack(out)).float() / 255


def l2(v: Tensor, a: Tensor) -> Tensor:
    """Distances (T,) of v and a, (T, D) each, as in SyncNet."""
    return (v - a).norm(dim=1)


def offset_distances(
    v: Tensor, a: Tensor, distance: Callable[[Tensor, Tensor], Tensor] = l2
) -> Tensor:
    """Distances between video v and audio a, (T, D) each, at the offsets -15 .. 15: (T, 31).

    Column k compares video t with audio t + k - 15; nan if that lies outside the clip.
    """
    T = len(v)
    audio = torch.full((T + 2 * MAX_OFFSET, a.shape[1]), float("nan"))
    audio[MAX_OFFSET : MAX_OFFSET + T] = a[:T]
    shifted = (audio[k : k + T] for k in range(2 * MAX_OFFSET + 1))
    return torch.stack([distance(v, each) for each in shifted], 1)


def confidence(distances: Tensor) -> tuple[float, int]:
    """SyncNet's confidence and offset in frames, from distances (T, 31).

    The confidence is the median minus the minimum, over offsets, of the mean distance. The offset
    is where the minimum is. (nan, 0) if no distance is finite.
    """
    curve = distances.nanmean(0)  # (31,)
    # ignore offsets at which less than half of the frames have a partner
    usable = (distances.isfinite().float().mean(0) >= 0.5).nonzero()[:, 0]
    curve = curve[usable]
    if not len(curve):  # no face was found in any frame
        return float("nan"), 0
    return float(curve.median() - curve.min()), int(usable[curve.argmin()]) - MAX_OFFSET


def offsets(distances: Tensor, seconds: float = 2.0) -> list[int]:
    """The best offset in frames of each clip of `seconds`, from a video's distances (T, 31).

    A last clip shorter than 90 % of that is left out.
    """
    n = int(seconds * 25)
    clips = [d for d in distances.split(n) if len(d) >= 0.9 * n]
    return [int(d.nanmean(0).nan_to_num(torch.inf).argmin()) - MAX_OFFSET for d in clips]


def offset_hits(distances: Tensor, seconds: float = 2.0, tolerance: int = 1) -> list[bool]:
    """For each clip of `seconds` of a synchronised video: is the best offset within ±`tolerance`?

    distances: (T, 31). tolerance: frames; the true offset is 0.
    """
    return [abs(offset) <= tolerance for offset in offsets(distances, seconds)]


@dataclass(frozen=True)
class ExpertRecipe(Recipe):
    """Settings of the expert's training."""

    weight_decay: float = 1e-2
    batch: int = 8  # clips per step
    window: int = 20  # frames per clip


def disturbed(mouth: Tensor, g: torch.Generator) -> Tensor:
    """Augment the grey mouths (T, 48, 64) of a clip: flip, shift, blur, gamma and noise.

    They imitate another tracker, camera or renderer. Returns (T, 48, 64).
    """
    rand = lambda: torch.rand(1, generator=g)  # noqa: E731
    x = mouth.flip(-1) if rand() < 0.5 else mouth
    dx, dy = (torch.randint(-3, 4, (2,), generator=g)).tolist()
    x = x.roll((dy, dx), (1, 2))
    if rand() < 0.5:  # renderers blur, and blur must not change the score
        x = F.avg_pool2d(x[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
    return x.clamp_min(1e-3) ** (0.6 + 0.9 * rand()) + 0.02 * torch.randn(x.shape, generator=g)


def train_expert(
    mouths: list[Tensor], sounds: list[Tensor], recipe: ExpertRecipe, path: Path, seed: int,
    device: str = "auto",
) -> tuple[SyncExpert, list[dict]]:  # fmt: skip
    """Train the Sync expert on all corpus subjects.

    Args:
        mouths: (T, 48, 64) for each recording. sounds: its MFCC (4T, 20).
        path: of the checkpoint; a finished training is loaded from it.

    Returns the expert, on the CPU, and the training's history.
    """
    torch.manual_seed(seed)
    where = pick_device(device)
    expert, n = SyncExpert().to(where), recipe.window

    def loss(g: torch.Generator) -> tuple[Tensor, dict]:
        cuts = list(random_windows(mouths, n, recipe.batch, g))
        clips = [disturbed(mouths[i][s : s + n], g).to(where) for i, s in cuts]
        heard = [sounds[i][4 * s : 4 * (s + n)].to(where) for i, s in cuts]
        return expert_loss(expert, clips, heard), {}

    data, label = digest(*mouths, *sounds), "Sync expert"
    history = train(expert, loss, recipe, path=path, seed=seed, data=data, label=label)
    return expert.cpu(), history


def ship(runs: str | Path) -> None:
    """Copy a run's expert into the package, for `dfa score`, in half precision to save space."""
    save(load_expert(runs).half(), WEIGHTS / "expert.safetensors")


def load_expert(folder: str | Path = WEIGHTS) -> SyncExpert:
    """The Sync expert from `expert.safetensors` in a folder, by default the package's.

    Raises InputError if the file is missing or holds something else.
    """
    expert = SyncExpert()
    load(expert, Path(folder) / "expert.safetensors")
    return expert


@torch.inference_mode()
def sync_distances(
    expert: SyncExpert | SyncNet, frames: np.ndarray, points: np.ndarray, audio: np.ndarray
) -> torch.Tensor:
    """The expert's distances at the offsets -15..15 for each 5 frames, (T - 4, 31).

    Args:
        frames: (T, S, S, 3) uint8.
        points: (T, 68, 2) in units of the image's side; nan is filled by interpolation in time.
        audio: (n,) 16 kHz.

    All nan if no frame has points.
    """
    points = (
        pd.DataFrame(points.reshape(len(points), -1)).interpolate(limit_direction="both").to_numpy()
    )
    if not np.isfinite(points).all():
        return torch.full((len(frames) - 4, 2 * MAX_OFFSET + 1), float("nan"))
    points = points.reshape(-1, 68, 2)
    if isinstance(expert, SyncNet):
        crops, sound = face_crops(frames, points), sound_features(audio, len(frames))
        step = 8  # windows per batch: 0.1 GB
    else:
        crops, sound = mouth_crops(frames, points), torch.from_numpy(mfcc(audio, len(frames)))
        step = 100
    v = [expert.video(crops[i : i + step + 4]) for i in range(0, len(crops) - 4, step)]
    return offset_distances(torch.cat(v), expert.audio(sound))


def video_confidence(distances: torch.Tensor) -> tuple[float, float, float]:
    """SyncNet's confidence of a whole video, as papers report it, with its 95 % interval.

    It is usually lower than the mean over clips, because each clip has its own best offset. The
    interval is a bootstrap over clips, all at the video's best offset: the minimum of each clip
    would be biased.

    distances: (T, 31). Returns value, lower and upper end; these are nan for a single clip.
    """
    value, offset = confidence(distances)
    curves = [c.nanmean(0) for c in clips(distances)]
    at_offset = [float(c.nanmedian() - c[MAX_OFFSET + offset]) for c in curves]
    ends = estimate(np.array(at_offset))
    return value, ends["ci_low"], ends["ci_high"]
