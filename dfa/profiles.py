"""The three profiles: all settings of a run. Notebooks read them from here."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace

from .captures import CORPUS, TEST
from .media import InputError


@dataclass(frozen=True)
class Profile:
    """Settings of one run. Steps are steps of the optimiser, so results do not depend on speed."""

    name: str
    size: int  # frame side in pixels, at which methods are compared
    field_size: int  # frame side for training a field
    seconds: float  # used of each capture, at most
    test_seconds: float  # used of each second recording, which only tests see, at most
    corpus: tuple[str, ...]  # training subjects of F_d, E_a, the expert and the GP-VAE
    disentangle_steps: int
    sync_steps: int
    expert_steps: int
    vae_steps: int
    cme_steps: int  # on the corpus; half as many on one subject
    long_seconds: float  # length of a long sequence of generated motion
    field_steps: int  # of a field for `dfa fit` and `dfa bench`
    mlp_steps: int  # of the paper's field in small in notebook 05; 0: not trained
    method_steps: int  # of the field of DFA-NeRF in the notebooks: about the time of a rival
    feature_steps: int  # of each field of table 5
    rival_effort: float  # steps of the rivals, relative to the quick profile
    talk_seconds: float  # longest rendered talking head
    test: tuple[str, ...] = TEST


# seconds: of a video that can be tracked, of one window of the VAE, of a video that can be rated
LEAST = {"seconds": 2, "test_seconds": 4, "talk_seconds": 1}
LONGEST = 200  # letters of a name: it is also a folder's
SIDES = range(32, 4097, 2)  # of frames, pixels: H.264 wants them even
PROFILES = {
    p.name: p
    for p in (
        Profile(
            name="smoke", size=64, field_size=64, seconds=22.0, test_seconds=4.0, corpus=CORPUS[:3],
            disentangle_steps=100, sync_steps=40, expert_steps=20, vae_steps=10, cme_steps=4,
            long_seconds=20.0, field_steps=40, mlp_steps=4, method_steps=40, feature_steps=8,
            rival_effort=0.01, talk_seconds=2.0,
        ),
        Profile(
            name="quick", size=128, field_size=256, seconds=66.0, test_seconds=60.0, corpus=CORPUS,
            disentangle_steps=3000, sync_steps=800, expert_steps=600, vae_steps=300, cme_steps=80,
            long_seconds=600.0, field_steps=2000, mlp_steps=0, method_steps=900, feature_steps=300,
            rival_effort=1.0, talk_seconds=12.0,
        ),
        Profile(
            name="full", size=512, field_size=512, seconds=600.0, test_seconds=600.0, corpus=CORPUS,
            disentangle_steps=50_000, sync_steps=20_000, expert_steps=20_000, vae_steps=50_000,
            cme_steps=5_000, long_seconds=600.0, field_steps=100_000, mlp_steps=20_000,
            method_steps=100_000, feature_steps=50_000, rival_effort=110.0, talk_seconds=60.0,
        ),
    )
}  # fmt: skip


def profile(name: str) -> Profile:
    """The profile called `name`: smoke, quick or full, with other settings after it, if any.

    "full,seconds=20,steps=2,test=subject_a" is the full profile with these settings. `steps` sets
    all settings that end so, and `rival_effort` to a thousandth of it. The names in a list are
    joined by "+". The name is that of the run's folders too, so they stay apart. Raises InputError
    for an unknown name or value.
    """
    base, *changes = name.split(",")
    if base not in PROFILES:
        raise InputError(f"no profile called {base!r}: choose one of {', '.join(PROFILES)}")
    p, known = PROFILES[base], [f.name for f in fields(Profile)[1:]]
    settings = [change.partition("=")[::2] for change in changes]
    if len(dict(settings)) < len(settings):
        raise InputError(f"{name}: a setting stands there twice")
    for key, text in sorted(settings, key=lambda pair: pair[0] != "steps"):  # others count more
        keys = [k for k in known if k == key or key == "steps" and k.endswith("_steps")]
        if not keys:
            names = ", ".join(["steps", *known])
            raise InputError(f"no setting {key!r} of a profile: choose one of {names}")
        kind, what = type(getattr(p, keys[0])), f"{key}={text}: this setting is"
        try:
            value = tuple(text.split("+")) if kind is tuple else kind(text)
        except ValueError as error:
            raise InputError(f"{what} of the type {kind.__name__}") from error
        # one spelling for a value: it is the folder's name too
        plain = kind is tuple or re.fullmatch(r"(0|[1-9]\d*)(\.\d*[1-9])?", text, re.ASCII)
        if kind is tuple:
            names = TEST if key == "test" else CORPUS
            good, wanted = set(value) <= set(names), f"of {', '.join(names)}, joined by +"
        elif key in ("size", "field_size"):
            good, wanted = value in SIDES, "an even number from 32 to 4096"
        else:
            least = LEAST.get(key, 0)
            wanted = f"{least} or more" if least else "more than 0, below a billion"
            good = 0 < value < 1e9 and value >= least
        if not (good and plain):
            raise InputError(f"{what} {wanted}")
        effort = {"rival_effort": value / 1000} if key == "steps" else {}
        p = replace(p, **dict.fromkeys(keys, value), **effort)
    if len({*p.corpus, *p.test}) < len(p.corpus) + len(p.test):
        raise InputError(f"{name}: a capture is named twice")
    if len(name) > LONGEST:
        raise InputError(f"a profile of {len(name)} letters: {LONGEST} is the most for a folder")
    return replace(p, name=name)
