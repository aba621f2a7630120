"""The official SyncNet, tested by layout: names, shapes, windows, sound and crop, no weights."""

import cv2
import numpy as np
import pytest
import scipy.fft
import torch
from safetensors.torch import save_file

from dfa.evaluation import syncnet
from dfa.evaluation.expert import confidence, offset_distances
from dfa.media import InputError

# The state dict of SyncNetModel.py, class S, of joonson/syncnet_python: weights, then batch norms.
WEIGHTS = {
    "netcnnaud.0": (64, 1, 3, 3),
    "netcnnaud.4": (192, 64, 3, 3),
    "netcnnaud.8": (384, 192, 3, 3),
    "netcnnaud.11": (256, 384, 3, 3),
    "netcnnaud.14": (256, 256, 3, 3),
    "netcnnaud.18": (512, 256, 5, 4),
    "netfcaud.0": (512, 512),
    "netfcaud.3": (1024, 512),
    "netfclip.0": (512, 512),
    "netfclip.3": (1024, 512),
    "netcnnlip.0": (96, 3, 5, 7, 7),
    "netcnnlip.4": (256, 96, 1, 5, 5),
    "netcnnlip.8": (256, 256, 1, 3, 3),
    "netcnnlip.11": (256, 256, 1, 3, 3),
    "netcnnlip.14": (256, 256, 1, 3, 3),
    "netcnnlip.18": (512, 256, 1, 6, 6),
}
NORMS = {
    "netcnnaud.1": 64,
    "netcnnaud.5": 192,
    "netcnnaud.9": 384,
    "netcnnaud.12": 256,
    "netcnnaud.15": 256,
    "netcnnaud.19": 512,
    "netfcaud.1": 512,
    "netfclip.1": 512,
    "netcnnlip.1": 96,
    "netcnnlip.5": 256,
    "netcnnlip.9": 256,
    "netcnnlip.12": 256,
    "netcnnlip.15": 256,
    "netcnnlip.19": 512,
}


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state = {}
    for name, shape in WEIGHTS.items():
        fan_in = int(np.prod(shape[1:]))
        state[f"{name}.weight"] = torch.randn(shape) * (2 / fan_in) ** 0.5
        state[f"{name}.bias"] = 0.1 * torch.randn(shape[0])
    for name, n in NORMS.items():
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.rand(n) + 0.5, torch.randn(n)
        state[f"{name}.running_mean"], state[f"{name}.running_var"] = torch.randn(n), torch.ones(n)
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)
    # pixels come as 0..255
    state["netcnnlip.0.weight"] /= 255
    return state


@pytest.fixture(scope="module")
def files(state, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    torch.save(state, folder / "syncnet_v2.model")
    save_file(state, folder / "syncnet.safetensors")
    # what torch wrote before 1.6, and before batch norm counted its batches
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    torch.save(old, folder / "old.model", _use_new_zipfile_serialization=False)
    return folder


@pytest.mark.parametrize("name", ["syncnet_v2.model", "syncnet.safetensors", "old.model"])
def test_the_official_state_dict_loads_strictly(files, state, name):
    model = syncnet.load_syncnet(files / name)
    assert not model.training
    loaded = model.state_dict()
    assert loaded.keys() == state.keys()
    for key, value in state.items():
        assert name == "old.model" and key.endswith("tracked") or torch.equal(loaded[key], value)


def test_other_files_are_refused(files, state, tmp_path):
    torch.save({k: v for k, v in state.items() if "fclip" not in k}, tmp_path / "partial.model")
    torch.save([1, 2], tmp_path / "list.model")
    torch.save({1: "one"}, tmp_path / "dict.model")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "code.model")
    (tmp_path / "text.model").write_text("no weights\n" * 9)
    (tmp_path / "text.safetensors").write_text("no weights\n" * 9)
    (tmp_path / "empty.model").write_bytes(b"")
    for name in ("syncnet_v2.model", "syncnet.safetensors", "old.model"):
        (tmp_path / f"cut_{name}").write_bytes((files / name).read_bytes()[:1_000_000])
    for path in list(tmp_path.iterdir()):
        with pytest.raises(InputError, match="syncnet_v2.model of joonson") as refused:
            syncnet.load_syncnet(path)
        assert path.name in str(refused.value) and "\n" not in str(refused.value)
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "folder.model").mkdir()
    for name in ("no.model", "no.safetensors", "folder.model", "folder.safetensors"):
        with pytest.raises(InputError, match=name):
            syncnet.load_syncnet(tmp_path / name)


@torch.inference_mode()
def test_windows_of_five_frames_and_twenty_vectors(files):
    model = syncnet.load_syncnet(files / "syncnet_v2.model")
    rng = np.random.default_rng(0)
    faces = torch.from_numpy(rng.integers(0, 256, (8, 224, 224, 3), dtype=np.uint8))
    sound = torch.from_numpy(rng.normal(0, 5, (32, 13))).float()
    v, a = model.video(faces), model.audio(sound)
    assert v.shape == a.shape == (4, 1024)
    # each window on its own, in the order of axes that their network takes
    for t in range(4):
        lips = torch.stack([f.permute(2, 0, 1) for f in faces[t : t + 5]], 1)[None].float()
        alone = model.netfclip(model.netcnnlip(lips).reshape(1, 512))
        torch.testing.assert_close(v[t : t + 1], alone, rtol=1e-3, atol=1e-3)
        heard = sound[4 * t : 4 * t + 20].T[None, None]  # (1, 1, 13, 20)
        alone = model.netfcaud(model.netcnnaud(heard).reshape(1, 512))
        torch.testing.assert_close(a[t : t + 1], alone, rtol=1e-3, atol=1e-3)
    assert offset_distances(v, a).shape == (4, 31)
    assert confidence(offset_distances(v, a))[0] >= 0


def vector(pcm: np.ndarray) -> np.ndarray:
    """(13,) MFCC of 400 samples and the one before, from the definition: no window, 512-point
    power spectrum, 26 triangles on the mel scale up to 8 kHz, lifter 22, log energy first."""
    x = pcm[1:] - 0.97 * pcm[:-1]
    power = np.abs(np.fft.rfft(x, 512)) ** 2 / 512
    mel = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 28)
    bins = np.floor(513 * 700 * (10 ** (mel / 2595) - 1) / 16000)
    k = np.arange(257)
    bank = []
    for low, mid, high in zip(bins, bins[1:], bins[2:], strict=False):
        rise, fall = (k - low) / max(mid - low, 1), (high - k) / max(high - mid, 1)
        bank.append(np.where(k < mid, rise, fall) * ((k >= low) & (k < high)))
    c = scipy.fft.dct(np.log(np.array(bank) @ power), norm="ortho")[:13]
    c *= 1 + 11 * np.sin(np.pi * np.arange(13) / 22)
    c[0] = np.log(power.sum())
    return c


def test_the_sound_is_theirs_and_in_step_with_the_frames():
    rng = np.random.default_rng(0)
    audio = rng.normal(0, 0.1, 16000).astype(np.float32)
    sound = syncnet.sound_features(audio, 25).numpy()
    assert sound.shape == (100, 13)
    pcm = np.round(audio * 32768.0)  # 16-bit scale
    for k in (1, 40, 97):  # frame 10's first vector is 40: it begins where the frame begins
        np.testing.assert_allclose(sound[k], vector(pcm[160 * k - 1 : 160 * k + 400]), rtol=1e-4)
    # window t = 10 covers 0.2 s from frame 10 on, and 15 ms that the last vector overhangs
    for at, heard in ((6400 - 2, False), (6400, True), (9600 + 239, True), (9600 + 240, False)):
        clicked = audio.copy()
        clicked[at] += 0.5
        changed = (syncnet.sound_features(clicked, 25).numpy() != sound).any(1)
        assert changed[40:60].any() == heard


def test_sound_of_another_length_is_cut_or_filled():
    audio = np.random.default_rng(0).normal(0, 0.1, 20000).astype(np.float32)
    whole = syncnet.sound_features(audio, 25)
    np.testing.assert_array_equal(whole, syncnet.sound_features(audio[:16240], 25))
    short = syncnet.sound_features(audio[:9000], 25)
    assert short.shape == whole.shape and short.isfinite().all()
    np.testing.assert_array_equal(short[:53], whole[:53])


def boxed(left: float, top: float, right: float, bottom: float, T: int) -> np.ndarray:
    """(T, 68, 2) points that span a box."""
    rng = np.random.default_rng(0)
    points = rng.uniform([left, top], [right, bottom], (68, 2))
    points[0], points[1] = [left, top], [right, bottom]
    return np.repeat(points[None], T, 0)


def test_the_crop_is_a_square_around_the_detectors_box():
    T, side = 30, 256
    frames = np.random.default_rng(0).integers(0, 256, (T, side, side, 3), dtype=np.uint8)
    points = boxed(80.5, 100.5, 160.5, 180.5, T) / side
    # the forehead raises the top by 20, so the box is 80 x 100 around (120.5, 130.5), half side 50:
    # 50 up, 50 * 1.8 down, 50 * 1.4 aside
    expected = [cv2.resize(f[80:220, 50:190, ::-1], (224, 224)) for f in frames]
    points[11] += 0.3  # one wild frame does not move the crop
    crops = syncnet.face_crops(frames, points)
    assert crops.dtype == torch.uint8 and crops.shape == (T, 224, 224, 3)
    inner = slice(6, -6)  # their median sees zeros before the first frame and after the last
    np.testing.assert_array_equal(crops[inner], np.stack(expected)[inner])


def test_the_crop_is_filled_with_their_grey():
    frames = np.full((20, 256, 256, 3), [200, 100, 50], np.uint8)
    points = boxed(4.5, 100.5, 84.5, 180.5, 20) / 256  # x from -25.5 on
    face = syncnet.face_crops(frames, points)[10].numpy()
    assert (face[:, :40] == 110).all()
    assert (face[:, 44:] == [50, 100, 200]).all()  # blue first
