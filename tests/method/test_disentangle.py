"""F_d: the swap, its loss, and whether the loss really parts mouth from eyes."""

import torch

from dfa.method.disentangle import (
    EYE_POINTS,
    MOUTH_POINTS,
    Disentangler,
    plain_loss,
    swap,
    swap_loss,
)


def faces(n: int, seed: int = 0) -> torch.Tensor:
    """Made-up faces: three numbers move the mouth, two the eyes, independent of each other."""
    g = torch.Generator().manual_seed(seed)
    basis = torch.randn(5, 68, 3, generator=torch.Generator().manual_seed(9)) * 0.004
    basis[:3, EYE_POINTS] = 0
    basis[3:, MOUTH_POINTS] = 0
    return 0.05 * torch.randn(68, 3, generator=torch.Generator().manual_seed(8)) + torch.einsum(
        "nk,kij->nij", torch.randn(n, 5, generator=g), basis
    )


def test_every_point_belongs_to_one_part():
    assert sorted([*MOUTH_POINTS.tolist(), *EYE_POINTS.tolist()]) == list(range(68))


def test_swap_takes_mouth_of_one_and_eyes_of_other():
    a, b = faces(2)
    c = swap(a, b)
    assert torch.equal(c[MOUTH_POINTS], a[MOUTH_POINTS])
    assert torch.equal(c[EYE_POINTS], b[EYE_POINTS])


def test_training_parts_mouth_from_eyes_and_plain_reconstruction_does_not():
    data, test = faces(2000), faces(200, 1)

    def leakage(loss_of):
        torch.manual_seed(0)
        f_d = Disentangler.for_landmarks(data)
        optimiser = torch.optim.Adam(f_d.parameters(), 2e-3)
        for _ in range(400):
            i = torch.randint(len(data), (2, 128))
            loss = loss_of(f_d, data[i[0]], data[i[1]])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            (m, e), (m2, _) = f_d.encode(test), f_d.encode(test.flip(0))
            eyes = lambda l: l[:, EYE_POINTS]  # noqa: E731
            moved = (eyes(f_d.decode(m2, e)) - eyes(f_d.decode(m, e))).norm(dim=-1).mean()
            return float(moved / (eyes(test.flip(0)) - eyes(test)).norm(dim=-1).mean())

    crossed = leakage(swap_loss)
    assert crossed < 0.15
    assert leakage(plain_loss) > 2 * crossed
