"""The interactive parts: sliders for people, one plain call where the workflow runs a notebook."""

import ipywidgets

from dfa import plots


def test_the_workflow_calls_an_interactive_part_once_and_makes_no_widget(monkeypatch):
    called = []
    monkeypatch.setenv("DFA_WORKFLOW", "1")
    monkeypatch.setattr(ipywidgets, "interact", None)

    @plots.interact(x=(0, 10))
    def show(x=3):
        called.append(x)

    assert called == [3]
    show(4)
    assert called == [3, 4]


def test_people_get_sliders(monkeypatch):
    monkeypatch.delenv("DFA_WORKFLOW")
    asked = {}
    monkeypatch.setattr(ipywidgets, "interact", lambda **c: asked.update(c) or (lambda f: f))
    plots.interact(x=(0, 10))(lambda x=3: None)
    assert asked == {"x": (0, 10)}
