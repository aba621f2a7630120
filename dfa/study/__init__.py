"""The user study of table 3: people rate the methods' videos without knowing the method.

    clips = study.prepare(results, folder)                      # clips to rate, two checks
    study.Page(study.Store(folder / "ratings.sqlite", clips))   # shows clips, stores answers
    opinions.table3(store.ratings())                            # mean opinion scores

`python -m dfa.study [PROFILE]` serves the page of notebook 11 with Voilà. Each rater has an own
kernel, so these modules do not import torch. The analysis, `dfa.study.opinions`, does.
"""

from .clips import Clip, prepare
from .page import Page
from .store import QUESTIONS, SCALE, Store

__all__ = ["QUESTIONS", "SCALE", "Clip", "Page", "Store", "prepare"]
