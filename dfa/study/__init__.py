"""The user study of table 3, as a thing one can hold: people rate the methods' videos, blind.

    clips = study.prepare(results, folder)                      # what is rated, and two checks
    study.Page(study.Store(folder / "ratings.sqlite", clips))   # asks, and keeps the answers
    opinions.table3(store.ratings())                            # what came out

`python -m dfa.study [PROFILE]` serves the page of notebook 11 by Voilà. Each rater has a kernel of
their own, so what asks loads no torch; `dfa.study.opinions`, which analyses, does.
"""

from .clips import Clip, prepare
from .page import Page
from .store import QUESTIONS, SCALE, Store

__all__ = ["QUESTIONS", "SCALE", "Clip", "Page", "Store", "prepare"]
