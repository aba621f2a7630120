"""What the tests of the studio share: one actor's renderer, which takes a minute to build."""

import pytest


@pytest.fixture(scope="session")
def film(studio):
    """The renderer of subject_b, who has long hair and a striped shirt before a room."""
    from dfa.studio import actors, render

    film = render.Film(actors.load("subject_b"))
    yield film
    film.close()


@pytest.fixture(scope="session")
def take(studio):
    """The performance of subject_b."""
    from dfa.studio import act

    return act("subject_b")
