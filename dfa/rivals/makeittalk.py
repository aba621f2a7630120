"""MakeItTalk (Zhou et al., SIGGRAPH Asia 2020): sound to landmarks, with a speaker's own motion.

- Speech content: an LSTM hears what is said, and an MLP that is told the reference's landmarks
  turns it into displacements of 68 points (section 4.1), trained by L2 and by the L2 of the graph
  Laplacian of the displaced points (eq. 3).
- Speaker-aware animation: LSTM and self-attention over the content, told a voice and noise, add the
  head's pose and displacements in the voice's manner; a discriminator with self-attention tells
  real sequences (section 4.2). Eyes blink by a schedule, whoever speaks, as in the released code.
- Picture: a U-Net from the drawn landmarks and the reference to the frame (section 4.3).

What is different here: the content is MFCC from which the utterance's mean and variance, the voice,
are taken out, not AutoVC's code; the voice is the mean and spread of the utterance's log mel bands,
not a network for verification. The head's pose is explicit, and the points are projected by it; the
speaker's displacements are of brows and eyes alone, and as so short a GAN training leaves the head
almost still, the spread of poses and of their changes is matched too. The U-Net learns from twelve
people, so it gets help: the reference is first moved to the wanted points by a smooth warp, as the
paper moves cartoons by a warp of triangles; the U-Net works on the face, aligned by brows, eyes and
nose, moves it by a learnt flow and paints over it; eyes and mouth, which are few pixels here, count
more. There is no VGG for a perceptual loss.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio import N_MFCC, PER_FRAME, mfcc, variants
from ..media import FPS, frame_count
from ..nerf import region_weights
from ..training import digest
from .crops import Overpaint, aligning, cut, inside, moved, paste
from .method import Method, Recording, in_image
from .parts import (
    LINES,
    MEL_PER_FRAME,
    N_MEL,
    UNet,
    adversarial,
    around,
    draw,
    draw_landmarks,
    mel,
    pictures,
    to_and_fro,
)  # fmt: skip

UNIT = 0.01  # landmarks in the networks are in centimetres
BEFORE, AFTER = 3, 5  # frames either way that one moment hears
HEARD = (BEFORE + 1 + AFTER) * PER_FRAME * N_MFCC
NOISE, VOICE, HEAR_VOICE = 8, 2 * N_MEL, 6 * FPS * MEL_PER_FRAME
NEAR = 16  # frames either way that attention reaches
EYES = np.arange(36, 48)
MANNER = [*range(17, 27), *range(36, 48)]  # brows and eyes
UPPER_LID, LOWER_LID = [37, 38, 43, 44], [41, 40, 47, 46]
DROP = 0.2
LAPLACE, RECONSTRUCT, SPREAD = 1.0, 0.1, 2.0  # what these losses count
CONTENT_STEPS, SPEAKER_STEPS, PICTURE_STEPS = 350, 200, 1400
EDGE, REGION, BATCH = 4.0, 20.0, 4  # lines are few pixels; what eyes and mouth count
LR_C, LR_G, LR_D, LR_P = 2e-3, 1e-3, 2e-3, 2e-3  # content, speaker, critic, painter


def laplacian() -> Tensor:
    """(68, 68): each landmark minus the mean of its neighbours along the face's lines."""
    near = torch.zeros(68, 68)
    for lines in LINES:
        for (start, stop), closed in lines:
            for a, b in zip(range(start, stop - 1), range(start + 1, stop), strict=True):
                near[a, b] = near[b, a] = 1
            if closed:
                near[start, stop - 1] = near[stop - 1, start] = 1
    return torch.eye(68) - near / near.sum(1, keepdim=True)


def landmark_loss(made: Tensor, real: Tensor, laplace: Tensor) -> Tensor:
    """Eq. 3: squared distances of landmarks (..., 68, 3), and of their Laplacian coordinates."""
    error = made - real
    return (error.square().sum(-1) + LAPLACE * (laplace @ error).square().sum(-1)).mean()


def voice(sound: np.ndarray) -> np.ndarray:
    """Log mel spectrogram (n, 80) -> mean and spread of each band, (160,)."""
    return np.concatenate([sound.mean(0), sound.std(0)])


def blinks(n_frames: int, rng: np.random.Generator) -> np.ndarray:
    """How far the eyes are shut, (T,) in 0..1, by the released code's schedule: the first blink
    at 0.48 s, each next 1.44 to 2.4 s later; the lids fall for 0.16 s and rise for 0.24 s."""
    shut, t, now = np.zeros(n_frames), np.arange(n_frames) / FPS, 0.48
    while now < n_frames / FPS:
        at = round(now * FPS) / FPS  # on a frame, so that the eye is seen shut
        shut = np.maximum(shut, np.interp(t - at, [-0.16, 0, 0.24], [0, 1, 0]))
        now += rng.uniform(1.44, 2.4)
    return shut


def spread_loss(made: Tensor, real: Tensor) -> Tensor:
    """How the spread of poses (B, T, 6) and of their changes differs, relative to the real."""
    error = 0.0
    for a, b in ((made, real), (made.diff(dim=1), real.diff(dim=1))):
        a, b = a.flatten(0, 1).std(0), b.flatten(0, 1).std(0) + 1e-3
        error = error + ((a - b) / (a + b)).square().mean()
    return error


def slow_noise(batch: int, n_frames: int, g: torch.Generator) -> Tensor:
    """Noise (B, T, 8) of unit variance, drawn anew about twice a second and smooth between."""
    knots = torch.randn(batch, NOISE, n_frames // 12 + 4, generator=g)
    y = F.interpolate(knots, scale_factor=12, mode="linear")[..., 12 : 12 + n_frames]
    return 1.2 * y.mT


def field(known: np.ndarray, rigid: np.ndarray, wanted: np.ndarray, size: int) -> np.ndarray:
    """Where each pixel of the moved reference is taken from, (size, size, 2) in units of the side.

    The affine map that brings the known points (68, 2) to where a rigid head has them is undone
    inside the head and fades outside of it; what the wanted points differ from that map is undone
    near each of them.
    """
    plane = lambda p: np.concatenate([p, np.ones((len(p), 1))], 1)  # noqa: E731
    n = size // 4
    v, u = np.mgrid[:n, :n]
    x = (np.stack([u, v], -1).reshape(-1, 2) + 0.5) / n
    back = np.linalg.lstsq(plane(rigid), known, rcond=None)[0]
    far = np.abs(rigid[16] - rigid[0]).max()  # the face's width
    d = (x - rigid[27]) / far  # about the root of the nose
    tall = np.where(d[:, 1] < 0, 0.85, 1.15)  # hair above, and the neck, which stays, below
    head = 1 / (1 + np.exp((np.hypot(d[:, 0], d[:, 1] * tall) - 0.95) / 0.08))
    width = 0.1 * far  # of the Gaussians that interpolate between the wanted points
    near = lambda y: np.exp(-0.5 * np.square((y[:, None] - wanted) / width).sum(-1))  # noqa: E731
    # torch's: numpy's threads wait for each other longer than so small a system takes
    system = near(wanted) + 0.1 * np.eye(68), known - plane(wanted) @ back
    local = near(x) @ torch.linalg.solve(*map(torch.from_numpy, system)).numpy()
    moves = head[:, None] * (plane(x) @ back - x) + local
    moves = cv2.resize(moves.reshape(n, n, 2), (size, size), interpolation=cv2.INTER_LINEAR)
    v, u = np.mgrid[:size, :size]
    return ((np.stack([u, v], -1) + 0.5) / size + moves).astype(np.float32)


class Shown:
    """Frame e of a recording, moved to poses h (T, 6) and landmarks (T, 68, 3) by the smooth warp.

    moved: (T, S, S, 3) uint8; points: (T, 68, 2), where landmarks are wanted; matrices: (T, 2, 3)
    that cut the wanted faces.
    """

    def __init__(self, r: Recording, e: int, h: np.ndarray, landmarks: np.ndarray) -> None:
        a, frame = r.attributes, np.ascontiguousarray(r.frames[e])
        S, known, theirs = len(frame), a.points[e], a.landmarks[e : e + 1]
        own = known - in_image(a.h[e : e + 1], theirs)[0]  # the person's proportions
        rigid = in_image(h, np.repeat(theirs, len(h), 0)) + own
        self.points = in_image(h, landmarks) + own
        self.matrices = aligning(self.points, landmarks)
        maps = [S * field(known, p, q, S) - 0.5 for p, q in zip(rigid, self.points, strict=True)]
        self.moved = np.stack([
            cv2.remap(frame, m, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for m in maps
        ])  # fmt: skip
        matrix = aligning(known[None], theirs)
        self.known = moved(known[None], matrix), pictures(cut(frame, matrix[0])[None])

    def told(self) -> Tensor:
        """What the painter sees: the face moved and still, the lines wanted and its own,
        (T, 12, s, s)."""
        crops = np.stack(list(map(cut, self.moved, self.matrices)))
        side, (points, still) = crops.shape[1], self.known
        wanted, own = (torch.from_numpy(draw_landmarks(p, side)) / 255
                       for p in (moved(self.points, self.matrices), points))  # fmt: skip
        T = len(crops)
        return torch.cat([pictures(crops), still.expand(T, -1, -1, -1), EDGE * wanted,
                          EDGE * own.expand(T, -1, -1, -1)], 1)  # fmt: skip


class Attention(nn.Module):
    """Self-attention of each moment over those around it, and a dense layer (Vaswani et al. 2017);
    sequences of any length, (B, T, D) -> (B, T, D)."""

    def __init__(self, dim: int, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.dense = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))
        self.norms = nn.ModuleList([nn.LayerNorm(dim), nn.LayerNorm(dim)])
        self.place = nn.Parameter(torch.zeros(heads, 2 * NEAR + 1))  # what nearness counts

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norms[0](x)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        there = F.pad(torch.ones(x.shape[1], device=x.device), (NEAR, NEAR)).unfold(
            0, 2 * NEAR + 1, 1
        )
        k, v = (F.pad(y, (0, 0, 0, 0, NEAR, NEAR)).unfold(1, 2 * NEAR + 1, 1) for y in (k, v))
        score = torch.einsum("bthd,bthdn->bthn", q, k) / q.shape[-1] ** 0.5 + self.place
        share = score.masked_fill(there[:, None] == 0, -torch.inf).softmax(-1)
        x = x + self.out(torch.einsum("bthn,bthdn->bthd", share, v).flatten(2))
        return x + self.dense(self.norms[1](x))


class Content(nn.Module):
    """Windows of MFCC (B, T, W), reference landmarks (B, 68, 3) -> displacements (B, T, 68, 3)."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.sound = nn.Sequential(nn.Dropout(DROP), nn.Linear(HEARD, width), nn.ReLU())
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width + 68 * 3, width), nn.ReLU(), nn.Dropout(DROP),
            nn.Linear(width, 68 * 3),
        )  # fmt: skip

    def forward(self, windows: Tensor, reference: Tensor) -> Tensor:
        c, _ = self.lstm(self.sound(windows))
        told = reference.flatten(1)[:, None].expand(-1, c.shape[1], -1)
        return self.mlp(torch.cat([c, told], -1)).unflatten(-1, (68, 3))


class Speaker(nn.Module):
    """Windows of MFCC (B, T, W), noise (B, T, 8) and a voice (B, 160) -> poses (B, T, 6) relative
    to the reference in units of the corpus's spread, and displacements (B, T, 68, 3), of the brows
    and eyes alone."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.voice = nn.Sequential(
            nn.Linear(VOICE, 32), nn.ReLU(), nn.Dropout(DROP), nn.Linear(32, 16)
        )
        self.sound = nn.Sequential(nn.Dropout(DROP), nn.Linear(HEARD, width), nn.ReLU())
        self.lstm = nn.LSTM(width + NOISE + 16, width, batch_first=True)
        self.attention = nn.Sequential(
            Attention(width), Attention(width), nn.Linear(width, 6 + 3 * len(MANNER))
        )

    def forward(self, windows: Tensor, noise: Tensor, voice: Tensor) -> tuple[Tensor, Tensor]:
        told = self.voice(voice)[:, None].expand(-1, windows.shape[1], -1)
        y = self.attention(self.lstm(torch.cat([self.sound(windows), noise, told], -1))[0])
        moved = y.new_zeros(*y.shape[:2], 68, 3)
        moved[:, :, MANNER] = y[..., 6:].unflatten(-1, (-1, 3))
        return y[..., :6], moved


class Critic(nn.Module):
    """Is this motion real, and this voice's? `motion` (B, T, 12 + 204 + 160) -> (B, T)."""

    tells_real = True

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        sizes = (12, 68 * 3, VOICE)
        self.enter = nn.ModuleList(nn.Linear(n, width) for n in sizes)
        self.sizes, leak = sizes, nn.LeakyReLU(0.2)
        self.attention = nn.Sequential(
            leak, nn.Linear(width, width), leak, Attention(width), Attention(width),
            nn.Linear(width, 1),
        )  # fmt: skip

    @staticmethod
    def motion(pose: Tensor, displaced: Tensor, voice: Tensor) -> Tensor:
        """Poses (B, T, 6) and their changes, displacements (B, T, 68, 3), a voice (B, 160)."""
        change = 5 * pose.diff(dim=1, prepend=pose[:, :1])
        told = voice[:, None].expand(-1, pose.shape[1], -1)
        return torch.cat([pose, change, displaced.flatten(2), told], -1)

    def forward(self, x: Tensor) -> Tensor:
        parts = zip(self.enter, x.split(self.sizes, -1), strict=True)
        return self.attention(sum(enter(part) for enter, part in parts))[..., 0]


class Painter(nn.Module):
    """A face moved and still, drawn landmarks wanted and its own (B, 12, s, s) -> (B, 3, s, s)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.unet, self.overpaint = UNet(12, 6, width, levels=3), Overpaint()
        nn.init.normal_(self.unet.out.weight, std=0.003)
        nn.init.zeros_(self.unet.out.bias)

    def forward(self, told: Tensor) -> Tensor:
        return self.overpaint(self.unet(told), told[:, :3])


class MakeItTalk(Method):
    """Landmarks from sound, in a manner from the voice; a picture from landmarks."""

    name, learns_from, takes = "MakeItTalk", "corpus", ("reference", "pose", "eyes")
    own, face_model = ("heads", "eyes"), "2D landmarks"

    def fit(self, corpus: list[Recording], subject: Recording) -> None:
        self.subject = subject.part(0, 1)
        h = [r.attributes.h - np.median(r.attributes.h, 0) for r in corpus]
        self.spread = np.concatenate(h).std(0).astype(np.float32) + 1e-6
        self.mean = np.concatenate([r.attributes.landmarks for r in corpus]).mean(0)
        self.laplace = laplacian().to(self.device)
        torch.manual_seed(self.seed)
        self.content, self.speaker = Content().to(self.device), Speaker().to(self.device)
        self.critic, self.painter = Critic().to(self.device), Painter().to(self.device)
        inputs = digest([r.digest for r in corpus])
        tracks, rng = [], np.random.default_rng(self.seed)
        for r, pose in zip(corpus, h, strict=True):
            p = ((r.attributes.landmarks - self.mean) / UNIT).reshape(len(r), -1)
            track = np.concatenate([pose / self.spread, p], 1).astype(np.float32)
            heard = [(mfcc(r.audio, len(r)), track), *variants(r.audio, track, 3, rng)]
            tracks += [(*map(torch.from_numpy, pair), mel(r.audio, len(r))) for pair in heard]
        self._fit_content(tracks, inputs)
        self._fit_speaker(tracks, inputs)
        self._fit_painter(corpus, inputs)

    def _clips(self, tracks: list[tuple], n: int, batch: int, g: torch.Generator) -> list[Tensor]:
        """Of random stretches: windows of sound (B, n, W), poses (B, n, 6), landmarks and the
        reference's (B, n, 68, 3), (B, 68, 3), and voices (B, 160)."""
        out = []
        for _ in range(batch):
            sound, track, bands = tracks[draw(len(tracks), g)]
            t, k = draw(len(track) - n + 1, g), draw(max(1, len(bands) - HEAR_VOICE), g)
            p = track[:, 6:].unflatten(-1, (68, 3))
            heard = self.windows(sound[PER_FRAME * max(0, t - 10) : PER_FRAME * (t + n + 10)])
            heard = heard[t - max(0, t - 10) :][:n]
            v = torch.from_numpy(voice(bands[k : k + HEAR_VOICE]))
            out.append((heard, track[t : t + n, :6], p[t : t + n], p[draw(len(p), g)], v))
        return [torch.stack(x).to(self.device) for x in zip(*out, strict=True)]

    @staticmethod
    def windows(sound: Tensor) -> Tensor:
        """MFCC (4 T, 20) -> what each moment hears, (T, W)."""
        return around(sound.reshape(len(sound) // PER_FRAME, -1), BEFORE, AFTER).flatten(1)

    def _fit_content(self, tracks: list[tuple], inputs: str) -> None:
        n = min(50, *(len(track) for _, track, _ in tracks))

        def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            heard, _, real, reference, _ = self._clips(tracks, n, 16, g)
            made = reference[:, None] + self.content(heard, reference)
            return landmark_loss(made, real, self.laplace), {}

        self.learn("content", self.content, loss, CONTENT_STEPS, LR_C, inputs, weight_decay=0.02)

    def _fit_speaker(self, tracks: list[tuple], inputs: str) -> None:
        n = min(64, *(len(track) for _, track, _ in tracks))
        both = nn.ModuleList([self.speaker, self.critic])
        self.content.eval()

        def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            heard, pose, real, reference, voice = self._clips(tracks, n, 12, g)
            with torch.no_grad():
                said = self.content(heard, reference)
            noise = slow_noise(len(heard), n, g).to(self.device)
            turned, manner = self.speaker(heard, noise, voice)
            made, wanted = said + manner, real - reference[:, None]
            shape = landmark_loss(made, wanted, self.laplace)
            there = self.critic.motion(pose, wanted, voice)
            false = self.critic.motion(turned, made, voice)
            fools, tells = adversarial(self.critic, there, false)
            back = F.mse_loss(turned, pose)
            lively = spread_loss(turned, pose)
            total = shape + RECONSTRUCT * back + SPREAD * lively + fools + tells
            return total, dict(shape=shape.item(), pose=back.item(), tells=tells.item(),
                               fools=fools.item())  # fmt: skip

        rates = [dict(params=list(self.speaker.parameters()), lr=LR_G),
                 dict(params=list(self.critic.parameters()), lr=LR_D)]  # fmt: skip
        self.learn("speaker", both, loss, SPEAKER_STEPS, rates, inputs, clip=None)

    def _fit_painter(self, corpus: list[Recording], inputs: str) -> None:
        def shown(g: torch.Generator) -> tuple[Tensor, ...]:
            """What the painter sees of two random frames of a person, the truth, and what pixels
            count."""
            r = corpus[draw(len(corpus), g)]
            a, t = r.attributes, draw(len(r), g)
            shown = Shown(r, draw(len(r), g), a.h[t : t + 1], a.landmarks[t : t + 1])
            told, truth = shown.told(), pictures(cut(r.frames[t], shown.matrices[0])[None])
            points = torch.from_numpy(moved(a.points[t : t + 1], shown.matrices))
            weight = region_weights(points, truth.shape[-1], REGION)
            if draw(2, g):
                told, truth, weight = told.flip(-1), truth.flip(-1), weight.flip(-1)
            gain = (0.7 + 0.6 * torch.rand(1, 3, 1, 1, generator=g)).repeat(1, 2, 1, 1)
            told[:, :6] = (told[:, :6] * gain).clamp(0, 1)
            return told, (truth * gain[:, :3]).clamp(0, 1), weight

        def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            batch = zip(*(shown(g) for _ in range(BATCH)), strict=True)
            told, truth, weight = (torch.cat(x).to(self.device) for x in batch)
            l1 = (weight * (self.painter(told) - truth).abs()).mean()
            still = (weight * (told[:, :3] - truth).abs()).mean()
            return l1, {"warp": still.item()}

        self.learn("picture", self.painter, loss, PICTURE_STEPS, LR_P, inputs, clip=None)

    @torch.inference_mode()
    def landmarks(
        self, audio: np.ndarray, pose: Recording | None, eyes: Recording | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Poses (T, 6) and landmarks (T, 68, 3), metres, of the reference saying this."""
        T, known = frame_count(audio), self.subject.attributes
        reference = torch.from_numpy((known.landmarks - self.mean) / UNIT).float().to(self.device)
        heard = self.windows(torch.from_numpy(mfcc(audio, T)))[None].to(self.device)
        noise = slow_noise(1, T, torch.Generator().manual_seed(self.seed)).to(self.device)
        who = torch.from_numpy(voice(mel(audio, T)))[None].to(self.device)
        turned, manner = self.speaker(heard, noise, who)
        said = self.content(heard, reference)
        landmarks = known.landmarks + UNIT * (said + manner)[0].cpu().numpy()
        h = known.h[:1] + self.spread * turned[0].cpu().numpy()
        if pose is not None:
            h = to_and_fro(pose.attributes.h, T)
        if eyes is not None:
            theirs = eyes.attributes.landmarks[:, EYES]
            landmarks[:, EYES] = known.landmarks[:, EYES] + to_and_fro(
                theirs - np.median(theirs, 0), T
            )
        else:
            shut = blinks(T, np.random.default_rng(self.seed))[:, None, None]
            landmarks[:, UPPER_LID] += shut * (landmarks[:, LOWER_LID] - landmarks[:, UPPER_LID])
        return h, landmarks

    @torch.inference_mode()
    def render(
        self, audio: np.ndarray, pose: Recording | None = None, eyes: Recording | None = None
    ) -> Iterator[np.ndarray]:
        h, landmarks = self.landmarks(audio, pose, eyes)
        share = inside(self.subject.frames.shape[1] // 2)
        for start in range(0, len(h), 16):
            part = slice(start, start + 16)
            shown = Shown(self.subject, 0, h[part], landmarks[part])
            made = self.painter(shown.told().to(self.device)).cpu()
            for frame, crop, matrix in zip(shown.moved, made, shown.matrices, strict=True):
                yield paste(frame, crop, share, matrix)
