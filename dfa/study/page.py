"""The rating page, in a notebook or served by Voilà: consent, one clip after another, thanks."""

from __future__ import annotations

import base64
import sqlite3

import ipywidgets as widgets

from .store import QUESTIONS, SCALE, Store

CONSENT = """
<h2>How do these talking heads look to you?</h2>
<p>You will see {n} short videos (about {minutes} minutes), with sound, in random order. All show
computer-animated people who do not exist. After each video you answer four questions, from 1 (bad)
to 5 (excellent). There are no right answers. Two of the videos are checks and ask you to choose a
certain number.</p>
<p>Taking part is voluntary, and you may stop at any time. A file on this computer stores a random
code, your answers and the order of the videos: no name, no address, no times. The answers are used
to compare methods of animation, and may be published.</p>
"""
STYLE = """<style>
.study { max-width: 640px; margin: 0 auto; }
.study h2 { margin: 0.2em 0; }
.study .widget-html-content { line-height: 1.5; font-size: 15px; }
.study video { width: 384px; height: 384px; background: #ddd; border-radius: 4px; }
.study .mod-primary { margin-top: 12px; }
.study .widget-toggle-buttons .widget-toggle-button { width: 104px; }
</style>"""


class Page(widgets.VBox):
    """The page for one rater at a time. The answers to a clip are stored immediately."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.add_class("study")
        self.store, self.code = store, ""
        self.message = widgets.HTML()
        self.welcome()

    def show(self, *parts: widgets.Widget) -> None:
        """Replace the page's contents and clear its message."""
        self.message.value = ""
        self.children = [widgets.HTML(STYLE), *parts, self.message]

    def welcome(self) -> None:
        """The first page: consent, or the code of a rater who has begun before."""
        n = len(self.store.clips)
        agree = widgets.Checkbox(description="I am of age and agree to take part", indent=False)
        begin = widgets.Button(description="Begin", button_style="primary", disabled=True)
        code = widgets.Text(
            placeholder="your code",
            description="Begun before?",
            style={"description_width": "initial"},
        )
        resume = widgets.Button(description="Continue")
        agree.observe(lambda change: setattr(begin, "disabled", not change.new), "value")
        begin.on_click(lambda _: self.begin())
        resume.on_click(lambda _: self.resume(code.value.strip().lower()))
        text = widgets.HTML(CONSENT.format(n=n, minutes=round(n * 0.4)))
        self.show(text, agree, begin, widgets.HTML("<hr>"), widgets.HBox([code, resume]))

    def begin(self) -> None:
        """Create a new rater and show the first clip."""
        try:
            self.code = self.store.join()
        except sqlite3.Error as error:
            self.say(f"The study cannot begin ({error}). Please tell the person who invited you.")
        else:
            self.ask()

    def resume(self, code: str) -> None:
        """Continue with the clips that the rater with this code has not rated yet."""
        if not self.store.knows(code):
            self.say("This code is unknown: check it, or begin again.")
        else:
            self.code = code
            self.ask()

    def ask(self) -> None:
        """Show the next clip and its questions; after the last clip, the thanks."""
        left, n = self.store.remaining(self.code), len(self.store.clips)
        if not left:
            self.thank()
            return
        clip = left[0]
        # as data: a file name or address could reveal the method
        film = widgets.Video(value=clip.path.read_bytes(), format="mp4", autoplay=False, loop=False)
        options = [(f"{k} {word}", k) for k, word in enumerate(SCALE, 1)]
        rows = {q: widgets.ToggleButtons(options=options, value=None) for q in QUESTIONS}
        following = widgets.Button(description="Next", button_style="primary", disabled=True)

        def answered(_: object) -> None:
            following.disabled = any(row.value is None for row in rows.values())

        def keep(_: object) -> None:
            try:
                scores = {question: row.value for question, row in rows.items()}
                self.store.rate(self.code, clip, scores)
            except sqlite3.Error as error:
                self.say(f"Your answers could not be stored ({error}): press Next again.")
            else:
                self.ask()

        for row in rows.values():
            row.observe(answered, "value")
        following.on_click(keep)
        head = widgets.HTML(
            f"<b>Video {n - len(left) + 1} of {n}</b>. To continue another time, note your code:"
            f" <code>{self.code}</code>"
        )
        questions = [part for q, row in rows.items() for part in (widgets.Label(QUESTIONS[q]), row)]
        self.show(head, film, *questions, following)

    def thank(self) -> None:
        """The last page, with the rater's own answers for download."""
        own = self.store.ratings(self.code)[["position", "clip", "question", "score"]]
        data = base64.b64encode(own.to_csv(index=False).encode()).decode()
        self.show(widgets.HTML(
            f"<h2>Thank you</h2><p>You have rated all {len(self.store.clips)} videos. Your code is"
            f" <code>{self.code}</code>.</p><p><a download='ratings_{self.code}.csv'"
            f" href='data:text/csv;base64,{data}'>Your answers (.csv)</a></p>"
        ))  # fmt: skip

    def say(self, text: str) -> None:
        """Show a message below the page."""
        self.message.value = f"<b style='color:#b5432f'>{text}</b>"
