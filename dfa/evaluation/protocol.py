"""The evaluation protocol (section 4.1): a generated video is compared with the real one."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from ..media import InputError, frames_of, iter_frames, read_audio
from ..method.tracking import face_points, track
from .expert import SyncExpert, video_confidence
from .metrics import METRICS, MeasuredVideo
from .motion import blink_rates, blink_threshold
from .statistics import estimate
from .syncnet import SyncNet


def measure(
    frames: np.ndarray,
    audio: np.ndarray,
    expert: SyncExpert | SyncNet,
    *,
    reference: np.ndarray | None = None,
    reference_points: np.ndarray | None = None,
    threshold: float | None = None,
) -> pd.DataFrame:
    """All metrics of a video, as rows: metric, value, ci_low, ci_high, n (clips of 5 s).

    Blinks are counted in clips of 1.2 s, because a generated sentence lasts about 10 s.
    The arguments are those of `metrics.MeasuredVideo`. A metric has no row if an argument that it
    needs is missing. With the official SyncNet there is one more row, `sync_video`: the confidence
    of the whole video, as papers report it.
    """
    points, ear = face_points(frames)
    video = MeasuredVideo(
        frames, audio, points, ear, expert, reference, reference_points, threshold
    )
    rows = [
        dict(metric=name) | estimate(metric.of(video))
        for name, metric in METRICS.items()
        if metric.of and all(getattr(video, need) is not None for need in metric.needs)
    ]
    if isinstance(expert, SyncNet) and video.distances is not None:
        value, low, high = video_confidence(video.distances)
        n = next(row["n"] for row in rows if row["metric"] == "sync")
        rows.append(dict(metric="sync_video", value=value, ci_low=low, ci_high=high, n=n))
    return pd.DataFrame(rows)


class Reference:
    """A real video, tracked once, with which any number of generated videos are compared.

    It is cropped to the face by `track` and resized to the generated video. The comparison covers
    the length that both have.

    Raises InputError if the video cannot be read or shows no face.
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self.attributes = path, track(path)
        self.threshold = blink_threshold(self.attributes.ear)

    def score(self, made: str | Path, expert: SyncExpert | SyncNet) -> pd.DataFrame:
        """`measure` of a generated video of the same person and speech.

        Raises InputError if it is not square.
        """
        height, width = next(iter_frames(made)).shape[:2]
        if height != width:
            raise InputError(
                f"{made} is {width}x{height}: give a square video, as `dfa speak` writes it"
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
        """`measure` of the real video itself: the row Ground Truth. PSNR is nan (infinite)."""
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
        """Two rows on the eyes of a video: `blinks_per_s` and `least_open`.

        `least_open` says how far the eyes close: the 1st percentile of the eye-aspect ratio divided
        by its median.
        """
        ear = _eye_aspect_ratio(Path(made), Path(made).stat().st_mtime_ns)
        tracked = ear[np.isfinite(ear)]
        shut = np.percentile(tracked, 1) / np.median(tracked) if len(tracked) else np.nan
        rows = [dict(metric="blinks_per_s") | estimate(blink_rates(ear, self.threshold))]
        return pd.DataFrame([*rows, dict(metric="least_open", value=shut, n=1)])

    def frames(self, size: int) -> np.ndarray:
        """The real video's frames, cropped and resized: (T, size, size, 3) uint8."""
        return frames_of(self.path, self.attributes.crop, size, len(self.attributes))


@cache  # two tables of the comparison need the same videos
def _eye_aspect_ratio(video: Path, changed: int) -> np.ndarray:
    """The eye-aspect ratio (T,) of a square video; `changed` is its time, for the cache."""
    return face_points(frames_of(video, None, next(iter_frames(video)).shape[0]))[1]


def score(made: str | Path, reference: str | Path, expert: SyncExpert | SyncNet) -> pd.DataFrame:
    """The rows of `dfa score`: `measure` of a generated video, compared with the real one.

    Raises InputError as `Reference` and `Reference.score` do.
    """
    return Reference(reference).score(made, expert)
