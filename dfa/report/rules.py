"""Rules that read tables: ours, or the paper's own. `claims` has which claim goes by which.

A rule makes comparisons of estimates with their intervals, and each is an `Answer`: it holds, it
does not, or it cannot be told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..method.gpvae import VARIANTS
from ..paper import OURS, RIVALS, TRUTH, reported

*OTHER_VAES, VAE = VARIANTS
NEAR = 0.25  # how near a rate is the person's, as a share


class NotTested(Exception):
    """What a rule needs is in no table; the message says what."""


class Estimate(NamedTuple):
    """A value and its interval, which is the value itself where there is none."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        text = f"{self.value:.3g}"
        return text if self.low == self.high else f"{text} [{self.low:.3g}, {self.high:.3g}]"


class Source:
    """Where a rule gets its estimates: the .csv tables of a folder, or what the paper prints."""

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder) / "tables" if folder else None
        self.tables: dict[str, pd.DataFrame] = {}

    def table(self, name: str) -> pd.DataFrame:
        """A table, whole; NotTested where there is none."""
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
        """The testsets of a table, in its order."""
        return list(self.table(name).testset.fillna("").unique())

    def get(
        self, name: str, testset: str, method: str, metric: str, protocol: str = ""
    ) -> Estimate:
        """One estimate; NotTested where the table has none. What the paper prints knows no
        protocols."""
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
    """One comparison of a rule: 1 holds, -1 does not, 0 cannot be told; and its numbers."""

    holds: int
    says: str


def more(a: Estimate, b: Estimate, says: str, sign: int = 1) -> Answer:
    """Is a more than b (less, with sign -1)? By intervals that do not overlap."""
    above, below = a.low > b.high, a.high < b.low
    return Answer(sign * (int(above) - int(below)), f"{says}: {a}, {b}")


def within(a: Estimate, low: float, high: float, says: str) -> Answer:
    """Does a lie between two bounds? The interval must, wholly; or wholly not."""
    outside = a.high < low or a.low > high
    inside = low <= a.low and a.high <= high
    return Answer(int(inside) - int(outside), f"{says}: {a} within {low:.3g} to {high:.3g}")


def best(source: Source, table: str, metric: str, sign: int, of: str, others: Iterable[str],
         protocol: str = "") -> list[Answer]:  # fmt: skip
    """Is `of` the best of all, on each testset?"""
    return [
        more(source.get(table, n, of, metric, protocol), source.get(table, n, m, metric, protocol),
             f"{n} {metric}, {of} and {m}".strip(), sign)
        for n in source.testsets(table)
        for m in others
    ]  # fmt: skip


def nearest_sync(s: Source) -> list[Answer]:
    """C04: how far each confidence may lie from the real one, by its interval."""

    def far(n: str, method: str) -> Estimate:
        x, real = s.get("table2", n, method, "sync"), s.get("table2", n, TRUTH, "sync").value
        ends = [abs(x.low - real), abs(x.high - real)]
        return Estimate(abs(x.value - real), 0 if x.low <= real <= x.high else min(ends), max(ends))

    return [more(far(n, OURS), far(n, m), f"{n}, from the real one, {OURS} and {m}", -1)
            for n in s.testsets("table2") for m in RIVALS]  # fmt: skip


def blink_rate(s: Source, testset: str, method: str) -> Estimate:
    """Blinks a second: of eyes of a method's own in a sentence of no capture, and of a person in
    the training part; or as the paper prints them, where N/A is no blink."""
    if s.folder:
        who = "training part" if method == TRUTH else method
        return s.get("eyes", testset, who, "blinks_per_s")
    try:
        return s.get("table2", testset, method, "blinks_per_s")
    except NotTested:
        return Estimate(0, 0, 0)


def no_blinks(s: Source) -> list[Answer]:
    """C06."""
    answers = []
    for n in s.testsets("table2"):
        for m in ("ATVG", "Wav2Lip"):
            rate = blink_rate(s, n, m)
            holds = int(rate.high == 0) - int(rate.low > 0)
            answers.append(Answer(holds, f"{n} {m}: {rate} blinks/s"))
    return answers


def rarely_and_half(s: Source) -> list[Answer]:
    """C07: it blinks less often than the person, and shuts its eyes less far."""
    answers = []
    for n in s.testsets("table2"):
        pair = [blink_rate(s, n, m) for m in ("AD-NeRF", TRUTH)]
        answers.append(more(*pair, f"{n} blinks/s, AD-NeRF and real", -1))
        if s.folder:
            pair = [s.get("eyes", n, m, "least_open") for m in ("AD-NeRF", TRUTH)]
            answers.append(more(*pair, f"{n} least open, AD-NeRF and real"))
    return answers


def same_on_both(s: Source) -> list[Answer]:
    """C08: intervals that overlap are as near to `the same` as they come."""
    a, b = (blink_rate(s, n, "MakeItTalk") for n in s.testsets("table2"))
    differ = more(a, b, "MakeItTalk's blinks/s")
    return [Answer(-1 if differ.holds else 1, differ.says)]


def personal_blinks(s: Source) -> list[Answer]:
    """C09: a rate within a quarter of the person's own on both testsets, and that differs between
    the persons as theirs do."""
    testsets = s.testsets("table2")
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
    """C19: who can be asked for any size, and who has a radiance field."""
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
    told = ", ".join(f"{x:+.2f}" for x in gain)
    says = f"{' and '.join(sorted(able))} can be asked for any size; at twice ours gains {told} dB"
    return [Answer(1 if able == nerf else -1, says)]


def apart(s: Source) -> list[Answer]:
    """C17: leakages below a tenth, and below both controls'."""
    answers = []
    for n in s.testsets("disentanglement"):
        for metric in ("leak_eyes", "leak_mouth"):
            leak = s.get("disentanglement", n, "F_d", metric)
            answers.append(within(leak, 0, 10, f"{n} {metric}, %"))
            answers += [more(leak, s.get("disentanglement", n, m, metric), f"{n} {metric}, {m}", -1)
                        for m in ("no_swap", "pca")]  # fmt: skip
    return answers


def shuts(s: Source) -> list[Answer]:
    """C16: at the bottom of a blink the eye is as the source's with f_e, and is not without."""
    answers = []
    for n in s.testsets("blink"):
        on, off = (
            s.get("blink", n, m, "ear_bottom_minus_source") for m in ("with f_e", "without f_e")
        )
        answers.append(within(on, -0.05, 0.05, f"{n} with f_e, less the source's"))
        answers.append(more(off, on, f"{n} without f_e, with it"))
    return answers


def still_enough(s: Source, testset: str) -> float:
    """Percent of frames that may stand still: as many as of the real person, and 5."""
    return s.get("table4", testset, TRUTH, "freeze", "generation").value + 5


def sampled(method: str) -> Callable[[Source], list[Answer]]:
    """C20, C22: however long, it moves about as fast as the person, and neither freezes nor drifts
    out of the person's range."""

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
    """C10, C11, C13: errors of reconstruction and of prediction."""
    return lambda s: [
        answer
        for protocol in (("reconstruction", "prediction") if s.folder else ("",))
        for metric in ("d_rot", "d_pos")
        for answer in best(s, "table4", metric, -1, of, others, protocol)
    ]


def freezes(s: Source) -> list[Answer]:
    """C12."""
    return [more(s.get("table4", n, "LSTM VAE", "freeze", "generation"),
                 Estimate(*[still_enough(s, n)] * 3),
                 f"{n} frozen, %, LSTM VAE and the real one's with 5 more")
            for n in s.testsets("table4")]  # fmt: skip


def preferred(s: Source) -> list[Answer]:
    """C21."""
    if s.folder and s.table("table3").value.isna().all():
        raise NotTested("nobody has rated these videos")
    first = [a for metric in ("sync", "head_movement", "eye_blink")
             for a in best(s, "table3", metric, 1, OURS, RIVALS)]  # fmt: skip
    rest = [m for m in (*RIVALS, OURS) if m != "LSP"]
    return first + best(s, "table3", "realness", 1, "LSP", rest)


def heard(s: Source) -> list[Answer]:
    """C14."""
    others = ("MFCC", "DeepSpeech")
    return best(s, "table5", "lmd", -1, OURS, others) + best(s, "table5", "sync", 1, OURS, others)


def seams(s: Source) -> list[Answer]:
    """C18."""
    return best(s, "neck", "seam", -1, OURS, ("AD-NeRF",))
