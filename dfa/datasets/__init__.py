"""Datasets: corpora of clips, the dataset folder of the AD-NeRF family, augmented voices."""

from .adnerf import AdNerf, as_video, is_adnerf, read_adnerf, read_sound
from .clips import Clip, find_clips
from .corpus import load_corpus, track_corpus
from .export import write_adnerf

__all__ = [
    "AdNerf",
    "Clip",
    "as_video",
    "find_clips",
    "is_adnerf",
    "load_corpus",
    "read_adnerf",
    "read_sound",
    "track_corpus",
    "write_adnerf",
]
