"""The studio: speech, motion and film of the synthetic actors behind the sample captures."""

import shutil
import subprocess

import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt
from scipy.spatial.transform import Rotation
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler

from dfa import captures, studio
from dfa.evaluation import tracker
from dfa.media import FPS, SAMPLE_RATE, InputError, iter_frames, read_audio, write_audio

pytest.importorskip("espeakng_loader")
from dfa.studio import actors, motion, speech  # noqa: E402

NAME = "subject_a"
LOOKS = actors.parameters()
FLITE = [name for name in captures.NAMES if "flite" in LOOKS[name]["voice"]]
needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="needs flite")
VOICELESS = set("ptksfʃθhç")
RECORDINGS = captures.recordings_of(captures.NAMES)  # (name, second)


def phonemes(truth: dict) -> tuple[np.ndarray, np.ndarray]:
    return truth["phonemes"], truth["phoneme_names"]


@pytest.fixture(scope="module")
def look() -> dict:
    return LOOKS[NAME]


@pytest.fixture(scope="module")
def said() -> speech.Speech:
    """What subject_a says in the capture: making it again takes a minute."""
    times, names = phonemes(captures.truth(NAME))
    phones = [(float(a), float(b), str(p)) for (a, b), p in zip(times, names, strict=True)]
    return speech.Speech(read_audio(captures.path(NAME)), phones)


def perform(look: dict, said: speech.Speech, seed: int = 0, take: str = "") -> motion.Performance:
    names = tuple(captures.truth(NAME)["action_names"])
    return motion.perform(NAME, look, names, said, seed, take)


@pytest.fixture(scope="module")
def take(look, said) -> motion.Performance:
    return perform(look, said)


# ------------------------------------------------------------------------------------- speech


def test_phones_follow_one_another_within_the_sound(said):
    times = np.array([p[:2] for p in said.phones])
    assert (times[:, 1] > times[:, 0]).all()
    assert (times[1:, 0] >= times[:-1, 1] - 1e-6).all()
    assert times[0, 0] >= 0.5 and times[-1, 1] <= len(said.audio) / SAMPLE_RATE


def test_most_of_the_time_is_speech_and_the_rest_is_silent(said):
    spoken = np.zeros(len(said.audio), bool)
    for start, end, _ in said.phones:
        spoken[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)] = True
    assert 0.7 < spoken.mean() < 0.9
    rms = np.sqrt(np.mean(said.audio[spoken].astype(float) ** 2))
    assert abs(20 * np.log10(rms) - speech.LEVEL_DB) < 2
    # pauses within a sentence may ring; the half second before the first cannot
    assert np.abs(said.audio[: SAMPLE_RATE // 2]).max() < 1e-3


def level(audio: np.ndarray, start: float, end: float) -> float:
    piece = audio[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)].astype(float)
    return np.sqrt(np.mean(piece**2)) if len(piece) else 0.0


@pytest.mark.parametrize("name, second", RECORDINGS)
def test_stops_are_where_the_sound_is_quiet(name, second):
    """The phone times belong to the sound: within p, t, k it is softer than within vowels."""
    audio, truth = read_audio(captures.path(name, second)), captures.truth(name, second)
    phones = [(level(audio, *t), p) for t, p in zip(*phonemes(truth), strict=True)]
    stops = [x for x, p in phones if p in ("p", "t", "k")]
    vowels = [x for x, p in phones if set(p) & tracker.VOWELS]
    assert np.median(stops) < 0.4 * np.median(vowels)


def onset_errors(audio: np.ndarray, phones: list) -> np.ndarray:
    """(n,) seconds from a vowel's border with a voiceless sound to where the voice begins or ends.

    The voice's power, 150 to 1000 Hz, rises or falls most there, within 0.1 s.
    """
    band = butter(4, [150, 1000], "bandpass", fs=SAMPLE_RATE, output="sos")
    window = np.hanning(round(0.02 * SAMPLE_RATE))
    power = np.convolve(sosfiltfilt(band, audio) ** 2, window / window.sum(), "same")
    half, reach = round(0.012 * SAMPLE_RATE), round(0.1 * SAMPLE_RATE)
    rise = np.zeros(len(audio))
    loud = np.log(power + 1e-8)
    rise[half:-half] = loud[2 * half :] - loud[: -2 * half]
    found = []
    for (_, end, p), (start, _, q) in zip(phones, phones[1:], strict=False):
        p, q = p.strip("ˈˌ")[0], q.strip("ˈˌ")[0]
        sign = (p in VOICELESS and q in tracker.VOWELS) - (p in tracker.VOWELS and q in VOICELESS)
        i = round(start * SAMPLE_RATE)
        if sign and start - end < 0.011 and reach <= i < len(rise) - reach:
            at = np.argmax(sign * rise[i - reach : i + reach]) - reach
            found.append(at / SAMPLE_RATE)
    return np.array(found)


@pytest.mark.parametrize("name, second", RECORDINGS)
def test_the_phones_borders_are_where_one_hears_them(name, second):
    times, names = phonemes(captures.truth(name, second))
    phones = [(a, b, str(p)) for (a, b), p in zip(times, names, strict=True)]
    errors = onset_errors(read_audio(captures.path(name, second)), phones)
    assert len(errors) > 25
    assert abs(np.median(errors)) < 0.015 and np.median(np.abs(errors)) < 0.02


@pytest.mark.parametrize("name, second", RECORDINGS)
def test_the_jaw_opens_with_the_sound(name, second):
    truth = captures.truth(name, second)
    jaw = truth["actions"][:, list(truth["action_names"]).index("jawOpen")].astype(float)
    audio = read_audio(captures.path(name, second))
    sound = np.array([level(audio, t / FPS, (t + 1) / FPS) for t in range(len(jaw))])
    late = int(truth["sound_late"])
    assert np.corrcoef(jaw[: len(jaw) - late], sound[late:])[0, 1] > 0.25


@needs_flite
def test_flite_has_the_voices_that_the_actors_speak_with():
    """Where it lacks one it speaks with another, without a word."""
    known = subprocess.check_output(["flite", "-lv"], text=True).split()
    assert len(FLITE) == 1 and {LOOKS[name]["voice"]["flite"] for name in FLITE} <= set(known)


@needs_flite
@pytest.mark.parametrize("name", FLITE)
def test_a_flite_voice_sounds_where_its_phones_are_and_hardly_between(name):
    pauses, vowels = [], []
    for said in speech.say_all(LOOKS[name]["text"], LOOKS[name]["voice"]):
        assert said.phones[0][0] == pytest.approx(speech.MARGIN, abs=1e-4)
        assert len(said.audio) / SAMPLE_RATE <= said.phones[-1][1] + speech.MARGIN + 1e-4
        assert all(end > start for start, end, _ in said.phones)
        gaps = [(a[1], b[0]) for a, b in zip(said.phones, said.phones[1:], strict=False)]
        pauses += [level(said.audio, a + 0.03, b - 0.03) for a, b in gaps if b - a > 0.08]
        vowels += [level(said.audio, a, b) for a, b, p in said.phones if set(p) & tracker.VOWELS]
    assert pauses and max(pauses) < 0.1 * np.median(vowels)


@needs_flite
def test_flite_slows_down_when_told():
    plain, slow = (speech.say_by_flite("The boat is moving.", "slt", s) for s in (1, 1.2))
    assert len(slow.audio) / len(plain.audio) == pytest.approx(1.2, abs=0.05)


def test_a_vowel_that_outlasts_its_neighbours_is_stressed():
    names = "b ae t ax n iy pau uw pau ax b".split()
    ends = np.cumsum([0.05, 0.12, 0.05, 0.1, 0.05, 0.3, 0.1, 0.08, 0.1, 0.3, 0.1]).tolist()
    phones = speech.stressed(list(zip([0, *ends], ends, names, strict=False)))
    assert [p[2] for p in phones] == ["b", "ˈæ", "t", "ə", "n", "ˈiː", "", "ˈuː", "", "ə", "b"]


def test_sentences_are_written_in_plain_letters():
    assert speech.letters('"Für Öl, Maß: ähnlich!"') == "fuer oel mass aehnlich"
    assert speech.letters("The miller's half-open lid; why?") == "the miller's half open lid why"
    with pytest.raises(ValueError, match="no letters for 3"):
        speech.letters("3 boats")
    pytest.importorskip("pypinyin")
    assert speech.letters("绿茶怕烫,十度。") == "lv cha pa tang shi du"


# eSpeak NG, and a voice of a recorded person
@pytest.mark.parametrize("name", ["corpus_05", pytest.param(FLITE[0], marks=needs_flite)])
def test_the_same_text_sounds_the_same_again(name):
    look = LOOKS[name]
    first, second = (speech.say_all(look["text"][:2], look["voice"]) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.audio, b.audio) and a.phones == b.phones


def test_nobody_says_a_sentence_twice():
    """Of the two recordings of a test subject, what is said in one is said nowhere else."""
    texts = [s for p in LOOKS.values() for k in ("text", "second", "unseen") for s in p.get(k, [])]
    assert len(set(map(speech.letters, texts))) == len(texts)
    assert {name for name in LOOKS if "second" in LOOKS[name]} == set(captures.TEST)


@pytest.mark.parametrize("name, second", RECORDINGS)
def test_every_text_lasts_the_whole_take(name, second):
    times, names = phonemes(captures.truth(name, second))
    assert times[-1, 1] > studio.length(name, second) - 1.2  # at worst it ends in a pause
    letters = {c for phone in names for c in phone}
    assert not letters - set(motion.LETTERS) - set("ːˈˌ̩̪̃.-")  # length, stress; retroflex, coda


# ------------------------------------------------------------------------------------- motion


def test_dominance_is_the_papers_formula():
    t = np.linspace(-0.2, 0.2, 41)
    got = motion.dominance(t, 0.0, 0.0, 1.5, 20.0)
    assert np.allclose(got, 1.5 * np.exp(-((20 * np.abs(t)) ** 1.3)))


def test_lips_close_on_every_p_b_m(said, take):
    names = list(captures.truth(NAME)["action_names"])
    column = lambda a: take.actions[:, names.index(a)]  # noqa: E731
    count = 0
    for start, end, phone in said.phones:
        if phone[0] in "pbm" and end < 65.8:
            t = round((start + end) / 2 * FPS)
            frames = slice(max(t - 2, 0), t + 3)
            openings = np.stack([column(a)[frames] for a in ("jawOpen", "mouthFunnel")])
            openings = np.vstack([openings, column("mouthLowerDownLeft")[frames]])
            assert openings.max(0).min() < 0.01, (start, phone)
            count += 1
    assert count > 80


def test_open_vowels_open_the_jaw_and_silence_shuts_it(said, take):
    names = list(captures.truth(NAME)["action_names"])
    jaw = take.actions[:, names.index("jawOpen")]
    open_vowels = [round((a + b) / 2 * FPS) for a, b, p in said.phones if set(p) & set("ɑæ")]
    open_vowels = [t for t in open_vowels if t < len(jaw)]
    assert np.median(jaw[open_vowels]) > 0.25
    gaps = [(a[1], b[0]) for a, b in zip(said.phones, said.phones[1:], strict=False)]
    middles = [round((a + b) / 2 * FPS) for a, b in gaps if b - a > 0.45]
    assert len(middles) > 5 and jaw[middles].max() < 0.05


def test_blinks_close_fully_but_for_half_ones_and_keep_their_distance(look, take):
    style, onsets = look["motion"]["blinks"], take.blink_onsets / FPS
    depth = np.array([take.blink[int(x) : int(x) + 6].max() for x in take.blink_onsets])
    assert ((depth > 0.999) | (np.abs(depth - 0.525) < 0.13)).all()
    assert (depth > 0.999).mean() > 0.7
    gaps = np.diff(onsets)
    twins = gaps < motion.BLINK_REFRACTORY
    assert (gaps[twins] > 0.9 * motion.DOUBLE).all() and twins.mean() < 0.3
    assert abs(len(onsets) / 66 - style["rate"]) < 0.12


@pytest.mark.parametrize("double, half", [(0.0, 0.0), (0.1, 0.2)])
def test_blinks_have_their_rate_in_the_long_run_and_prefer_the_ends_of_phrases(double, half):
    rng = np.random.default_rng(0)
    ends = np.cumsum(rng.uniform(2, 4, 3000))  # one every 3 s
    style = {"rate": 0.4, "double": double, "half": half}
    t = np.arange(0, 4000, 0.02)
    lid, onsets = motion.blinks(8000, style, ends, t, rng)
    assert abs(len(onsets) / 8000 - 0.4) < 0.03
    gaps = np.diff(onsets)
    assert abs((gaps < 0.5).mean() - double / (1 + double)) < 0.02
    assert gaps.min() > (motion.BLINK_REFRACTORY if not double else 0.9 * motion.DOUBLE) - 0.02
    since = onsets - ends[np.searchsorted(ends, onsets, "right") - 1]
    assert (since < 0.4).mean() > 1.5 * 0.4 / 3  # by chance 0.4 s of every 3 s
    deep = np.array([lid[np.searchsorted(t, x + 0.1)] for x in onsets[onsets < 3900]])
    assert abs((deep < 0.7).mean() - half / (1 + double)) < 0.03


def test_a_phrase_ends_before_a_pause_and_the_chest_rises_after_it():
    phones = [(0.5, 0.6, "a"), (0.6, 0.7, "p"), (1.2, 1.4, "a"), (1.45, 1.5, "m")]
    said = speech.Speech(np.zeros(3 * SAMPLE_RATE, np.float32), phones)
    ends = motion.phrase_ends(said)
    np.testing.assert_allclose(ends, [0.7, 1.5])
    t = (np.arange(3 * 200) + 0.5) / 200
    chest = motion.breath(ends, t)
    assert chest[t < 0.3].max() < 1e-5 and 0.7 < t[chest.argmax()] < 2
    assert 0.0015 < chest.max() <= motion.BREATH


def test_mandarin_stops_release_their_lips_and_retroflexes_have_a_viseme():
    assert motion.visemes_of("ph") == ["bilabial"] and motion.visemes_of("ts.h") == ["postalveolar"]
    assert motion.visemes_of("ɕ") == ["postalveolar"]
    said = speech.Speech(np.zeros(SAMPLE_RATE, np.float32), [(0.4, 0.6, "ph")])
    t = np.linspace(0, 1, 201)
    shut = motion.closures(said, t)
    assert shut[t.searchsorted(0.45)] == 1 and shut[t.searchsorted(0.6)] < 0.2


def test_head_stays_within_reach_and_is_smooth(take):
    degrees = np.degrees(take.h[:, :3])
    assert (np.abs(degrees).max(0) < [12, 14, 7]).all()
    assert (np.ptp(degrees, axis=0) > [5, 8, 2]).all()
    assert np.abs(np.diff(degrees, axis=0)).max() < 4  # under 100 degrees a second
    rest = take.h[:, 3:] - motion.REST
    assert np.abs(rest).max() < 0.05


def window_statistics(h: np.ndarray) -> np.ndarray:
    """(n, 18) of windows of 4 s of poses (T, 6): logs of spread and speed, and means."""
    windows = h[: len(h) // 100 * 100].reshape(-1, 100, 6)
    spread, speed = windows.std(1), np.sqrt((np.diff(windows, axis=1) ** 2).mean(1))
    return np.concatenate([np.log(spread + 1e-6), np.log(speed + 1e-7), windows.mean(1)], axis=1)


def test_actors_can_be_told_apart_by_how_they_move():
    """The nearest centroid of the other windows names who moves; chance is 1 in 12."""
    found = [window_statistics(captures.truth(name)["h"].astype(float)) for name in captures.CORPUS]
    who, x = np.repeat(np.arange(12), [len(f) for f in found]), np.concatenate(found)
    for columns in (slice(0, 18), slice(0, 12)):  # with and without the mean posture
        z = StandardScaler().fit_transform(x[:, columns])
        right = cross_val_score(NearestCentroid(), z, who, cv=LeaveOneOut())
        assert right.mean() >= 0.6


def test_spring_reaches_its_target_as_the_closed_form_says():
    n, omega = 400, 5.0
    targets = np.vstack([np.zeros((1, 1)), np.ones((n, 1))])
    t = motion.DT * np.arange(n + 1)
    assert np.allclose(
        motion.spring(targets, omega)[:, 0], 1 - (1 + omega * t) * np.exp(-omega * t), atol=1e-9
    )


def test_turning_about_the_neck_leaves_the_neck_in_place():
    h = np.array([[0.1, -0.2, 0.05, 0, 0, 0]])
    pose = motion.about(motion.NECK, h)[0]
    r = Rotation.from_euler("z", 0.05) * Rotation.from_euler("y", -0.2)
    r = (r * Rotation.from_euler("x", 0.1)).as_matrix()  # Rz Ry Rx
    assert np.allclose(motion.rotations(h)[0], r)
    assert np.allclose(r @ motion.NECK + pose[3:], motion.NECK + motion.REST)


def test_the_same_seed_gives_the_same_take_and_another_does_not(look, said, take):
    again, other = perform(look, said), perform(look, said, seed=1)
    assert np.array_equal(take.h, again.h) and np.array_equal(take.actions, again.actions)
    assert not np.allclose(take.h, other.h, atol=1e-3)


def test_another_take_moves_differently_with_the_mouth_of_the_same_person(look, said, take):
    other = perform(look, said, take="second ")
    apart = np.abs(other.h - take.h).mean(0)
    assert (apart[:3] > np.radians([0.5, 1, 0.3])).all()
    assert len(np.intersect1d(take.blink_onsets, other.blink_onsets)) == 0
    assert not np.allclose(take.gaze, other.gaze, atol=0.02)
    jaw = list(captures.truth(NAME)["action_names"]).index("jawOpen")
    np.testing.assert_array_equal(take.actions[:, jaw], other.actions[:, jaw])


# -------------------------------------------------------------------------------------- shape


def test_catmull_clark_of_a_cube():
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    new, matrix = actors.subdivide(np.array(quads), 8)
    points = matrix @ corners
    assert len(new) == 24 and len(points) == 8 + 12 + 6
    assert np.allclose(np.abs(points[:8]), 5 / 9)  # (F + 2 R + 0 P) / 3 at valence 3
    assert np.allclose(np.sort(np.abs(points[8:20]), 1), [0, 0.75, 0.75])
    assert np.allclose(np.sort(np.abs(points[20:]), 1), [0, 0, 1])


def test_clipping_keeps_the_right_area():
    from scipy.sparse import identity

    x, y = np.meshgrid(np.arange(5.0), np.arange(5.0), indexing="ij")
    points = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], 1)
    k = np.arange(25).reshape(5, 5)
    quads = np.stack([k[:-1, :-1], k[1:, :-1], k[1:, 1:], k[:-1, 1:]], -1).reshape(-1, 4)
    sheet = actors.Surface(identity(25, format="csr"), quads, points[:, :2], points)
    level = points[:, 0] + 0.5 * points[:, 1] - 2.2
    weights, triangles = actors.clip(sheet, level)
    p = (weights @ points)[triangles]
    area = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])[:, 2] / 2
    # The kept part of the 4 x 4 square: x from 2.2 - y / 2 to 4.
    assert np.isclose(area.sum(), 4 * 4 - (2.2 + 0.2) / 2 * 4) and (area > -1e-12).all()


# ------------------------------------------------------------------------------------ captures


def test_shipped_captures_have_their_length_and_truth():
    for name, second in RECORDINGS:
        n = studio.length(name, second) * FPS
        data = captures.truth(name, second)
        assert data["h"].shape == (n, 6) and data["actions"].shape == (n, 52)
        assert data["blink"].shape == (n,) and data["gaze"].shape == (n, 2)
        assert len(data["phonemes"]) == len(data["phoneme_names"])
    assert sum(f.stat().st_size for f in captures.FOLDER.iterdir()) < 16e6


def test_phones_made_again_have_the_shipped_times():
    """eSpeak's, with its stops moved to where one hears them."""
    take, truth = studio.act("corpus_05"), captures.truth("corpus_05")
    again = studio.spoken(take.speech, len(truth["h"]))
    assert list(again["phoneme_names"]) == list(truth["phoneme_names"])
    np.testing.assert_allclose(again["phonemes"], truth["phonemes"], atol=1e-3)
    stops = [p.strip("ˈˌ")[:1] in "ptkbdgɡ" for p in truth["phoneme_names"]]
    assert sum(stops) > 50


@pytest.mark.parametrize("name, second", RECORDINGS)
def test_transcripts_hold_the_sentences_in_letters_and_the_phonemes_in_their_times(name, second):
    truth, audio = captures.truth(name, second), read_audio(captures.path(name, second))
    spans, texts = truth["sentences"], truth["transcripts"]
    assert spans.dtype == np.float32 and spans.shape == (len(texts), 2)
    assert len(texts) >= 5
    assert set("".join(texts)) <= set("abcdefghijklmnopqrstuvwxyz '")
    assert all(text == " ".join(text.split()) for text in texts)
    assert spans[0, 0] >= 0.5 and spans[-1, 1] <= studio.length(name, second)
    assert (np.diff(spans.ravel()) > 0).all() and (spans[1:, 0] - spans[:-1, 1] > 0.25).all()
    rate = np.array([len(text) for text in texts]) / np.diff(spans)[:, 0]
    assert (rate > 8).all() and (rate < 25).all()  # letters a second
    times, _ = phonemes(truth)
    inside = [((a >= spans[:, 0]) & (b <= spans[:, 1])).any() for a, b in times]
    cut = times[:, 0] > spans[-1, 1]
    assert (inside ^ cut).all()
    assert {a for a, _ in times} >= set(spans[:, 0]) and {b for _, b in times} >= set(spans[:, 1])
    gaps = np.stack([spans[:-1, 1] + 0.1, spans[1:, 0] - 0.1], 1)
    between = [level(audio, a, b) for a, b in gaps]
    spoken = [level(audio, a, b) for a, b in spans]
    assert max(between) < 0.05 * min(spoken)


def test_a_capture_shows_what_its_actor_was_given_to_say():
    pytest.importorskip("pypinyin")
    for name, second in RECORDINGS:
        texts = [speech.letters(text) for text in LOOKS[name]["second" if second else "text"]]
        said = captures.truth(name, second)["transcripts"].tolist()
        assert said == texts[: len(said)]


def test_who_needs_flite_is_said_in_one_line(tmp_path, monkeypatch):
    for module in ("anny", "pypinyin", "pyvista"):
        pytest.importorskip(module)
    monkeypatch.setattr(studio.shutil, "which", lambda _: None)
    with pytest.raises(InputError, match=rf"^{FLITE[0]}: .*needs flite.*apt install flite\)$"):
        studio.make([NAME, FLITE[0]], tmp_path)
    assert not list(tmp_path.iterdir())


def test_unknown_names_are_said_in_one_line(tmp_path):
    with pytest.raises(InputError, match="there is no sample capture"):
        captures.path("nobody")
    with pytest.raises(InputError, match="no second recording of 'corpus_01': choose one of subje"):
        captures.path("corpus_01", second=True)
    with pytest.raises(InputError, match="there is no actor"):
        studio.make(["nobody"], tmp_path)
    with pytest.raises(InputError, match="lasts 66 s"):
        studio.make([NAME], tmp_path, seconds=1000)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("studio")
def test_a_second_made_again_is_the_shipped_one(tmp_path):
    files = studio.make([NAME], tmp_path, seconds=1, progress=False)
    assert [file.name for file in files] == [f"{NAME}.mp4", f"{NAME}.test.mp4"]
    for file, second in zip(files, (False, True), strict=True):
        made, video = list(iter_frames(file)), captures.path(NAME, second)
        assert len(made) == FPS
        shipped = [f for f, _ in zip(iter_frames(video), range(FPS), strict=False)]
        for a, b in zip(made, shipped, strict=True):
            error = np.mean((a.astype(float) - b.astype(float)) ** 2)
            assert 10 * np.log10(255**2 / error) > 35

        sound, reference = read_audio(file)[:14_000], read_audio(video)[:14_000]
        assert np.corrcoef(sound, reference)[0, 1] > 0.97

        with np.load(file.with_suffix(".npz")) as data:
            truth, phones = captures.truth(NAME, second), data["phonemes"]
            assert np.allclose(data["h"], truth["h"][:FPS], atol=1.1e-4)
            assert np.allclose(data["actions"], truth["actions"][:FPS], atol=2e-3)
            assert np.allclose(phones, truth["phonemes"][: len(phones)], atol=1e-3)
    names = {f"{NAME}{end}" for end in (".mp4", ".npz", ".test.mp4", ".test.npz", "_unseen.flac")}
    assert {f.name for f in tmp_path.iterdir()} == names
    said, shipped = read_audio(tmp_path / f"{NAME}_unseen.flac"), read_audio(captures.unseen(NAME))
    assert np.allclose(said, shipped, atol=1e-3)


def test_flac_loses_nothing(tmp_path):
    x = np.sin(np.arange(20_001) / 30) * np.linspace(0, 1, 20_001)
    write_audio(tmp_path / "a.wav", x)
    studio.write_flac(tmp_path / "a.flac", x)
    wav, flac = (read_audio(tmp_path / name) for name in ("a.wav", "a.flac"))
    np.testing.assert_array_equal(wav, flac)
    assert (tmp_path / "a.flac").stat().st_size < 0.8 * (tmp_path / "a.wav").stat().st_size
