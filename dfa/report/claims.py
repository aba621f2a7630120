"""The paper's 22 claims and their verdicts from the tables: `CLAIMS` has one row for each claim.

A claim is `supported` or `contradicted` if the intervals decide it on both testsets. If intervals
overlap it is `undecided`. If a table is missing it is `not tested here`, with the reason. The same
rule is applied to the paper's printed tables (single numbers without intervals): do they support
the claim?
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ..evaluation.paper import OURS, RIVALS, TRUTH
from .rules import (
    OTHER_VAES,
    VAE,
    Answer,
    NotTested,
    Source,
    any_resolution,
    best,
    better_audio_features,
    freezes,
    nearest_sync,
    no_blinks,
    personal_blinks,
    preferred,
    rarely_and_half,
    same_on_both,
    sampled,
    seams,
    separated,
    shuts,
    vae,
)

SUPPORTED, CONTRADICTED, UNDECIDED, UNTESTED = (
    "supported",
    "contradicted",
    "undecided",
    "not tested here",
)
IN_PAPER = {SUPPORTED: "yes", CONTRADICTED: "no", UNDECIDED: "a tie", UNTESTED: "no table"}


class Claim(NamedTuple):
    """A claim of the paper."""

    where: str  # section and table or figure of the paper
    says: str
    rule: Callable[[Source], list[Answer]]  # tests it on tables


# To add a claim, add one row.
CLAIMS = {
    "C01": Claim(
        "4.2, Table 2",
        "DFA-NeRF has the highest PSNR on both testsets",
        lambda s: best(s, "table2", "psnr", 1, OURS, RIVALS),
    ),
    "C02": Claim(
        "4.2, Table 2",
        "DFA-NeRF has the highest SSIM on both testsets",
        lambda s: best(s, "table2", "ssim", 1, OURS, RIVALS),
    ),
    "C03": Claim(
        "4.2, Table 2",
        "DFA-NeRF has the lowest LMD on both testsets",
        lambda s: best(s, "table2", "lmd", -1, OURS, RIVALS),
    ),
    "C04": Claim(
        "4.2, Table 2",
        "the Sync confidence of DFA-NeRF is the closest to the ground truth",
        nearest_sync,
    ),
    "C05": Claim(
        "4.2, Table 2",
        "the Sync confidence of Wav2Lip is higher than the ground truth",
        lambda s: best(s, "table2", "sync", 1, "Wav2Lip", (TRUTH,)),
    ),
    "C06": Claim("4.2, Table 2", "ATVG and Wav2Lip fail to generate blinks", no_blinks),
    "C07": Claim(
        "4.2, Table 2",
        "the blink rate of AD-NeRF is low and its eyes cannot close completely",
        rarely_and_half,
    ),
    "C08": Claim(
        "4.2, Table 2", "the blink rate of MakeItTalk is the same on the two testsets", same_on_both
    ),
    "C09": Claim(
        "4.2, Table 2",
        "only DFA-NeRF and LSP generate personalized natural blinks",
        personal_blinks,
    ),
    "C10": Claim(
        "4.3, Table 4", "Trans GP-VAE has the lowest D-Rot and D-Pos", vae(VAE, OTHER_VAES)
    ),
    "C11": Claim(
        "4.3, Table 4",
        "the Transformer improves greatly on MLP and LSTM",
        vae("Trans VAE", ("MLP VAE", "LSTM VAE")),
    ),
    "C12": Claim("3.4 and 4.3", "the LSTM VAE tends to still outputs (frame freezing)", freezes),
    "C13": Claim(
        "4.3, Table 4",
        "the Gaussian process improves on the plain Transformer VAE",
        vae(VAE, ("Trans VAE",)),
    ),
    "C14": Claim(
        "4.3, Table 5",
        "contrastive audio features beat MFCC and DeepSpeech on LMD and Sync",
        better_audio_features,
    ),
    "C15": Claim(
        "4.3, Figure 6",
        "identities are more distinct in Z when audio is a condition",
        lambda s: best(s, "identity", "silhouette", 1, "with audio", ("without audio",)),
    ),
    "C16": Claim("4.3, Figure 7", "without f_e the eyes cannot close, with f_e they blink", shuts),
    "C17": Claim("3.2, Figure 3", "f_m and f_e control mouth and eyes separately", separated),
    "C18": Claim(
        "4.2, Figure 5",
        "one NeRF for head and torso leaves no gap at the neck, two NeRFs (AD-NeRF) do",
        seams,
    ),
    "C19": Claim("4.2", "only the NeRF methods render at any resolution", any_resolution),
    "C20": Claim(
        "3.4", "attributes can be sampled from Z without any audio", sampled(f"{VAE}, no audio")
    ),
    "C21": Claim(
        "4.2, Table 3",
        "users prefer DFA-NeRF on sync, head movement and eye blink; LSP has the highest realness",
        preferred,
    ),
    "C22": Claim(
        "3.4",
        "the generator makes long sequences, of various lengths, that do not freeze",
        sampled(VAE),
    ),
}


def judge(rule: Callable[[Source], list[Answer]], source: Source) -> tuple[str, str]:
    """The verdict of a rule, and the numbers that decided it, as text.

    The worst answer decides: one contradiction contradicts the claim, else one undecided comparison
    leaves it undecided. At most three of the deciding comparisons are shown.
    """
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
    """The verdicts on some claims from the tables of figures/<profile>, as text: two lines each.

    claims: ids such as "C01".
    """
    tables, lines = Source(folder), []
    for claim in claims:
        verdict, evidence = judge(CLAIMS[claim].rule, tables)
        lines += [f"{claim} {CLAIMS[claim].says}: {verdict}", f"     {evidence}"]
    return "\n".join(lines)


def ledger(folder: str | Path) -> pd.DataFrame:
    """Every claim with its verdicts from the tables of figures/<profile> and from the paper's.

    Columns: id, says, where, verdict, data, evidence, paper_supports, paper_evidence.
    """
    ours, printed, rows = Source(folder), Source(), []
    data = f"synthetic actors, profile {Path(folder).name}"
    for id, claim in CLAIMS.items():
        verdict, evidence = judge(claim.rule, ours)
        word, numbers = judge(claim.rule, printed)
        rows.append(
            dict(id=id, says=claim.says, where=claim.where, verdict=verdict, data=data,
                 evidence=evidence, paper_supports=IN_PAPER[word], paper_evidence=numbers)
        )  # fmt: skip
    return pd.DataFrame(rows)


def counted(table: pd.DataFrame) -> str:
    """The number of claims with each verdict, as part of a sentence; table: of `ledger`."""
    words = table.verdict.value_counts()
    return ", ".join(f"{words[w]} {w}" for w in (SUPPORTED, CONTRADICTED, UNDECIDED, UNTESTED)
                     if w in words)  # fmt: skip


def markdown(table: pd.DataFrame) -> str:
    """The verdicts of a `ledger` as a short Markdown table."""
    rows = [f"| {r.id} | {r.says} | {r.verdict} | {r.paper_supports} |" for r in table.itertuples()]
    head = ["| | the paper says | here, synthetic actors | its own tables |", "| --- " * 4 + "|"]
    return "\n".join(head + rows)
