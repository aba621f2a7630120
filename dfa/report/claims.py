"""The paper's 22 claims, each with a rule that reads tables: ours, and the paper's own.

A rule compares estimates with their intervals. What the intervals of both testsets leave no doubt
of is `supported` or `contradicted`; where they overlap it is `undecided`; what no table tells is
`not tested here`, with the reason. The same rule, run on what the paper prints (single numbers,
without intervals), says whether its own tables bear the claim out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from . import provenance, rivals
from .comparison import NO_EYES
from .gpvae import VARIANTS
from .provenance import OURS, RIVALS, TRUTH

SUPPORTED, CONTRADICTED, UNDECIDED, UNTESTED = (
    "supported",
    "contradicted",
    "undecided",
    "not tested here",
)
IN_PAPER = {SUPPORTED: "yes", CONTRADICTED: "no", UNDECIDED: "a tie", UNTESTED: "no table"}
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
                    self.tables[name] = provenance.reported(name).rename(columns={"paper": "value"})
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
        for m in sorted(NO_EYES):
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
    """C19: whose `render` takes a size, and who has a radiance field."""
    if not s.folder:
        raise NotTested("no table of the paper has sizes")
    kinds = rivals.Method.__subclasses__()
    able = {k.name for k in kinds if "size" in inspect.signature(k.render).parameters}
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


RULES: dict[str, Callable[[Source], list[Answer]]] = {
    "C01": lambda s: best(s, "table2", "psnr", 1, OURS, RIVALS),
    "C02": lambda s: best(s, "table2", "ssim", 1, OURS, RIVALS),
    "C03": lambda s: best(s, "table2", "lmd", -1, OURS, RIVALS),
    "C04": nearest_sync,
    "C05": lambda s: best(s, "table2", "sync", 1, "Wav2Lip", (TRUTH,)),
    "C06": no_blinks,
    "C07": rarely_and_half,
    "C08": same_on_both,
    "C09": personal_blinks,
    "C10": vae(VAE, OTHER_VAES),
    "C11": vae("Trans VAE", ("MLP VAE", "LSTM VAE")),
    "C12": freezes,
    "C13": vae(VAE, ("Trans VAE",)),
    "C14": heard,
    "C15": lambda s: best(s, "identity", "silhouette", 1, "with audio", ("without audio",)),
    "C16": shuts,
    "C17": apart,
    "C18": seams,
    "C19": any_resolution,
    "C20": sampled(f"{VAE}, no audio"),
    "C21": preferred,
    "C22": sampled(VAE),
}


def judge(rule: Callable[[Source], list[Answer]], source: Source) -> tuple[str, str]:
    """A verdict, and the numbers that decided it: of several comparisons those that count against
    it, else those that leave it open, else all."""
    try:
        answers = rule(source)
    except NotTested as reason:
        return UNTESTED, str(reason)
    least = min(a.holds for a in answers)
    word = {1: SUPPORTED, 0: UNDECIDED, -1: CONTRADICTED}[least]
    decisive = [a.says for a in answers if a.holds == least]
    shown = "; ".join(decisive[:3])
    return word, shown + (f"; and {len(decisive) - 3} more" if len(decisive) > 3 else "")


def verdicts(folder: str | Path, *claims: str) -> str:
    """What a notebook prints of claims, by the tables of figures/<profile>: two lines each."""
    says, tables, lines = provenance.claims().set_index("id").says, Source(folder), []
    for claim in claims:
        verdict, evidence = judge(RULES[claim], tables)
        lines += [f"{claim} {says[claim]}: {verdict}", f"     {evidence}"]
    return "\n".join(lines)


def ledger(folder: str | Path) -> pd.DataFrame:
    """Every claim with its verdict by the tables of figures/<profile>, and by the paper's own."""
    ours, printed, rows = Source(folder), Source(), []
    data = f"synthetic actors, profile {Path(folder).name}"
    for claim in provenance.claims().itertuples():
        verdict, evidence = judge(RULES[claim.id], ours)
        word, numbers = judge(RULES[claim.id], printed)
        rows.append(
            dict(id=claim.id, says=claim.says, where=claim.where, verdict=verdict, data=data,
                 evidence=evidence, paper_supports=IN_PAPER[word], paper_evidence=numbers)
        )  # fmt: skip
    return pd.DataFrame(rows)


def counted(table: pd.DataFrame) -> str:
    """How many claims have which verdict, in a sentence's part."""
    words = table.verdict.value_counts()
    return ", ".join(f"{words[w]} {w}" for w in (SUPPORTED, CONTRADICTED, UNDECIDED, UNTESTED)
                     if w in words)  # fmt: skip


def markdown(table: pd.DataFrame) -> str:
    """The ledger's verdicts as a short table."""
    rows = [f"| {r.id} | {r.says} | {r.verdict} | {r.paper_supports} |" for r in table.itertuples()]
    head = ["| | the paper says | here, synthetic actors | its own tables |", "| --- " * 4 + "|"]
    return "\n".join(head + rows)
