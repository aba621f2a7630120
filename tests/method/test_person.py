"""The person apart from the room, against scenes whose parts are known."""

import numpy as np
import pytest
import torch
from conftest import conditions

from dfa.gpu.trainings import speaker
from dfa.media import resized
from dfa.method import field_training
from dfa.method.fast_field import FastField
from dfa.method.person import Person, room

WALL = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


def scene(places, height=32):
    """Frames and masks of a grey block, `height` rows high, in front of WALL at some columns."""
    masks = np.zeros((len(places), 32, 32), np.uint8)
    for mask, x in zip(masks, places, strict=True):
        mask[32 - height :, x : x + 8] = 255
    return np.where(masks[..., None] > 0, np.uint8(90), WALL), masks


def test_the_room_is_what_is_seen_beside_the_person():
    frames, masks = scene([0, 4, 8, 12, 16, 20])
    found, unseen = room(frames, masks)
    assert not unseen.any()
    np.testing.assert_array_equal(found, WALL)


def test_where_the_room_was_never_seen_it_is_filled_from_around():
    frames, masks = scene([12] * 6, height=16)
    found, unseen = room(frames, masks)
    np.testing.assert_array_equal(unseen, masks[0] > 0)
    np.testing.assert_array_equal(found[~unseen], WALL[~unseen])
    assert (found[unseen] != 90).any() and found[unseen].std() > 5


def test_a_room_that_is_never_seen_is_grey():
    frames, masks = scene([0, 0])
    masks[:] = 255
    found, unseen = room(frames, masks)
    assert unseen.all() and (found == 127).all()


def test_shares_are_the_masks_in_the_size_of_the_frames():
    masks = scene([12, 4])[1]
    person = Person(masks, WALL, masks[0] > 0, np.zeros((1, 3)), np.zeros((1, 3), int))
    shares = person.shares(torch.tensor([1]), 64)
    assert shares.shape == (1, 1, 64, 64)
    assert shares[0, 0, 32, 16] == 1 and shares[0, 0, 32, 40] == 0


@pytest.fixture(scope="module")
def person():
    """Of a made-up speaker, beside whom the left half of the frame is free."""
    recording = speaker(8, 64)
    recording.masks = np.zeros((8, 64, 64), np.uint8)
    recording.masks[:, :, 32:] = 255
    return Person.of(recording)


def test_a_field_begins_with_the_persons_face_and_room(person):
    """Behind the fitted face is matter, before it is air; the room has the size of the field."""
    field = FastField(conditions(), 32)
    field.begin(person)
    nose = person.vertices[:, 2].argmin()
    x = torch.from_numpy(person.vertices[nose]) + torch.tensor([[0, 0, -0.03], [0, 0, 0.02]])
    at = ((x - field.lo) / (field.hi - field.lo) * 2 - 1).float()
    with torch.no_grad():
        _, sigma = field.query(at[None], conditions(1))
    assert sigma[0, 0] < 0.3 * sigma[0, 1]
    seen = torch.from_numpy(resized(person.room[None], 32)[0]).permute(2, 0, 1) / 255
    torch.testing.assert_close(field.background[0], seen, atol=0.01, rtol=0)
    assert not field.background.requires_grad  # it stays the room


@pytest.mark.parametrize("kind", ["fast", "small"])
def test_a_training_gets_the_masks_and_keeps_the_room(kind, person, tmp_path, monkeypatch):
    recording, told = speaker(8, 32), []
    cls = field_training.FIELDS[kind]
    plain = cls.loss

    def loss(self, cond, frames, weight, generator, masks=None, **options):
        told.append(masks)
        return plain(self, cond, frames, weight, generator, masks, **options)

    monkeypatch.setattr(cls, "loss", loss)
    recipe = field_training.FieldRecipe(2, kind=kind)
    points = recording.attributes.points
    field, _ = field_training.train_field(
        recording.frames, points, conditions(8), recipe, tmp_path / "f.safetensors", 0, "cpu",
        person=person,
    )  # fmt: skip
    assert all(m.shape[2:] == (32, 32) and m[..., 20:].min() == 1 and m[..., :12].max() == 0
               for m in told)  # fmt: skip
    again = cls(conditions(8), 32)
    again.begin(person)
    torch.testing.assert_close(field.background, again.background)
