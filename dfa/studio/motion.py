"""The motion of a synthetic actor: visemes from phonemes, blinks, gaze, brows, head and torso.

Mouth: the coarticulation model of Cohen & Massaro (1993). Each phone has a target for each facial
action and a dominance D(t) = alpha exp(-(theta |t - t_c|)^c). The action is the dominance-weighted
mean of all targets. Everything is computed at 200 Hz and averaged over a frame's exposure.
"""

import zlib
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from dfa.studio.speech import Speech

from ..media import FPS, SAMPLE_RATE

STEPS = 8  # simulation steps per frame
SHUTTER = 4  # steps per frame during which the shutter is open
DT = 1 / (FPS * STEPS)  # seconds per step
CLOSED = 0.08  # s that lips (p, b, m) and lids stay closed: longer than a whole exposure
LID_CLOSING, LID_OPENING = 0.08, 0.15  # s
BLINK_REFRACTORY = 0.6  # s: minimum from one blink's onset to the next, except in double blinks
DOUBLE = 0.36  # s: about the time between the onsets of a double blink
PHRASE_GAP = 0.25  # s of silence that end a phrase
PHRASE_PULL = 3.0  # how much more likely blinks are just after a phrase
NECK = np.array([0.0, 0.10, 0.08])  # metres, canonical space: the point about which the head turns
REST = np.array([0.0, -0.03, 1.38])  # metres, camera space: the head's position at rest
BREATH = 0.002  # metres by which the torso rises in a pause; it sinks while speaking

# Per viseme: the dominance of (jaw, rounding, lips), then the targets of the facial actions.
# "Left"/"Right" pairs are written once without the side.
VISEMES: dict[str, tuple[tuple[float, float, float], dict[str, float]]] = {
    "rest": ((0.6, 0.4, 0.6), {}),
    "bilabial": ((1.6, 0.3, 4.0), {"mouthPress": 0.25, "mouthRollLower": 0.2}),
    "labiodental": ((1.6, 0.5, 4.0), {"jawOpen": 0.06, "mouthRollLower": 0.5, "mouthUpperUp": 0.3}),
    "dental": ((0.9, 0.3, 0.7), {"jawOpen": 0.12, "mouthLowerDown": 0.18, "mouthUpperUp": 0.1}),
    "alveolar": ((0.8, 0.2, 0.6), {"jawOpen": 0.1, "mouthLowerDown": 0.2, "mouthStretch": 0.1}),
    "lateral": ((0.7, 0.2, 0.6), {"jawOpen": 0.16, "mouthLowerDown": 0.2, "mouthUpperUp": 0.1}),
    "sibilant": (
        (1.8, 0.4, 1.2),
        {"jawOpen": 0.05, "mouthLowerDown": 0.3, "mouthUpperUp": 0.15, "mouthStretch": 0.2},
    ),
    "postalveolar": (
        (1.6, 2.0, 1.2),
        {"jawOpen": 0.08, "mouthFunnel": 0.5, "mouthPucker": 0.2, "mouthUpperUp": 0.15},
    ),
    "velar": ((0.4, 0.2, 0.3), {"jawOpen": 0.14, "mouthLowerDown": 0.1}),
    "glottal": ((0.15, 0.1, 0.1), {"jawOpen": 0.18}),
    "rhotic": ((0.8, 1.0, 0.6), {"jawOpen": 0.12, "mouthFunnel": 0.25, "mouthPucker": 0.25}),
    "glide_w": ((1.4, 2.6, 1.0), {"jawOpen": 0.08, "mouthPucker": 0.75, "mouthFunnel": 0.15}),
    "glide_j": ((0.8, 0.7, 0.7), {"jawOpen": 0.1, "mouthStretch": 0.22, "mouthSmile": 0.2}),
    "open_back": ((1.7, 0.8, 1.0), {"jawOpen": 0.66, "mouthLowerDown": 0.2}),
    "open_front": (
        (1.6, 0.9, 1.0),
        {"jawOpen": 0.5, "mouthLowerDown": 0.28, "mouthUpperUp": 0.2, "mouthStretch": 0.2},
    ),
    "open_mid": ((1.2, 0.6, 0.9), {"jawOpen": 0.4, "mouthLowerDown": 0.16}),
    "schwa": ((0.5, 0.4, 0.5), {"jawOpen": 0.2, "mouthLowerDown": 0.1}),
    "mid_front": (
        (1.1, 0.8, 1.0),
        {"jawOpen": 0.34, "mouthLowerDown": 0.2, "mouthStretch": 0.2, "mouthSmile": 0.1},
    ),
    "near_close": (
        (0.9, 0.7, 0.9),
        {"jawOpen": 0.2, "mouthLowerDown": 0.16, "mouthStretch": 0.2, "mouthSmile": 0.15},
    ),
    "close_front": (
        (1.2, 1.2, 1.1),
        {"jawOpen": 0.13, "mouthLowerDown": 0.18, "mouthStretch": 0.3, "mouthSmile": 0.35},
    ),
    "mid_back": ((1.2, 1.8, 1.0), {"jawOpen": 0.44, "mouthFunnel": 0.45, "mouthPucker": 0.15}),
    "rounded_o": ((1.0, 2.2, 1.0), {"jawOpen": 0.28, "mouthFunnel": 0.4, "mouthPucker": 0.45}),
    "rounded_u": ((1.2, 2.6, 1.0), {"jawOpen": 0.12, "mouthPucker": 0.8, "mouthFunnel": 0.2}),
    "lax_u": ((0.9, 1.4, 0.8), {"jawOpen": 0.2, "mouthPucker": 0.4, "mouthFunnel": 0.25}),
    "rounded_front": ((1.1, 2.4, 1.0), {"jawOpen": 0.14, "mouthPucker": 0.6, "mouthFunnel": 0.3}),
    "rhotic_vowel": ((1.0, 1.0, 0.7), {"jawOpen": 0.22, "mouthFunnel": 0.3, "mouthPucker": 0.2}),
}
# The viseme of each IPA letter; other signs (length, stress, ties) have none.
LETTERS = {
    letter: viseme
    for viseme, letters in {
        "bilabial": "pbm",
        "labiodental": "fvʋɱ",
        "dental": "θð",
        "alveolar": "tdnɾ",
        "lateral": "lɫ",
        "sibilant": "sz",
        "postalveolar": "ʃʒɕʑʂʐ",
        "velar": "kgɡŋxɣχçʔ",
        "glottal": "hɦ",
        "rhotic": "rɹʁ",
        "glide_w": "w",
        "glide_j": "j",
        "open_back": "aɑ",
        "open_front": "æ",
        "open_mid": "ʌɐ",
        "schwa": "əᵻɨ",
        "mid_front": "eɛ",
        "near_close": "ɪ",
        "close_front": "i",
        "mid_back": "ɒɔ",
        "rounded_o": "oɤ",
        "rounded_u": "u",
        "lax_u": "ʊ",
        "rounded_front": "yʏøœ",
        "rhotic_vowel": "ɜɝɚ",
    }.items()
    for letter in letters
}
ROUNDING = ("mouthPucker", "mouthFunnel")
LIP_SHAPES = sorted({a for _, targets in VISEMES.values() for a in targets} | {"mouthClose"})
OPENERS = ("jawOpen", "mouthLowerDown", "mouthUpperUp", "mouthFunnel", "mouthStretch")
CLOSERS = ("mouthPress", "mouthRollLower", "mouthRollUpper")


@dataclass(frozen=True)
class Performance:
    """All of a take, T frames: what the renderer draws and the truth that is stored.

    actions (T, 52) in [0, 1]; h (T, 6) pitch, yaw, roll, x, y, z of the head, radians and metres,
    X_cam = R X + t; torso (T, 6) the same for the torso; gaze (T, 2) yaw and pitch of the eyes in
    the head, radians, positive to the image's right and down; blink (T,) lid closure;
    blink_onsets (n,) in frames (fractional); speech with its phones.
    """

    actions: np.ndarray
    h: np.ndarray
    torso: np.ndarray
    gaze: np.ndarray
    blink: np.ndarray
    blink_onsets: np.ndarray
    speech: Speech


def generator(name: str, stream: str, seed: int) -> np.random.Generator:
    """A random generator for each actor and purpose: a change of one does not affect the others."""
    return np.random.default_rng([seed, zlib.crc32(f"{name}/{stream}".encode())])


def expose(track: np.ndarray) -> np.ndarray:
    """(T * STEPS, ...) -> (T, ...): the mean while the shutter is open, from each frame's start."""
    frames = track.reshape(-1, STEPS, *track.shape[1:])
    return frames[:, :SHUTTER].mean(1)


def visemes_of(phone: str) -> list[str]:
    """The visemes of one phone; a diphthong has two, an affricate only its release."""
    phone = phone.replace("s.", "ʂ").replace("z.", "ʐ")  # eSpeak's way to write retroflexes
    found = [LETTERS[c] for c in phone if c in LETTERS]
    if len(found) > 1 and found[-1] == "glottal":  # aspiration is the stop's release
        found = found[:-1]
    if len(found) > 1 and found[0] == "alveolar" and found[1] in ("sibilant", "postalveolar"):
        found = found[1:]
    return found[:2]


def dominance(t: np.ndarray, centre: float, half: float, alpha: float, theta: float) -> np.ndarray:
    """Cohen & Massaro's D(t), flat over the middle `half` seconds on both sides of the centre."""
    away = np.maximum(np.abs(t - centre) - half, 0)
    return alpha * np.exp(-((theta * away) ** 1.3))


def plateau(t: np.ndarray, start: float, end: float, rise: float, fall: float) -> np.ndarray:
    """1 from start to end, with half-cosine flanks of `rise` and `fall` seconds outside."""
    up = np.clip((t - start) / rise + 1, 0, 1)
    down = np.clip(1 - (t - end) / fall, 0, 1)
    return (1 - np.cos(np.pi * np.minimum(up, down))) / 2


def closures(speech: Speech, t: np.ndarray) -> np.ndarray:
    """(n,) how far p, b and m close the lips at times t (n,): 1 for at least CLOSED seconds."""
    shut = np.zeros_like(t)
    for start, end, phone in speech.phones:
        if "bilabial" in visemes_of(phone):
            if "h" in phone:  # the lips are open while an aspirated stop breathes
                end = (start + end) / 2
            middle, half = (start + end) / 2, max(end - start, CLOSED) / 2
            shut = np.maximum(shut, plateau(t, middle - half, middle + half, 0.06, 0.06))
    return shut


def mouth(speech: Speech, t: np.ndarray, style: dict, rng: np.random.Generator) -> dict:
    """Lip and jaw actions at times t by dominance functions; style: amplitude, rounding, speed."""
    group = np.array([0 if a == "jawOpen" else 1 if a in ROUNDING else 2 for a in LIP_SHAPES])
    theta = 1 / (0.055 / style["speed"])
    width = np.array([1.0, 0.75, 1.2])  # of jaw, rounding, lips: a smaller value acts longer
    habit = {a: np.exp(rng.normal(0, 0.12)) for a in LIP_SHAPES}
    # a weak constant dominance of the rest position closes the mouth when no phone is near
    total = np.full((len(t), len(LIP_SHAPES)), 0.02)
    pull = np.zeros_like(total)
    for start, end, phone in speech.phones:
        names = visemes_of(phone)
        for i, name in enumerate(names):
            a = start + (end - start) * i / len(names)
            b = start + (end - start) * (i + 1) / len(names)
            alpha, targets = VISEMES[name]
            vigour = np.exp(rng.normal(0, 0.1)) * (1.12 if "ˈ" in phone else 0.95)
            near = slice(*np.searchsorted(t, (a - 0.5, b + 0.5)))
            at = t[near]
            d = np.stack(
                [
                    dominance(at, (a + b) / 2 - 0.01, (b - a) / 4, alpha[g], theta * width[g])
                    for g in range(3)
                ],
                1,
            )[:, group]  # (n, A)
            target = np.array([targets.get(x, 0.0) * vigour for x in LIP_SHAPES])
            pull[near] += d * target
            total[near] += d
    tracks = dict(zip(LIP_SHAPES, (pull / total).T, strict=True))
    shut = closures(speech, t)
    for action, track in tracks.items():
        track *= habit[action] * (style["rounding"] if action in ROUNDING else style["amplitude"])
        if action in OPENERS:
            track *= 1 - shut
    tracks["mouthPucker"] *= 1 - 0.5 * shut
    for action, value in zip(CLOSERS, (0.3, 0.25, 0.2), strict=True):
        tracks[action] = np.maximum(tracks.get(action, 0), value * shut)
    return tracks


def phrase_ends(speech: Speech) -> np.ndarray:
    """(n,) seconds at which a phrase ends: the last phone before a silence."""
    ends = np.array([end for _, end, _ in speech.phones])
    starts = np.array([start for start, _, _ in speech.phones][1:] + [np.inf])
    return ends[starts - ends > PHRASE_GAP]


def blinks(
    seconds: float, style: dict, ends: np.ndarray, t: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Lid closure at times t, and the onsets in seconds, of a renewal process.

    A waiting time is the refractory time plus a gamma variate (shape 2) of a clock that runs faster
    just after the phrase ends `ends` (seconds). style: rate (mean blinks per second), double and
    half (the fractions of double blinks and of incomplete ones).
    """
    grid = np.arange(0, seconds + 60, 0.02)
    after = grid - np.r_[-np.inf, ends][np.searchsorted(ends, grid, "right")]
    speed = 1 + PHRASE_PULL * ((after >= 0) & (after < 0.4))
    clock = np.cumsum(speed / speed.mean()) * 0.02
    free = (1 + style["double"]) / style["rate"] - BLINK_REFRACTORY - style["double"] * DOUBLE
    onsets, depths, now = [], [], rng.uniform(0.2, 1 / style["rate"])
    while now < seconds - 0.4:
        twice, half = rng.random() < style["double"], rng.random() < style["half"]
        onsets.append(now)
        depths.append(rng.uniform(0.4, 0.65) if half else 1.0)
        if twice and (again := now + DOUBLE * rng.uniform(0.95, 1.15)) < seconds - 0.4:
            onsets.append(again)
            depths.append(1.0)
        ready = np.interp(onsets[-1] + BLINK_REFRACTORY, grid, clock)
        now = np.interp(ready + rng.gamma(2, free / 2), clock, grid)
    lid = np.zeros_like(t)
    for onset, depth in zip(onsets, depths, strict=True):
        shut = onset + LID_CLOSING
        near = slice(*np.searchsorted(t, (onset - 0.1, onset + 0.6)))
        closure = plateau(t[near], shut, shut + CLOSED, LID_CLOSING, LID_OPENING)
        lid[near] = np.maximum(lid[near], depth * closure)
    return lid, np.array(onsets)


def breath(ends: np.ndarray, t: np.ndarray) -> np.ndarray:
    """(n,) metres by which the chest rises: it rises after each phrase and sinks slowly."""
    rise = np.zeros_like(t)
    for end in ends:
        since = t - end
        rise = np.maximum(rise, np.where(since < 0, 0, np.exp(-since / 2.5)))
    return BREATH * gaussian_filter1d(rise, 0.15 / DT)


def spring(targets: np.ndarray, omega: float) -> np.ndarray:
    """(n, k) a critically damped spring that follows targets (n, k): x'' = w^2 (u - x) - 2 w x'."""
    x, v = targets[0].copy(), np.zeros(targets.shape[1])
    path = np.empty_like(targets)
    decay = np.exp(-omega * DT)
    for i, u in enumerate(targets):
        # the exact solution over one step, with a constant target
        d = x - u
        slope = v + omega * d
        x = u + (d + slope * DT) * decay
        v = (v - omega * slope * DT) * decay
        path[i] = x
    return path


def steps(
    t: np.ndarray, mean_wait: float, draw, rng: np.random.Generator, moments=(), locked: float = 0.0
) -> np.ndarray:
    """(n, k) a piecewise constant track: after each random wait, draw() gives a new value (k,).

    moments: seconds; the share `locked` of the changes come at the next of them, if one comes
    within 1.5 s.
    """
    track = np.empty((len(t), len(draw())))
    i = 0
    while i < len(t):
        end = i + max(round((0.4 + rng.exponential(mean_wait - 0.4)) / DT), 1)
        later = [round(m / DT) for m in moments if 0 <= m / DT - end < 1.5 / DT]
        if rng.random() < locked and later:
            end = later[0] + 1
        track[i:end] = draw()
        i = end
    return track


def stress(speech: Speech, t: np.ndarray) -> np.ndarray:
    """(n,) how stressed the speech is at times t: bumps on stressed vowels times their loudness."""
    power = np.convolve(speech.audio.astype(float) ** 2, np.ones(800) / 800, "same")
    at = np.minimum((t * SAMPLE_RATE).astype(int), len(power) - 1)
    loud = np.sqrt(power[at])
    loud /= np.sqrt(np.mean(loud**2)) + 1e-9
    bumps = np.zeros_like(t)
    for start, end, phone in speech.phones:
        if "ˈ" in phone:
            bumps = np.maximum(bumps, np.exp(-(((t - (start + end) / 2) / 0.12) ** 2)))
    return gaussian_filter1d(bumps * np.clip(loud, 0, 2), 0.06 / DT)


def head_motion(t: np.ndarray, beat: np.ndarray, ends, style: dict, rng) -> np.ndarray:
    """(n, 6) pitch, yaw, roll (radians), x, y, z (metres) about the neck and rest position.

    Posture targets at random times, followed by critically damped springs; nods on stress, beat
    (n,); a slow drift. ends: seconds at which phrases end. style: range (degrees of pitch, yaw,
    roll at two standard deviations), posture (their means), sway (metres), nod (degrees), wait
    (mean seconds between postures), quickness (rad/s of the springs), locked (the share of new
    postures that come with a phrase's end); if any, turns (degrees of yaw, and their share of the
    postures) and rock (degrees of roll, metres to the side, seconds of a period).
    """
    limit = np.concatenate([np.radians(style["range"]), np.array([1, 0.5, 0.8]) * style["sway"]])
    (wide, share), sides = style.get("turns", (0, 0)), cycle((-1, 1))

    def draw() -> np.ndarray:
        z = np.clip(rng.normal(0, 0.5, 6), -1, 1)
        z[2] = np.clip(0.7 * z[2] + 0.3 * z[1], -1, 1)  # a turned head tilts a little
        z[3] = np.clip(0.6 * z[3] + 0.4 * z[1], -1, 1)
        target = 0.8 * limit * z
        if rng.random() < share:
            target[1] = next(sides) * np.radians(wide) * rng.uniform(0.85, 1)
        return target

    targets = steps(t, style["wait"], draw, rng, ends, style["locked"])
    motion = spring(targets, style["quickness"])
    for period in (31, 17, 7.3):
        phase = rng.uniform(0, 2 * np.pi, 6)
        motion += 0.07 * limit * np.sin(2 * np.pi * t[:, None] / period + phase)
    sign = np.sign(steps(t, 2.5, lambda: rng.normal(0.35, 1, 1), rng))  # mostly down, some up
    motion[:, 0] += np.radians(style["nod"]) * beat * gaussian_filter1d(sign[:, 0], 0.15 / DT)
    degrees, metres, period = style.get("rock", (0, 0, 1))
    swing = 0.6 + 0.4 * spring(steps(t, 4, lambda: rng.uniform(-1, 1, 1), rng), 1.5)[:, 0]
    swing *= np.sin(2 * np.pi * t / period + rng.uniform(0, 2 * np.pi))
    motion[:, [2, 3]] += swing[:, None] * [np.radians(degrees), metres]
    motion[:, :3] += np.radians(style["posture"])
    return motion


def torso_motion(t: np.ndarray, style: dict, rng) -> np.ndarray:
    """(n, 6) the torso's own motion, as of `head_motion`: no function of the head's.

    style: turn (degrees of yaw at two standard deviations), sway (metres), wait (mean seconds).
    """
    turn = np.radians(style["turn"])
    limit = np.array([0.3 * turn, turn, 0.4 * turn, *(style["sway"] * np.array([1, 0.3, 0.6]))])
    draw = lambda: limit * np.clip(rng.normal(0, 0.5, 6), -1, 1)  # noqa: E731
    return spring(steps(t, style["wait"], draw, rng), 2.0)


def rotations(h: np.ndarray) -> np.ndarray:
    """(n, 3, 3) R = Rz(roll) Ry(yaw) Rx(pitch) of (n, 6) poses."""
    return Rotation.from_euler("xyz", h[:, :3]).as_matrix()


def about(pivot: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """(n, 6) poses X_cam = R X + t that turn about `pivot` (canonical), then move, from REST."""
    turned = pivot - np.einsum("nij,j->ni", rotations(motion), pivot)
    return np.concatenate([motion[:, :3], motion[:, 3:] + turned + REST], axis=1)


def perform(
    name: str,
    look: dict,
    names: tuple[str, ...],
    speech: Speech,
    seed: int,
    take: str = "",
) -> Performance:
    """The whole take of one actor.

    names: the 52 actions in order; speech sets the length; take: another name gives other
    movements.
    """
    seconds = len(speech.audio) / SAMPLE_RATE
    n = round(seconds * FPS) * STEPS
    t = (np.arange(n) + 0.5) * DT
    style = look["motion"]
    rng = lambda stream: generator(name, take + stream, seed)  # noqa: E731

    tracks = {a: np.zeros(n) for a in names}

    def both(action: str, value: np.ndarray, lean: float = 0.0) -> None:
        sides = [a for a in (f"{action}Left", f"{action}Right") if a in tracks] or [action]
        for side in sides:
            share = 1 + lean * (1 if side.endswith("Left") else -1) * (len(sides) == 2)
            tracks[side] += value * share

    habits = generator(name, "mouth", seed)  # of the person: the same in each take
    for action, track in mouth(speech, t, style["mouth"], habits).items():
        both(action, track, style["mouth"]["lean"])
    open_mouth = np.clip(tracks["jawOpen"], 0, 1)
    face = rng("face")
    smile = spring(steps(t, 4, lambda: face.uniform(0, 1, 1), face), 3)[:, 0]
    both("mouthSmile", style["smile"] * (0.4 + 0.6 * smile) * (1 - 0.5 * open_mouth))
    both("cheekSquint", 0.5 * style["smile"] * smile)

    ends = phrase_ends(speech)
    lid, onsets = blinks(seconds, style["blinks"], ends, t, rng("blinks"))
    beat = stress(speech, t)
    motion = head_motion(t, beat, ends, style["head"], rng("head"))
    both("browOuterUp", style["brows"] * 0.5 * beat)
    tracks["browInnerUp"] += style["brows"] * beat
    both("browDown", 0.15 * lid)

    # The eyes stay on the camera while the head turns, and jump a few degrees now and then.
    look_rng, look_style = rng("gaze"), style["gaze"]
    spread = np.radians(look_style["wander"]) * np.array([1, 0.5])
    away = steps(t, look_style["wait"], lambda: look_rng.normal(0, spread), look_rng)
    away = gaussian_filter1d(away, 0.012 / DT, axis=0)
    gaze = away - look_style["follow"] * motion[:, [1, 0]] * np.array([-1, 1])
    gaze = np.clip(gaze, -0.25, 0.25)
    lowered, raised = np.clip(gaze[:, 1], 0, None), np.clip(-gaze[:, 1], 0, None)
    both("eyeLookDown", 1.4 * lowered * (1 - lid))
    both("eyeLookUp", 1.4 * raised * (1 - lid))
    both("eyeBlink", lid)

    # The torso follows the head as a delayed, weak copy, and moves by itself; then the head rides
    # on it and turns back by half to the camera.
    follow = gaussian_filter1d(motion, 0.35 / DT, axis=0, mode="nearest")
    own = torso_motion(t, style["torso"], rng("torso"))
    torso = follow * np.array([0.05, 0.14, 0.10, 0.35, 0.2, 0.35]) + own
    torso[:, 4] -= breath(ends, t)
    motion = motion + own * np.array([0.5, 0.5, 0.5, 1, 1, 1])

    blink = expose(lid)
    actions = np.clip(np.stack([expose(tracks[a]) for a in names], axis=1), 0, 1)
    return Performance(
        actions=actions,
        h=about(NECK, expose(motion)),
        torso=about(NECK + np.array([0, 0.15, 0]), expose(torso)),
        gaze=expose(gaze),
        blink=blink,
        blink_onsets=onsets * FPS,
        speech=speech,
    )
