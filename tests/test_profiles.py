"""Profiles, and their settings from outside."""

from dataclasses import asdict

import pytest

from dfa.media import FPS, InputError
from dfa.method.gpvae import WINDOW
from dfa.profiles import PROFILES, profile


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_by_its_name(name):
    assert profile(name) == PROFILES[name] and profile(name).name == name


def test_settings_after_the_name():
    name = "full,seconds=20,steps=2,field_steps=3,test=subject_a,corpus=corpus_02+corpus_05"
    p, full = asdict(profile(name)), asdict(profile("full"))
    assert p.pop("name") == name  # so its folders are its own
    wanted = {k: 2 for k in full if k.endswith("_steps")} | {"field_steps": 3, "seconds": 20.0}
    wanted |= {"rival_effort": 0.002, "test": ("subject_a",), "corpus": ("corpus_02", "corpus_05")}
    assert {k: v for k, v in p.items() if v != full[k]} == wanted
    assert isinstance(p["seconds"], float) and isinstance(p["field_steps"], int)


@pytest.mark.parametrize(
    "name, error",
    [
        ("fool", "no profile called 'fool': choose one of smoke, quick, full"),
        ("full,speed=2", "no setting 'speed' of a profile: choose one of steps, size, field_size"),
        ("full,name=x", "no setting 'name'"),
        ("full,", "no setting ''"),
        ("full,seconds", "seconds=: this setting is of the type float"),
        ("full,field_steps=2.5", "field_steps=2.5: this setting is of the type int"),
        ("full,seconds=-2", "seconds=-2: this setting is 2 or more"),
        ("full,seconds=nan", "seconds=nan: this setting is 2 or more"),
        ("full,seconds= 5", "this setting is 2 or more"),
        ("full,seconds=1e9", "this setting is 2 or more"),
        ("full,seconds=٣", "this setting is 2 or more"),
        ("full,talk_seconds=0.01", "talk_seconds=0.01: this setting is 1 or more"),
        ("full,steps=1_000", "steps=1_000: this setting is more than 0"),
        ("full,size=0064", "size=0064: this setting is an even number"),
        ("full,seconds=66.0", "seconds=66.0: this setting is 2 or more"),
        ("quick,seconds=66." + 190 * "1", "a profile of 207 letters: 200 is the most"),
        ("full,steps=0", "steps=0: this setting is more than 0"),
        ("full,size=63", "size=63: this setting is an even number from 32 to 4096"),
        ("full,test=nobody", r"test=nobody: this setting is of subject_a, subject_b, joined by \+"),
        ("full,test=corpus_02", "test=corpus_02: this setting is of subject_a, subject_b"),
        ("full,corpus=subject_a", "corpus=subject_a: this setting is of corpus_01, "),
        ("full,test=subject_a+subject_a", "a capture is named twice"),
        ("full,test_seconds=3.9", "test_seconds=3.9: this setting is 4 or more"),
        ("full,steps=5,steps=6", "a setting stands there twice"),
    ],
)
def test_what_is_no_setting(name, error):
    with pytest.raises(InputError, match=error):
        profile(name)


def test_a_setting_by_its_name_counts_more_than_steps():
    for name in ("quick,rival_effort=2,steps=50", "quick,steps=50,rival_effort=2"):
        assert (profile(name).rival_effort, profile(name).sync_steps) == (2.0, 50)


def test_a_test_recording_has_a_window_of_the_vae_in_every_profile():
    assert all(p.test_seconds * FPS >= WINDOW for p in PROFILES.values())
