"""The metrics of a video (sections 4.1 and 4.2): `METRICS` has one row for each metric."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from ..method.face import CHIN, EYES, LEFT_EYE, LIPS, LOWER_LIP, NOSE, RIGHT_EYE, UPPER_LIP
from .expert import MAX_OFFSET, SyncExpert, confidence, sync_distances
from .motion import blink_rates, blink_threshold
from .statistics import clips
from .syncnet import SyncNet

PIXELS = 256  # pixels, side of the frame to which landmark distances are scaled


@dataclass(frozen=True)
class MeasuredVideo:
    """A video of T frames, and the real video that it is compared with."""

    frames: np.ndarray  # (T, S, S, 3) uint8
    audio: np.ndarray  # (n,) 16 kHz, the speech
    points: np.ndarray  # (T, 68, 2) tracked, in units of the side; nan where no face is found
    ear: np.ndarray  # (T,) eye-aspect ratio
    expert: SyncExpert | SyncNet
    reference: np.ndarray | None = None  # (T, S, S, 3) uint8, the real frames
    reference_points: np.ndarray | None = None  # (T, 68, 2), tracked in the real frames
    threshold: float | None = None  # the person's `blink_threshold`; by default the video's

    @cached_property
    def distances(self) -> Tensor | None:
        """The expert's distances (T - 4, 31); None if the video is shorter than the search."""
        if len(self.frames) <= 2 * MAX_OFFSET + 5:
            return None
        return sync_distances(self.expert, self.frames, self.points, self.audio)


@dataclass(frozen=True)
class Metric:
    """A metric of the tables.

    Args:
        label: its printed name; an arrow shows the better direction.
        digits: decimals, as in the paper; None prints three significant digits.
        of: computes it, one value for each clip of a video; None if a notebook computes it.
        needs: the attributes of `MeasuredVideo` that must not be None.
        unit: as `dfa score` prints it.
    """

    label: str
    digits: int | None = None
    of: Callable[[MeasuredVideo], Sequence[float]] | None = None
    needs: tuple[str, ...] = ()
    unit: str = ""


METRICS = {
    "psnr": Metric(
        "PSNR ↑", 2, lambda v: means(psnr(v.frames, v.reference)), ("reference",), "dB"
    ),
    "ssim": Metric(
        "SSIM ↑", 3, lambda v: means(ssim(v.frames, v.reference)), ("reference",)
    ),
    "lmd": Metric(
        "LMD ↓", 2, lambda v: finite_means(lmd(v.points, v.reference_points)),
        ("reference_points",), "px of 256",
    ),
    "sync": Metric(
        "Sync ↑", 2, lambda v: [confidence(c)[0] for c in clips(v.distances)], ("distances",)
    ),
    "blinks_per_s": Metric(
        "Blinks/s", 2, lambda v: blink_rates(v.ear, closed_below(v)), unit="1/s"
    ),
    "d_rot": Metric("D-Rot % ↓", 2),
    "d_pos": Metric("D-Pos % ↓", 2),
    "d_rot_deg": Metric("D-Rot ° ↓", 2),
    "d_pos_mm": Metric("D-Pos mm ↓", 2),
    "crps": Metric("CRPS % ↓", 2),
    "speed_ratio": Metric("Speed, of real", 2),
    "freeze": Metric("Frozen %", 1),
}  # fmt: skip


def means(values: np.ndarray) -> list[float]:
    """The mean of each clip, of per-frame values (T,)."""
    return [c.mean() for c in clips(values)]


def finite_means(values: np.ndarray) -> list[float]:
    """`means` over the finite values only; nan for a clip without any."""
    return [np.nanmean(c) if np.isfinite(c).any() else np.nan for c in clips(values)]


def closed_below(video: MeasuredVideo) -> float:
    """The eye-aspect ratio below which the person's eyes count as closed."""
    return blink_threshold(video.ear) if video.threshold is None else video.threshold


# --- pictures -------------------------------------------------------------------------------------


def psnr(frames: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of each frame.

    frames, reference: (T, S, S, 3) uint8. Returns (T,); an exact copy has 100 dB, not infinity.
    """
    values = [
        peak_signal_noise_ratio(a, b, data_range=1.0, dim=(1, 2, 3), reduction="none")
        for a, b in _pairs(frames, reference)
    ]
    return torch.cat(values).clamp_max(100).numpy()


def ssim(frames: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Structural similarity (Wang et al. 2004) of each frame.

    frames, reference: (T, S, S, 3) uint8. Returns (T,).
    """
    return torch.cat([values for values, _ in _similarity(frames, reference)]).numpy()


def _similarity(frames: np.ndarray, reference: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
    """SSIM of frames (T, S, S, 3) uint8, in batches of n: values (n,), maps (n, S, S)."""
    for a, b in _pairs(frames, reference):
        values, maps = structural_similarity_index_measure(
            a, b, data_range=1.0, reduction="none", return_full_image=True
        )
        yield values.reshape(-1), maps.mean(1)


def _pairs(frames: np.ndarray, reference: np.ndarray, n: int = 64) -> Iterator[list[Tensor]]:
    """Both (T, S, S, 3) uint8 as pictures (n, 3, S, S) in 0..1, batch by batch to save memory."""
    if len(frames) != len(reference):
        raise ValueError(f"{len(frames)} frames are compared with {len(reference)}")
    for start in range(0, len(frames), n):
        batch = (np.ascontiguousarray(x[start : start + n]) for x in (frames, reference))
        yield [torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255 for x in batch]


def lmd(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Landmark distance of the mouth (Chen et al. 2018), in pixels of a 256-pixel frame.

    points, reference: (T, 68, 2) in units of the image's side, from the same tracker. The centroid
    of the 20 mouth points is subtracted, so the position of the head does not count. Returns the
    mean distance (T,), nan for frames without a face.
    """
    a, b = (p[:, LIPS] - p[:, LIPS].mean(1, keepdims=True) for p in (points, reference))
    return np.linalg.norm(a - b, axis=-1).mean(-1) * PIXELS


def mouth_opening(points: np.ndarray) -> np.ndarray:
    """Inner-lip opening of each frame, in units of the clip's median inter-ocular distance.

    points: (T, 68, 2) or (T, 68, 3). The opening is the mean distance of the three pairs of
    opposite inner-lip points; the inter-ocular distance is that of the eye centres. Returns (T,),
    nan for frames without a face.
    """
    points = np.asarray(points, float)
    opening = np.linalg.norm(points[:, UPPER_LIP] - points[:, LOWER_LIP], axis=-1).mean(1)
    eyes = np.linalg.norm(points[:, RIGHT_EYE].mean(1) - points[:, LEFT_EYE].mean(1), axis=-1)
    eyes = eyes[np.isfinite(eyes)]
    # one distance for the clip: with one for each frame, tracking noise of the eyes would enter
    return opening / (np.median(eyes) if len(eyes) else np.nan)


def lip_motion(
    points: np.ndarray, reference: np.ndarray, quiet: np.ndarray, vowel: np.ndarray
) -> dict[str, float]:
    """How the lips of a generated video open and keep still, compared with the real video.

    Args:
        points, reference: (T, 68, 2) of the generated and of the real video, in units of the
            image's side, from the same tracker.
        quiet, vowel: (T,) bool, frames of silence and of sustained vowels.

    Returns a dict, nan where a value cannot be measured:

    - `opening_corr`, `opening_slope`: Pearson correlation of the two `mouth_opening`, and the slope
      of the least-squares line, generated on real;
    - `silent_opening`: mean `mouth_opening` over the quiet frames;
    - `jitter_silence`, `jitter_vowel`: root mean square of the second difference in time of the 20
      mouth points minus their centroid, per coordinate, in pixels of a 256-pixel frame. A frame
      counts if it and both neighbours are in the mask;
    - the last three of the real video, with the suffix `_real`.
    """
    made, real = mouth_opening(points), mouth_opening(reference)
    both = np.isfinite(made) & np.isfinite(real)
    (variance, covariance), (_, made_variance) = (
        np.cov(real[both], made[both]) if both.sum() > 1 else np.full((2, 2), np.nan)
    )
    spread, rounding = np.sqrt(variance * made_variance), 1e-12
    values = dict(
        opening_corr=covariance / spread if spread > rounding else np.nan,
        opening_slope=covariance / variance if variance > rounding else np.nan,
    )
    for p, opening, suffix in ((points, made, ""), (reference, real, "_real")):
        values["silent_opening" + suffix] = _finite_mean(opening[quiet])
        lips = (p[:, LIPS] - p[:, LIPS].mean(1, keepdims=True)) * PIXELS
        acceleration = (np.diff(lips, 2, axis=0) ** 2).mean((1, 2))  # (T, 20, 2) -> (T - 2,)
        for name, mask in (("silence", quiet), ("vowel", vowel)):
            inside = mask[:-2] & mask[1:-1] & mask[2:]
            values[f"jitter_{name}{suffix}"] = np.sqrt(_finite_mean(acceleration[inside]))
    return {name: float(value) for name, value in values.items()}


def _finite_mean(x: np.ndarray) -> float:
    x = x[np.isfinite(x)]
    return float(x.mean()) if len(x) else float("nan")


def region_boxes(points: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """Boxes around mouth, eyes and neck: {region: (T, 4)}, x0, y0, x1, y1 in pixels.

    points: (T, 68, 2) in units of the image's side. size: pixels of that side. The box of the neck,
    where head and torso meet, is as wide as the lower jaw. It begins at the chin and is as high as
    the distance from nose to chin.
    """
    lo, hi = points.min(1, keepdims=True), points.max(1, keepdims=True)
    margin = 0.04 * (hi - lo)[:, 0]
    boxes = {}
    for name, part in (("mouth", LIPS), ("eyes", EYES)):
        p = points[:, part]
        boxes[name] = np.concatenate([p.min(1) - margin, p.max(1) + margin], 1)
    chin, nose = points[:, CHIN, 1], points[:, NOSE, 1]
    boxes["neck"] = np.stack([points[:, 4, 0], chin, points[:, 12, 0], 2 * chin - nose], 1)
    return {k: np.clip(np.round(b * size), 0, size).astype(int) for k, b in boxes.items()}


def by_region(
    frames: np.ndarray, reference: np.ndarray, points: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """PSNR in dB and SSIM of each frame by region: {region: {"psnr" or "ssim": (T,)}}.

    The regions are "whole", the whole frame, and the boxes of `region_boxes`.

    Args:
        frames, reference: (T, S, S, 3) uint8.
        points: (T, 68, 2) of the reference, in units of the image's side.

    A region's SSIM is the mean of the whole frame's SSIM map in the region.
    """
    batches = zip(*_similarity(frames, reference), strict=True)
    values, maps = (torch.cat(x).numpy() for x in batches)
    found = {"whole": dict(psnr=psnr(frames, reference), ssim=values)}
    for name, boxes in region_boxes(points, frames.shape[1]).items():
        found[name] = dict(psnr=box_psnr(frames, reference, boxes), ssim=box_means(maps, boxes))
    return found


def box_psnr(frames: np.ndarray, reference: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """PSNR in dB of each frame in its box: frames, reference (T, S, S, 3) uint8 -> (T,).

    boxes: (T, 4) of `region_boxes`. At most 100 dB.
    """
    error = torch.cat([(a - b).square().mean(1) for a, b in _pairs(frames, reference)])
    return -10 * np.log10(np.maximum(box_means(error.numpy(), boxes), 1e-10))  # of (T, S, S)


def box_means(maps: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The mean of each map (T, S, S) in its box (T, 4) of `region_boxes`: (T,).

    A box is enlarged to at least one pixel.
    """
    corners = [(slice(y0, max(y1, y0 + 1)), slice(x0, max(x1, x0 + 1))) for x0, y0, x1, y1 in boxes]
    return np.array([x[corner].mean() for x, corner in zip(maps, corners, strict=True)])


def seam(frames: np.ndarray, reference: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Brightness step across the jaw that the real video does not have.

    If head and torso are rendered separately and do not meet, background or skin shows between them
    (section 4.2, figure 5). Strips on both sides of the jaw, each a tenth of the distance from nose
    to chin wide, are compared: mean grey inside minus mean grey outside, generated minus real.

    Args:
        frames, reference: (T, S, S, 3) uint8.
        points: (T, 68, 2) of the reference, in units of the image's side.

    Returns (T,), the root mean square over the 11 points of the lower jaw, in grey levels of 255.
    """
    out, S = np.empty(len(frames)), frames.shape[1]
    for t, p in enumerate(points * S - 0.5):
        jaw, width = p[3:14], 0.1 * np.linalg.norm(p[CHIN] - p[NOSE])
        along = np.gradient(jaw, axis=0)
        normal = np.stack([-along[:, 1], along[:, 0]], 1)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        normal *= np.sign((normal * (p[NOSE] - jaw)).sum(1, keepdims=True))  # inwards
        steps = np.linspace(0.25, 1, 4) * width
        sides = [jaw[:, None] + sign * steps[:, None] * normal[:, None] for sign in (1, -1)]
        at = np.stack(sides).astype(np.float32)  # (2, 11, 4, 2): sides, jaw points, steps, xy
        strips = cv2.remap(
            (frames[t].mean(-1) - reference[t].mean(-1)).astype(np.float32),
            np.ascontiguousarray(at[..., 0].reshape(2, -1)),
            np.ascontiguousarray(at[..., 1].reshape(2, -1)),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        ).reshape(2, 11, 4)
        inside, outside = strips.mean(-1)  # (11,) each
        out[t] = np.sqrt(np.mean((inside - outside) ** 2))
    return out
