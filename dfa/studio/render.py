"""Render an actor: head, hair and shirt before a backdrop, 256 x 256 pixels, with a portrait lens.

numpy moves the points; VTK rasterises at twice the size. Skin, cloth, eyes and lashes are lit per
pixel (shaders.py), with painted textures (paint.py) and precomputed occlusion. Hair, teeth and
tongue have one colour per vertex. Coordinates are the camera's: x right, y down, z away, metres.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy import sparse
from scipy.spatial.transform import Rotation

from dfa.studio import camera, hair, paint, scenery, shaders, stage
from dfa.studio.actors import Actor, Surface, clip, sideless
from dfa.studio.camera import Shot
from dfa.studio.motion import Performance, rotations
from dfa.studio.paint import MOUTH_Y, bump, linear, look_up, smoothstep
from dfa.studio.shaders import FILL, GROUND, KEY, RIM, SKY, unit
from dfa.studio.stage import (
    STILL,
    Facing,
    Mesh,
    camera_plotter,
    normals,
    place,
    update,
    visibility,
)

from ..method.face import FOCAL

SIZE = 256
BACKDROP_Z = 2.6
BACKDROP_SIDES = 4  # size of the backdrop in image sides: a camera that turns sees more of it

HEM = 0.011  # metres, of the shirt's neckline
IRIS = 0.42  # radians, as seen from the ball's centre: a corneal bulge enlarges it a little


@dataclass
class Light:
    """The light that reaches each vertex, (n,) in [0, 1]: fractions of the sky and key light."""

    sky: np.ndarray
    key: np.ndarray


def irradiance(n: np.ndarray, light: Light, wrap: np.ndarray | float = 0.1) -> np.ndarray:
    """(n, 3) diffuse light on normals n; `wrap` bends it around the edge of the shadow."""
    up = (1 - n[:, 1:2]) / 2
    total = (GROUND + (SKY - GROUND) * up) * light.sky[:, None]
    for (towards, colour), visible in ((KEY, light.key), (FILL, light.sky), (RIM, light.sky)):
        facing = (n @ unit(towards))[:, None]
        total = total + colour * np.clip((facing + wrap) / (1 + wrap), 0, 1) * visible[:, None]
    return total


def below_neckline(rest: np.ndarray, depth: float) -> np.ndarray:
    """(n,) metres below a shirt's neckline (template space); `depth` lowers it in front."""
    turn = np.degrees(np.arctan2(np.abs(rest[:, 0]), 0.10 - rest[:, 2]))
    front = np.interp(turn, [0, 30, 70, 110, 180], [1, 0.75, 0.15, 0, 0])
    line = np.interp(turn, [0, 40, 80, 120, 180], [0.170, 0.166, 0.150, 0.135, 0.128])
    return rest[:, 1] - line - depth * front


# ---------------------------------------------------------------------------------- the actor


class Film:
    """The renderer of one actor: plotter, meshes, precomputed values; `frame` draws one frame."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor
        look, parts = actor.look, actor.template.surfaces
        self.plotter = camera_plotter(2 * SIZE)
        skin = parts["skin"]
        self.skin = skin
        neutral = skin.weights @ actor.neutral
        n = normals(neutral, skin.quads)
        level = below_neckline(skin.rest, look["shirt"]["depth"])
        hem = self._shirt(look["shirt"], skin, level)
        cloth = self.cloth_weights @ actor.neutral
        cloth_n = normals(cloth, self.cloth_triangles)
        both = self._bake(np.concatenate([neutral, cloth]), np.concatenate([n, cloth_n]))
        here, there = slice(len(neutral)), slice(len(neutral), None)
        self.light = Light(both.sky[here], both.key[here])
        self.cloth_light = Light(both.sky[there], both.key[there])
        self._hair(neutral, n, cloth, cloth_n)  # shades the skin and the shirt as well
        self._skin(skin, level, look)
        baked = np.stack([self.cloth_light.sky, self.cloth_light.key, hem], 1)
        self.cloth_mesh.fill("baked", baked)
        self._mouth(parts)
        self._eyes()
        self._lashes(parts)
        self._backdrop(look["backdrop"])  # drawn last: its hidden pixels then need no shading
        self.lit = [self.skin_mesh, self.cloth_mesh, *self.eye_meshes.values()]
        self._prepare()
        self.plotter.show(auto_close=False)
        self.plotter.camera.clipping_range = (0.4, 4.0)
        self.plotter.ren_win.SwapBuffersOff()  # no display: the pixels are read back
        self.late = (None, None)  # a take and its poses of the ends of the hair

    def _backdrop(self, look: dict) -> None:
        """A plane behind the actor: its middle fills the picture, around it it is mirrored."""
        around = np.array([[-1, 1], [1, 1], [1, -1], [-1, -1]]) * BACKDROP_SIDES / 2
        corners = np.column_stack([around * BACKDROP_Z / FOCAL, np.full(4, BACKDROP_Z)])
        uv = 0.5 + around * [1, -1]
        image = {"mirrored": scenery.paint_backdrop(look)}
        triangles = np.array([[0, 1, 2], [0, 2, 3]])
        self.backdrop = Mesh(self.plotter, triangles, 4, "", image, uv)
        update(self.backdrop, corners, np.ones((4, 3)))

    def _skin(self, skin: Surface, level: np.ndarray, look: dict) -> None:
        """The visible skin, not covered by shirt or hair, as a mesh with its own points."""
        shown = level[skin.quads].min(1) < 0.012
        if look["hair"]["cut"] != "bald":
            shown &= hair.above_hairline(skin.rest, look["hair"])[skin.quads].min(1) < 0.02
        used, quads = np.unique(skin.quads[shown], return_inverse=True)
        quads = quads.reshape(-1, 4)
        self.skin_weights, self.skin_facing = skin.weights[used], Facing(quads, len(used))
        albedo, fixed, acted = paint.paint_skin(self.actor, skin)
        self.skin_mesh = Mesh(
            self.plotter,
            np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]),
            len(used),
            shaders.SKIN,
            {"albedoMap": albedo, "reliefMap": fixed, "linesMap": acted},
            paint.unroll(skin.rest[used]),
            ("baked",),
            {"right": (1, 0, 0), "down": (0, 1, 0), "away": (0, 0, 1), "act": (0, 0, 0)},
        )
        points = self.skin_weights @ self.actor.neutral
        roots = np.zeros(len(used))
        for centre, radius in self.actor.eyes.values():
            # The lashes' roots: skin that lies next to the eyeball, dark above, faint below.
            gap = np.linalg.norm(points - centre, axis=1) - radius
            margin = np.exp(-((np.clip(gap, 0, None) / 0.0013) ** 2)) * (points[:, 2] < centre[2])
            upper = smoothstep(0.002, -0.002, points[:, 1] - centre[1])
            roots = np.maximum(roots, margin * (0.12 + 0.75 * upper) * look["skin"]["lashes"])
        baked = np.stack([self.light.sky[used], self.light.key[used], roots], 1)
        self.skin_mesh.fill("baked", baked)

    def _shirt(self, look: dict, skin: Surface, level: np.ndarray) -> np.ndarray:
        """The shirt lies on the body, a few millimetres out, cut off at the neckline.

        Returns (n,) how far in metres each of its points is from where the hem runs.
        """
        self.cloth_weights, self.cloth_triangles = clip(skin, level)
        rest = self.cloth_weights @ self.actor.template.rest
        uv = np.stack([rest[:, 0], -rest[:, 1] + 0.3 * rest[:, 2]], 1) / 0.5 + 0.5
        below = below_neckline(rest, look["depth"])
        self.cloth_lift = (0.002 + 0.006 * smoothstep(0, 0.015, below)).astype(np.float32)
        albedo, folds = scenery.paint_cloth({"seed": self.actor.look["seed"], **look})
        trim = linear(look.get("trim", look["colours"][0])) * (1 if "trim" in look else 0.8)
        self.cloth_mesh = Mesh(
            self.plotter,
            self.cloth_triangles,
            len(rest),
            shaders.CLOTH,
            {"albedoMap": albedo, "reliefMap": folds},
            uv,
            ("baked",),
            {"trim": trim},
            {"HEM": HEM},
        )
        self.cloth_facing = Facing(self.cloth_triangles, len(rest))
        # the line comes near again on top of the shoulders, where there must be no hem
        return below + np.clip(np.hypot(rest[:, 0], rest[:, 2] - 0.10) - 0.115, 0, None)

    def _bake(self, points: np.ndarray, n: np.ndarray) -> Light:
        """Occlusion by head and body themselves, from 64 directions of sky and 16 near the key."""
        body = self.skin.weights @ self.actor.neutral
        rng = np.random.default_rng(0)
        i = np.arange(64) + 0.5
        turn, rise = np.pi * (1 + 5**0.5) * i, np.arccos(1 - 2 * i / 64)
        sky = np.stack([np.cos(turn) * np.sin(rise), np.cos(rise), np.sin(turn) * np.sin(rise)], 1)
        key = unit(KEY[0]) + 0.22 * rng.standard_normal((16, 3))
        everything = np.concatenate([sky, key])
        visible = visibility(body, points, n, self.skin.triangles, everything)
        facing = np.clip(n @ sky.T, 0, None) * (1.2 - 0.4 * sky[:, 1])
        open_sky = (visible[:, :64] * facing).sum(1) / np.maximum(facing.sum(1), 1e-6)
        # points that face away from the key light: `wrap` decides, not the shadow map
        lit = np.where(n @ unit(KEY[0]) < 0.05, 1.0, visible[:, 64:].mean(1))
        return Light(0.25 + 0.75 * open_sky, 0.35 + 0.65 * lit)

    def _mouth(self, parts: dict[str, Surface]) -> None:
        tones = {
            "cavity": ([104, 42, 40], 0.022),
            "tongue": ([176, 86, 84], 0.030),
            "teeth_upper": ([255, 255, 255], 0.045),
            "teeth_lower": ([244, 244, 244], 0.040),
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
            image = uv = None
            if name.startswith("teeth"):
                albedo *= np.exp(-((p[:, :1] / 0.017) ** 2))  # the cheeks shade the molars
                uv, length = self._along_teeth(p, upper=name == "teeth_upper")
                image = paint.paint_teeth(name, length, self.actor.look["seed"])
            if name == "tongue":
                groove = bump(p[:, 0], 0, 0.0022)[:, None]
                buds = paint.noise(p, 0.0025, 3, 1)[:, None]
                albedo *= (1 - 0.35 * groove) * (1 + 0.10 * buds)
            # The upper teeth show a little; the tongue rests low and back, lower as the jaw drops.
            shift = {"teeth_upper": [0, 0.0062, 0], "tongue": [0, 0.005, 0.01]}.get(name, [0, 0, 0])
            drop = np.array([0, 0.008 * (name == "tongue"), 0])
            mesh = place(self.plotter, part.triangles, len(p), image, uv)
            facing = Facing(part.quads, len(p))
            self.inner.append((part, mesh, facing, albedo, np.array(shift), drop))

    @staticmethod
    def _along_teeth(p: np.ndarray, upper: bool) -> tuple[np.ndarray, float]:
        """(n, 2) coordinates on an unrolled row of teeth and the arch's length in metres.

        u runs along the arch, v from the biting edge (0) to 15 mm into the gum (1).
        """
        back = p[:, 2].max()
        turn = np.arctan2(p[:, 0], back + 0.004 - p[:, 2])
        bins = np.linspace(-1.2, 1.2, 25)
        middle = (bins[1:] + bins[:-1]) / 2
        k = np.clip(np.digitize(turn, bins) - 1, 0, 23)
        radius = np.array(
            [np.hypot(p[k == i, 0], p[k == i, 2] - back - 0.004).max(initial=0) for i in range(24)]
        )
        down = p[:, 1] if upper else -p[:, 1]  # towards the biting edge
        edge = np.array([down[k == i].max(initial=-1) for i in range(24)])
        good = radius > 0.005
        fine = np.linspace(-1.2, 1.2, 241)
        r = np.interp(fine, middle[good], radius[good])
        step = np.hypot(np.diff(r), r[1:] * np.diff(fine))
        s = np.concatenate([[0], np.cumsum(step)])
        at = np.interp(turn, fine, s - s[120])
        rise = np.interp(turn, middle[good], edge[good]) - down
        length = s[-1]
        return np.stack([0.5 + at / length, np.clip(rise / 0.015, 0.004, 0.996)], 1), length

    def _lip_vertices(self) -> np.ndarray:
        rest = self.actor.template.rest
        near = (np.abs(rest[:, 0]) < 0.012) & (np.abs(rest[:, 1] - MOUTH_Y) < 0.012)
        return np.flatnonzero(near & self.actor.template.body & (rest[:, 2] < -0.02))

    def _eyes(self) -> None:
        """Eyeballs as rings about the line of sight, with the cornea's bulge."""
        look = self.actor.look["eyes"]
        rings = np.array([0, 0.1, 0.2, 0.3, 0.38, 0.46, 0.55, 0.75, 1.0, 1.35, 1.7])
        turn = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        a, b = np.meshgrid(rings, turn, indexing="ij")
        ball = np.stack([np.sin(a) * np.cos(b), np.sin(a) * np.sin(b), -np.cos(a)], -1)
        self.ball = ball.reshape(-1, 3).astype(np.float32)
        k = np.arange(a.size).reshape(a.shape)
        here, right = k, np.roll(k, -1, axis=1)
        quads = np.stack([here[:-1], right[:-1], right[1:], here[1:]], -1).reshape(-1, 4)
        triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
        axes = {"right": (1, 0, 0), "down": (0, 1, 0), "away": (0, 0, 1)}
        self.eye_meshes = {}
        for side in self.actor.eyes:
            self.eye_meshes[side] = Mesh(
                self.plotter,
                triangles,
                a.size,
                shaders.EYE,
                attributes=("local",),
                uniforms={
                    **axes,
                    "lids": (-0.3, 0.3, 0),
                    "iris": linear(look["iris"]),
                    "whites": look.get("white", 1.0),
                    "seed": float(self.actor.look["seed"]),
                },
                defines={"IRIS": IRIS, "PUPIL": look.get("pupil", 0.36)},
            )
            self.eye_meshes[side].fill("local", self.ball)

    def _lashes(self, parts: dict[str, Surface]) -> None:
        """The model's own lashes, of which a shader keeps single hairs."""
        self.lashes = []
        look = self.actor.look["skin"]
        for name, part in parts.items():
            if not name.startswith("lashes"):
                continue
            side = "left" if part.rest[:, 0].mean() > 0 else "right"
            sideways = 1 if side == "left" else -1
            far = np.linalg.norm(part.rest - [sideways * paint.EYE_X, 0, 0.0], axis=1)
            tip = (far - far.min()) / np.ptp(far)
            mesh = Mesh(
                self.plotter,
                part.triangles,
                len(part.rest),
                shaders.LASH,
                attributes=("strand",),
                uniforms={
                    "seed": float(self.actor.look["seed"]),
                    "lash": look["lashes"] * (0.75 if "upper" in name else 0.35),
                    "hue": linear([30, 22, 19]) if look["lashes"] > 0.45 else linear([90, 74, 62]),
                },
            )
            mesh.fill("strand", np.stack([np.abs(part.rest[:, 0]), tip, 0 * tip], 1))
            self.lashes.append((part, mesh))

    def _prepare(self) -> None:
        """Reduce the model to the visible vertices, in single precision."""
        posed = [self.skin_weights, self.cloth_weights]
        rigid = [part.weights for part, *_ in (*self.inner, *self.lashes)]
        rigid.append(self._lid_edges())
        used = np.zeros(len(self.actor.neutral), bool)
        for weights in (*posed, *rigid):
            used[np.unique(weights.indices)] = True
        narrow = lambda w: sparse.vstack(w).tocsr()[:, used].astype(np.float32)  # noqa: E731
        self.posed, self.rigid = narrow(posed), narrow(rigid)
        self.neutral = self.actor.neutral[used].astype(np.float32)
        self.deltas = np.ascontiguousarray(self.actor.deltas[:, used], np.float32)
        self.follow = self.actor.template.follow[used, None].astype(np.float32)
        names = list(self.actor.template.actions)
        rest = np.array([self.actor.look.get("rest", {}).get(sideless(a), 0.0) for a in names])
        strengths = lambda **k: np.array([k.get(sideless(a), 0.0) for a in names])  # noqa: E731
        self.creases = np.stack(
            [
                strengths(browInnerUp=0.8, browOuterUp=0.35, browDown=-0.3),
                strengths(mouthSmile=0.55, cheekSquint=0.3, eyeSquint=0.2, noseSneer=0.3),
            ]
        )
        self.creased = self.creases @ rest
        self.baring = strengths(jawOpen=1.6, mouthLowerDown=0.4, mouthUpperUp=0.3, mouthSmile=0.2)

    def _lid_edges(self) -> sparse.csr_matrix:
        """(4, V) weights of the middles of the lids' edges: upper, lower of each eye."""
        points = self.skin.weights @ self.actor.neutral
        rows = []
        for centre, radius in self.actor.eyes.values():
            d = points - centre
            near = np.abs(np.linalg.norm(d, axis=1) - radius) < 0.0022
            near &= (np.abs(d[:, 0]) < 0.004) & (d[:, 2] < 0)
            for sign in (-1, 1):
                found = np.flatnonzero(near & (sign * d[:, 1] > 0))
                found = found[np.argsort(sign * d[found, 1])[:4]]
                rows.append(self.skin.weights[found].sum(0) / max(len(found), 1))
        return sparse.csr_matrix(np.concatenate(rows))

    def _hair(self, neutral, n, cloth, cloth_n) -> None:
        """Hair's colours stay as lit in the neutral pose; it shades itself, the skin, the shirt.

        neutral, cloth: the skin's and the shirt's points (n, 3); n, cloth_n: their normals.
        """
        self.hair = []
        ears = look_up("ears", self.skin.uv)
        tufts = hair.grow(self.actor, self.skin, neutral, n, ears)
        if not tufts:
            return
        counts = np.cumsum([0, *(len(t.points) for t in tufts)])
        points = np.concatenate([t.points for t in tufts])
        triangles = np.concatenate(
            [t.triangles + i for t, i in zip(tufts, counts[:-1], strict=True)]
        )
        everything = np.concatenate([neutral, cloth, points])
        facing = np.concatenate([n, cloth_n, np.concatenate([t.normals for t in tufts])])
        sky, key = self._past_hair(everything, facing, points, triangles)
        first, second = len(neutral), len(neutral) + len(cloth)
        self.light = Light(self.light.sky * sky[:first], self.light.key * key[:first])
        shirt = self.cloth_light
        self.cloth_light = Light(shirt.sky * sky[first:second], shirt.key * key[first:second])
        for tuft, start in zip(tufts, second + counts[:-1], strict=True):
            mesh = place(self.plotter, tuft.triangles, len(tuft.points))
            part = slice(start, start + len(tuft.points))
            light = Light(tuft.open * sky[part], tuft.open * key[part])
            colour = tuft.albedo * irradiance(tuft.normals, light, 0.3)
            half = unit(unit(KEY[0]) + np.array([0, 0, -1.0]))
            across = np.sqrt(np.clip(1 - (tuft.tangents @ half) ** 2, 0, 1))
            visible = np.clip(tuft.normals @ unit(KEY[0]) + 0.2, 0, 1) * light.key
            visible = self.actor.look["hair"]["shine"] * visible[:, None]
            # Hair's two highlights: a sharp white one, and a broad one in its own colour.
            colour += visible * (0.03 * across**60)[:, None]
            colour += visible * tuft.albedo * (0.6 * across**16)[:, None]
            update(mesh, tuft.points, colour)
            # A point moves with torso, head and the head's late pose, by its weights (n, 3).
            weights = [1 - tuft.follow, tuft.follow * (1 - tuft.loose), tuft.follow * tuft.loose]
            homogeneous = np.column_stack([tuft.points, np.ones(len(tuft.points))])
            basis = np.concatenate([w[:, None] * homogeneous for w in weights], axis=1)
            self.hair.append((basis.astype(np.float32), mesh))  # (n, 12)

    def _past_hair(self, points, n, occluder, triangles) -> tuple[np.ndarray, np.ndarray]:
        """The fractions (n,) of the sky's and of the key's light that pass the hair."""
        rng = np.random.default_rng(0)
        sky = unit(rng.standard_normal((400, 3)) * [1, 0.8, 1] - [0, 0.35, 0.3])[:28]
        towards = np.concatenate([sky, unit(KEY[0]) + 0.15 * rng.standard_normal((8, 3))])
        visible = visibility(occluder, points, n, triangles, towards)
        facing = np.clip(n @ sky.T, 0.02, None)
        open_sky = (visible[:, :28] * facing).sum(1) / facing.sum(1)
        return 0.3 + 0.7 * open_sky, 0.35 + 0.65 * visible[:, 28:].mean(1)

    def pose(self, actions, h, torso, gaze, late=None) -> None:
        """Move all that moves to one moment of a Performance; late (6,): the pose of the ends of
        loose hair, by default the head's."""
        actor = self.actor
        actions = np.asarray(actions, np.float32)
        active = np.flatnonzero(actions)
        v = self.neutral + np.tensordot(actions[active], self.deltas[active], 1)
        r, body = rotations(h[None])[0], rotations(torso[None])[0]
        turned = lambda p, to, by: p @ to.T.astype(np.float32) + by.astype(np.float32)  # noqa: E731
        with_body = turned(v, body, torso[3:])
        posed = self.posed @ (with_body + self.follow * (turned(v, r, h[3:]) - with_body))
        axes = {"right": r[:, 0], "down": r[:, 1], "away": r[:, 2]}
        brow, smile = self.creases @ actions + self.creased

        points = posed[: len(self.skin_mesh.points)]
        self.skin_mesh.fill("facing", self.skin_facing(points))
        self.skin_mesh.set(**axes, act=(np.clip(brow, 0, 1.2), np.clip(smile, 0, 1.2), 0))
        self.skin_mesh.move(points)

        points = posed[len(points) :]
        n = unit(self.cloth_facing(points))
        self.cloth_mesh.fill("facing", n)
        self.cloth_mesh.move(points + self.cloth_lift[:, None] * n)

        rigid = self.rigid @ v
        start = 0
        jaw = actions[actor.template.actions.index("jawOpen")]
        openness = 0.45 + 0.55 * min(1.0, float(self.baring @ actions))
        for _, mesh, facing, albedo, shift, drop in self.inner:
            end = start + len(mesh.points)
            points = turned(rigid[start:end] + (shift + jaw * drop).astype(np.float32), r, h[3:])
            start = end
            n = unit(facing(points))
            flat = Light(np.full(len(n), openness), np.full(len(n), openness))
            update(mesh, points, albedo * irradiance(n, flat, 0.5))
        for _, mesh in self.lashes:
            end = start + len(mesh.points)
            mesh.move(turned(rigid[start:end], r, h[3:]))
            start = end

        sight = r @ Rotation.from_euler("yx", [-gaze[0], gaze[1]]).as_matrix()
        for i, (side, (centre, radius)) in enumerate(actor.eyes.items()):
            mesh = self.eye_meshes[side]
            d = turned(self.ball, sight, np.zeros(3))
            upper, lower = (rigid[start + 2 * i : start + 2 * i + 2, 1] - centre[1]) / radius
            mesh.set(**axes, lids=(upper, lower, i))
            mesh.fill("facing", d)
            mesh.move(r @ centre + h[3:] + radius * d)

        swing = h if late is None else late
        moves = [(body, torso[3:]), (r, h[3:]), (rotations(swing[None])[0], swing[3:])]
        moves = np.concatenate([np.vstack([R.T, t]) for R, t in moves]).astype(np.float32)
        for basis, mesh in self.hair:
            update(mesh, basis @ moves)

    def picture(self, zoom=1.0, shift=(0.0, 0.0), exposure=0.0, R=STILL[0], t=STILL[1]):
        """(256, 256, 3) uint8 RGB of the present pose, by a camera as in `stage.aim`.

        exposure: in stops.
        """
        stage.aim(self.plotter, zoom, shift, R, t)
        for mesh in self.lit:
            mesh.set(eye=-R.T @ t)
        image = stage.picture(self.plotter)
        if exposure:
            image = camera.expose(image, exposure)
        image = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        return np.round(image).astype(np.uint8)

    def depth(self, R: np.ndarray = STILL[0], t: np.ndarray = STILL[1]) -> np.ndarray:
        """(256, 256) float32: metres along the axis of a camera X -> R X + t to the actor, through
        the middle of each pixel; 0 beside the actor."""
        # With half a pixel of the large picture as shift, its odd pixels lie on the middles.
        stage.aim(self.plotter, shift=(0.25 / SIZE, 0.25 / SIZE), R=R, t=t)
        self.backdrop.actor.VisibilityOff()
        depth = stage.depth(self.plotter)[1::2, 1::2]
        self.backdrop.actor.VisibilityOn()
        return depth

    def frame(self, actions: np.ndarray, h: np.ndarray, torso: np.ndarray, gaze) -> np.ndarray:
        """(256, 256, 3) uint8 RGB of one moment of a Performance, by the camera at rest."""
        self.pose(actions, h, torso, gaze)
        return self.picture()

    def at(self, take: Performance, t: int) -> None:
        """Pose the actor as in frame t of a take."""
        if self.late[0] is not take:
            self.late = take, hair.behind(take.h)
        late = self.late[1][t]
        self.pose(take.actions[t], take.h[t], take.torso[t], take.gaze[t], late)

    def shoot(self, take: Performance, t: int, shot: Shot | None = None) -> np.ndarray:
        """Frame t of a take; a Shot tells what the camera does meanwhile."""
        self.at(take, t)
        if shot is None:
            return self.picture()
        zoom, *shift = shot.camera[t]
        return camera.stamp(self.picture(zoom, shift, shot.exposure[t]), shot.marks)

    def close(self) -> None:
        self.plotter.close()
