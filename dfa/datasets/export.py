"""Write a dataset folder of the AD-NeRF family from a video, without BFM, OpenFace or a parser."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from tqdm import tqdm

from ..media import InputError, iter_frames, read_voice, square, write_audio
from ..method.face import FOCAL
from ..method.tracking import _quiet
from ..recording import Attributes, training_frames
from .adnerf import ORIGIN, camera_to_world, read_features, track_params
from .tracks import tracked

JPEG = [cv2.IMWRITE_JPEG_QUALITY, 97]
HEAD, NECK, TORSO, BACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)  # BGR, parsing/
BACKGROUND_FRAMES = 60  # frames from which bc.jpg is computed
MISSING = "missing: their scripts compute it from aud.wav, under the name that --asr_model needs"
README = """\
A dataset of the AD-NeRF family, made by `dfa export` from {video}:
{frames} frames of {size}x{size}, 25 a second.

Camera: as AD-NeRF's process_data.py writes it. transform_matrix maps camera to world (x right,
y up, looking along -z); the world is that of the head, the face looks along +z. Units are metres.
The origin is 3 cm below the middle of the eyeballs, about the position of BFM's mean. Use
near = {near:.2f} and far = {far:.2f} for AD-NeRF; scale 4, offset 0 and bound 1 (the defaults) for
RAD-NeRF and later methods.

ori_imgs/      the cropped frames, and 68 mediapipe landmarks at the iBUG points for each (.lms)
parsing/       person or background, from mediapipe's selfie segmentation; the jaw line separates
               head, neck and torso. Their face_parsing step gives finer masks
bc.jpg         median of the pixels that the person does not cover; where a pixel is always covered,
               the nearest uncovered one
gt_imgs/ com_imgs/ (the same) head_imgs/ torso_imgs/   cut out with parsing/, as their scripts do
aud.wav        16 kHz mono
au.csv         AU45_r is the lid closure from the eye-aspect ratio, 0 open to 2 closed: ER-NeRF and
               SyncTalk (--au45) clip it at 2. It is not an OpenFace intensity
track_params   .pt: euler, trans (decimetres), focal as theirs, without the BFM coefficients id and
               exp. .npz: all attributes that dfa tracked (`dfa.recording.Attributes`)
aud.npy        {aud}
Missing        bs.npy of SyncTalk, *_face.png of its --portrait
"""


def write_adnerf(
    video: str | Path,
    out: str | Path,
    *,
    size: int = 512,
    attributes: Attributes | None = None,
    aud: str | Path | None = None,
) -> int:
    """Write the dataset folder `out` of a video, completely or not at all.

    Args:
        size: side of the images in pixels, even, at least 64.
        attributes: of this video; None tracks it.
        aud: a .npy of DeepSpeech or similar features for aud.npy, usually (N, 16, 29). Without it
            the folder has no aud.npy.

    The files are written to a hidden folder beside `out`, so a run that was killed does not have to
    track again. Returns the number of frames. Raises InputError if a file cannot be read or
    written, or `out` exists and is not empty.
    """
    video, out = Path(video), Path(os.path.abspath(out))
    if size < 64 or size % 2:
        raise InputError("--size must be an even number of pixels, at least 64")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out} is there already: give the name of a new folder")
    features = None if aud is None else read_features(aud)
    audio = read_voice(video)
    work = out.with_name(f".{out.name}.part")
    try:
        for old in work.glob("*"):  # of a run that was killed, perhaps with another video
            if old.is_dir():
                shutil.rmtree(old)
            elif old.stem != "track_params":
                old.unlink()
        for name in ("ori_imgs", "gt_imgs", "com_imgs", "head_imgs", "torso_imgs", "parsing"):
            (work / name).mkdir(parents=True, exist_ok=True)
        if attributes is None:
            attributes = tracked(video, work / "track_params.npz")
        T = len(attributes)
        if features is not None and len(features) < 0.9 * T:
            raise InputError(
                f"{aud} has {len(features)} rows for {T} frames: it seems to be of another video"
            )
        _fill(work, video, attributes, size)
        write_audio(work / "aud.wav", audio)
        if features is not None:
            shutil.copyfile(aud, work / "aud.npy")
        text = README.format(
            video=video.name,
            frames=T,
            size=size,
            aud="copied from " + str(aud) if aud else MISSING,
            near=attributes.h[:, 5].mean() - 0.2,
            far=attributes.h[:, 5].mean() + 0.4,
        )
        (work / "README.txt").write_text(text)
        attributes.save(work / "track_params.npz")
        (work / "track_params.key").unlink(missing_ok=True)
        os.replace(work, out)
    except OSError as error:
        shutil.rmtree(work, ignore_errors=True)
        what = f"cannot write {out}: {error.strerror}"
        raise InputError(f"{what}; choose another folder or make room") from error
    except InputError:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return T


def _fill(work: Path, video: Path, attributes: Attributes, size: int) -> None:
    """Write all files that depend on the images and their attributes."""
    lands, M = attributes.points * size, camera_to_world(attributes.h)
    taken, covered = _write_frames(video, work, attributes.crop, lands, size)
    back = _background(taken, covered)
    _save(work / "bc.jpg", back, JPEG)
    for i in tqdm(range(len(lands)), desc="cutting out", unit=" frames", mininterval=1.0):
        _cut_out(work, i, back)
    rows = [f"{i}, {2 * lid:.3f}\n" for i, lid in enumerate(_closure(attributes.ear), 1)]
    (work / "au.csv").write_text("frame, AU45_r\n" + "".join(rows))  # with spaces, as OpenFace
    torch.save(track_params(M, FOCAL * size), work / "track_params.pt")
    _write_transforms(work, M, lands, size)


def _save(path: Path, image: np.ndarray, options: list[int] | None = None) -> bytes:
    """Write a BGR(A) image; returns the bytes of the file."""
    data = cv2.imencode(path.suffix, image, options or [])[1].tobytes()
    path.write_bytes(data)
    return data


def _write_frames(video, work, crop, lands, size) -> tuple[np.ndarray, np.ndarray]:
    """Write ori_imgs and parsing.

    Returns some frames (n, S, S, 3) BGR, and masks (n, S, S) of where the person covers them.
    """
    with _quiet():
        from mediapipe.python.solutions.selfie_segmentation import SelfieSegmentation

        person = SelfieSegmentation(model_selection=0)
        person.process(np.zeros((64, 64, 3), np.uint8))
    T, n, taken, covered = len(lands), 0, [], []
    some = set(np.linspace(0, T - 1, min(T, BACKGROUND_FRAMES)).round().astype(int).tolist())
    margin = np.ones((2 * (size // 100) + 1,) * 2, np.uint8)  # as theirs: 5 pixels of 512
    for n, image in enumerate(
        tqdm(iter_frames(video), total=T, desc="images", unit=" frames", mininterval=1.0), 1
    ):
        x0, y0, side = crop
        if n > T or x0 + side > image.shape[1] or y0 + side > image.shape[0]:
            break
        image = np.ascontiguousarray(square(image, crop, size))
        parts = parse(person.process(image).segmentation_mask > 0.5, lands[n - 1])
        bgr = image[..., ::-1]
        _save(work / "ori_imgs" / f"{n - 1}.jpg", bgr, JPEG)
        np.savetxt(work / "ori_imgs" / f"{n - 1}.lms", lands[n - 1], "%f")
        _save(work / "parsing" / f"{n - 1}.png", parts)
        if n - 1 in some:
            taken.append(bgr)
            covered.append(cv2.dilate((parts != BACK).any(-1).astype(np.uint8), margin) > 0)
    if n != T:
        raise InputError(f"{video} is not the video that was tracked ({T} frames): track it again")
    return np.stack(taken), np.stack(covered)


def parse(person: np.ndarray, lands: np.ndarray) -> np.ndarray:
    """Head, neck and torso of a person, in the colours of AD-NeRF's parsing: (S, S, 3) uint8 BGR.

    Args:
        person: (S, S) bool, mask of the person. lands: (68, 2) landmarks in pixels.

    Above the jaw line (beside the jaw: above the corners of the mouth) is the head, a strip below
    it is the neck, the rest is the torso. This is a rough replacement of a face parser, and wrong
    for long hair.
    """
    size = len(person)
    y, x = np.mgrid[:size, :size] + 0.5
    jaw = lands[np.argsort(lands[:17, 0])]
    line = np.maximum(
        np.interp(x[0], jaw[:, 0], jaw[:, 1], left=0, right=0),
        np.interp(x[0], lands[[4, 12], 0], lands[[4, 12], 1]),
    )
    face = cv2.fillPoly(np.zeros((size, size), np.uint8),
                        [cv2.convexHull(lands[:27].round().astype(np.int32))], 1) > 0  # fmt: skip
    person, face_height = person | face, lands[8, 1] - lands[27, 1]
    head = person & (y < line)
    middle, half = lands[[4, 12], 0].mean(), 0.5 * np.ptp(lands[[4, 12], 0])
    neck = person & ~head & (abs(x - middle) < half) & (y < lands[8, 1] + 0.4 * face_height)
    parts = np.full((size, size, 3), BACK, np.uint8)
    parts[person], parts[head], parts[neck] = TORSO, HEAD, NECK
    return parts


def _background(images: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """The background (S, S, 3) uint8: the median of each pixel's uncovered values.

    A pixel that is always covered gets the value of the nearest other pixel. images (n, S, S, 3),
    covered (n, S, S) bool.
    """
    n_free = (~covered).sum(0)
    # covered values become 256, so they sort after all colours
    ordered = np.sort(np.where(covered[..., None], 256, images.astype(np.int16)), axis=0)
    middle = np.maximum(n_free - 1, 0)[None, ..., None] // 2
    back = np.take_along_axis(ordered, middle, 0)[0]
    if not n_free.any():
        return np.full(back.shape, 128, np.uint8)
    nearest = distance_transform_edt(n_free == 0, return_distances=False, return_indices=True)
    return back[tuple(nearest)].astype(np.uint8)


def _cut_out(work: Path, i: int, back: np.ndarray) -> None:
    """Write gt_imgs (the person before bc.jpg), com_imgs (the same), head_imgs and torso_imgs."""
    image = cv2.imread(str(work / "ori_imgs" / f"{i}.jpg"))
    parts = cv2.imread(str(work / "parsing" / f"{i}.png"))
    head, neck, torso, free = ((parts == c).all(-1) for c in (HEAD, NECK, TORSO, BACK))
    image[free] = back[free]
    data = _save(work / "gt_imgs" / f"{i}.jpg", image, JPEG)
    (work / "com_imgs" / f"{i}.jpg").write_bytes(data)
    _save(work / "head_imgs" / f"{i}.jpg", np.where(head[..., None], image, back), JPEG)
    # The neck is hidden behind the chin. Continue it upwards, increasingly dark, to fill the gaps
    # that the head's own field leaves.
    shown, has_neck = neck | torso, neck.any(0)
    x = np.flatnonzero(has_neck)
    top = neck.argmax(0)[x]
    for k in range(1, len(image) // 10):
        y = np.maximum(top - k, 0)
        into = head[y, x]
        image[y[into], x[into]] = (image[top[into], x[into]] * 0.98**k).astype(np.uint8)
        shown[y[into], x[into]] = True
    alpha = 255 * shown[..., None].astype(np.uint8)
    _save(work / "torso_imgs" / f"{i}.png", np.concatenate([image * shown[..., None], alpha], -1))


def _closure(ear: np.ndarray) -> np.ndarray:
    """How far the lids are closed, (T,) in 0..1, from the eye-aspect ratio (T,).

    A closed eye's ratio is about 0.3 of its open one.
    """
    open_level = np.percentile(ear, 75)
    return np.clip((open_level - ear) / (0.7 * open_level), 0, 1)


def _write_transforms(work: Path, M: np.ndarray, lands: np.ndarray, size: int) -> None:
    """Write transforms_{train,val}.json: cameras M (T, 4, 4), landmarks (T, 68, 2) in pixels."""
    T = len(M)
    # Our own data is a key in these files, which their loaders ignore: they would read another
    # .json as a split.
    camera = dict(focal_len=FOCAL * size, cx=size / 2, cy=size / 2, w=size, h=size)
    ours = dict(metres_per_unit=1.0, origin=ORIGIN.tolist())
    for split, ids in (("train", range(training_frames(T))), ("val", range(training_frames(T), T))):
        frames = [
            dict(img_id=i, aud_id=i, transform_matrix=M[i].tolist(),
                 face_rect=_face_rect(lands[i], size))
            for i in ids
        ]  # fmt: skip
        text = json.dumps(camera | dict(dfa=ours, frames=frames), indent=1)
        (work / f"transforms_{split}.json").write_text(text)


def _face_rect(lands: np.ndarray, size: int) -> list[int]:
    """The face's box x, y, w, h in pixels, in which AD-NeRF samples more rays."""
    left, right = lands[:, 0].min(), lands[:, 0].max()
    cx, cy = int((left + right) / 2), int(lands[27, 1])
    w, h = int((right - cx) * 1.5), int((lands[8, 1] - cy) * 1.15)
    x, y = max(cx - w, 0), max(cy - h, 0)
    return [x, y, min(size - 1 - x, 2 * w), min(size - 1 - y, 2 * h)]
