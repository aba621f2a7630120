"""The user study of table 3, as a thing one can hold: people rate the methods' videos, blind.

    clips = study.prepare(results, folder)                      # what is rated, and two checks
    study.Page(study.Store(folder / "ratings.sqlite", clips))   # asks, and keeps the answers
    study.table3(store.ratings())                               # what came out

`python -m dfa.study [PROFILE]` serves the page of notebook 11 by Voilà.
"""

from .clips import Clip, prepare
from .opinions import agreement, attentive, paired, table3
from .page import Page
from .store import QUESTIONS, SCALE, Store

__all__ = [
    "QUESTIONS",
    "SCALE",
    "Clip",
    "Page",
    "Store",
    "agreement",
    "attentive",
    "paired",
    "prepare",
    "table3",
]
