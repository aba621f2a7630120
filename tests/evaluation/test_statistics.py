"""Intervals: how often they hold the truth, over clips and over seeds."""

import numpy as np
import pytest

from dfa.evaluation import statistics


def test_interval_covers_the_mean_about_95_times_in_100():
    rng, hits = np.random.default_rng(0), 0
    for k in range(200):
        value, low, high = statistics.interval(rng.normal(3, 1, 40), seed=k, n=400)
        assert low <= value <= high
        hits += low <= 3 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_interval_over_seeds_and_clips():
    """As many seeds as one cares to have of the same clips say nothing more about other clips."""
    clips = np.random.default_rng(0).normal(3, 1, 12)
    one = statistics.interval(clips)
    assert statistics.interval(np.stack([clips] * 5)) == pytest.approx(one, rel=0.05)
    value, low, high = statistics.interval(np.stack([clips, clips + 4.0]))  # seeds that disagree
    assert value == pytest.approx(clips.mean() + 2)
    assert high - low > 2 * (one[2] - one[1])
    assert statistics.interval([[1.0, np.nan], [3.0, np.nan]])[0] == 2.0
    assert np.isnan(statistics.interval([np.nan])).all()


def test_a_difference_is_marked_where_its_interval_leaves_out_zero():
    assert statistics.difference(np.full(9, 2.0)) == "+2.00 [+2.00, +2.00] *"
    assert statistics.difference(np.full(9, -2.0)).endswith("*")
    assert not statistics.difference(np.array([-1.0, 1.0] * 9)).endswith("*")
    assert not statistics.difference(np.array([np.nan])).endswith("*")
    assert statistics.difference(np.array([2.0, np.nan])) == "+2.00"  # one value has no interval


def test_a_value_has_an_interval_if_there_are_others():
    one, two = statistics.estimate([2.0, np.nan, np.inf]), statistics.estimate([2.0, 4.0])
    assert (one["value"], one["n"]) == (2.0, 1) and np.isnan([one["ci_low"], one["ci_high"]]).all()
    assert (two["value"], two["ci_low"], two["ci_high"], two["n"]) == (3.0, 2.0, 4.0, 2)
