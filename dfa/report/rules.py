"""Rules that test the claims on tables: ours, or those that the paper prints.

`claims` says which rule tests which claim. A rule compares estimates with their intervals. Each
comparison is an `Answer`: it holds, it does not hold, or it is undecided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..evaluation.paper import OURS, RIVALS, TRUTH, reported
from ..method.gpvae import VARIANTS

*OTHER_VAES, VAE = VARIANTS
NEAR = 0.25  # relative tolerance: a blink rate this near the person's own counts as equal


class NotTested(Exception):
    """A table or value that a rule needs is missing; the message says which."""


class Estimate(NamedTuple):
    """A value and the ends of its interval; without an interval, both ends are the value."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        text = f"{self.value:.3g}"
        return text if self.low == self.high else f"{text} [{self.low:.3g}, {self.high:.3g}]"


class Source:
    """The tables from which rules read estimates: those of a folder, or the paper's.

    folder: figures/<profile>, with tables/*.csv; None stands for the paper's printed tables.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder) / "tables" if folder else None
        self.tables: dict[str, pd.DataFrame] = {}

    def table(self, name: str) -> pd.DataFrame:
        """A table by its id. Raises NotTested if it does not exist."""
        if name not in self.tables:
            try:
                if self.folder:
                    self.tables[name] = pd.read_csv(self.folder / f"{name}.csv")
                else:
                    self.tables[name] = reported(name).rename(columns={"paper": "value"})
            except (FileNotFoundError, KeyError):
                raise NotTested(f"there is no table {name}") from None
        return self.tables[name]

    def testsets(self, name: str) -> list[str]:
        """The testsets of a table, in its order. Raises NotTested if there is no such table."""
        return list(self.table(name).testset.fillna("").unique())

    def get(
        self, name: str, testset: str, method: str, metric: str, protocol: str = ""
    ) -> Estimate:
        """One estimate. Raises NotTested if the table does not have it.

        `protocol` is ignored for the paper's tables, which have no protocols.
        """
        t = self.table(name)
        found = t[(t.testset.fillna("") == testset) & (t.method == method) & (t.metric == metric)]
        if protocol and self.folder:
            found = found[found.protocol == protocol]
        if found.empty or pd.isna(found.value.iloc[0]):
            raise NotTested(f"{name} has no {metric} of {method}")
        row = found.iloc[0]
        low, high = (row.get(key, np.nan) for key in ("ci_low", "ci_high"))
        return Estimate(row.value, *((row.value,) * 2 if pd.isna(low) else (low, high)))


class Answer(NamedTuple):
    """The result of one comparison."""

    holds: int  # 1 holds, -1 does not hold, 0 is undecided
    says: str  # what was compared, with the numbers


def more(a: Estimate, b: Estimate, says: str, sign: int = 1) -> Answer:
    """Is a more than b (less, with sign -1)? Undecided if the intervals overlap."""
    above, below = a.low > b.high, a.high < b.low
    return Answer(sign * (int(above) - int(below)), f"{says}: {a}, {b}")


def within(a: Estimate, low: float, high: float, says: str) -> Answer:
    """Does a lie between two bounds? Undecided if its interval contains one of them."""
    outside = a.high < low or a.low > high
    inside = low <= a.low and a.high <= high
    return Answer(int(inside) - int(outside), f"{says}: {a} within {low:.3g} to {high:.3g}")


def best(source: Source, table: str, metric: str, sign: int, of: str, others: Iterable[str],
         protocol: str = "") -> list[Answer]:  # fmt: skip
    """Is the method `of` better than each of `others`, on each testset?

    sign: 1 if a larger value of the metric is better, -1 if a smaller one is.
    """
    return [
        more(source.get(table, n, of, metric, protocol), source.get(table, n, m, metric, protocol),
             f"{n} {metric}, {of} and {m}".strip(), sign)
        for n in source.testsets(table)
        for m in others
    ]  # fmt: skip


def nearest_sync(s: Source) -> list[Answer]:
    """C04: is our distance to the Sync confidence of the real video smaller than the rivals'?"""

    def distance(n: str, method: str) -> Estimate:
        x, real = s.get("table2", n, method, "sync"), s.get("table2", n, TRUTH, "sync").value
        ends = [abs(x.low - real), abs(x.high - real)]
        return Estimate(abs(x.value - real), 0 if x.low <= real <= x.high else min(ends), max(ends))

    return [more(distance(n, OURS), distance(n, m), f"{n}, from the real one, {OURS} and {m}", -1)
            for n in s.testsets("table2") for m in RIVALS]  # fmt: skip


def blink_rate(s: Source, testset: str, method: str) -> Estimate:
    """Blinks per second of a method or of the real person.

    In our tables, a method's rate is that of a video in which it generates the eyes itself; the
    person's is that of the training part. In the paper's tables, N/A counts as 0.
    """
    if s.folder:
        who = "training part" if method == TRUTH else method
        return s.get("eyes", testset, who, "blinks_per_s")
    try:
        return s.get("table2", testset, method, "blinks_per_s")
    except NotTested:
        return Estimate(0, 0, 0)


def no_blinks(s: Source) -> list[Answer]:
    """C06: do ATVG and Wav2Lip never blink?"""
    answers = []
    for n in s.testsets("table2"):
        for m in ("ATVG", "Wav2Lip"):
            rate = blink_rate(s, n, m)
            holds = int(rate.high == 0) - int(rate.low > 0)
            answers.append(Answer(holds, f"{n} {m}: {rate} blinks/s"))
    return answers


def rarely_and_half(s: Source) -> list[Answer]:
    """C07: does AD-NeRF blink less often than the person, and close its eyes less?"""
    answers = []
    for n in s.testsets("table2"):
        pair = [blink_rate(s, n, m) for m in ("AD-NeRF", TRUTH)]
        answers.append(more(*pair, f"{n} blinks/s, AD-NeRF and real", -1))
        if s.folder:
            pair = [s.get("eyes", n, m, "least_open") for m in ("AD-NeRF", TRUTH)]
            answers.append(more(*pair, f"{n} least open, AD-NeRF and real"))
    return answers


def two_testsets(s: Source) -> list[str]:
    """The testsets of table 2. Raises NotTested if there is one alone."""
    found = s.testsets("table2")
    if len(found) < 2:
        raise NotTested(f"table2 has the testset {found[0]} alone")
    return found[:2]


def same_on_both(s: Source) -> list[Answer]:
    """C08: does MakeItTalk's blink rate differ between the testsets?

    Overlapping intervals count as the same rate.
    """
    a, b = (blink_rate(s, n, "MakeItTalk") for n in two_testsets(s))
    differ = more(a, b, "MakeItTalk's blinks/s")
    return [Answer(-1 if differ.holds else 1, differ.says)]


def personal_blinks(s: Source) -> list[Answer]:
    """C09: do only DFA-NeRF and LSP blink as the person does?

    The rate must be within a quarter of the person's on both testsets, and differ between the two
    persons in the same direction as the real rates.
    """
    testsets = two_testsets(s)
    real = [blink_rate(s, n, TRUTH) for n in testsets]
    sign = 1 if real[0].value > real[1].value else -1

    def natural(method: str, wanted: int) -> Answer:
        rates = [blink_rate(s, n, method) for n in testsets]
        parts = [more(*rates, "", sign).holds]
        for rate, t in zip(rates, real, strict=True):
            parts.append(within(rate, (1 - NEAR) * t.low, (1 + NEAR) * t.high, "").holds)
        says = f"{method}'s blinks/s: {rates[0]}, {rates[1]}; the persons': {real[0]}, {real[1]}"
        return Answer(wanted * min(parts), says)

    return [natural(OURS, 1), natural("LSP", 1), natural("MakeItTalk", -1), natural("AD-NeRF", -1)]


def any_resolution(s: Source) -> list[Answer]:
    """C19: are the methods that render at any size exactly those with a radiance field?"""
    if not s.folder:
        raise NotTested("no table of the paper has sizes")
    sizes = s.table("sizes")
    able = set(sizes[sizes.any_size == "yes"].method)
    t = s.table("table1")
    nerf = set(t[(t.aspect == "framework") & (t.computed == "NeRF")].method)
    gain = [
        s.get("twice_the_size", n, f"{OURS}, asked for", "psnr").value
        - s.get("twice_the_size", n, f"{OURS}, enlarged", "psnr").value
        for n in s.testsets("twice_the_size")
    ]
    gains = ", ".join(f"{x:+.2f}" for x in gain)
    says = (
        f"{' and '.join(sorted(able))} render at any size; at twice the size ours gains {gains} dB"
    )
    return [Answer(1 if able == nerf else -1, says)]


def separated(s: Source) -> list[Answer]:
    """C17: are both leakages of F_d below 10 %, and below those of both controls?"""
    answers = []
    for n in s.testsets("disentanglement"):
        for metric in ("leak_eyes", "leak_mouth"):
            leak = s.get("disentanglement", n, "F_d", metric)
            answers.append(within(leak, 0, 10, f"{n} {metric}, %"))
            answers += [more(leak, s.get("disentanglement", n, m, metric), f"{n} {metric}, {m}", -1)
                        for m in ("no_swap", "pca")]  # fmt: skip
    return answers


def shuts(s: Source) -> list[Answer]:
    """C16: does the eye close as in the source video with f_e, and stay more open without it?

    Compares the eye-aspect ratio at the lowest point of a blink with the source's.
    """
    answers = []
    for n in s.testsets("blink"):
        on, off = (
            s.get("blink", n, m, "ear_bottom_minus_source") for m in ("with f_e", "without f_e")
        )
        answers.append(within(on, -0.05, 0.05, f"{n} with f_e, less the source's"))
        answers.append(more(off, on, f"{n} without f_e, with it"))
    return answers


def still_enough(s: Source, testset: str) -> float:
    """Percent of frozen frames that is accepted: that of the real person plus 5."""
    return s.get("table4", testset, TRUTH, "freeze", "generation").value + 5


def sampled(method: str) -> Callable[[Source], list[Answer]]:
    """C20, C22: a rule for sequences of every length that `method` samples.

    They must move at 0.7 to 1.3 of the person's speed, must not freeze, and must not drift out of
    the person's range.
    """

    def rule(s: Source) -> list[Answer]:
        answers = []
        for n in s.testsets("lengths"):
            bounds = dict(freeze=(0, still_enough(s, n)), speed_ratio=(0.7, 1.3), drift=(0, 1))
            for long in s.table("lengths").protocol.unique():
                for metric, (low, high) in bounds.items():
                    found = s.get("lengths", n, method, metric, long)
                    answers.append(within(found, low, high, f"{n} {metric}, {long}"))
        return answers

    return rule


def vae(of: str, others: Iterable[str]) -> Callable[[Source], list[Answer]]:
    """C10, C11, C13: a rule: does `of` have lower D-Rot and D-Pos than each of `others`?"""
    return lambda s: [
        answer
        for protocol in (("reconstruction", "prediction") if s.folder else ("",))
        for metric in ("d_rot", "d_pos")
        for answer in best(s, "table4", metric, -1, of, others, protocol)
    ]


def freezes(s: Source) -> list[Answer]:
    """C12: does the LSTM VAE freeze more often than the real person plus 5 %?"""
    return [more(s.get("table4", n, "LSTM VAE", "freeze", "generation"),
                 Estimate(*[still_enough(s, n)] * 3),
                 f"{n} frozen, %, LSTM VAE and the real one's with 5 more")
            for n in s.testsets("table4")]  # fmt: skip


def preferred(s: Source) -> list[Answer]:
    """C21: do raters prefer DFA-NeRF on three questions, and LSP on realness?"""
    if s.folder and s.table("table3").value.isna().all():
        raise NotTested("nobody has rated these videos")
    first = [a for metric in ("sync", "head_movement", "eye_blink")
             for a in best(s, "table3", metric, 1, OURS, RIVALS)]  # fmt: skip
    rest = [m for m in (*RIVALS, OURS) if m != "LSP"]
    return first + best(s, "table3", "realness", 1, "LSP", rest)


def better_audio_features(s: Source) -> list[Answer]:
    """C14: do our audio features have a lower LMD and a higher Sync than MFCC and DeepSpeech?"""
    others = ("MFCC", "DeepSpeech")
    return best(s, "table5", "lmd", -1, OURS, others) + best(s, "table5", "sync", 1, OURS, others)


def seams(s: Source) -> list[Answer]:
    """C18: is our seam at the neck smaller than AD-NeRF's?"""
    return best(s, "neck", "seam", -1, OURS, ("AD-NeRF",))
