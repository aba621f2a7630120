"""Corpora are found, tracked once and resumed; AD-NeRF's folder is written and read back."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from dfa import captures, media, recording
from dfa.cli import main
from dfa.datasets import adnerf, clips, corpus, export
from dfa.datasets.adnerf import as_video, read_adnerf, read_sound
from dfa.datasets.clips import find_clips
from dfa.datasets.corpus import load_corpus, track_corpus
from dfa.datasets.export import write_adnerf
from dfa.media import InputError
from dfa.method import face, tracking

SIZE = 128  # of exported images
T = 60  # frames


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """2.4 s of a capture, and what is tracked in it."""
    folder = tmp_path_factory.mktemp("cut")
    source = captures.path("subject_a")
    audio = media.read_audio(source)[: T * media.SAMPLES_PER_FRAME]
    media.write_video(folder / "cut.mp4", media.frames_of(source, None, 256)[:T], audio)
    tracking.track(folder / "cut.mp4", progress=False).save(folder / "cut.npz")
    return folder / "cut.mp4"


@pytest.fixture(scope="module")
def tracked(cut):
    return recording.Attributes.load(cut.with_suffix(".npz"))


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


# ------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize(
    ("names", "align"),
    [
        (("s1/bbaf2n.mpg", "s2/bbaf2n.mpg", "s2/bbaf2n.align"), "s2/bbaf2n.align"),
        (("s1/a.mpg", "s2/video/mpg_6000/a.mpg", "s2/align/a.align"), "s2/align/a.align"),
        (("s1/a.mpg", "s2/a.mpg", "alignments/s2/a.align", "s1.zip"), "alignments/s2/a.align"),
    ],
)
def test_grid_is_known_by_its_speakers(tmp_path, names, align):
    layout, found = find_clips(touch(tmp_path, *names))
    assert layout == "GRID"
    assert [clip.speaker for clip in found] == ["s1", "s2"]
    assert [clip.text for clip in found] == [None, tmp_path / align]
    assert len({clip.id for clip in found}) == 2


def test_lrs2_is_known_by_main(tmp_path):
    touch(tmp_path, "main/55/00001.mp4", "main/55/00001.txt", "main/63/00011.mp4")
    touch(tmp_path, "pretrain/55/00002.mp4")
    (tmp_path / "train.txt").write_text("55/00001\n")
    (tmp_path / "test.txt").write_text("63/00011 NF\n")
    layout, found = find_clips(tmp_path)
    assert layout == "LRS2"
    assert [(c.id, c.speaker, c.split) for c in found] == [
        ("main/55/00001", "55", "train"),
        ("main/63/00011", "63", "test"),
        ("pretrain/55/00002", "55", "pretrain"),
    ]
    assert found[0].text == tmp_path / "main/55/00001.txt"
    layout, found = find_clips(tmp_path / "main")
    assert (layout, [c.split for c in found]) == ("LRS2", ["train", "test"])


def test_hdtf_is_known_by_its_names(tmp_path):
    touch(tmp_path, "RD_Radio10_000.mp4", "RD_Radio11_000.mp4", "Radio11_0.mp4")
    touch(tmp_path, "WDA_AmyKlobuchar0_000.mp4", "WDA_AmyKlobuchar1_000.mp4")
    layout, found = find_clips(tmp_path)
    assert layout == "HDTF"
    people = ["RD_Radio10", "RD_Radio11", "Radio11", "WDA_AmyKlobuchar", "WDA_AmyKlobuchar"]
    assert [c.speaker for c in found] == people


def test_any_other_folder_is_videos(tmp_path):
    touch(tmp_path, "me.mov", "me.mp4", "anna/one.MP4", "anna/two.webm", ".hidden/x.mp4")
    touch(tmp_path, "._me.mp4", "notes.txt")
    (tmp_path / "anna" / "circle").symlink_to(tmp_path)
    layout, found = find_clips(tmp_path)
    assert layout == "videos"
    assert [(c.id, c.speaker) for c in found] == [
        ("anna/one", "anna"), ("anna/two", "anna"), ("me.mov", "me"), ("me.mp4", "me"),
    ]  # fmt: skip


def test_folders_without_videos(tmp_path):
    with pytest.raises(InputError, match="holds no video"):
        find_clips(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        find_clips(tmp_path / "nowhere")


def test_align_gives_words_and_seconds(tmp_path):
    path = tmp_path / "a.align"
    path.write_text("0 23750 sil\n23750 29500 bin\n29500 34000 blue\n34000 74500 sil\n")
    assert clips.read_align(path) == [("bin", 0.95, 1.18), ("blue", 1.18, 1.36)]
    for bad in ("0 x sil\n", "0 1\n"):
        path.write_text(bad)
        with pytest.raises(InputError, match="a.align"):
            clips.read_align(path)


def test_lrs2_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("Text:  WHEN YOU'RE COOKING\nConf:  4\n")
    assert clips.read_lrs2(path) == ("WHEN YOU'RE COOKING", [])
    path.write_text(
        "Text:  HI YOU\nConf: 3\n\nWORD START END ASDSCORE\nHI 0.1 0.3 5.2\nYOU 0.3 1 2\n"
    )
    assert clips.read_lrs2(path) == ("HI YOU", [("HI", 0.1, 0.3), ("YOU", 0.3, 1.0)])
    path.write_text("hello")
    with pytest.raises(InputError, match="Text"):
        clips.read_lrs2(path)


# ------------------------------------------------------------------------------------- a corpus


@pytest.fixture
def grid(tmp_path, cut):
    """A GRID of three good clips and a broken one."""
    root = tmp_path / "grid"
    touch(root, "s1/broken.mpg")
    (root / "s1" / "broken.mpg").write_text("this is no video\n" * 50)
    for name in ("s1/one.mpg", "s1/two.mpg", "s2/one.mpg"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(cut, root / name)
    (root / "s1" / "one.align").write_text("0 5000 sil\n5000 20000 now\n")
    return root


@pytest.fixture
def tracker(monkeypatch, tracked):
    """Instead of the tracker, one that notes the clips it is given."""
    seen = []

    def track(path, progress=True, seconds=None, identity=None):
        if Path(path).stem == "broken":
            raise InputError(f"{path} cannot be decoded")
        seen.append(Path(path).stem)
        return tracked

    monkeypatch.setattr(tracking, "track", track)
    return seen


def rows_of(out: Path) -> dict:
    lines = (out / "manifest.jsonl").read_text().splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def test_a_corpus_is_tracked_and_the_bad_clip_listed(grid, tmp_path, tracker, tracked):
    out = tmp_path / "out"
    facts = track_corpus(grid, out, jobs=1, progress=False)
    assert facts | dict(reasons=None) == dict(
        layout="GRID", clips=4, tracked=3, bad=1, frames=3 * T, new=4, reasons=None
    )
    rows = rows_of(out)
    assert rows["s1/broken"]["status"] == "bad"
    assert "cannot be decoded" in rows["s1/broken"]["reason"]
    assert rows["s1/one"]["transcript"] == "now"
    assert rows["s1/one"]["words"] == [["now", 0.2, 0.8]]
    assert rows["s2/one"]["speaker"] == "s2"
    assert (rows["s2/one"]["frames"], rows["s2/one"]["seconds"]) == (T, T / 25)
    loaded = list(load_corpus(out))
    assert sorted(row["id"] for row, _ in loaded) == ["s1/one", "s1/two", "s2/one"]
    assert np.array_equal(loaded[0][1].h, tracked.h)
    # and again: nothing to do; words that came later are taken up
    (grid / "s2" / "one.align").write_text("0 5000 then\n")
    tracker.clear()
    assert track_corpus(grid, out, jobs=1, progress=False)["new"] == 0
    assert tracker == []
    assert rows_of(out)["s2/one"]["transcript"] == "then"


def test_a_stopped_corpus_goes_on(grid, tmp_path, tracker, monkeypatch):
    out = tmp_path / "out"
    one = corpus._one

    def stops(clip, out):
        if clip.id == "s1/two":
            raise KeyboardInterrupt
        return one(clip, out)

    monkeypatch.setattr(corpus, "_one", stops)
    with pytest.raises(KeyboardInterrupt):
        track_corpus(grid, out, jobs=1, progress=False)
    monkeypatch.setattr(corpus, "_one", one)
    with open(out / "manifest.jsonl", "a") as file:
        file.write('{"id": "s1/tw')  # a kill can cut a line short
    tracker.clear()
    assert track_corpus(grid, out, jobs=1, progress=False)["tracked"] == 3
    assert tracker == ["two", "one"]
    assert len((out / "manifest.jsonl").read_text().splitlines()) == 4


def test_what_changed_is_tracked_again(grid, tmp_path, tracker):
    out = tmp_path / "out"
    track_corpus(grid, out, jobs=1, progress=False)
    tracker.clear()
    with open(grid / "s1" / "two.mpg", "ab") as file:
        file.write(b" ")
    (out / "s2" / "one.npz").unlink()
    assert track_corpus(grid, out, jobs=1, progress=False)["new"] == 2
    assert tracker == ["two", "one"]


def test_an_error_of_our_own_is_listed_and_tried_again(grid, tmp_path, tracker, monkeypatch):
    def breaks(path, progress=True):
        raise np.linalg.LinAlgError("Singular matrix")

    with monkeypatch.context() as patch:
        patch.setattr(tracking, "track", breaks)
        facts = track_corpus(grid, tmp_path / "out", jobs=1, progress=False)
    assert facts["reasons"]["s1/one"] == "LinAlgError: Singular matrix"
    assert track_corpus(grid, tmp_path / "out", jobs=1, progress=False)["tracked"] == 3


def test_a_full_disk_stops_the_corpus(grid, tmp_path, tracker, monkeypatch):
    out = tmp_path / "out"
    save = recording.Attributes.save

    def full(self, path):
        if "two" in str(path):
            raise InputError(f"cannot write {path}: No space left on device")
        save(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(recording.Attributes, "save", full)
        with pytest.raises(InputError, match="No space"):
            track_corpus(grid, out, jobs=1, progress=False)
    assert set(rows_of(out)) == {"s1/broken", "s1/one"}
    assert track_corpus(grid, out, jobs=1, progress=False)["new"] == 2


def test_outputs_that_hold_something_else(grid, tmp_path, tracker):
    with pytest.raises(InputError, match="cannot make the folder"):
        track_corpus(grid, touch(tmp_path, "file") / "file" / "out", jobs=1)
    with pytest.raises(InputError, match="no tracked corpus"):
        load_corpus(tmp_path)
    other = shutil.copytree(grid, tmp_path / "other")
    track_corpus(grid, tmp_path / "out", jobs=1, progress=False)
    with pytest.raises(InputError, match="another corpus"):
        track_corpus(other, tmp_path / "out", jobs=1)
    shutil.rmtree(grid)  # moved: the same clips, in another place
    assert track_corpus(other, tmp_path / "out", jobs=1, progress=False)["new"] == 0


def test_track_command_on_a_folder(grid, tmp_path, capsys, tracker):
    out = tmp_path / "out"
    assert main(["track", str(grid), "-o", str(out), "--jobs", "1", "--json"]) == 0
    said = capsys.readouterr()
    facts = json.loads(said.out.splitlines()[-1])
    assert {k: facts[k] for k in ("clips", "tracked", "bad", "frames")} == dict(
        clips=4, tracked=3, bad=1, frames=3 * T
    )
    assert "left out: " in said.err and "broken.mpg" in said.err
    assert main(["track", str(grid), "-o", str(out), "--jobs", "0"]) == 2
    for name in ("one", "two"):
        (grid / "s1" / f"{name}.mpg").rename(grid / "s1" / f"{name}.txt")
    shutil.rmtree(grid / "s2")
    capsys.readouterr()
    assert main(["track", str(grid), "-o", str(tmp_path / "none"), "--jobs", "1"]) == 2
    assert "no clip" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_a_killed_corpus_goes_on(cut, tmp_path):
    """SIGKILL to the parent alone: its workers end, and what was done stays done."""
    root, out = tmp_path / "videos", tmp_path / "out"
    root.mkdir()
    for i in range(6):
        shutil.copy(cut, root / f"{i}.mp4")
    command = [sys.executable, "-m", "dfa", "track", str(root), "-o", str(out), "--jobs", "2"]
    run = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    manifest, end = out / "manifest.jsonl", time.monotonic() + 120
    while not (manifest.exists() and manifest.read_text()) and time.monotonic() < end:
        time.sleep(0.05)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    workers = [int(pid) for pid in children.read_text().split()] if children.exists() else []
    run.send_signal(signal.SIGKILL)
    run.wait()
    done = {id: (out / f"{id}.npz").stat().st_mtime_ns for id in rows_of(out)}
    assert 1 <= len(done) < 6
    while any(map(alive, workers)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(alive, workers))
    facts = track_corpus(root, out, jobs=2, progress=False)
    assert (facts["tracked"], facts["new"]) == (6, 6 - len(done))
    assert all((out / f"{id}.npz").stat().st_mtime_ns == then for id, then in done.items())
    assert not list(out.rglob(".*"))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def dies(clip, out):
    """Instead of `corpus._one`: as if a decoder crashed."""
    if clip.id == "s1/two":
        os._exit(9)
    return corpus._row(clip) | dict(frames=1)


@pytest.mark.slow
def test_a_crash_costs_one_clip(grid, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "_one", dies)
    facts = track_corpus(grid, tmp_path / "out", jobs=2, progress=False)
    assert (facts["tracked"], list(facts["reasons"])) == (3, ["s1/two"])
    assert "process" in facts["reasons"]["s1/two"]


# ------------------------------------------------------------------------- the AD-NeRF family


@pytest.fixture(scope="module")
def dataset(cut, tracked, tmp_path_factory):
    """The folder that `dfa export` makes of the cut."""
    folder = tmp_path_factory.mktemp("export") / "person"
    features = np.random.default_rng(0).normal(size=(T, 16, 29)).astype(np.float32)
    np.save(folder.with_name("features.npy"), features)
    write_adnerf(cut, folder, size=SIZE, attributes=tracked, aud=folder.with_name("features.npy"))
    return folder


def test_the_folder_is_whole(dataset, cut, tracked):
    names = {p.name for p in dataset.iterdir()}
    assert names == {
        "ori_imgs", "gt_imgs", "com_imgs", "head_imgs", "torso_imgs", "parsing", "bc.jpg",
        "aud.wav", "aud.npy", "au.csv", "track_params.pt", "track_params.npz", "README.txt",
        "transforms_train.json", "transforms_val.json",
    }  # fmt: skip
    assert not list(dataset.parent.glob(".*"))
    for name in ("gt_imgs", "com_imgs", "head_imgs"):
        assert len(list((dataset / name).glob("*.jpg"))) == T
    assert np.allclose(np.loadtxt(dataset / "ori_imgs/7.lms"), tracked.points[7] * SIZE, atol=1e-5)
    assert cv2.imread(str(dataset / "torso_imgs/0.png"), -1).shape == (SIZE, SIZE, 4)
    splits = [json.loads((dataset / f"transforms_{s}.json").read_text()) for s in ("train", "val")]
    assert [len(s["frames"]) for s in splits] == [T * 10 // 11, T - T * 10 // 11]
    assert splits[0]["focal_len"] == pytest.approx(face.FOCAL * SIZE)
    lids = pd.read_csv(dataset / "au.csv")[" AU45_r"].values  # as ER-NeRF and SyncTalk ask
    assert len(lids) == T and 0 <= lids.min() and lids.max() <= 2
    assert "aud.npy        copied" in (dataset / "README.txt").read_text()
    assert len(media.read_audio(dataset / "aud.wav")) == pytest.approx(T * 640, abs=640)


def test_parts_and_background(dataset):
    """Head in the middle, torso below, background in the upper corners and in bc.jpg."""
    from dfa.datasets.export import BACK, HEAD, TORSO

    parts = cv2.imread(str(dataset / "parsing/0.png"))
    lands = np.loadtxt(dataset / "ori_imgs/0.lms").round().astype(int)
    assert tuple(parts[lands[30, 1], lands[30, 0]]) == HEAD  # the nose
    assert tuple(parts[-1, SIZE // 2]) == TORSO
    assert tuple(parts[0, 0]) == tuple(parts[0, -1]) == BACK
    seen = [cv2.imread(str(p)) for p in (dataset / "ori_imgs/0.jpg", dataset / "bc.jpg")]
    corner = [image[: SIZE // 8, : SIZE // 8].astype(int) for image in seen]
    assert abs(corner[0] - corner[1]).mean() < 4
    face_box = [image[lands[19, 1] : lands[8, 1], lands[36, 0] : lands[45, 0]] for image in seen]
    assert abs(face_box[0].astype(int) - face_box[1]).mean() > 10  # no face is left in it


def test_the_folder_is_read_back(dataset, tracked, cut):
    data = read_adnerf(dataset)
    assert abs(data.h - tracked.h).max() < 1e-5
    assert (data.focal, data.cx, data.cy) == (face.FOCAL * SIZE, SIZE / 2, SIZE / 2)
    assert data.ids.tolist() == list(range(T)) and data.train.sum() == T * 10 // 11
    assert data.aud.shape == (T, 16, 29)
    assert data.sound == dataset / "aud.wav"
    source = media.frames_of(cut, tracked.crop, SIZE)
    for i in (0, T // 2, T - 1):
        read = cv2.imread(str(data.images[i]))[..., ::-1].astype(float)
        assert 10 * np.log10(255**2 / ((read - source[i]) ** 2).mean()) > 35


def test_a_landmark_falls_on_its_pixel(dataset, tracked):
    """By the arithmetic of RAD-NeRF's provider and get_rays, with its scale of 4."""
    data = json.loads((dataset / "transforms_train.json").read_text())
    points = face.FaceModel.load().landmarks(tracked.F_id, tracked.F_exp)  # (T, 68, 3) canonical
    ours = SIZE * face.project(face.pose(*map(torch.from_numpy, (tracked.h, points)))).numpy()
    theirs = []
    for frame in data["frames"]:
        m = np.array(frame["transform_matrix"])
        turned = np.stack([m[1], m[2], m[0]])  # nerf_matrix_to_ngp
        R, t = turned[:, :3] * [1, -1, -1], turned[:, 3] * 4
        x = (points[frame["img_id"]] - data["dfa"]["origin"]) * [1, -1, -1]
        x = (x[:, [1, 2, 0]] * 4 - t) @ R  # into a camera that looks along +z, y down
        theirs.append(x[:, :2] / x[:, 2:] * data["focal_len"] + [data["cx"], data["cy"]])
    n = len(theirs)
    assert np.linalg.norm(theirs - ours[:n], axis=-1).max() < 0.01
    off = np.linalg.norm(theirs - tracked.points[:n] * SIZE, axis=-1)
    assert off.mean() * 512 / SIZE < 6  # pixels of 512: how well the 3DMM fits


def test_the_head_lies_in_their_box(dataset, tracked):
    """RAD-NeRF marches through x, z within 25 cm and depth within 12.5 cm of the origin."""
    x = face.FaceModel.load().vertices(tracked.F_id, tracked.F_exp[0]) - adnerf.ORIGIN
    assert (abs(4 * x) < [1, 1, 0.5]).all()


def test_track_params_are_theirs(dataset):
    """Their euler2rot and trans / 10 give the matrices of the json."""
    params = torch.load(dataset / "track_params.pt", weights_only=True)
    a, b, c = params["euler"].double().numpy().T
    one, zero = np.ones(T), np.zeros(T)
    X = [[one, zero, zero], [zero, np.cos(a), np.sin(a)], [zero, -np.sin(a), np.cos(a)]]
    Y = [[np.cos(b), zero, -np.sin(b)], [zero, one, zero], [np.sin(b), zero, np.cos(b)]]
    Z = [[np.cos(c), -np.sin(c), zero], [np.sin(c), np.cos(c), zero], [zero, zero, one]]
    R = np.einsum("ijt,jkt,klt->til", X, Y, Z)
    t = params["trans"].numpy() / 10
    assert (t[:, 2] < -0.4).all()  # before the camera, in metres
    frames = json.loads((dataset / "transforms_train.json").read_text())["frames"]
    for frame in frames:
        m, i = np.array(frame["transform_matrix"]), frame["img_id"]
        assert np.allclose(m[:3, :3], R[i].T, atol=1e-5)
        assert np.allclose(m[:3, 3], -R[i].T @ t[i], atol=1e-5)


@pytest.fixture
def foreign(dataset, tmp_path):
    """As another tracker would leave it: no keys of ours, no sound."""
    folder = shutil.copytree(dataset, tmp_path / "foreign")
    for split in ("train", "val"):
        path = folder / f"transforms_{split}.json"
        data = json.loads(path.read_text())
        path.write_text(json.dumps({k: v for k, v in data.items() if k not in ("dfa", "w", "h")}))
    (folder / "aud.wav").unlink()
    (folder / "track_params.npz").unlink()
    return folder


def test_a_foreign_folder_is_read(foreign, tracked):
    assert abs(read_adnerf(foreign).h - tracked.h).max() < 1e-5
    assert read_adnerf(foreign).sound is None
    for split in ("train", "val"):
        (foreign / f"transforms_{split}.json").unlink()
    assert abs(read_adnerf(foreign).h - tracked.h).max() < 1e-5  # from track_params.pt


def test_folders_that_lack_something(foreign, tmp_path):
    def refused(match):
        with pytest.raises(InputError, match=match) as error:
            read_adnerf(foreign)
        assert "\n" not in str(error.value)

    with pytest.raises(InputError, match="aud.wav"):
        read_sound(foreign)
    (foreign / "ori_imgs" / "3.jpg").unlink()
    refused("3.jpg")
    text = (foreign / "transforms_val.json").read_text()
    (foreign / "transforms_val.json").write_text(text.replace("transform_matrix", "matrix"))
    refused("transform_matrix")
    (foreign / "transforms_val.json").write_text(text[:100])
    refused("transforms_val.json")
    (foreign / "transforms_val.json").unlink()
    refused("both splits")
    (foreign / "transforms_train.json").unlink()
    refused("59 images for 60")
    torch.save({"euler": Path("code"), "trans": 1}, foreign / "track_params.pt")
    refused("track_params.pt")
    (foreign / "track_params.pt").unlink()
    refused("neither")
    for name in ("ori_imgs", "gt_imgs", "com_imgs"):
        shutil.rmtree(foreign / name)
    refused("no images")


def test_the_images_as_a_video(dataset, tmp_path):
    folder = shutil.copytree(dataset, tmp_path / "gap")
    for i in (0, 1, 20):
        (folder / "ori_imgs" / f"{i}.jpg").unlink()
    frames = list(media.iter_frames(as_video(folder, tmp_path / "v.mkv")))
    assert len(frames) == T - 2  # 20 is filled
    for t in (0, 30):
        image = cv2.imread(str(folder / f"ori_imgs/{t + 2}.jpg"))[..., ::-1]
        assert abs(frames[t].astype(int) - image).mean() < 3
    first = as_video(folder, tmp_path / "v.mkv").read_bytes()
    assert as_video(folder, tmp_path / "w.mkv").read_bytes() == first
    assert len(read_sound(folder)) == (T - 2) * 640


def test_export_refuses(cut, tracked, dataset, tmp_path, capsys):
    def refused(*arguments, out=tmp_path / "new"):
        assert main(["export", str(cut), "-o", str(out), *map(str, arguments)]) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith("dfa: ")
        assert not [p for p in tmp_path.iterdir() if p.name.startswith((".", "new"))]
        return said

    assert "there already" in refused(out=dataset)
    assert "even" in refused("--size", 127)
    np.save(tmp_path / "few.npy", np.zeros((3, 16, 29)))
    assert "another video" in refused("--aud", tmp_path / "few.npy", "--attributes",
                                      cut.with_suffix(".npz"))  # fmt: skip
    assert "sound features" in refused("--aud", cut)
    tracked.part(slice(50)).save(tmp_path / "short.npz")
    assert "not the video" in refused("--attributes", tmp_path / "short.npz", "--size", 64)
    assert "cannot write" in refused(out=touch(tmp_path, "file") / "file" / "out")


def test_a_stopped_export_tracks_once(cut, tracker, tmp_path, monkeypatch):
    def stops(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(export, "_fill", stops)
        with pytest.raises(KeyboardInterrupt):
            write_adnerf(cut, tmp_path / "person", size=64)
    assert not (tmp_path / "person").exists()
    touch(tmp_path, ".person.part/ori_imgs/999.jpg")
    (tmp_path / "person").mkdir()  # an empty folder is as good as none
    write_adnerf(cut, tmp_path / "person", size=64)
    assert tracker == ["cut"]
    assert len(read_adnerf(tmp_path / "person").images) == T
    assert len(list((tmp_path / "person" / "ori_imgs").glob("*.jpg"))) == T
    assert [p.name for p in tmp_path.iterdir()] == ["person"]


@pytest.mark.slow
def test_export_and_fit_of_a_folder(cut, tmp_path, capsys):
    """dfa export tracks for itself; its folder is tracked and fitted like a video."""
    folder, model = tmp_path / "person", tmp_path / "model"
    assert main(["export", str(cut), "-o", str(folder), "--size", "256"]) == 0
    assert main(["track", str(folder), "-o", str(tmp_path / "a.npz")]) == 0
    again = recording.Attributes.load(tmp_path / "a.npz")
    first = recording.Attributes.load(folder / "track_params.npz")
    assert abs(again.h - first.h)[:, :3].max() < np.radians(3)
    fit = ["fit", str(folder), "-o", str(model), "--profile", "smoke", "--steps", "2"]
    assert main(fit) == 0
    assert json.loads((model / "model.json").read_text())["frames"] == T
    assert not list(tmp_path.rglob("*.mkv"))
    for i in range(20, 45):  # longer without a face than is filled
        cv2.imwrite(str(folder / f"ori_imgs/{i}.jpg"), np.full((256, 256, 3), 128, np.uint8))
    capsys.readouterr()
    assert main(["track", str(folder), "-o", str(tmp_path / "b.npz")]) == 2
    assert f"dfa: {folder} shows no face" in capsys.readouterr().err
    (folder / "aud.wav").unlink()
    assert main(fit[:3] + [str(tmp_path / "other")]) == 2
    assert "aud.wav" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
