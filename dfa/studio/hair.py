"""Hair: a cap over the scalp, and strands as ribbons: combed over it, hanging or tied.

A strand starts at a root on the scalp. It is traced over the skin step by step, cut to its length,
pulled towards the middle strand of its lock, and waved. Angles about the head's vertical axis are
0 degrees in front and 180 behind; heights are metres above the eyes; y points down.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.signal import lfilter, lfilter_zi
from scipy.sparse import identity
from scipy.spatial import cKDTree

from dfa.studio.actors import Actor, Surface, clip
from dfa.studio.shaders import unit

from ..media import FPS

SWING = 0.12  # s by which the ends of loose hair are behind the head
AXIS_Z = 0.085  # metres: the head's vertical axis is this far behind the eyes (template)
# The hairline: height above the eyes (metres) by angle; the ear's arch lies at 70 to 110 degrees.
ANGLES = np.array([0, 25, 45, 55, 64, 72, 84, 92, 105, 118, 150, 180])
HEIGHTS = np.array([70, 73, 62, 45, 12, -14, -8, 14, 0, -30, -68, -74]) / 1000
# Hanging hair leaves the face free: its smallest angle (degrees) by height above the eyes (metres).
WINDOW_HEIGHTS = np.array([-0.30, -0.20, -0.13, -0.06, 0.01, 0.045, 0.062, 0.076])
WINDOW_ANGLES = np.array([44, 50, 66, 62, 60, 54, 40, 0])
GREY = np.array([0.40, 0.39, 0.38])
DOWN = np.array([0.0, 1.0, 0.0])
STRAIGHT = [0, 1, 0]  # no wave
TOWARDS = np.array([0.0, 0.0, -1.0])  # the camera
WIDE, LONG = 0.077, np.array([0.115, 0.084])  # the skull about its axis: sideways; front, back


@dataclass(frozen=True)
class Tuft:
    """A mesh of hair in canonical space.

    points, normals, tangents, albedo: (n, 3); triangles: (m, 3); open: (n,) how much light gets
    to each point; follow: (n,) 1 moves with the head, 0 with the torso; loose: (n,) 1 follows
    the head late, 0 at once.
    """

    points: np.ndarray
    triangles: np.ndarray
    normals: np.ndarray
    tangents: np.ndarray
    albedo: np.ndarray
    open: np.ndarray
    follow: np.ndarray
    loose: np.ndarray


def ramp(a: float, b: float, x: np.ndarray) -> np.ndarray:
    return np.clip((x - a) / (b - a), 0, 1)


def angle(points: np.ndarray) -> np.ndarray:
    """(n,) degrees about the head's axis, 0 in front, the same on both sides."""
    return np.degrees(np.arctan2(np.abs(points[..., 0]), AXIS_Z - points[..., 2]))


def above_hairline(rest: np.ndarray, look: dict) -> np.ndarray:
    """(n,) metres by which points of the template lie within the hair (outside: negative).

    look: `recede` lifts the hairline in front, `temples` at its corners; above the height `bald`
    nothing grows.
    """
    x, y, z = rest.T
    turn, height = angle(rest), -y
    line = np.interp(turn, ANGLES, HEIGHTS)
    line = line + look.get("recede", 0) * ramp(75, 35, turn)
    line = line + look.get("temples", 0) * np.exp(-(((turn - 44) / 16) ** 2))
    # an irregular hairline: noise of some millimetres
    wander = np.sin(310 * x + 2) * np.sin(260 * z + 170 * y) + 0.7 * np.sin(720 * x + 500 * (z - y))
    inside = height - line + 0.0016 * wander
    if "bald" in look:
        crown = look["bald"] - 0.012 * ramp(90, 180, turn)
        inside = np.minimum(inside, crown - height + 0.003 * wander)
        inside = np.where(turn < 62, np.minimum(inside, (turn - 62) / 1000), inside)
    return inside


@dataclass(frozen=True)
class Scalp:
    """The surface on which hair grows: the skin's points and normals (n, 3) and triangles, and
    inside (n,), the metres above the hairline."""

    points: np.ndarray
    normals: np.ndarray
    triangles: np.ndarray
    inside: np.ndarray
    tree: cKDTree

    def roots(self, count: int, rng, where=None, back: float = 0.15) -> tuple[np.ndarray, ...]:
        """`count` random roots (s, 3), their normals (s, 3) and depths inside the hairline (s,).

        They are sparser at the hairline. back: density behind the head, which is never visible.
        """
        depth = self.inside[self.triangles].mean(1)
        behind = ramp(0.5, 0.9, self.normals[self.triangles, 2].mean(1))
        chosen = depth > 0.0
        if where is not None:
            chosen &= where(self.points[self.triangles].mean(1), depth)
        triangles, depth = self.triangles[chosen], depth[chosen]
        density = (0.45 + 0.55 * ramp(0, 0.015, depth)) * (1 - (1 - back) * behind[chosen])
        a, b, c = (self.points[triangles[:, i]] for i in range(3))
        area = np.linalg.norm(np.cross(b - a, c - a), axis=1) * density
        corners = triangles[rng.choice(len(area), count, p=area / area.sum())]
        bary = rng.dirichlet([1, 1, 1], count)
        mix = lambda x: np.einsum("sc,sc...->s...", bary, x[corners])  # noqa: E731
        return mix(self.points), unit(mix(self.normals)), np.maximum(mix(self.inside), 0)

    def clear(self, p: np.ndarray, gap: np.ndarray) -> np.ndarray:
        """Points (s, 3), moved outwards where they are closer than gap (s,) metres to the skin."""
        near = self.tree.query(p)[1]
        n = self.normals[near]
        off = ((p - self.points[near]) * n).sum(1)
        return p + np.maximum(gap - off, 0)[:, None] * n


def grow(actor: Actor, skin: Surface, neutral, n, ears: np.ndarray) -> list[Tuft]:
    """The tufts of an actor's haircut, on the skin's neutral points (n, 3) with normals n (n, 3).

    ears: (n,) the mask of the ears, where no hair grows. The settings are actor.look["hair"];
    lengths are in metres:

    - all cuts: thickness of the hair; strands, their width and points; lock, the strands of one
      lock; tight, how strongly they gather; wave, see `gather`; grey, the fraction of grey strands;
      cover and dense, how dark the scalp is at the hairline and further inside;
    - short: length, sides, lift off the scalp, comb (direction), tousle, part;
    - hanging: part, end (below the eyes), layers, fringe (above the eyes), tuck (degrees backwards,
      left and right in the picture);
    - tied: knot, then bun (radius) or tail (direction).
    """
    look = actor.look["hair"]
    if look["cut"] == "bald":
        return []
    rng = np.random.default_rng(actor.look["seed"])
    inside = np.where(ears > 0.2, -1, above_hairline(skin.rest, look))
    scalp = Scalp(neutral, n, skin.triangles, inside, cKDTree(neutral))
    tone, under = (
        (np.asarray(c, float) / 255) ** 2.2 for c in (look["colour"], actor.look["skin"]["tone"])
    )
    paint = Paint(tone, under, look, rng)
    cut = {"short": short, "hanging": hanging, "tied": tied}[look["cut"]]
    return [cap(skin, scalp, paint), *cut(scalp, paint)]


@dataclass(frozen=True)
class Paint:
    """Colours of strands: tone, and under, the skin's, (3,) linear."""

    tone: np.ndarray
    under: np.ndarray
    look: dict
    rng: np.random.Generator

    def strands(self, s: int, k: int, fade: np.ndarray) -> np.ndarray:
        """(s, k, 2, 3) albedo of ribbons' edges; fade: (s,) 0 as pale as the skin, 1 full."""
        rng, tips = self.rng, self.look.get("tips", 1.25)
        base = np.tile(self.tone, (s, 1))
        base = base * np.exp(0.07 * rng.standard_normal((s, 3)))
        grey = rng.random((s, 1)) < self.look.get("grey", 0)
        base = np.where(grey, 0.35 * base + 0.65 * GREY, base)
        shade = 0.17 * rng.standard_normal((s, 1, 1)) + 0.15 * rng.standard_normal((s, 1, 2))
        shade = np.exp(shade)
        along = np.linspace(0.85, tips, k)[None, :, None]
        albedo = base[:, None, None] * (shade * along)[..., None]
        fade = fade[:, None, None, None]
        return np.clip(albedo * fade + self.under * (1 - fade), 0, 1)


def cap(skin: Surface, scalp: Scalp, paint: Paint) -> Tuft:
    """The scalp, moved outwards by a part of the hair's thickness: visible between the strands."""
    look = paint.look
    weights, triangles = clip(
        replace(skin, weights=identity(len(scalp.points), format="csr")), scalp.inside - 0.003
    )
    p, out = weights @ scalp.points, unit(weights @ scalp.normals)
    deep = weights @ scalp.inside
    height = (0.45 if look["cut"] == "short" else 0.2) * look["thickness"]
    p = p + (0.0004 + height * ramp(0.004, 0.03, deep))[:, None] * out
    streak = np.exp(0.25 * paint.rng.standard_normal(len(p)))
    cover = look.get("cover", 1)
    amount = 0.9 * cover + (look.get("dense", 1) - 0.9 * cover) * ramp(0.003, 0.02, deep)
    grey = look.get("grey", 0)
    tone = (paint.tone * (1 - grey) + GREY * grey) * 0.7
    albedo = tone * amount[:, None] * streak[:, None] + paint.under * (1 - amount)[:, None]
    crown = np.array([0.01, p[:, 1].min(), 0.10])
    tangent = unit(np.cross(np.cross(out, p - crown), out))
    light = np.ones(len(p))
    return Tuft(p, triangles, out, tangent, np.clip(albedo, 0, 1), light, light, 0 * light)


def trace(scalp: Scalp, root, direction, gap, pull, step: float, steps: int, rise, window=None):
    """Paths (s, steps, 3) from roots (s, 3), in steps of `step` metres.

    pull: points -> the change of direction in each step. gap: (s,) distance from the skin in
    metres, reached after `rise` metres. window: points -> points moved out of the face.
    """
    path = [root]
    for i in range(1, steps):
        direction = unit(direction + pull(path[-1]))
        q = path[-1] + step * direction
        q = scalp.clear(q, gap * min(1, 0.25 + i * step / rise))
        q = q if window is None else window(q)
        direction = unit(q - path[-1])
        path.append(q)
    return np.stack(path, axis=1)


def length_until(path: np.ndarray, there: np.ndarray) -> np.ndarray:
    """(s,) metres along paths (s, m, 3) before `there` (s, m) is first true; at least 0.015."""
    step = np.linalg.norm(np.diff(path, axis=1), axis=2)
    return np.maximum((step * ~np.logical_or.accumulate(there[:, 1:], axis=1)).sum(1), 0.015)


def trim(path: np.ndarray, length: np.ndarray, k: int) -> np.ndarray:
    """Paths (s, m, 3) cut to length (s,) and resampled to (s, k, 3)."""
    piece = np.linalg.norm(np.diff(path, axis=1), axis=2)
    along = np.concatenate([np.zeros((len(path), 1)), np.cumsum(piece, axis=1)], axis=1)
    at = np.linspace(0, 1, k) * np.minimum(length, along[:, -1])[:, None]
    return np.stack(
        [
            [np.interp(t, a, p[:, c]) for c in range(3)]
            for t, a, p in zip(at, along, path, strict=True)
        ]
    ).transpose(0, 2, 1)


def locks(at: np.ndarray, each: int, rng) -> np.ndarray:
    """(s,) the lock's middle strand of each strand, nearest at points (s, 3)."""
    middle = rng.choice(len(at), max(len(at) // each, 1), replace=False)
    return middle[cKDTree(at[middle]).query(at)[1]]


def gather(path: np.ndarray, lock: np.ndarray, tightness: float, wave, rng) -> np.ndarray:
    """Paths (s, k, 3) drawn to their lock's middle strand towards the ends, then waved.

    wave: (amplitude, wavelength, curl) in metres; curl 1 makes corkscrews, 0 flat waves.
    """
    s, k, _ = path.shape
    t = np.linspace(0, 1, k)[:, None]
    path = path + tightness * t**1.3 * (path[lock] - path)
    amplitude, wavelength, curl = wave
    if amplitude:
        along = unit(np.gradient(path, axis=1))
        side = unit(np.cross(along, DOWN + 0.5 * rng.standard_normal((s, 1, 3))[lock]))
        other = np.cross(along, side)
        length = np.linalg.norm(np.diff(path, axis=1), axis=2).sum(1)
        phase = (rng.uniform(0, 2 * np.pi, s)[lock] + 0.5 * rng.standard_normal(s))[:, None]
        phase = phase + 2 * np.pi * length[:, None] * t[:, 0] / wavelength
        size = amplitude * np.exp(0.25 * rng.standard_normal(s))[lock]
        size = size[:, None] * ramp(0, 0.3, t[:, 0])
        path = path + (size * np.sin(phase))[..., None] * side
        path = path + (curl * size * np.cos(phase))[..., None] * other
    return path


def ribbons(paint: Paint, path, out, width, light=1.0, fade=1.0) -> Tuft:
    """Strands (s, k, 3) with outward directions (s, k, 3) as strips that taper to their ends.

    width, fade: (s,) or the same for all; light: likewise, or (k,), (s, 1), (s, k).
    """
    (s, k, _), rng = path.shape, paint.rng
    width, fade = np.broadcast_to(width, s), np.broadcast_to(fade, s)
    along = unit(np.gradient(path, axis=1))
    # ribbons are turned mostly to the camera: seen edge-on, a strip would break up into dots
    face = TOWARDS + 0.5 * out + 0.35 * rng.standard_normal((s, 1, 3))
    side = unit(np.cross(along, face))
    taper = np.interp(np.linspace(0, 1, k), [0, 0.15, 0.7, 1], [0.6, 1, 0.85, 0.3])
    half = (width[:, None] * taper / 2)[..., None] * side
    points = np.stack([path - half, path + half], axis=2).reshape(-1, 3)
    index = np.arange(s * k * 2).reshape(s, k, 2)
    a, b, c, d = index[:, :-1, 0], index[:, :-1, 1], index[:, 1:, 1], index[:, 1:, 0]
    triangles = np.stack([a, b, c, a, c, d], -1).reshape(-1, 3)
    albedo = paint.strands(s, k, fade).reshape(-1, 3)
    spread = lambda x: np.repeat(np.reshape(x, (s * k, -1)), 2, axis=0)  # noqa: E731
    tilted = unit(out + 0.3 * rng.standard_normal((s, 1, 3)))
    follow = 1 - 0.65 * ramp(0.07, 0.24, points[:, 1])  # below the chin hair hangs on the torso
    loose = ramp(0, 0.20, points[:, 1])  # from the eyes down it swings, most at the ends
    light = spread(np.broadcast_to(light, (s, k)))[:, 0]
    return Tuft(points, triangles, spread(tilted), spread(along), albedo, light, follow, loose)


def flat(v: np.ndarray, out: np.ndarray, share: float = 1) -> np.ndarray:
    """Vectors (s, 3) minus the fraction `share` of their components along the normals (s, 3)."""
    return v - share * (v * out).sum(1, keepdims=True) * out


def parted(root: np.ndarray, part: float | np.ndarray) -> np.ndarray:
    """(s, 3) directions away from a parting at x = part that runs from the front to the crown."""
    z = np.clip(root[:, 2], 0, 0.115)
    seam = np.stack([np.full_like(z, part), np.full_like(z, root[:, 1].min() + 0.01), z], axis=1)
    return unit(root - seam)


def short(scalp: Scalp, paint: Paint) -> list[Tuft]:
    """Strands combed away from the crown or a parting, shorter at the sides and the hairline."""
    look, rng = paint.look, paint.rng
    root, out, deep = scalp.roots(look["strands"], rng)
    s, k = len(root), look.get("points", 6)
    lock = locks(root, look.get("lock", 8), rng)
    crown = [0.01, root[:, 1].min() + 0.005, 0.12]
    flow = parted(root, look["part"]) if "part" in look else root - crown
    top = ramp(0.035, 0.085, -root[:, 1])
    flow = unit(flow) + np.asarray(look.get("comb", [0, 0, 0]), float) * top[:, None]
    lift, tousle = look["lift"] * (0.35 + 0.65 * top)[:, None], look.get("tousle", 0.2)
    messy = rng.standard_normal((s, 3))
    stray = flat(messy[lock] + 0.5 * messy, out, 0.7)
    direction = unit(unit(flat(flow, out)) + lift * out + tousle * stray)
    edge = ramp(0, 0.025, deep)
    length = look["length"] * top + look.get("sides", look["length"]) * (1 - top)
    length = length * np.exp(0.18 * messy[lock, 0] + 0.1 * messy[:, 1]) * (0.4 + 0.6 * edge)
    gap = look["thickness"] * rng.uniform(0.4, 1.1, s) * (0.15 + 0.85 * edge)
    sag = look.get("sag", 0.25) * (0.4 * DOWN - lift * out)
    path = trace(scalp, root, direction, gap, lambda p: sag, length.max() / 9, 10, 0.02)
    path = trim(path, length, k)
    path = gather(path, lock, look.get("tight", 0.5), look.get("wave", STRAIGHT), rng)
    width = look["width"] * rng.uniform(0.7, 1.3, s) * (0.6 + 0.4 * edge)
    fade = look.get("fade", 0.55)
    fade = fade + (1 - fade) * np.minimum(ramp(0, 0.012, deep), 0.75 + 0.25 * top)
    outward = np.repeat(out[:, None], k, axis=1)
    return [ribbons(paint, path, outward, width, np.linspace(0.75, 1, k), fade)]


def ellipse(turn: np.ndarray) -> np.ndarray:
    """(n,) the skull's radius about its axis, in metres, at angles (n,) in degrees."""
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    return 1 / np.hypot(s / WIDE, c / np.where(c > 0, LONG[0], LONG[1]))


def window(side: np.ndarray, shift: np.ndarray):
    """points -> points turned about the head's axis to stay out of the face, each on its side.

    side: (s,) -1 or 1; shift: (s,) degrees by which each strand stays further away.
    """

    def keep(p: np.ndarray) -> np.ndarray:
        limit = np.interp(-p[:, 1], WINDOW_HEIGHTS, WINDOW_ANGLES)
        limit = limit + shift * ramp(0.075, 0.05, -p[:, 1])
        turn, r = angle(p), np.hypot(p[:, 0], p[:, 2] - AXIS_Z)
        moved = (turn < limit) | (p[:, 0] * side < 0) & (turn < 90) & (-p[:, 1] < 0.05)
        # a head is longer than wide: hair that is moved to the side comes nearer to the axis
        r = r * ellipse(limit) / np.maximum(ellipse(turn), ellipse(limit))
        turn = np.radians(limit)
        there = np.stack([side * r * np.sin(turn), p[:, 1], AXIS_Z - r * np.cos(turn)], axis=1)
        return np.where(moved[:, None], there, p)

    return keep


def hanging(scalp: Scalp, paint: Paint) -> list[Tuft]:
    """Hair that hangs from a parting over skull and shoulders: wide dark strands, then fine."""
    look, rng = paint.look, paint.rng
    tufts = []
    for under, count in ((True, 130), (False, look["strands"])):
        root, out, deep = scalp.roots(count, rng, back=2.0 if under else 0.15)
        s, k = count, 9 if under else look.get("points", 13)
        lock = locks(root, 1 if under else look.get("lock", 12), rng)
        messy = rng.standard_normal((s, 3))
        part = look["part"] + 0.003 * messy[:, 0]  # no seam: strands cross the parting
        side = np.where(root[:, 0] >= part, 1.0, -1.0)
        flow = parted(root, part) + [0, 0, 0.35]
        direction = unit(flat(flow, out)) + 0.15 * out + 0.1 * messy[lock]
        layer = rng.uniform(0.05, 0.25, s) if under else rng.uniform(0.45, 1.1, s)
        gap = look["thickness"] * layer * (0.3 + 0.7 * ramp(0, 0.025, deep)) + 0.001
        shift = 14 * np.abs(messy[lock, 1]) + 2 * messy[:, 1] + (8 if under else 0)
        shift = shift + 40 * ramp(0.02, 0.05, root[:, 1])  # from the nape, behind the neck
        for which, tucked in zip((-1, 1), look.get("tuck", [0, 0]), strict=True):
            shift = shift + tucked * (side == which)
        fall = lambda p: 0.45 * DOWN  # noqa: E731
        keep = window(side, shift)
        path = trace(scalp, root, unit(direction), gap, fall, 0.012, 30, 0.05, keep)
        end = look["end"] - look.get("layers", 0.02) * rng.uniform(0, 1, s)[lock] ** 2
        end = end - 0.004 * messy[:, 2] - (0.012 if under else 0)
        path = trim(path, length_until(path, path[..., 1] > end[:, None]), k)
        wave = STRAIGHT if under else look.get("wave", STRAIGHT)
        path = gather(path, lock, 0 if under else look.get("tight", 0.6), wave, rng)
        width = (0.012 if under else look["width"]) * rng.uniform(0.6, 1.4, s)
        width = width * (0.45 + 0.55 * ramp(0, 0.012, deep))
        light = 0.65 + 0 * layer if under else 0.6 + 0.4 * ramp(0.4, 0.8, layer)
        # fine strands behind the head are not visible: the dark strands cover that region
        visible = under | (angle(path[:, k // 3 :]).min(1) < 125)
        x, y, z = np.moveaxis(path, 2, 0)
        visible &= ~((np.abs(x) < 0.055) & (y > 0.05) & (z < 0.10)).any(1)  # nor over the throat
        outward = unit((path[visible] - [0, -0.015, AXIS_Z]) * [1, 0.4, 1])
        tufts.append(ribbons(paint, path[visible], outward, width[visible], light[visible, None]))
    return [*tufts, fringe(scalp, paint)] if "fringe" in look else tufts


def fringe(scalp: Scalp, paint: Paint) -> Tuft:
    """Strands over the forehead down to about the height look["fringe"]."""
    look, rng = paint.look, paint.rng
    front = lambda p, deep: (angle(p) < 48) & (deep < 0.03)  # noqa: E731
    root, out, deep = scalp.roots(look.get("fringe_strands", 220), rng, front)
    s, k = len(root), 8
    lock = locks(root, 9, rng)
    messy = rng.standard_normal((s, 3))
    direction = unit(root * [6, 0, 0] + TOWARDS + 0.6 * out + 0.1 * messy[lock])
    gap = 0.003 + 0.6 * look["thickness"] * rng.uniform(0.3, 1, s)
    path = trace(scalp, root, direction, gap, lambda p: 0.45 * DOWN, 0.006, 22, 0.015)
    end = -look["fringe"] + 0.004 * messy[lock, 0] + 0.002 * messy[:, 1]
    end = end + 0.022 * ramp(0.03, 0.07, np.abs(root[:, 0]))  # longer towards the temples
    path = trim(path, length_until(path, path[..., 1] > end[:, None]), k)
    path = gather(path, lock, 0.55, STRAIGHT, rng)
    width = look["width"] * rng.uniform(0.5, 1.1, s)
    return ribbons(paint, path, np.repeat(out[:, None], k, axis=1), width)


def tied(scalp: Scalp, paint: Paint) -> list[Tuft]:
    """Hair drawn over the scalp to a knot, with a tail or a bun there."""
    look, rng = paint.look, paint.rng
    root, out, deep = scalp.roots(look["strands"], rng)
    s, k = len(root), 9
    knot = np.asarray(look["knot"], float)
    lock = locks(root, look.get("lock", 10), rng)
    messy = rng.standard_normal((s, 3))
    gap = look["thickness"] * rng.uniform(0.5, 0.72, s)
    gap = gap * (0.15 + 0.85 * ramp(0, 0.02, deep)) + 0.0008
    away = np.linalg.norm(knot - root, axis=1)
    direction = unit(knot - root + 0.1 * away[:, None] * messy[lock])
    # towards the knot, but first backwards, so that the strands do not cross the face
    back = lambda p: ramp(125, 60, angle(p))[:, None] * -TOWARDS  # noqa: E731
    pull = lambda p: 1.2 * unit(knot - p) + 1.5 * back(p)  # noqa: E731
    direction = unit(direction + 2 * back(root))
    path = trace(scalp, root, direction, gap, pull, 0.012, 26, 0.03)
    path = trim(path, length_until(path, np.linalg.norm(path - knot, axis=2) < 0.012), k)
    path = gather(path, lock, 0.35, look.get("wave", STRAIGHT), rng)
    outward = unit(path - [0, 0, AXIS_Z])
    edge = ramp(0, 0.012, deep)
    width = look["width"] * rng.uniform(0.6, 1.3, s) * (0.5 + 0.5 * edge)
    drawn = ribbons(paint, path, outward, width, np.linspace(1, 0.8, k), 0.6 + 0.4 * edge)
    return [drawn, (bun if "bun" in look else ponytail)(scalp, paint)]


def bun(scalp: Scalp, paint: Paint) -> Tuft:
    """Strands wound in circles about a ball on the knot."""
    look, rng = paint.look, paint.rng
    knot = np.asarray(look["knot"], float)
    count, k, ball = look.get("tail_strands", 260), 9, look["bun"]
    axis = unit(rng.standard_normal((count, 3)) * [0.6, 0.25, 0.6] + [0.2, -1, 0.1])
    u = unit(np.cross(axis, rng.standard_normal((count, 3))))
    turn = rng.uniform(0, 2 * np.pi, (count, 1, 1)) + np.linspace(0, 2.4, k)[:, None]
    high = rng.uniform(-0.85, 0.95, (count, 1))
    ring = np.cos(turn) * u[:, None] + np.sin(turn) * np.cross(axis, u)[:, None]
    d = np.sqrt(1 - high**2)[..., None] * ring + high[..., None] * axis[:, None]
    layer = rng.uniform(0.8, 1.08, count)
    path = knot + 0.7 * ball * unit(knot - [0, -0.02, AXIS_Z])
    path = path + ball * layer[:, None, None] * d * [1.15, 0.85, 1.1]
    light = 0.7 + 0.3 * ramp(0.8, 1.0, layer)[:, None]
    return ribbons(paint, path, d, 1.3 * look["width"], light)


def ponytail(scalp: Scalp, paint: Paint) -> Tuft:
    """Strands that leave the knot towards look["tail"] and fall over the shoulder to the front."""
    look, rng = paint.look, paint.rng
    count, k = look.get("tail_strands", 380), 12
    spot = look["knot"] + 0.008 * rng.standard_normal((count, 3))
    lock = locks(spot, 14, rng)
    messy = rng.standard_normal((count, 3))
    direction = unit(np.asarray(look["tail"], float) + 0.3 * messy[lock] + 0.12 * messy)
    gap = rng.uniform(0.009, 0.022, count)
    forward = lambda p: 0.3 * ramp(0, 0.04, p[:, 2:] - look["over"]) * TOWARDS  # noqa: E731
    path = trace(scalp, spot, direction, gap, lambda p: 0.3 * DOWN + forward(p), 0.012, 32, 0.02)
    length = look["length"] * np.exp(0.15 * messy[lock, 0] + 0.05 * messy[:, 1])
    path = gather(trim(path, length, k), lock, 0.5, [0.004, 0.09, 0], rng)
    outward = unit(path - path.mean(0) + [0, 0, 0.03])
    return ribbons(paint, path, outward, 1.5 * look["width"], 0.9)


def behind(h: np.ndarray) -> np.ndarray:
    """(T, 6) poses that follow the head's, h (T, 6), SWING late: a critically damped spring."""
    stay = 1 / (1 + 2 / (SWING * FPS))  # each of its two equal stages is behind by SWING / 2
    b, a = [(1 - stay) ** 2], [1, -2 * stay, stay**2]
    return lfilter(b, a, h, axis=0, zi=lfilter_zi(b, a)[:, None] * h[0])[0]
