"""Judges of motion and blinks against closed forms, brute force and scikit-learn."""

import re

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, RationalQuadratic, WhiteKernel

from dfa.evaluation import baselines, motion
from dfa.evaluation.baselines import ChannelGP
from dfa.media import FPS


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def nods(T: int = 1000, speed: float = 1.0) -> np.ndarray:
    """(T, 6): slow sines in all channels, of incommensurable periods of 1.4 s and more."""
    t = speed * np.arange(T)[:, None]
    periods = np.array([35, 41, 53, 60, 71, 83])
    return np.sin(2 * np.pi * t / periods) * [0.2, 0.3, 0.1, 0.02, 0.01, 0.03]


# --- against what really came --------------------------------------------------------------------


def test_pose_errors_by_hand():
    real = np.zeros((2, 4, 6))
    predicted = real.copy()
    predicted[0, :, 0] = np.radians(3)  # a window of 3° of pitch and, half the time, 6 mm of z
    predicted[0, :2, 5] = -0.006
    reach = np.r_[np.radians([10, 20, 5]), 0.1, 0.1, 0.06]
    found = motion.pose_errors(predicted, real, reach)
    expected = dict(d_rot=30 / 3, d_pos=5 / 3, d_rot_deg=1, d_pos_mm=1)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], [value, 0])
    one = motion.pose_errors(predicted[0], real[0], reach)
    assert one["d_rot"] == pytest.approx(10)


def test_reach_leaves_out_the_last_percent():
    h = rng().permutation(np.outer(np.arange(1001), [1, 2.0]))
    h[7] = 1e6  # one frame that a tracker lost
    np.testing.assert_allclose(motion.reach_of(h), [980, 1960], rtol=2e-3)


def test_crps_is_a_gaussians():
    """σ (z (2 Φ(z) - 1) + 2 φ(z) - 1/√π) (Gneiting & Raftery 2007)."""
    mean, sigma, y = np.array([0.0, 1.0, -2.0, 5.0]), np.array([1, 0.5, 3, 2]), np.zeros(4)
    z = (y - mean) / sigma
    expected = sigma * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    found = [motion.crps(rng(k).normal(mean, sigma, (500, 4)), y) for k in range(40)]
    error = np.std(found, 0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, 0) - expected) < 4 * error).all() and (error < 0.01 * sigma).all()


def test_crps_and_energy_score_are_double_loops():
    x, y = rng().normal(size=(7, 3, 5, 2)), rng(1).normal(size=(3, 5, 2))
    crps, energy = np.zeros((3, 5, 2)), np.zeros(3)
    for a in x:
        crps += np.abs(a - y) / 7
        energy += np.sqrt(np.square(a - y).sum((1, 2))) / 7
        for b in x:
            crps -= np.abs(a - b) / (2 * 7 * 6)
            energy -= np.sqrt(np.square(a - b).sum((1, 2))) / (2 * 7 * 6)
    np.testing.assert_allclose(motion.crps(x, y), crps)
    np.testing.assert_allclose(motion.energy_score(x, y), energy)
    one = motion.energy_score(x[:, :, :1, :1], y[:, :1, :1])
    np.testing.assert_allclose(one, crps[:, 0, 0])


def test_the_fair_scores_do_not_depend_on_the_ensembles_size():
    """Two samples, on average, score as fifty: the plain estimator would be half as large again."""
    y = rng(1).normal(size=(20_000, 1, 1))
    few, many = (rng(2).normal(size=(n, 20_000, 1, 1)) for n in (2, 50))
    for score in (motion.crps, motion.energy_score):
        a, b = score(few, y), score(many, y)
        assert a.mean() == pytest.approx(b.mean(), abs=4 * a.std() / np.sqrt(a.size))
        assert b.mean() == pytest.approx(1 / np.sqrt(np.pi), rel=0.03)  # of a calibrated forecast


@pytest.mark.parametrize("n", [2, 10])
def test_spread_matches_skill_where_the_forecast_is_calibrated(n):
    truth = rng().normal(size=(4000, 2))
    centre = truth + [1.0, 0.01] * rng(1).normal(size=truth.shape)  # channels of unlike units
    samples = centre + [1.0, 0.01] * rng(2).normal(size=(n, *truth.shape))
    np.testing.assert_allclose(motion.spread_skill(samples, truth), 1, rtol=0.04)
    mean = samples.mean(0)
    narrow = motion.spread_skill(mean + (samples - mean) / 2, truth)
    np.testing.assert_allclose(narrow, 0.5, rtol=0.04)
    assert np.isnan(motion.spread_skill(np.zeros((3, 9, 2)), np.zeros((9, 2)))).all()


# --- how it moves --------------------------------------------------------------------------------


def test_dynamics_of_a_sequence_beside_itself():
    h = nods()
    found = motion.dynamics(h, h)
    assert found.pop("freeze") == found.pop("spectral_db") == 0
    assert len(found) == 4 and list(found.values()) == pytest.approx([1] * 4)


def test_dynamics_of_twice_as_fast_and_of_three_times_as_far():
    fast = motion.dynamics(nods(speed=2), nods(2000))
    assert fast["speed_ratio"] == pytest.approx(2, rel=0.01)
    assert fast["speed_pos_ratio"] == pytest.approx(2, rel=0.01)
    assert fast["acceleration_ratio"] == pytest.approx(4, rel=0.02)
    assert fast["range_ratio"] == pytest.approx(1, rel=0.01)
    noise = rng().normal(size=(1000, 6))
    far = motion.dynamics(3 * noise, noise)
    ratios = [far[k] for k in ("speed_ratio", "speed_pos_ratio", "acceleration_ratio")]
    assert ratios + [far["range_ratio"]] == pytest.approx([3] * 4)
    assert far["spectral_db"] == pytest.approx(20 * np.log10(3), rel=1e-3)
    # beside nothing, the density of white noise: 2 / 25 per Hz
    db = motion.dynamics(np.zeros((1000, 6)), noise)["spectral_db"]
    assert db == pytest.approx(10 * np.log10(2 / FPS / motion.FLOOR), abs=1)
    turned = motion.dynamics(noise * [3, 3, 3, 1, 1, 1], noise)
    assert turned["speed_pos_ratio"] == pytest.approx(1)
    assert turned["spectral_db"] == pytest.approx(10 * np.log10(3), rel=1e-3)


def test_what_stands_still_is_frozen_and_what_turns_is_not():
    real = nods()
    still = motion.dynamics(np.repeat(real[:1], 500, 0), real)
    assert still["freeze"] == 100 and still["speed_ratio"] == 0
    nod = nods(speed=0.1) * [1, 0, 0, 1, 1, 1]  # slow, and it does stand still as it turns,
    speed = np.abs(np.diff(nod[:, 0]))
    assert (speed < 0.05 * np.median(speed)).any()
    assert motion.dynamics(nod, nod)["freeze"] == 0  # but not for long
    paused = real.copy()
    paused[300:] -= real[300] - real[199]
    paused[200:300] = real[199]  # 101 of 999 steps go nowhere here
    assert motion.dynamics(paused, real)["freeze"] == pytest.approx(100 * 101 / 999)
    short = real.copy()
    short[200:204] = real[199]
    assert motion.dynamics(short, real)["freeze"] == 0
    nowhere = motion.dynamics(real, np.zeros((100, 6)))
    assert np.isfinite(nowhere.pop("spectral_db"))
    assert len(nowhere) == 5 and np.isnan(list(nowhere.values())).all()


def test_diversity_is_degrees_between_pairs():
    samples = np.zeros((3, 10, 6))
    samples[1, :, :3], samples[2, :, :3] = np.radians(1), np.radians([4, 4, 1])
    samples[..., 3:] = rng().normal(size=(3, 10, 3))  # places do not count
    assert motion.diversity(samples) == pytest.approx((1 + 3 + 2) / 3)


# --- blinks --------------------------------------------------------------------------------------


def lids(T: int = 1500) -> np.ndarray:
    """A minute of lids at 0.3 that shut to 0.06 five times: at 100, 250, 500, 850 and 1300 frames,
    the third half-heartedly and the last for a second and a half."""
    opening = 0.3 + 0.003 * rng().normal(size=T)
    for onset in (100, 250, 850):
        opening[onset : onset + 5] = [0.1, 0.06, 0.06, 0.09, 0.15]
    opening[252] = 0.25  # a flutter within one blink
    opening[500:503] = 0.15
    opening[1300:1337] = 0.06
    return opening


def test_blinks_are_counted_measured_and_told_clean_from_half():
    opening, levels = lids(), (0.3, 0.06)
    found = motion.blinks(opening, *levels)
    assert found.onsets.tolist() == [100, 250, 500, 850, 1300]
    assert found.durations.tolist() == [5, 5, 3, 5, 37]
    np.testing.assert_allclose(found.depths, [0.06, 0.06, 0.15, 0.06, 0.06])
    value = motion.blink_statistics(opening, levels)
    assert value["blinks_per_s"] == pytest.approx(5 / 60)
    assert value["clean_per_min"] == pytest.approx(3)
    assert value["blink_frames"] == pytest.approx(11)
    intervals = np.array([150, 250, 350, 450]) / FPS
    assert value["interval_s"] == pytest.approx(12)
    assert value["interval_cv"] == pytest.approx(np.sqrt(np.var(intervals) * 4 / 3) / 12)


def test_blinks_shallow_single_and_cut_short():
    opening = np.full(100, 1.0)
    opening[:3] = opening[97:] = 0.0  # at the ends
    opening[50] = 0.0  # one frame is too short to be clean
    assert motion.blinks(opening, 1, 0).onsets.tolist() == [0, 50, 97]
    assert motion.blinks(opening, 1, 0).durations.tolist() == [3, 1, 3]
    assert motion.blink_statistics(opening, (1, 0))["clean_per_min"] == pytest.approx(2 * 15)
    assert motion.blink_statistics(0.3 + 0.7 * opening, (1, 0))["clean_per_min"] == 0


def test_blink_statistics_say_nan_where_there_is_nothing_to_measure():
    wide = np.ones(100)
    none = motion.blink_statistics(wide, (1, 0))
    assert none["blinks_per_s"] == none["clean_per_min"] == 0
    assert np.isnan([none[k] for k in ("blink_frames", "interval_s", "interval_cv")]).all()
    wide[[10, 60]] = 0
    two = motion.blink_statistics(wide, (1, 0))
    assert two["interval_s"] == 2 and np.isnan(two["interval_cv"])


def test_levels_have_the_threshold_of_the_protocol_half_way():
    often = lids()
    often[::90] = 0.06
    for opening in (often, 0.3 + 0.003 * rng().normal(size=500)):  # the other never blinks
        wide, shut = motion.levels_of(opening)
        assert wide == pytest.approx(0.3, abs=0.002)
        assert (wide + shut) / 2 == pytest.approx(motion.blink_threshold(opening))
    assert motion.levels_of(often)[1] == pytest.approx(0.06)
    assert shut == pytest.approx(wide / 2)


# --- baselines -----------------------------------------------------------------------------------


def test_baselines_share_a_call():
    bop, gp = nods(25), process()
    for baseline in (baselines.hold_last, baselines.mean_pose(np.arange(6.0)), gp):
        assert baseline(bop, 75).shape == (75, 6)
    assert (baselines.hold_last(bop, 3) == bop[-1]).all()
    assert (baselines.mean_pose(np.arange(6.0))(bop, 3) == np.arange(6)).all()
    np.testing.assert_allclose(gp(bop, 5000)[-1], gp.mean, atol=1e-3)  # long after, it is there


def process(C: int = 6) -> ChannelGP:
    one = np.linspace(1, 2, C)
    return ChannelGP(one - 1.5, 0.1 * one, 12 * one, 0.002 * one)


def sklearns(gp: ChannelGP, c: int) -> GaussianProcessRegressor:
    kernel = ConstantKernel(gp.variance[c]) * RationalQuadratic(
        length_scale=gp.length_scale[c] / np.sqrt(2), alpha=1.0
    ) + WhiteKernel(gp.noise_variance[c])
    return GaussianProcessRegressor(kernel, alpha=0, optimizer=None)


def test_the_process_is_scikit_learns():
    gp, x = process(2), rng().normal(size=(90, 2)).cumsum(0) / 10
    t, future = np.arange(30)[:, None], np.arange(30, 70)[:, None]
    mean, covariance = gp.condition(x[:30], 40)
    _, without = gp.condition(x[:30], 40, noise=False)
    total = np.zeros(2)
    for c in range(2):
        oracle = sklearns(gp, c).fit(t, x[:30, c] - gp.mean[c])
        expected, expected_covariance = oracle.predict(future, return_cov=True)
        np.testing.assert_allclose(mean[:, c], expected + gp.mean[c], atol=1e-9)
        np.testing.assert_allclose(covariance[c], expected_covariance, atol=1e-9)
        noise = gp.noise_variance[c] * np.eye(40)
        np.testing.assert_allclose(without[c], expected_covariance - noise, atol=1e-9)
        for start in (0, 30):  # of 89 frames, two windows; the last 29 are left out
            window = sklearns(gp, c).fit(t, x[start : start + 30, c] - gp.mean[c])
            total[c] += window.log_marginal_likelihood_value_
    np.testing.assert_allclose(gp.log_likelihood([x[:89]], window=30), total)
    apart = gp.log_likelihood([x[:30], x[30:60]], window=30)
    np.testing.assert_allclose(apart, total)
    np.testing.assert_allclose(gp(x[:30], 40), mean)


def test_maximum_likelihood_finds_what_made_the_data():
    truth = ChannelGP(
        np.array([0.1, -0.2, 3]), np.array([0.04, 1, 1e-4]), np.array([8.0, 14, 25]),
        np.array([4e-5, 0.05, 1e-8]),
    )  # fmt: skip
    data = truth.sample(None, 8000, 1, rng())[0]
    found = ChannelGP.fit([data[:3050], data[3050:]])
    np.testing.assert_allclose(found.mean, data.mean(0))
    np.testing.assert_allclose(found.length_scale, truth.length_scale, rtol=0.1)
    np.testing.assert_allclose(found.noise_variance, truth.noise_variance, rtol=0.1)
    np.testing.assert_allclose(found.variance, truth.variance, rtol=0.25)
    # nothing near it is likelier, of the data it was fitted to
    best = found.log_likelihood([data[:3050], data[3050:]])
    for name in ("variance", "length_scale", "noise_variance"):
        for factor in (0.97, 1.03):
            other = ChannelGP(**{**vars(found), name: factor * getattr(found, name)})
            assert (other.log_likelihood([data[:3050], data[3050:]]) < best).all()


def test_samples_of_the_prior_have_the_kernel():
    gp, k = process(2), 6000
    lags = np.array([0, 1, 5, 20, 60, 150])
    for noise in (False, True):
        x = gp.sample(None, 200, k, rng(), noise=noise) - gp.mean
        assert x.shape == (k, 200, 2)
        for start in (0, 40):  # stationary
            found = (x[:, start, None] * x[:, start + lags]).mean(0)
            kernel = gp.variance / (1 + np.square(lags[:, None] / gp.length_scale))
            kernel[0] += noise * gp.noise_variance
            assert (np.abs(found - kernel) < 4.5 * 1.5 * gp.variance / np.sqrt(k)).all()
        step = np.diff(x, axis=1).var((0, 1))  # far finer than the variance: 2 (k(0) - k(1))
        expected = 2 * gp.variance / (gp.length_scale**2 + 1) + 2 * noise * gp.noise_variance
        np.testing.assert_allclose(step, expected, rtol=0.02)


def test_samples_after_a_beginning_have_the_conditional_moments():
    gp, n, k = process(2), 40, 6000
    bop = gp.mean + [0.5, -0.3] * np.sin(np.arange(25)[:, None] / 9)
    for noise in (False, True):
        x = gp.sample(bop, n, k, rng(), noise=noise)
        mean, covariance = gp.condition(bop, n, noise=noise)
        sd = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)).T  # (n, C)
        assert (np.abs(x.mean(0) - mean) < 5 * sd / np.sqrt(k)).all()
        white = (x - mean) / sd
        for c in range(2):
            found = white[..., c].T @ white[..., c] / k
            expected = covariance[c] / np.outer(sd[:, c], sd[:, c])
            np.testing.assert_allclose(found, expected, atol=5 * np.sqrt(2 / k))


def test_an_hour_is_sampled_and_moves_as_its_beginning():
    x = process().sample(nods(25), 15_000, 1, rng(), noise=False)[0]
    found = motion.dynamics(x[:7500], x[7500:])
    ratios = [found[k] for k in ("speed_ratio", "acceleration_ratio", "range_ratio")]
    assert ratios == pytest.approx([1] * 3, rel=0.1)


def test_circles_that_are_no_process_are_refused():
    with pytest.raises(ValueError, match="no stationary process"):
        baselines.circulant_samples(np.array([1.0, 0.9, 0, 0]), 2, rng())
    alternates = baselines.circulant_samples(np.array([1.0, -1, 1]), 3, rng())
    np.testing.assert_allclose(alternates[:, 1:], -alternates[:, :-1])


# --- errors --------------------------------------------------------------------------------------

SIX = np.zeros((100, 6))
GAP = np.where(np.arange(600).reshape(100, 6) == 7, np.nan, 0)


@pytest.mark.parametrize(
    "call, told",
    [
        (lambda: motion.pose_errors(SIX, SIX[:99], np.ones(6)), "predicted should have the shape"),
        (lambda: motion.pose_errors(SIX[:, :5], SIX[:, :5], np.ones(6)), "(..., any, 6), not"),
        (lambda: motion.pose_errors(SIX[0], SIX[0], np.ones(6)), "(..., any, 6), not (6,)"),
        (lambda: motion.pose_errors(SIX[:0], SIX[:0], np.ones(6)), "no values"),
        (lambda: motion.pose_errors(GAP, SIX, np.ones(6)), "predicted: values that are not"),
        (lambda: motion.pose_errors(SIX, SIX, np.zeros(6)), "more than 0, not [0."),
        (lambda: motion.reach_of(GAP), "values that are not finite"),
        (lambda: motion.crps(SIX[:1], SIX[0]), "two samples or more"),
        (lambda: motion.crps(SIX, SIX), "real should have the shape (6), not (100, 6)"),
        (lambda: motion.energy_score(SIX, SIX[0]), "samples should have the shape"),
        (lambda: motion.spread_skill(SIX, np.full(6, np.inf)), "real: values that are not"),
        (lambda: motion.dynamics(SIX[:24], SIX), "give 25 or more of each"),
        (lambda: motion.dynamics(GAP, SIX), "generated: values that are not finite"),
        (lambda: motion.dynamics(SIX[None], SIX), "generated should have the shape (any, 6)"),
        (lambda: motion.diversity(SIX[None]), "two or more"),
        (lambda: motion.diversity(SIX), "samples should have the shape"),
        (lambda: motion.levels_of(GAP[:, 1]), "lid opening: values that are not finite"),
        (lambda: motion.blinks(SIX[:, 0], 0.1, 0.1), "not 0.1 and 0.1"),
        (lambda: motion.blink_statistics(SIX[:, 0], (np.nan, 0)), "not nan and 0"),
        (lambda: baselines.hold_last(SIX[:0], 5), "beginning of pose: no values"),
        (lambda: baselines.hold_last(SIX, 0), "1 frame or more, not 0"),
        (lambda: baselines.mean_pose(np.zeros(5))(SIX, 5), "(any, 5), not (100, 6)"),
        (lambda: process()(SIX[:0], 5), "beginning of pose: no values"),
        (lambda: process(5)(SIX, 5), "(any, 5), not (100, 6)"),
        (lambda: process().condition(GAP, 5), "values that are not finite"),
        (lambda: process().sample(SIX, -5, 3, rng()), "1 frame or more, not -5"),
        (lambda: process().sample(None, 0, 3, rng()), "1 frame or more, not 0"),
        (lambda: process(5).log_likelihood([SIX]), "(any, 5), not (100, 6)"),
        (lambda: ChannelGP.fit([SIX]), "a channel is constant"),
        (lambda: ChannelGP.fit([nods(99)]), "no window of 100 frames"),
        (lambda: ChannelGP.fit([nods(), nods()[:, :5]]), "(any, 6), not (1000, 5)"),
        (lambda: ChannelGP.fit([]), "no window"),
        (lambda: ChannelGP.fit([nods()], window=1), "no window of 1 frames"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(call, told):
    with pytest.raises(ValueError, match=re.escape(told)) as error:
        call()
    assert "\n" not in str(error.value)


def test_drift_is_in_halves_of_the_real_range():
    rng = np.random.default_rng(0)
    real = rng.uniform(-1, 1, (20_000, 6)) * [1, 2, 3, 4, 5, 6]
    walk = np.zeros((3000, 6))
    assert motion.drift(walk, real) == pytest.approx(0, abs=0.02)
    walk[-300:, 2] = 3  # the edge, but for the outer percent
    assert motion.drift(walk, real) == pytest.approx(1 / 0.98, abs=0.02)
    walk[-200:, 2] = 0  # a hundred of the last tenth's three hundred
    assert motion.drift(walk, real) == pytest.approx(1 / 0.98 / 3, abs=0.02)
    assert np.isnan(motion.drift(walk, np.zeros((100, 6))))


def test_blinks_are_counted_once():
    ear = np.full(250, 0.3)
    for onset in (20, 90, 200):
        ear[onset : onset + 5] = [0.2, 0.08, 0.07, 0.1, 0.2]
    ear[92] = 0.25  # a flutter within one blink
    threshold = motion.blink_threshold(ear)
    assert 0.08 < threshold < 0.25
    assert len(motion.blink_onsets(ear, threshold)) == 3
    still = 0.3 + 0.003 * np.random.default_rng(0).normal(size=250)
    assert len(motion.blink_onsets(still, motion.blink_threshold(still))) == 0
