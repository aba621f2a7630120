"""What the radiance fields share: the renderer against integrals, geometry against projection."""

import pytest
import torch
from conftest import conditions, poses

from dfa.media import InputError
from dfa.method import field
from dfa.method.face import euler_to_matrix
from dfa.method.fast_field import FastField
from dfa.method.field import DIM_C, Field, march
from dfa.method.field_training import FIELDS
from dfa.method.mlp_field import PaperConditioning
from dfa.method.rendering import Camera, cast_rays, even_intervals, stratified


class Fog(Field):
    """A field whose image is known: a ball of constant σ around the head, of colour c(x)."""

    SIGMA, RADIUS = 12.0, 0.08

    def condition(self, cond):
        return PaperConditioning(cond[:, :6], self.torso_pose(cond), cond, cond)

    def forward(self, x, told):
        place = self.lo + (x + 1) / 2 * (self.hi - self.lo)
        sigma = self.SIGMA * (place.norm(dim=-1) < self.RADIUS)
        c = (x + 1) / 2
        return (lambda w: torch.einsum("bmkc,bmk->bmc", c, w)), sigma

    loss = parameter_groups = None  # it is only looked at


def test_march_renders_a_ball_of_fog_as_the_integral_says():
    """A ray at distance b from the ball's centre leaves exp(-σ 2 √(r² - b²)) of what is behind."""
    field, cond = Fog(conditions()), conditions(3)
    told = field.condition(cond)
    h = cond[:, :6]
    centre = h[:, 3:]
    aside = torch.linspace(0, 0.07, 8)
    X = centre[:, None] + aside[:, None] * torch.tensor([1.0, 0.0, 0.0])
    rays = X / X[..., 2:]
    edges = even_intervals(field.depth_range(h, told.torso), 2000)[:, None].expand(-1, 8, -1)
    left = 1 - march(field, told, rays, edges).opacity
    unit = rays / rays.norm(dim=-1, keepdim=True)
    b2 = centre.square().sum(-1, keepdim=True) - (unit @ centre[..., None])[..., 0] ** 2
    # depth is along z: a metre of depth is |ray| metres of path, and σ is per metre of depth
    chord = 2 * (field.RADIUS**2 - b2).clamp_min(0).sqrt() / rays.norm(dim=-1)
    torch.testing.assert_close(left, torch.exp(-field.SIGMA * chord), atol=0.01, rtol=0)


def test_march_is_the_sum_of_the_paper_over_what_query_says():
    """Equation 11's c and σ point by point, summed by hand, against the renderer of both fields."""
    torch.manual_seed(0)
    for kind in FIELDS.values():
        field, cond = kind(conditions(), 32).eval(), conditions(2)
        told, rays = field.condition(cond), cast_rays(4)[None]
        edges = even_intervals(field.depth_range(told.h, told.torso), 12)[:, None]
        edges = edges.expand(-1, 16, -1)
        with torch.no_grad():
            made, opacity, z = march(field, told, rays, edges)
            depth, delta = stratified(edges)
            x = field.canonical(depth, rays, told.h, told.torso)
            c, sigma = field.query(x.flatten(1, 2), cond)
        c, sigma = c.view(2, 16, 12, -1), sigma.view(2, 16, 12)
        through, deep = torch.ones(2, 16), torch.zeros(2, 16)
        total = torch.zeros(2, 16, c.shape[-1])
        for k in range(12):
            alpha = 1 - torch.exp(-sigma[:, :, k] * delta[..., k])
            total += (through * alpha)[..., None] * c[:, :, k]
            deep += through * alpha * depth[..., k]
            through = through * (1 - alpha)
        torch.testing.assert_close(made, total, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(1 - opacity, through, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(z, deep, atol=1e-4, rtol=1e-4)


def test_a_point_of_the_head_is_found_again_from_any_pose():
    """x -> X = R x + t by hand; the field must look the same x up, whatever the pose."""
    h = poses()
    field = FastField(conditions())
    x = torch.tensor([0.03, -0.02, -0.07])
    X = euler_to_matrix(h[:, :3]) @ x + h[:, 3:]
    ray, depth = X / X[:, 2:], X[:, 2]
    torso = field.torso_pose(h.repeat(1, 2))
    found = field.canonical(depth[:, None, None], ray[:, None], h, torso)[:, 0, 0]
    expected = (x - field.lo) * 2 / (field.hi - field.lo) - 1
    torch.testing.assert_close(found, expected.expand(len(h), 3), atol=0.02, rtol=0)


def test_the_torso_stands_while_the_head_turns_about_the_neck():
    """The joint of the neck belongs to both: it alone says where the torso is."""
    h, field = poses(), FastField(conditions())
    joint, rest = torch.tensor(field.PIVOT), field.h_mean[None]
    at = euler_to_matrix(rest[:, :3]) @ joint + rest[:, 3:]  # (1, 3)
    h[:, 3:] = at - euler_to_matrix(h[:, :3]) @ joint
    moved = h + torch.tensor([0, 0, 0, 0.03, 0, 0.01])
    with torch.no_grad():
        torso, away = (field.torso_pose(x.repeat(1, 2)) for x in (h, moved))
    torch.testing.assert_close(torso, rest.expand_as(torso), atol=1e-6, rtol=0)
    torch.testing.assert_close(away - torso, moved - h, atol=1e-6, rtol=0)
    X = torch.tensor([0.08, 0.28, 1.32])  # well below the neck
    depth, ray = torch.full((len(h), 1, 1), float(X[2])), (X / X[2]).expand(len(h), 1, 3)
    seen = field.canonical(depth, ray, h, torso)[:, 0, 0]
    expected = ((X - rest[0, 3:]) @ euler_to_matrix(rest[:, :3])[0] - field.lo) * 2
    expected = expected / (field.hi - field.lo) - 1
    torch.testing.assert_close(seen, expected.expand_as(seen), atol=0.02, rtol=0)


def test_a_field_learns_how_far_the_torso_follows_the_neck():
    """Of a chest that follows by half and a head that does not turn, the field finds the half."""
    field, g = FastField(conditions()), torch.Generator().manual_seed(0)
    sway = 0.03 * torch.randn(200, 1, generator=g) * torch.tensor([1.0, 0.5, 0.3])
    h = field.h_mean + torch.cat([torch.zeros(200, 3), sway], 1)
    (torso,) = (group for group in field.parameter_groups() if group["params"][0] is field.torso)
    optimiser = torch.optim.Adam([torso])
    for _ in range(400):
        found = field.torso_pose(h.repeat(1, 2)) - field.h_mean  # (200, 6)
        loss = ((found[:, 3:] - 0.5 * sway) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.testing.assert_close(field.torso[:2].sum(0), torch.full((3,), 0.5), atol=0.01, rtol=0)


def test_the_torso_is_carried_as_a_rigid_body():
    """Its learned part is a rotation and a translation: distances between its points stay."""
    field, h = FastField(conditions()), poses(3)
    with torch.no_grad():
        field.torso.normal_(generator=torch.Generator().manual_seed(0))
    X = torch.tensor([[0.1, 0.5, 1.3], [-0.1, 0.52, 1.25], [0.0, 0.48, 1.4]])
    rays, depth = (X / X[:, 2:])[None].expand(3, -1, -1), X[:, 2].expand(3, -1)[..., None]
    with torch.no_grad():
        torso = field.torso_pose(h.repeat(1, 2))
        at = field.canonical(depth, rays, h, torso)[:, :, 0] * (field.hi - field.lo) / 2
    assert float((at[0] - at[1]).norm(dim=-1).min()) > 1e-3  # another pose, another place
    apart = torch.stack([torch.cdist(a, a) for a in at])
    torch.testing.assert_close(apart, torch.cdist(X, X).expand(3, 3, 3), atol=1e-4, rtol=1e-3)


def test_conditions_hold_what_they_say():
    h, f_a, f_e = poses(60), torch.rand(60, 64), torch.randn(60, 8)
    cond = field.conditions(h, f_a, f_e)
    assert cond.shape == (60, DIM_C)
    torch.testing.assert_close(cond[:, :6], h)
    torch.testing.assert_close(cond[:, 12:20], f_e)
    torch.testing.assert_close(cond[30, 20:340].view(5, 64), f_a[28:33])
    constant = field.conditions(h[:1].expand(60, 6), f_a, f_e)
    torch.testing.assert_close(constant[:, 6:12], constant[:, :6], atol=1e-5, rtol=1e-5)


def test_poses_that_were_never_seen_do_not_drive_the_networks():
    field = FastField(0.1 * torch.randn(50, DIM_C, generator=torch.manual_seed(0)))
    far = torch.zeros(2, DIM_C)
    far[:, :12] = field.h_mean.repeat(2) + torch.tensor([[4.0], [400.0]]) * field.h_std.repeat(2)
    poses = field.split(far)[0]
    torch.testing.assert_close(poses[0], poses[1])


def test_the_box_goes_where_the_head_goes():
    """Whoever leans towards the camera, or turns, is between the two depths."""
    field, g = FastField(conditions()), torch.Generator().manual_seed(0)
    h = field.h_mean + torch.tensor([0.3, 0.5, 0.2, 0.1, 0.1, 0.4]) * torch.randn(
        20, 6, generator=g
    ).clamp(-1, 1)
    torso, x = field.torso_pose(h.repeat(1, 2)), torch.rand(500, 3, generator=g)
    x = field.lo + x * (field.hi - field.lo)
    turned = Camera(
        euler_to_matrix(torch.tensor([[0.1, 0.4, 0.0]]))[0], torch.tensor([0.3, 0, 0.2])
    )
    for camera in (None, turned):
        near, far = field.depth_range(h, torso, camera)
        for pose in (h, torso):
            X = x @ euler_to_matrix(pose[:, :3]).mT + pose[:, None, 3:]  # (20, 500, 3)
            z = X[..., 2] if camera is None else (X @ camera.R.T + camera.t)[..., 2]
            assert (z > near[:, None]).all() and (z < far[:, None]).all()
    behind = Camera(torch.eye(3), torch.tensor([0.0, 0.0, -5.0]))
    near, far = field.depth_range(h, torso, behind)
    assert (near > 0).all() and (far - near < 0.02).all()  # there is nothing before this camera


def test_a_camera_sees_a_point_where_it_is():
    """X' = R X + t; the field must look x up whose X' the camera sees."""
    field, h = FastField(conditions()), poses(4)
    camera = Camera(
        euler_to_matrix(torch.tensor([[0.1, 0.4, -0.2]]))[0], torch.tensor([0.3, 0.1, 0])
    )
    x = torch.tensor([0.03, -0.02, -0.07])
    X = euler_to_matrix(h[:, :3]) @ x + h[:, 3:]
    seen = X @ camera.R.T + camera.t
    ray, depth = seen / seen[:, 2:], seen[:, 2]
    torso = field.torso_pose(h.repeat(1, 2))
    found = field.canonical(depth[:, None, None], ray[:, None], h, torso, camera)[:, 0, 0]
    expected = (x - field.lo) * 2 / (field.hi - field.lo) - 1
    torch.testing.assert_close(found, expected.expand(len(h), 3), atol=0.02, rtol=0)


def test_what_is_not_a_number_is_not_rendered():
    cond = conditions(3)
    cond[1, 7] = float("nan")
    with pytest.raises(InputError, match="not a finite number"):
        next(field.render(FastField(conditions()), cond, 32))


def test_eyes_of_another_person_are_kept_within_those_of_the_training():
    learnt, cond = conditions(), conditions(2)
    cond[:, 12:20] = torch.tensor([[50.0], [-50.0]])
    f_e = FastField(learnt).split(cond)[2]
    torch.testing.assert_close(f_e[0], learnt[:, 12:20].amax(0))
    torch.testing.assert_close(f_e[1], learnt[:, 12:20].amin(0))


def test_the_torso_turns_with_the_slow_pose_and_keeps_what_is_below_the_neck():
    """It is the torso's height that says which body a point is of, not the head's."""
    field = FastField(conditions())
    rest = field.h_mean[None]
    slow, nod = rest.clone(), rest.clone()
    slow[:, :3] += torch.tensor([0.1, 0.2, 0.3])
    nod[:, 4] += 0.1  # the head sinks for a moment
    with torch.no_grad():
        field.torso[2] = 0.5
        turned = field.torso_pose(torch.cat([nod, slow], 1))
        torch.testing.assert_close(turned[:, :3], (rest + slow)[:, :3] / 2)
        still = field.torso_pose(torch.cat([nod, rest], 1))
        torch.testing.assert_close(still, rest)
        x = torch.tensor([0.05, 0.22, 0.0])  # of the torso
        X = euler_to_matrix(rest[:, :3]) @ x + rest[:, 3:]  # (1, 3)
        seen = field.canonical(X[:, None, 2:], (X / X[:, 2:])[:, None], nod, still)[0, 0, 0]
    expected = (x - field.lo) * 2 / (field.hi - field.lo) - 1
    torch.testing.assert_close(seen, expected, atol=0.02, rtol=0)
