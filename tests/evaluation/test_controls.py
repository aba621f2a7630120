"""Controls of F_d, and how well a code parts mouth from eyes."""

import numpy as np
import pytest
import torch

from dfa.evaluation.controls import (
    Assigned,
    expression,
    expression_landmarks,
    no_swap,
    pca,
    probe,
    separation,
)
from dfa.method.disentangle import DIM_E, EYE_POINTS, MOUTH_POINTS, Disentangler


class Leaky:
    """A code that is the landmarks: f_m the mouth points, f_e the eye points, decoded with leaks.

    All eye points move along with a share `to_eyes` of the first mouth point, and so the other way.
    """

    def __init__(self, to_eyes: float, to_mouth: float):
        self.to_eyes, self.to_mouth = to_eyes, to_mouth

    def encode(self, l):
        return l[..., MOUTH_POINTS, :], l[..., EYE_POINTS, :]

    def decode(self, f_m, f_e):
        l = torch.zeros(*f_m.shape[:-2], 68, 3)
        l[..., MOUTH_POINTS, :] = f_m + self.to_mouth * f_e[..., :1, :]
        l[..., EYE_POINTS, :] = f_e + self.to_eyes * f_m[..., :1, :]
        return l


def test_separation_by_hand():
    """Mouth and eyes move as wholes, so that the leaks are the shares that were put in."""
    g = torch.Generator().manual_seed(0)
    l = torch.randn(68, 3, generator=g).repeat(300, 1, 1)
    mouth, eyes = (torch.randn(300, 1, 3, generator=g) for _ in range(2))
    l[:, MOUTH_POINTS] += mouth
    l[:, EYE_POINTS] += eyes
    clean = separation(Leaky(0, 0), l, torch.Generator().manual_seed(1))
    assert all(len(v) == 300 and np.allclose(v, 0) for v in clean.values())

    leaky = separation(Leaky(0.2, 0.05), l, torch.Generator().manual_seed(1))
    other = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    ratio = float(
        (mouth - mouth[other]).norm(dim=-1).mean() / (eyes - eyes[other]).norm(dim=-1).mean()
    )
    assert leaky["leak_eyes"].mean() == pytest.approx(20 * ratio, rel=1e-3)
    assert leaky["leak_mouth"].mean() == pytest.approx(5 / ratio, rel=1e-3)
    off = [0.05 * l[:, EYE_POINTS[:1]].expand(-1, 46, 3)]
    off += [0.2 * l[:, MOUTH_POINTS[:1]].expand(-1, 22, 3)]
    off = torch.cat(off, 1).norm(dim=-1).mean()
    iod = (l[:, 36:42].mean(1) - l[:, 42:48].mean(1)).norm(dim=-1).mean()
    assert leaky["reconstruction_iod"].mean() == pytest.approx(100 * float(off / iod), rel=1e-3)


def mixed_code(seed: int = 3):
    """A linear code of 40 whose directions move mouth or eyes alone, turned at random."""
    g = torch.Generator().manual_seed(seed)
    basis = torch.zeros(40, 68, 3)
    basis[:32, MOUTH_POINTS] = torch.randn(32, 46, 3, generator=g)
    basis[32:, EYE_POINTS] = torch.randn(8, 22, 3, generator=g)
    basis *= torch.linspace(0.5, 3, 40)[:, None, None] / basis.flatten(1).norm(dim=1)[:, None, None]
    turn = torch.linalg.qr(torch.randn(40, 40, generator=g))[0]
    flat = turn @ basis.flatten(1)  # (40, 204)
    inverse = torch.linalg.pinv(flat.double()).float()
    return (
        (lambda l: l.flatten(-2) @ inverse),
        (lambda z: (z @ flat).unflatten(-1, (68, 3))),
        turn,
    )


def test_a_control_gets_the_assignment_that_favours_it():
    """Principal axes are mouth or eyes alone here: none may be called wrongly."""
    encode, decode, turn = mixed_code()
    # each direction with a spread of its own, so that the principal axes are these directions
    spread = torch.linspace(1, 5, 40)[
        torch.randperm(40, generator=torch.Generator().manual_seed(0))
    ]
    code = torch.randn(4000, 40, generator=torch.Generator().manual_seed(1))
    code = torch.linalg.qr(code - code.mean(0))[0] * 4000**0.5 * spread  # exactly uncorrelated
    faces_ = decode(code @ turn.T)
    model = Assigned(encode, decode, faces_, torch.ones(68, 1))
    assert len(model.e) == DIM_E and len(model.m) == 32
    m, e = model.encode(faces_)
    assert torch.allclose(model.decode(m, e), faces_, atol=1e-2)
    values = separation(model, faces_[:500], torch.Generator().manual_seed(0))
    assert values["leak_eyes"].mean() < 1 and values["leak_mouth"].mean() < 1

    model.e, model.m = model.m[:8], torch.cat([model.m[8:], model.e])  # and wrongly called
    assert separation(model, faces_[:500], torch.Generator())["leak_eyes"].mean() > 90


def test_controls_have_codes_of_the_same_size_and_lose_nothing():
    l = expression_landmarks(torch.randn(300, 40, generator=torch.Generator().manual_seed(0)))
    torch.manual_seed(0)
    plain = Disentangler.for_landmarks(l)
    with torch.inference_mode():
        for model, same in ((pca(l), l), (no_swap(plain, l), plain.decode(*plain.encode(l)))):
            f_m, f_e = model.encode(l)
            assert f_m.shape == (300, 32) and f_e.shape == (300, 8)
            assert torch.allclose(model.decode(f_m, f_e), same, atol=1e-5)
            assert torch.allclose(model.encode(l[5])[0], f_m[5], atol=1e-3)


def test_probe_finds_a_known_share():
    """Of a truth that is half signal, half noise, R² is a half; of noise, about 0 or below."""
    rng = np.random.default_rng(0)
    code = rng.normal(size=(5000, 6)) * [1, 1e-6, 1, 1, 1, 1]  # the scale does not count
    truth = code[:, 1] * 1e6 + rng.normal(size=5000)
    assert probe(code, truth).shape == (5000,)
    assert probe(code, truth).mean() == pytest.approx(0.5, abs=0.05)
    assert -0.05 < probe(code, rng.normal(size=5000)).mean() < 0.01
    assert np.isnan(probe(code, np.ones(5000))).all()


def test_probe_predicts_what_it_has_not_seen():
    """A clock tells a slow drift within a block; blocks in time must not let it."""
    t = np.arange(500.0)[:, None]
    features = np.concatenate([np.sin(t * k) for k in np.linspace(0.001, 0.1, 30)], 1)
    slow = np.cumsum(np.random.default_rng(0).normal(size=500))
    assert probe(features, slow).mean() < 0.5


def test_expression_is_found_again():
    F_exp = torch.randn(7, 40, generator=torch.Generator().manual_seed(0))
    l = expression_landmarks(F_exp)
    assert torch.allclose(expression(l), F_exp, atol=2e-2)
    assert torch.allclose(expression_landmarks(expression(l)), l, atol=1e-6)
    # the more noise is expected, the nearer to the neutral face
    assert expression(l, 1e-2).norm() < 0.7 * expression(l, 1e-4).norm()
