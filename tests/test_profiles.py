"""Profiles, and their settings from outside."""

from dataclasses import asdict

import pytest

from dfa.media import InputError
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
        ("full,speed=2", "no setting 'speed' of a profile: choose one of size, seconds"),
        ("full,name=x", "no setting 'name'"),
        ("full,seconds", "'seconds': this setting is of the type float"),
        ("full,field_steps=2.5", "'field_steps=2.5': this setting is of the type int"),
        ("full,seconds=-2", "'seconds=-2': a setting is more than 0"),
        ("full,seconds=nan", "'seconds=nan': a setting is more than 0"),
        ("full,steps=0", "'steps=0': a setting is more than 0"),
        ("full,test=nobody", "'test=nobody': .* names of sample captures"),
    ],
)
def test_what_is_no_setting(name, error):
    with pytest.raises(InputError, match=error):
        profile(name)
