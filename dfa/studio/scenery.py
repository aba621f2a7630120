"""Paint cloth with folds, and rooms out of focus as backdrops."""

import numpy as np
from scipy.ndimage import gaussian_filter

from dfa.studio.paint import linear, noise, smoothstep, to_bytes


def paint_cloth(look: dict, size: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """Albedo (size, size, 4) as in `paint_skin` (no gloss) and relief, uint8, over 0.5 m.

    Folds hang from the shoulders and gather at the arms; both textures tile.
    """
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    rng = np.random.default_rng(look.get("seed", 0))
    first, second = linear(look["colours"][0]), linear(look["colours"][1])
    k = look["repeats"]
    band = lambda v: np.abs((v * k) % 1 - 0.5) * 2  # noqa: E731
    wave = lambda v: smoothstep(0.46, 0.54, band(v))  # noqa: E731
    blend, bumps = 0 * x, 0 * x
    if look["pattern"] == "stripes":
        blend = wave(y)
    elif look["pattern"] == "checks":
        twill = 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * 128 * (x + y)))
        blend = 0.5 * (wave(x) + wave(y)) + 0.10 * (twill - 0.5) * np.abs(wave(x) - wave(y))
        blend = blend * 0.9 + 0.25 * smoothstep(0.93, 0.97, np.maximum(band(x + 0.25 / k), 0))
    elif look["pattern"] == "pinstripes":
        blend = smoothstep(0.84, 0.93, band(x))
    elif look["pattern"] == "print":
        for _ in range(k * k):
            cx, cy, r = *rng.uniform(0, 1, 2), rng.uniform(0.25, 0.5) / k
            d = np.hypot((x - cx + 0.5) % 1 - 0.5, (y - cy + 0.5) % 1 - 0.5)
            leaf = 1 + 0.35 * np.cos(5 * np.arctan2(y - cy, x - cx) + rng.uniform(0, 6))
            blend = np.maximum(blend, smoothstep(r, 0.75 * r, d / leaf))
    elif look["pattern"] == "knit":
        rib = np.sin(2 * np.pi * 64 * x)
        bumps = 0.0006 * np.abs(rib)
        bumps += 0.0002 * np.sin(2 * np.pi * 64 * (y + 0.25 * np.sign(rib) * x))
        blend = 0.25 * (1 - np.abs(rib))
    cloth = first * (1 - blend[..., None]) + second * blend[..., None]
    grain = gaussian_filter(rng.standard_normal((size, size)), 1.0, mode="wrap")
    cloth = cloth * (1 + 0.10 * grain[..., None])

    # Folds: sums of waves whose phase is bent, mostly upright, slanting to the armpits.
    folds = 0 * x
    for _ in range(14):
        fx, fy = rng.integers(-7, 8), rng.integers(1, 5) * rng.choice([-1, 1])
        phase = 2 * np.pi * (fx * x + fy * y) + rng.uniform(0, 7)
        phase += 1.3 * np.sin(2 * np.pi * (rng.integers(1, 3) * y + rng.uniform(0, 1)))
        folds += (1 - np.abs(np.sin(phase / 2))) ** 2 / np.hypot(fx, fy)
    folds = gaussian_filter(folds, 3, mode="wrap")
    folds = (folds - folds.mean()) / folds.std()
    height = look.get("folds", 1.0) * 0.0017 * folds + bumps
    texel = 0.5 / size
    gx, gy = (np.gradient(np.pad(height, 1, mode="wrap"), axis=a)[1:-1, 1:-1] for a in (1, 0))
    tilt = np.stack([-gx, -gy, 0 * gx, 0 * gx], -1) / texel
    cloth = cloth * (1 + 0.10 * np.clip(folds, -2, 2)[..., None])
    albedo = np.concatenate([np.sqrt(np.clip(cloth, 0, 1)), 0 * x[..., None]], -1)
    normal = 0.5 + 0.5 * np.clip(tilt, -1, 1)
    return tuple((255 * np.clip(a, 0, 1) + 0.5).astype(np.uint8) for a in (albedo, normal))


def disc(image: np.ndarray, blur: float) -> np.ndarray:
    """Blur an image as a lens does: bright points become discs (approximated by three boxes)."""
    return gaussian_filter(image, (0.45 * blur, 0.45 * blur, 0), mode="nearest")


def paint_backdrop(look: dict, size: int = 512) -> np.ndarray:
    """(size, size, 3) uint8: a wall lit from the left, or a room far out of focus.

    look: colour of the wall, seed, and `room`, a list of the objects before the wall: shelves,
    window, lamp, plant, picture, door, curtain, lights.
    """
    rng = np.random.default_rng(look["seed"])
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    wall = linear(look["colour"])
    image = np.ones((size, size, 3), np.float32) * wall
    image *= (1.22 - 0.75 * np.hypot(x - 0.3, 0.8 * (y - 0.25)))[..., None]
    lamps = np.zeros_like(image)

    def box(x0, x1, y0, y1, rgb, shade: float = 0.0) -> None:
        inside = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
        light = 1 + shade * ((x[inside] - x0) / (x1 - x0) - 0.5)
        image[inside] = np.asarray(rgb) * light[:, None]

    def shelves(x0, x1) -> None:
        wood = linear([112, 80, 54]) * 0.8
        box(x0 - 0.01, x1 + 0.01, 0.0, 1.0, wood * 0.55)
        for top in np.arange(-0.08, 1.0, 0.19):
            at = x0
            while at < x1 - 0.012:
                w = rng.uniform(0.012, 0.034)
                tall = rng.uniform(0.10, 0.155)
                rgb = rng.uniform([60, 45, 40], [205, 175, 165])
                hue = linear(0.45 * rgb + 0.55 * rgb.mean()) * rng.uniform(0.5, 1.0)
                if rng.random() < 0.86:
                    box(at, min(at + w, x1), top + 0.17 - tall, top + 0.17, hue, -0.5)
                at += w + 0.002
            box(x0, x1, top + 0.17, top + 0.19, wood * 1.25)

    def window(x0, x1) -> None:
        box(x0 - 0.02, x1 + 0.02, 0.05, 0.72, linear([225, 220, 210]))
        inside = (x >= x0) & (x < x1) & (y > 0.07) & (y < 0.70)
        sky = linear([205, 220, 235]) * (1.25 - 0.5 * y[..., None])
        leaves = noise(np.stack([x, y, 0 * x], -1), 0.05, look["seed"])
        sky = np.where((leaves + 5 * (y - 0.45) > 0)[..., None], linear([96, 128, 78]) * 1.1, sky)
        image[inside] = sky[inside]
        middle = (x0 + x1) / 2
        box(middle - 0.008, middle + 0.008, 0.05, 0.72, linear([215, 210, 200]))
        box(x0, x1, 0.37, 0.385, linear([215, 210, 200]))
        for _ in range(26):
            cx, cy = rng.uniform(x0, x1), rng.uniform(0.3, 0.68)
            glow = (np.hypot(x - cx, y - cy) < rng.uniform(0.008, 0.02)) & inside
            lamps[glow] += np.array([0.35, 0.38, 0.25])

    def lamp(cx, _=None) -> None:
        shade = (np.abs(x - cx) < 0.05 + 0.10 * (y - 0.30)) & (y > 0.30) & (y < 0.46)
        image[shade] = linear([255, 226, 176]) * 1.1
        box(cx - 0.006, cx + 0.006, 0.46, 0.74, linear([70, 60, 52]))
        box(cx - 0.09, cx + 0.14, 0.74, 1.0, linear([96, 70, 50]))
        lamps[:] += (0.30 * np.exp(-((np.hypot(x - cx, y - 0.36) / 0.17) ** 2)))[
            ..., None
        ] * linear([255, 210, 150])

    def plant(cx, _=None) -> None:
        box(cx - 0.05, cx + 0.05, 0.80, 1.0, linear([170, 100, 70]), -0.6)
        for _ in range(46):
            turn, far = rng.uniform(-1.3, 1.3), rng.uniform(0.1, 0.33)
            for step in np.linspace(0.15, 1, 14):
                px, py = cx + far * step * np.sin(turn), 0.8 - far * step * np.cos(turn) * 1.2
                leaf = np.hypot((x - px) * 1.1, y - py) < 0.016 * np.sin(np.pi * step * 0.9) + 0.002
                image[leaf] = linear(rng.uniform([40, 80, 38], [96, 140, 76]))

    def picture(x0, x1) -> None:
        high, low = 0.12, 0.12 + 0.75 * (x1 - x0) * 1.4
        box(x0, x1, high, low, linear([52, 42, 36]))
        box(x0 + 0.012, x1 - 0.012, high + 0.012, low - 0.012, linear([224, 218, 206]))
        a, b = x0 + 0.035, x1 - 0.035
        box(a, b, high + 0.035, low - 0.035, linear(150 + 0.5 * rng.uniform(-70, 70, 3)))
        box(a, b, (high + low) / 2, low - 0.035, linear(95 + 0.6 * rng.uniform(-50, 50, 3)))
        sun = np.hypot(x - (a + b) / 2, y - (high + 0.4 * (low - high))) < 0.02
        image[sun] = linear(rng.uniform(170, 240, 3))

    def door(x0, x1) -> None:
        box(x0, x1, 0.02, 1.0, linear([232, 228, 220]) * 0.8, -0.2)
        for top in (0.08, 0.52):
            box(x0 + 0.04, x1 - 0.04, top, top + 0.38, linear([205, 200, 192]) * 0.8, 0.3)

    def curtain(x0, x1) -> None:
        inside = (x >= x0) & (x < x1)
        hue = linear(look.get("cloth", [150, 110, 96]))
        fold = 0.75 + 0.35 * np.sin((x - x0) * 120 + 1.5 * np.sin(5 * y + 30 * x))
        image[inside] = (hue * fold[..., None])[inside]

    def lights(x0, x1) -> None:
        for _ in range(16):
            cx, cy = rng.uniform(x0, x1), rng.uniform(0.05, 0.8)
            hue = linear(rng.uniform([200, 150, 90], [255, 230, 190]))
            lamps[np.hypot(x - cx, y - cy) < rng.uniform(0.012, 0.028)] += 0.45 * hue

    kinds = {f.__name__: f for f in (
        shelves, window, lamp, plant, picture, door, curtain, lights
    )}  # fmt: skip
    for kind, *place in look.get("room", []):
        kinds[kind](*place)
    image = disc(np.clip(image, 0, 1.4), look.get("blur", 0.028) * size)
    image += disc(lamps, 0.35 * look.get("blur", 0.022) * size)
    dim = look.get("dim", 1.0)
    return to_bytes(np.clip(image * dim, 0, 1))
