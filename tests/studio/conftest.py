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


@pytest.fixture(scope="session")
def tracks(tmp_path_factory):
    """Three corpus captures, tracked for 8 s each: their names and the folder of the run."""
    from dfa import captures
    from dfa.method.tracking import tracked

    names, runs = captures.CORPUS[:3], tmp_path_factory.mktemp("runs")
    for name, file in zip(names, captures.tracks(names, runs), strict=True):
        tracked(captures.path(name), file, 8.0)
    return names, runs
