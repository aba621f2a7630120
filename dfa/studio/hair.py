"""Hair: a cap over the scalp, strands as ribbons, and for long cuts a curtain that hangs down.

All of it is rigid with the head. Angles about the head's axis are 0 in front, 180 degrees behind.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import identity

from dfa.studio.actors import Actor, Surface, clip

AXIS_Z = 0.085  # of the head's vertical axis, behind the eyes (template)
# The hairline: height above the eyes (metres) by angle; the ear's arch lies at 70 to 110 degrees.
ANGLES = np.array([0, 25, 45, 55, 64, 72, 84, 92, 105, 118, 150, 180])
HEIGHTS = np.array([72, 74, 62, 45, 10, -20, -8, 14, 0, -30, -68, -74]) / 1000
# The nearest that hanging hair comes to the front, by height above the eyes.
WINDOW_HEIGHTS = np.array([-0.16, -0.03, 0.01, 0.045, 0.062, 0.074])
WINDOW_ANGLES = np.array([66, 62, 58, 52, 44, 0])


@dataclass(frozen=True)
class Tuft:
    """A mesh of hair in canonical space; `open` (n,) is how much light gets to each point."""

    points: np.ndarray
    triangles: np.ndarray
    normals: np.ndarray
    tangents: np.ndarray
    albedo: np.ndarray
    open: np.ndarray


def unit(v: np.ndarray) -> np.ndarray:
    return v / (np.linalg.norm(v, axis=-1, keepdims=True) + 1e-12)


def ramp(a: float, b: float, x: np.ndarray) -> np.ndarray:
    return np.clip((x - a) / (b - a), 0, 1)


def angle(points: np.ndarray, axis_z: float = AXIS_Z) -> np.ndarray:
    """(n,) degrees about the head's axis, 0 in front, the same on both sides."""
    return np.degrees(np.arctan2(np.abs(points[..., 0]), axis_z - points[..., 2]))


def above_hairline(rest: np.ndarray, look: dict) -> np.ndarray:
    """(n,) metres by which points of the template lie above the hairline (below: negative)."""
    turn = angle(rest)
    recede = look.get("recede", 0) * ramp(75, 35, turn)
    return -rest[..., 1] - np.interp(turn, ANGLES, HEIGHTS) - recede


def grow(actor: Actor, skin: Surface, neutral, n, ears: np.ndarray) -> list[Tuft]:
    """The tufts of an actor's cut, on the skin's neutral points (n, 3) with normals.

    ears: (n,) where the ears are; no hair grows there.
    """
    look = actor.look["hair"]
    rng = np.random.default_rng(actor.look["seed"])
    if look["cut"] == "bald":
        return []
    tone = (np.asarray(look["colour"], float) / 255) ** 2.2
    inside = np.where(ears > 0.2, -1, above_hairline(skin.rest, look))
    tufts = [cap(skin, neutral, n, inside, look, tone, rng)]
    if look["cut"] == "bob":
        tufts += hanging(skin, neutral, inside, look, tone, rng)
    else:
        tufts.append(short(skin, neutral, n, inside, look, tone, rng))
    return tufts


def cap(skin, neutral, n, inside, look, tone, rng) -> Tuft:
    """The scalp, pushed outwards by the hair's thickness, with streaks along the combing."""
    edge = inside + 0.0012 * np.sin(neutral[:, 0] * 900) * np.sin(neutral[:, 1] * 700)
    weights, triangles = clip(replace(skin, weights=identity(len(n), format="csr")), edge)
    p, out, deep = weights @ neutral, unit(weights @ n), weights @ inside
    lift = 0.0006 + look["thickness"] * ramp(0, 0.022, deep) ** 0.7
    p = p + lift[:, None] * out
    streak = np.sin(np.arctan2(p[:, 0], p[:, 2] - 0.09) * 41 + 3 * np.sin(p[:, 1] * 190))
    albedo = tone * (0.75 + 0.18 * streak + 0.06 * rng.standard_normal(len(p)))[:, None]
    crown = np.array([0.01, p[:, 1].min(), 0.10])
    tangent = unit(p - crown)
    tangent = unit(tangent - (tangent * out).sum(1, keepdims=True) * out)
    light = 0.55 + 0.45 * ramp(0, 0.03, deep)
    return Tuft(p, triangles, out, tangent, np.clip(albedo, 0, 1), light)


def ribbons(path: np.ndarray, out: np.ndarray, width: np.ndarray, tone, rng, light) -> Tuft:
    """Strands (s, k, 3) with outward directions (s, k, 3) as strips that taper to their ends."""
    s, k, _ = path.shape
    along = unit(np.gradient(path, axis=1))
    side = unit(np.cross(along, out + 0.3 * rng.standard_normal((s, 1, 3))))
    taper = np.interp(np.linspace(0, 1, k), [0, 0.15, 0.75, 1], [0.6, 1, 0.9, 0.1])
    half = (width[:, None] * taper / 2)[..., None] * side
    points = np.stack([path - half, path + half], axis=2).reshape(-1, 3)
    index = np.arange(s * k * 2).reshape(s, k, 2)
    a, b, c, d = index[:, :-1, 0], index[:, :-1, 1], index[:, 1:, 1], index[:, 1:, 0]
    triangles = np.stack([a, b, c, a, c, d], -1).reshape(-1, 3)
    shade = np.clip(0.85 + 0.22 * rng.standard_normal(s), 0.4, 1.5)
    albedo = np.broadcast_to(tone * shade[:, None, None], (s, k, 3))
    spread = lambda x: np.repeat(np.reshape(x, (s * k, -1)), 2, axis=0)  # noqa: E731
    return Tuft(points, triangles, spread(out), spread(along), spread(albedo), spread(light)[:, 0])


def scatter(skin, neutral, inside, count: int, margin: float, rng):
    """`count` random roots on the hairy skin: barycentric (triangle corners, weights)."""
    triangles = skin.triangles[inside[skin.triangles].min(1) > margin]
    a, b, c = (neutral[triangles[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    chosen = triangles[rng.choice(len(area), count, p=area / area.sum())]
    return chosen, rng.dirichlet([1, 1, 1], count)


def short(skin, neutral, n, inside, look, tone, rng) -> Tuft:
    """Short strands combed away from the crown, lifted off the scalp by `look["lift"]`."""
    chosen, bary = scatter(skin, neutral, inside, look["strands"], 0.001, rng)
    mix = lambda x: np.einsum("sc,sc...->s...", bary, x[chosen])  # noqa: E731
    root, out, deep = mix(neutral), unit(mix(n)), mix(inside)
    crown = np.array([0.01, neutral[:, 1].min() + 0.005, 0.12])
    flow = root - crown + np.asarray(look.get("comb", [0, 0, 0]), float)
    flow = unit(unit(flow - (flow * out).sum(1, keepdims=True) * out))
    curl = look.get("curl", 0.15)
    direction = unit(flow + look["lift"] * out + curl * rng.standard_normal(flow.shape))
    length = look["length"] * rng.uniform(0.7, 1.2, len(root)) * (0.35 + 0.65 * ramp(0, 0.03, deep))
    k = 5
    path = [root + 0.6 * look["thickness"] * ramp(0, 0.022, deep)[:, None] * out]
    for _ in range(k - 1):
        path.append(path[-1] + (length / (k - 1))[:, None] * direction)
        direction = direction - 0.25 * look["lift"] * out
        direction = unit(direction + curl * rng.standard_normal(flow.shape))
    path = np.stack(path, axis=1)
    light = np.tile(np.linspace(0.55, 1.0, k), (len(root), 1))
    outward = np.repeat(out[:, None], k, axis=1)
    width = look["width"] * rng.uniform(0.6, 1.4, len(root))
    return ribbons(path, outward, width, tone, rng, light)


def hanging(skin, neutral, inside, look, tone, rng) -> list[Tuft]:
    """Hair that falls from the parting over the skull's ellipsoid and then straight down."""
    scalp = neutral[inside > 0.01]
    top, back, wide = scalp[:, 1].min(), scalp[:, 2].max(), np.abs(scalp[:, 0]).max()
    axis_z = AXIS_Z
    middle = np.array([0, -0.015, axis_z])
    size = np.array([wide, middle[1] - top, back - axis_z]) + look["thickness"]

    def settle(p: np.ndarray, layer: np.ndarray) -> np.ndarray:
        """Keep points outside the skull's volume and out of the face."""
        d = p - middle
        low = d[:, 1] > 0
        e = d / (size + layer[:, None])
        e[low, 1] = 0
        rho = np.linalg.norm(e, axis=1)
        push = np.maximum(1 / np.maximum(rho, 1e-6), 1)
        d = np.where(
            low[:, None], d * np.stack([push, np.ones_like(push), push], 1), d * push[:, None]
        )
        p = middle + d
        limit = np.interp(-p[:, 1], WINDOW_HEIGHTS, WINDOW_ANGLES)
        turn = np.radians(np.maximum(angle(p, axis_z), limit))
        r = np.hypot(d[:, 0], d[:, 2])
        side = np.where(d[:, 0] >= look["part"], 1.0, -1.0)
        moved = np.degrees(turn) > angle(p, axis_z) + 1e-6
        p[:, 0] = np.where(moved, side * r * np.sin(turn), p[:, 0])
        p[:, 2] = np.where(moved, axis_z - r * np.cos(turn), p[:, 2])
        return p

    count, k = look["strands"], 14
    chosen, bary = scatter(skin, neutral, inside, count, 0.004, rng)
    root = np.einsum("sc,scd->sd", bary, neutral[chosen])
    layer = look["thickness"] * rng.uniform(-0.35, 0.15, count)
    end = look["end"] + 0.012 * rng.standard_normal(count)
    p = settle(root.copy(), layer)
    side = np.where(p[:, 0] >= look["part"], 1.0, -1.0)
    direction = unit(np.stack([side, 0.25 + 0 * side, 0.15 + 0 * side], 1))
    # Each strand gets the same number of steps for its own length.
    reach = (end - p[:, 1]) + 0.06 * ramp(0.09, 0.0, np.abs(p[:, 0]))
    step = np.maximum(reach, 0.01) / (k - 1)
    path = [p]
    for i in range(1, k):
        pull = np.array([0, 0.55, 0.02])
        direction = unit(direction + pull)
        q = settle(path[-1] + step[:, None] * direction, layer)
        q[:, 0] -= look.get("tuck", 0.0) * side * (i > k - 4)
        direction = unit(q - path[-1])
        path.append(q)
    path = np.stack(path, axis=1)
    out = unit((path - middle) * np.array([1, 0.4, 1]))
    depth = ramp(-0.35, 0.15, layer / look["thickness"])[:, None]
    light = (0.55 + 0.45 * depth) * np.interp(path[..., 1], [0.0, look["end"]], [1, 0.75])
    width = look["width"] * rng.uniform(0.6, 1.4, count)
    strands = ribbons(path, out, width, tone, rng, light)

    # Under the strands, a closed sheet so that nothing shines through.
    rows = np.linspace(top + 0.01, look["end"] - 0.006, 24)
    columns = np.linspace(-1, 1, 64)
    limit = np.interp(-rows, WINDOW_HEIGHTS, WINDOW_ANGLES) + 3  # (rows,)
    turn = np.radians(180 - np.outer(180 - limit, np.abs(columns)))
    sign = np.sign(columns)[None]
    shrink = np.sqrt(np.clip(1 - (np.minimum(rows - middle[1], 0) / size[1]) ** 2, 0, 1))[:, None]
    inner = size - 0.45 * look["thickness"]
    radius = shrink / np.hypot(np.sin(turn) / inner[0], np.cos(turn) / inner[2])
    grid = np.stack(
        [sign * radius * np.sin(turn), rows[:, None] + 0 * turn, axis_z - radius * np.cos(turn)], -1
    )
    index = np.arange(grid.shape[0] * grid.shape[1]).reshape(grid.shape[:2])
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    triangles = np.stack([a, b, c, a, c, d], -1).reshape(-1, 3)
    flat = grid.reshape(-1, 3)
    out = unit((flat - middle) * np.array([1, 0.4, 1]))
    down = np.tile([0.0, 1.0, 0.0], (len(flat), 1))
    streak = 0.6 + 0.12 * rng.standard_normal(len(flat))
    sheet = Tuft(flat, triangles, out, down, tone * streak[:, None], np.full(len(flat), 0.6))
    return [sheet, strands]
