"""ATVG (Chen et al., CVPR 2019): sound to landmarks to one person's picture, which does not turn.

- AT-net: a convolutional network on windows of MFCC and the example's landmarks feed an LSTM, whose
  outputs are principal components of landmarks (section 3.1).
- VG-net: the example picture, and how features of the wanted landmarks differ from those of the
  example's, drive a convolutional recurrent network; it gives a colour image and an attention map:
  out = att · colour + (1 - att) · example (section 3.2, eq. 6).
- The dynamic pixel-wise loss: L1 weighted by the attention itself (eq. 8). A discriminator says
  what is real, and regresses the landmarks of what it sees (eq. 9 and 10).

As there, the network works on a face crop that is aligned by eyes and nose, half a frame wide here,
and head and background are those of the example. Landmarks are frontal and identity-free (`l` of
eq. 1 of DFA-NeRF), so the example's proportions are added to what the AT-net says. Smaller, and
with twelve people, so it gets help: landmarks are drawn as lines for a convolutional network, not
told to a dense one; of a few examples in training, the one whose head is turned most as the wanted;
eyes and mouth count more; colours and sides are disturbed. The colour image is compared with the
truth by itself too: attention that closes on a colour that is not learnt yet never opens again.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from torch import Tensor, nn

from ..audio import N_MFCC, PER_FRAME, mfcc, variants
from ..media import frame_count
from ..nerf import region_weights
from ..training import digest
from .crops import Faces, canonical, inside, paste
from .method import Method, Recording
from .parts import PatchDiscriminator, around, conv, draw, draw_landmarks, frozen, least_squares

COMPONENTS = 16
AROUND = 3  # frames either way: windows of 28 MFCC vectors, as in the paper
DISTURBED = 4  # versions of each person's sound, beside it
PEOPLE, FRAMES = 2, 2  # of a step of the VG-net, and frames in a row of each
NEAR = 24  # examples to choose from for each
EDGE = 4.0  # lines are few pixels
WIDTH = 16
REGION = 60.0  # what eyes and mouth count
FOOLS, READS = 0.003, 0.003  # weights of the losses beside the pixels'
STEPS = dict(landmarks=350, pictures=2800)
LR = 2e-3


class ATNet(nn.Module):
    """MFCC windows (B, T, 28, 20) and the example's components (B, 16) -> components (B, T, 16)."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.sound = nn.Sequential(
            nn.Conv1d(N_MFCC, width, 5, 2, 2), nn.ReLU(),
            nn.Conv1d(width, width, 5, 2, 2), nn.ReLU(),
            nn.Flatten(), nn.Dropout(0.3), nn.Linear(width * 7, width), nn.ReLU(),
        )  # fmt: skip
        self.example = nn.Sequential(nn.Linear(COMPONENTS, 32), nn.ReLU())
        self.lstm = nn.LSTM(width + 32, width, batch_first=True)
        self.out = nn.Linear(width, COMPONENTS)

    def forward(self, windows: Tensor, example: Tensor) -> Tensor:
        heard = self.sound(windows.flatten(0, 1).mT).unflatten(0, windows.shape[:2])
        told = self.example(example)[:, None].expand(-1, heard.shape[1], -1)
        return self.out(self.lstm(torch.cat([heard, told], -1))[0])


class ConvGRU(nn.Module):
    """A GRU whose gates are convolutions (Ballas et al. 2016)."""

    def __init__(self, c_in: int, c: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(c_in + c, 2 * c, 3, padding=1)
        self.candidate = nn.Conv2d(c_in + c, c, 3, padding=1)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        z, r = self.gates(torch.cat([x, h], 1)).sigmoid().chunk(2, 1)
        return torch.lerp(h, self.candidate(torch.cat([x, r * h], 1)).tanh(), z)


class VGNet(nn.Module):
    """Example picture and landmarks -> frames and attention. Convolutions are at half the crop's
    resolution and below, the recurrent ones at a quarter."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        w = width
        self.near, self.far = conv(12, w), nn.Sequential(conv(w, 2 * w, 2), conv(2 * w, 2 * w))
        self.lines = nn.Sequential(conv(12, w), conv(w, 2 * w, 2), conv(2 * w, 2 * w))
        self.deep = nn.Sequential(conv(4 * w, 2 * w, 2), conv(2 * w, 2 * w))
        self.gru = ConvGRU(6 * w, 2 * w)
        self.up = nn.Sequential(conv(3 * w, 2 * w), conv(2 * w, w))
        self.out = nn.Conv2d(w, 16, 3, padding=1)

    def forward(self, example: Tensor, known: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """example (B, 3, s, s), its lines (B, 3, s, s), wanted ones (B, T, 3, s, s) ->
        colour (B, T, 3, s, s) and attention (B, T, 1, s, s)."""
        B, T = wanted.shape[:2]
        fold = lambda x: F.pixel_unshuffle(x, 2).contiguous(  # noqa: E731
            memory_format=torch.channels_last)  # fmt: skip
        near = self.near(fold(example))
        far = self.far(near)
        lines = self.lines(EDGE * fold(torch.cat([known[:, None], wanted], 1).flatten(0, 1)))
        lines = lines.unflatten(0, (B, T + 1))
        moved = (lines[:, 1:] - lines[:, :1]).flatten(0, 1)
        both = torch.cat([far.repeat_interleave(T, 0), moved], 1)
        deep = F.interpolate(self.deep(both), far.shape[2:], mode="nearest")
        told = torch.cat([both, deep], 1).unflatten(0, (B, T))
        h, states = torch.zeros_like(far), []
        for x in told.unbind(1):
            h = self.gru(x, h)
            states.append(h)
        y = F.interpolate(torch.stack(states, 1).flatten(0, 1), scale_factor=2, mode="nearest")
        y = self.up(torch.cat([y, near.repeat_interleave(T, 0)], 1))
        y = F.pixel_shuffle(self.out(y), 2).sigmoid().unflatten(0, (B, T))
        return y[:, :, :3], y[:, :, 3:]


def blend(colour: Tensor, attention: Tensor, example: Tensor) -> Tensor:
    """Eq. 6: attention 0 keeps the example, 1 replaces it."""
    return torch.lerp(example, colour, attention)


class Judge(PatchDiscriminator):
    """Scores of patches, and the landmarks' components (B, 16) that it sees."""

    def __init__(self, width: int = 16) -> None:
        super().__init__(3, width)
        self.regress = nn.Sequential(
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64 * width, COMPONENTS)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.layers[:-1](x)
        return self.layers[-1](features), self.regress(features)


class ATVG(Method):
    """The head stands as in the reference frame; the face speaks."""

    name, learns_from, takes = "ATVG", "corpus", ("reference",)
    face_model = "2D landmarks"

    def fit(self, corpus: list[Recording], subject: Recording) -> None:
        self.subject = subject.part(0, 1)
        landmarks = np.concatenate([canonical(r.attributes.landmarks) for r in corpus])
        self.pca = PCA(COMPONENTS, random_state=0).fit(landmarks.reshape(len(landmarks), -1))
        self.spread = np.sqrt(self.pca.explained_variance_)
        # the first components are what moves most: they count as much as they move
        self.weight = torch.from_numpy(self.spread / self.spread[0]).float().to(self.device)
        torch.manual_seed(self.seed)
        self.at = ATNet().to(self.device)
        self.vg = nn.ModuleDict({"net": VGNet(), "judge": Judge()}).to(self.device)
        inputs = digest([r.digest for r in corpus])
        self._fit_landmarks(corpus, inputs)
        self._fit_pictures(corpus, digest(inputs, REGION, FOOLS, READS))

    def components(self, landmarks: np.ndarray) -> np.ndarray:
        """Landmarks (T, 68, 3) -> principal components in units of their spread, (T, 16)."""
        flat = canonical(landmarks).reshape(len(landmarks), -1)
        return (self.pca.transform(flat) / self.spread).astype(np.float32)

    def points(self, components: np.ndarray) -> np.ndarray:
        """Components (T, 16) -> the crop, (T, 68, 2), in the mean face's proportions."""
        flat = self.pca.inverse_transform(components * self.spread)
        return flat.reshape(len(flat), 68, 2).astype(np.float32)

    def lines(self, points: np.ndarray, faces: Faces, example: int) -> Tensor:
        """Lines (T, 3, s, s) of points in the mean face's proportions (T, 68, 2), in those of an
        example whose own points they begin with."""
        points = points - points[:1] + faces.points[example]
        return torch.from_numpy(draw_landmarks(points, faces.side)).float() / 255

    def error(self, made: Tensor, real: Tensor) -> Tensor:
        """Mean squared distance of components (..., 16), as far as they move landmarks."""
        return (self.weight * (made - real)).square().sum(-1).mean()

    def _fit_landmarks(self, corpus: list[Recording], inputs: str) -> None:
        tracks, rng = [], np.random.default_rng(self.seed)
        for r in corpus:
            p = self.components(r.attributes.landmarks)
            tracks += [(mfcc(r.audio, len(r)), p), *variants(r.audio, p, DISTURBED, rng)]
        tracks = [(windows(sound), torch.from_numpy(p)) for sound, p in tracks]
        n, batch = min(50, *(len(p) for _, p in tracks)), 12

        def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            clips = []
            for _ in range(batch):
                sound, p = tracks[draw(len(tracks), g)]
                t, e = draw(len(p) - n + 1, g), draw(len(p), g)
                clips.append((sound[t : t + n], p[e], p[t : t + n]))
            sound, example, wanted = (torch.stack(x).to(self.device)
                                      for x in zip(*clips, strict=True))  # fmt: skip
            return self.error(self.at(sound, example), wanted), {}

        self.learn("landmarks", self.at, loss, STEPS["landmarks"], 2e-3, inputs, weight_decay=0.02)

    def _fit_pictures(self, corpus: list[Recording], inputs: str) -> None:
        people = [(Faces(r), self.components(r.attributes.landmarks)) for r in corpus]

        def clip(g: torch.Generator) -> tuple[Tensor, ...]:
            """An example and frames in a row of the same person; the frames' components, all
            their lines, and what pixels count."""
            faces, p = people[draw(len(people), g)]
            t = draw(len(faces) - FRAMES + 1, g)
            e = faces.alike(t, torch.randint(len(faces), (NEAR,), generator=g).numpy())
            times = [e, *range(t, t + FRAMES)]
            x, lines = faces.crops(times), self.lines(self.points(p[times]), faces, e)
            weight = region_weights(torch.from_numpy(faces.points[times[1:]]), faces.side, REGION)
            if draw(2, g):
                x, lines, weight = x.flip(-1), lines.flip(-1), weight.flip(-1)
            x = (x * (0.7 + 0.6 * torch.rand(1, 3, 1, 1, generator=g))).clamp(0, 1)
            return x, lines, torch.from_numpy(p[times[1:]]), weight

        def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            clips = zip(*(clip(g) for _ in range(PEOPLE)), strict=True)
            x, lines, p, weight = (torch.stack(y).to(self.device) for y in clips)
            colour, attention = self.vg["net"](x[:, 0], lines[:, 0], lines[:, 1:])
            made = blend(colour, attention, x[:, :1])
            dynamic = weight * (attention.detach() + 0.5)
            pixel = (dynamic * (made - x[:, 1:]).abs()).mean()
            bare = (weight * (colour - x[:, 1:]).abs()).mean()
            real, fake, judge = x[:, 1:].flatten(0, 1), made.flatten(0, 1), self.vg["judge"]
            (is_real, read_real), (is_fake, _) = judge(real), judge(fake.detach())
            fooled, read = frozen(judge, fake)
            fools, tells = least_squares(is_real, is_fake, fooled)
            p = p.flatten(0, 1)
            reads = self.error(read, p)
            total = pixel + bare + FOOLS * fools + READS * reads + tells + self.error(read_real, p)
            parts = dict(
                pixel=pixel, bare=bare, fools=fools, tells=tells, reads=reads, open=attention.mean()
            )
            return total, {k: v.item() for k, v in parts.items()}

        rates = [{"params": self.vg["net"].parameters(), "lr": LR},
                 {"params": self.vg["judge"].parameters(), "lr": 4e-4}]  # fmt: skip
        self.learn("pictures", self.vg, loss, STEPS["pictures"], rates, inputs, clip=None)

    @torch.inference_mode()
    def render(
        self, audio: np.ndarray, pose: Recording | None = None, eyes: Recording | None = None
    ) -> Iterator[np.ndarray]:
        """Neither pose nor eyes are followed."""
        faces, example = Faces(self.subject), self.components(self.subject.attributes.landmarks)
        heard = windows(mfcc(audio, frame_count(audio)))[None].to(self.device)
        p = self.at(heard, torch.from_numpy(example).to(self.device))[0].cpu().numpy()
        crop = faces.crops([0]).to(self.device)
        frame, share, matrix = self.subject.frames[0], inside(faces.side), faces.matrices[0]
        for start in range(0, len(p), 100):
            points = self.points(np.concatenate([example, p[start : start + 100]]))
            lines = self.lines(points, faces, 0)[None].to(self.device)
            colour, attention = self.vg["net"](crop, lines[:, 0], lines[:, 1:])
            for image, opened in zip(colour[0], attention[0, :, 0].cpu(), strict=True):
                yield paste(frame, image, share * opened, matrix)  # eq. 6, on the frame itself


def windows(sound: np.ndarray) -> Tensor:
    """MFCC (4 T, 20) -> what each frame hears, (T, 28, 20)."""
    frames = torch.from_numpy(sound).reshape(len(sound) // PER_FRAME, -1)
    return around(frames, AROUND, AROUND).reshape(len(frames), -1, N_MFCC)
