"""The evaluation protocol (section 4.1): PSNR, SSIM, LMD, Sync confidence, blinks per second."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from .audio import mfcc
from .media import FPS, InputError, frames_of, iter_frames, read_audio
from .sync import MAX_OFFSET, SyncExpert, confidence, mouth_crops, offset_distances
from .syncnet import SyncNet, face_crops, sound_features

METRICS = ("psnr", "ssim", "lmd", "sync", "blinks_per_s")


def psnr(frames: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of each frame; (T, S, S, 3) uint8 both, returns (T,)."""
    a, b = _tensors(frames, reference)
    # an exact copy is at infinity; 100 dB stands for it
    return (
        peak_signal_noise_ratio(a, b, data_range=1.0, dim=(1, 2, 3), reduction="none")
        .clamp_max(100)
        .numpy()
    )


def ssim(frames: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Structural similarity of each frame; (T, S, S, 3) uint8 both, returns (T,)."""
    return torch.cat([v for v, _ in _similarity(*_tensors(frames, reference))]).numpy()


def _similarity(a: torch.Tensor, b: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """SSIM of (T, 3, S, S) pictures in 0..1, 64 at a time: of each (n,), and its map (n, S, S)."""
    for x, y in zip(a.split(64), b.split(64), strict=True):
        values, maps = structural_similarity_index_measure(
            x, y, data_range=1.0, reduction="none", return_full_image=True
        )
        yield values.reshape(-1), maps.mean(1)


REGIONS = ("whole", "mouth", "eyes", "neck")


def region_boxes(points: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """Boxes (T, 4) of x0, y0, x1, y1 in pixels around mouth, eyes and neck of (T, 68, 2) points.

    The neck's reaches from the chin down as far as the nose stands above it, within the jaw: there
    head and torso meet.
    """
    lo, hi = points.min(1, keepdims=True), points.max(1, keepdims=True)
    margin = 0.04 * (hi - lo)[:, 0]
    boxes = {}
    for name, part in (("mouth", slice(48, 68)), ("eyes", slice(36, 48))):
        p = points[:, part]
        boxes[name] = np.concatenate([p.min(1) - margin, p.max(1) + margin], 1)
    chin, nose = points[:, 8, 1], points[:, 33, 1]
    boxes["neck"] = np.stack([points[:, 4, 0], chin, points[:, 12, 0], 2 * chin - nose], 1)
    return {k: np.clip(np.round(b * size), 0, size).astype(int) for k, b in boxes.items()}


def by_region(
    frames: np.ndarray, reference: np.ndarray, points: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """PSNR in dB and SSIM of each frame (T,) within each of `REGIONS`: {region: {metric: (T,)}}.

    frames, reference (T, S, S, 3) uint8; points (T, 68, 2) of the reference in unit coordinates.
    A region's SSIM is the mean of the whole frame's map within it.
    """
    a, b = _tensors(frames, reference)
    error = (a - b).square().mean(1).numpy()
    values, maps = (torch.cat(x).numpy() for x in zip(*_similarity(a, b), strict=True))
    found = {"whole": dict(psnr=psnr(frames, reference), ssim=values)}
    for name, boxes in region_boxes(points, frames.shape[1]).items():
        mse = np.maximum(within(error, boxes), 1e-10)
        found[name] = dict(psnr=-10 * np.log10(mse), ssim=within(maps, boxes))
    return found


def within(maps: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The means (T,) of maps (T, S, S) in boxes (T, 4) of `region_boxes`, a pixel wide at least."""
    corners = [(slice(y0, max(y1, y0 + 1)), slice(x0, max(x1, x0 + 1))) for x0, y0, x1, y1 in boxes]
    return np.array([x[corner].mean() for x, corner in zip(maps, corners, strict=True)])


def over_clips(values: np.ndarray) -> dict[str, float]:
    """The columns value, ci_low, ci_high and n of a table, from a value a frame (T,): mean and
    interval over clips of 1.2 s."""
    means = [c.mean() for c in clips(values)]
    return _named(interval(means)) | dict(n=len(means))


def _tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [
        torch.from_numpy(np.ascontiguousarray(x)).permute(0, 3, 1, 2).float() / 255 for x in arrays
    ]


def lmd(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Landmark distance of the mouth (Chen et al. 2018), in pixels of a 256-pixel frame.

    (T, 68, 2) tracked points in unit coordinates, both from one tracker; the 20 mouth points less
    their centroid, so that the head's place does not count. Returns (T,), nan where untracked.
    """
    a, b = (p[:, 48:68] - p[:, 48:68].mean(1, keepdims=True) for p in (points, reference))
    return np.linalg.norm(a - b, axis=-1).mean(-1) * 256


def mouth_opening(points: np.ndarray) -> np.ndarray:
    """Inner-lip opening of each frame as a share of the clip's median inter-ocular distance.

    (T, 68, 2) or (T, 68, 3) points; the mean distance of the three pairs of inner lip points that
    face each other, between eye centres counted as 1. Returns (T,), nan where untracked.
    """
    points = np.asarray(points, float)
    opening = np.linalg.norm(points[:, 61:64] - points[:, [67, 66, 65]], axis=-1).mean(1)
    eyes = np.linalg.norm(points[:, 36:42].mean(1) - points[:, 42:48].mean(1), axis=-1)
    eyes = eyes[np.isfinite(eyes)]
    # the clip's size, not the frame's: an opening must not pulse with the eyes' noise
    return opening / (np.median(eyes) if len(eyes) else np.nan)


def lip_motion(
    points: np.ndarray, reference: np.ndarray, quiet: np.ndarray, vowel: np.ndarray
) -> dict[str, float]:
    """Do the lips of a made video open as those of the real one, and keep still where these do?

    Args:
        points, reference: (T, 68, 2) of the made and the real video, unit coordinates, one tracker.
        quiet, vowel: (T,) bool, frames of silence and of held vowels.

    Returns `opening_corr` (Pearson) and `opening_slope` (least squares, made on real) of the
    `mouth_opening`; `silent_opening`, its mean over quiet; `jitter_silence` and `jitter_vowel`:
    root mean square, per coordinate in pixels of a 256-pixel frame, of the second difference in
    time of the 20 mouth points less their centroid, over frames that lie in the mask with both
    neighbours. The same three of the real video end in `_real`. nan where nothing can be measured.
    """
    made, real = mouth_opening(points), mouth_opening(reference)
    both = np.isfinite(made) & np.isfinite(real)
    (variance, covariance), (_, made_variance) = (
        np.cov(real[both], made[both]) if both.sum() > 1 else np.full((2, 2), np.nan)
    )
    spread, moves = np.sqrt(variance * made_variance), 1e-12  # below it, rounding
    values = dict(
        opening_corr=covariance / spread if spread > moves else np.nan,
        opening_slope=covariance / variance if variance > moves else np.nan,
    )
    for p, opening, suffix in ((points, made, ""), (reference, real, "_real")):
        values["silent_opening" + suffix] = _finite_mean(opening[quiet])
        lips = (p[:, 48:68] - p[:, 48:68].mean(1, keepdims=True)) * 256
        jerk = (np.diff(lips, 2, axis=0) ** 2).mean((1, 2))  # (T - 2,)
        for name, mask in (("silence", quiet), ("vowel", vowel)):
            inside = mask[:-2] & mask[1:-1] & mask[2:]
            values[f"jitter_{name}{suffix}"] = np.sqrt(_finite_mean(jerk[inside]))
    return {name: float(value) for name, value in values.items()}


def _finite_mean(x: np.ndarray) -> float:
    x = x[np.isfinite(x)]
    return float(x.mean()) if len(x) else float("nan")


def blink_threshold(ear: np.ndarray) -> float:
    """The eye-aspect ratio below which this subject's eyes count as shut: half way between open
    (median) and shut (lowest percent), and at most 3/4 of open for someone who never blinks."""
    ear = ear[np.isfinite(ear)]
    return float(min((np.median(ear) + np.percentile(ear, 1)) / 2, 0.75 * np.median(ear)))


def blink_onsets(ear: np.ndarray, threshold: float) -> np.ndarray:
    """Frames at which a blink begins. Dips one frame apart are one blink."""
    shut = np.nan_to_num(ear, nan=np.inf) < threshold
    shut[1:-1] |= shut[:-2] & shut[2:]
    return np.flatnonzero(shut & ~np.concatenate([[False], shut[:-1]]))


@torch.inference_mode()
def sync_distances(
    expert: SyncExpert | SyncNet, frames: np.ndarray, points: np.ndarray, audio: np.ndarray
) -> torch.Tensor:
    """The expert's distances over the offsets -15..15 for each 5 frames, (T - 4, 31).

    frames (T, S, S, 3) uint8, points (T, 68, 2) in unit coordinates (gaps are bridged), audio (n,).
    """
    points = (
        pd.DataFrame(points.reshape(len(points), -1)).interpolate(limit_direction="both").to_numpy()
    )
    if not np.isfinite(points).all():
        return torch.full((len(frames) - 4, 31), float("nan"))
    points = points.reshape(-1, 68, 2)
    if isinstance(expert, SyncNet):
        crops, sound = face_crops(frames, points), sound_features(audio, len(frames))
        step = 8  # windows at a time: 0.1 GB
    else:
        crops, sound = mouth_crops(frames, points), torch.from_numpy(mfcc(audio, len(frames)))
        step = 100
    v = [expert.video(crops[i : i + step + 4]) for i in range(0, len(crops) - 4, step)]
    return offset_distances(torch.cat(v), expert.audio(sound))


def video_confidence(distances: torch.Tensor) -> tuple[float, float, float]:
    """SyncNet's confidence of a whole video, as papers give it, from its (T, 31) distances.

    It is mostly lower than the mean over clips, each of which has its own best offset. The 95 %
    interval is over clips too, at the whole video's offset: a minimum of each would be biased.
    """
    value, offset = confidence(distances)
    curves = [c.nanmean(0) for c in clips(distances)]
    at_offset = [float(c.nanmedian() - c[MAX_OFFSET + offset]) for c in curves]
    return value, *interval(np.array(at_offset))[1:]


def interval(values: np.ndarray, seed: int = 0, n: int = 2000) -> tuple[float, float, float]:
    """Mean and 95 % bootstrap interval over clips (the frames of a clip are not independent).

    values (clips,), or (seeds, clips): then seeds are drawn again too. nan is left out.
    """
    values = np.atleast_2d(np.asarray(values, float))
    values = values[:, np.isfinite(values).any(0)]
    if not values.size:
        return (float("nan"),) * 3
    rng, (S, C) = np.random.default_rng(seed), values.shape
    columns, rows = rng.integers(C, size=(n, 1, C)), rng.integers(S, size=(n, S, 1))
    draws = np.nanmean(values[rows, columns], (1, 2))
    return float(np.nanmean(values)), *map(float, np.nanpercentile(draws, [2.5, 97.5]))


def difference(values: np.ndarray, seed: int = 0) -> str:
    """`interval` of paired differences (clips,) or (seeds, clips), in words: marked * where it
    leaves out zero."""
    value, low, high = interval(values, seed)
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]{' *' if low > 0 or high < 0 else ''}"


def clips(x: np.ndarray, seconds: float = 1.2) -> list[np.ndarray]:
    """Cut per-frame values (T, ...) in whole clips; one shorter one if there is no whole one."""
    n = int(seconds * FPS)
    return [x[i : i + n] for i in range(0, len(x) - n + 1, n)] or [x]


def blink_matches(onsets: np.ndarray, others: np.ndarray, within: int = 6) -> np.ndarray:
    """(n,) bool: which of `onsets` have one of `others` within so many frames."""
    if not len(others):
        return np.zeros(len(onsets), bool)
    return np.abs(np.subtract.outer(onsets, others)).min(1) <= within


def tracking_errors(
    h: np.ndarray, opening: np.ndarray, ear: np.ndarray, truth: dict[str, np.ndarray]
) -> pd.DataFrame:
    """Tracked pose (T, 6), mouth opening (T,) and eye-aspect ratio (T,) against a capture's truth.

    A constant per angle and coordinate is taken out first: the tracker knows neither the actor's
    size nor where its head's origin lies. Rows: metric, value, ci_low, ci_high, n. Degrees and
    millimetres are mean absolute errors; rotation_deg and translation_mm are means over the three.
    mouth_corr is the correlation with the action jawOpen. A blink's recall asks for every closure
    beyond 3/4, its precision lets half blinks count. jitter_deg is the error of the step
    from frame to frame (root mean square over the angles) in the quarter of the frames in which the
    head moves least.
    """
    T = len(h)
    real = truth["h"][:T].astype(float)
    error = h - real
    error = np.abs(error - np.median(error, 0)) * np.r_[np.full(3, 180 / np.pi), np.full(3, 1e3)]
    per_frame = dict(zip(("pitch_deg", "yaw_deg", "roll_deg"), error[:, :3].T, strict=True))
    per_frame |= {"rotation_deg": error[:, :3].mean(1), "translation_mm": error[:, 3:].mean(1)}
    values = {m: np.array([c.mean() for c in clips(e)]) for m, e in per_frame.items()}

    step = np.diff(real[:, :3], axis=0)
    off = np.degrees(np.diff(h[:, :3], axis=0) - step)
    slow = np.linalg.norm(step, axis=1)
    slow = slow <= np.percentile(slow, 25)
    values["jitter_deg"] = np.sqrt((off[slow] ** 2).mean(1))

    lid = truth["blink"][:T].astype(float)
    shut, half = (blink_onsets(1 - lid, 1 - x) for x in (0.75, 0.25))
    found = blink_onsets(ear, blink_threshold(ear))
    values["blink_recall"] = blink_matches(shut, found).astype(float)
    values["blink_precision"] = blink_matches(found, half).astype(float)
    rows = [dict(metric=m, n=len(v)) | _named(interval(v)) for m, v in values.items()]

    jaw = truth["actions"][:T, list(truth["action_names"]).index("jawOpen")].astype(float)
    pairs = clips(np.stack([opening, jaw], 1))
    rng = np.random.default_rng(0)
    draws = [
        np.corrcoef(np.concatenate([pairs[i] for i in rng.integers(len(pairs), size=len(pairs))]).T)
        for _ in range(500)
    ]
    low, high = np.percentile([d[0, 1] for d in draws], [2.5, 97.5])
    corr = float(np.corrcoef(opening, jaw)[0, 1])
    rows.append(dict(metric="mouth_corr", value=corr, ci_low=low, ci_high=high, n=len(pairs)))
    return pd.DataFrame(rows)


def _named(estimate: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("value", "ci_low", "ci_high"), estimate, strict=True))


def _row(metric: str, values: list[float]) -> dict:
    """A row of `measure` from a value a clip."""
    n = int(np.isfinite(values).sum())
    return dict(metric=metric, n=n) | _named(interval(np.array(values)))


def _blink_rates(ear: np.ndarray, threshold: float) -> list[float]:
    """Blinks/s in each clip; nan where no face was found at all."""
    if not np.isfinite(ear).any():
        return [np.nan]
    onsets = np.zeros(len(ear))
    onsets[blink_onsets(ear, threshold)] = 1
    return [c.mean() * FPS for c in clips(onsets)]


def measure(
    frames: np.ndarray,
    audio: np.ndarray,
    expert: SyncExpert | SyncNet,
    *,
    reference: np.ndarray | None = None,
    reference_points: np.ndarray | None = None,
    threshold: float | None = None,
) -> pd.DataFrame:
    """Every metric of a video, as rows: metric, value, ci_low, ci_high, n (clips of 1.2 s).

    The official SyncNet gives one row more, `sync_video`: the figure of papers.

    Args:
        frames: (T, S, S, 3) uint8. audio: (n,) what it speaks.
        reference: same shape, for PSNR and SSIM. reference_points: (T, 68, 2), for LMD.
        threshold: the subject's `blink_threshold`; by default the video's own.
    """
    from .tracking import face_points

    points, ear = face_points(frames)
    by_clip: dict[str, list[float]] = {}
    if reference is not None:
        by_clip["psnr"] = [c.mean() for c in clips(psnr(frames, reference))]
        by_clip["ssim"] = [c.mean() for c in clips(ssim(frames, reference))]
    if reference_points is not None:
        by_clip["lmd"] = [
            np.nanmean(c) if np.isfinite(c).any() else np.nan
            for c in clips(lmd(points, reference_points))
        ]
    if len(frames) > 2 * 15 + 5:
        distances = sync_distances(expert, frames, points, audio)
        by_clip["sync"] = [confidence(torch.as_tensor(c))[0] for c in clips(distances)]
    shut = blink_threshold(ear) if threshold is None else threshold
    by_clip["blinks_per_s"] = _blink_rates(ear, shut)
    rows = [_row(metric, values) for metric, values in by_clip.items()]
    if isinstance(expert, SyncNet) and "sync" in by_clip:
        n = int(np.isfinite(by_clip["sync"]).sum())
        rows.append(dict(metric="sync_video", n=n) | _named(video_confidence(distances)))
    return pd.DataFrame(rows)


class Reference:
    """A real video, tracked once, that any number of made ones are scored against.

    It is cropped to the face as `track` does it, and brought to the size of the made one; both are
    compared over their common length.
    """

    def __init__(self, path: str | Path) -> None:
        from .tracking import track

        self.path, self.attributes = path, track(path)
        self.threshold = blink_threshold(self.attributes.ear)

    def score(self, made: str | Path, expert: SyncExpert | SyncNet) -> pd.DataFrame:
        """`measure` of a made video of the same person and speech; InputError if not square."""
        height, width = next(iter_frames(made)).shape[:2]
        if height != width:
            raise InputError(
                f"{made} is {width}x{height}: give a square video, such as `dfa speak` makes"
            )
        frames, truth = frames_of(made, None, width), self.frames(width)
        T = min(len(frames), len(truth))
        return measure(
            frames[:T],
            read_audio(made),
            expert,
            reference=truth[:T],
            reference_points=self.attributes.points[:T],
            threshold=self.threshold,
        )

    def own_score(self, expert: SyncExpert | SyncNet) -> pd.DataFrame:
        """`measure` of the real video itself, without PSNR: the ground truth's row."""
        frames = self.frames(min(int(self.attributes.crop[2]), 512))
        rows = measure(
            frames,
            read_audio(self.path),
            expert,
            reference=frames,
            reference_points=self.attributes.points,
            threshold=self.threshold,
        )
        rows.loc[rows.metric == "psnr", ["value", "ci_low", "ci_high"]] = np.nan
        return rows

    def eyes(self, made: str | Path) -> pd.DataFrame:
        """Of a video with eyes of its own: the blinks/s row of `measure`, and how far they shut,
        `least_open`: the lowest percent of the eye-aspect ratio as a share of its median."""
        ear = _eye_aspect_ratio(Path(made), Path(made).stat().st_mtime_ns)
        seen = ear[np.isfinite(ear)]
        shut = np.percentile(seen, 1) / np.median(seen) if len(seen) else np.nan
        rows = [_row("blinks_per_s", _blink_rates(ear, self.threshold))]
        return pd.DataFrame([*rows, dict(metric="least_open", value=shut, n=1)])

    def frames(self, size: int) -> np.ndarray:
        """Its frames at this size, (T, size, size, 3) uint8."""
        return frames_of(self.path, self.attributes.crop, size, len(self.attributes))


@cache  # two tables of the comparison ask for the same videos
def _eye_aspect_ratio(video: Path, changed: int) -> np.ndarray:
    """Of a square video's frames, (T,)."""
    from .tracking import face_points

    return face_points(frames_of(video, None, next(iter_frames(video)).shape[0]))[1]


def score(made: str | Path, reference: str | Path, expert: SyncExpert | SyncNet) -> pd.DataFrame:
    """`measure` of a made video against the real one: the rows of `dfa score`."""
    return Reference(reference).score(made, expert)


def seam(frames: np.ndarray, reference: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A step across the jaw that the real video has not, in grey levels of 255, of each frame (T,).

    frames, reference (T, S, S, 3) uint8; points (T, 68, 2) of the reference. Along the jaw from
    corner to corner, the mean grey of a strip inside (a tenth of the distance from nose to chin
    wide) less that of the strip outside, made less real; the root mean square over 11 pieces. Where
    a head and a torso were rendered apart and do not meet, background or skin shows between.
    """
    import cv2

    out, S = np.empty(len(frames)), frames.shape[1]
    grey = (frames.mean(-1) - reference.mean(-1)).astype(np.float32)
    for t, p in enumerate(points * S - 0.5):
        jaw, width = p[3:14], 0.1 * np.linalg.norm(p[8] - p[33])
        along = np.gradient(jaw, axis=0)
        normal = np.stack([-along[:, 1], along[:, 0]], 1)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        normal *= np.sign((normal * (p[33] - jaw)).sum(1, keepdims=True))  # inwards
        steps = np.linspace(0.25, 1, 4) * width
        sides = [jaw[:, None] + way * steps[:, None] * normal[:, None] for way in (1, -1)]
        at = np.stack(sides).astype(np.float32)  # (2, 11, 4, 2)
        seen = cv2.remap(
            grey[t],
            np.ascontiguousarray(at[..., 0].reshape(2, -1)),
            np.ascontiguousarray(at[..., 1].reshape(2, -1)),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        ).reshape(2, 11, 4)
        inside, outside = seen.mean(-1)
        out[t] = np.sqrt(np.mean((inside - outside) ** 2))
    return out
