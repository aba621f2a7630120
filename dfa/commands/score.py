"""`dfa score`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..media import InputError, check_output

TEXT = "PSNR, SSIM, LMD, Sync confidence and blinks/s of a generated video."


def arguments(p: argparse.ArgumentParser) -> None:
    """Its options."""
    p.add_argument(
        "generated", help="a square video, e.g. of `dfa speak`; with --table a folder of results"
    )
    p.add_argument(
        "reference",
        nargs="?",
        help="the real video of the same speech; with --table the folder of the real videos, by"
        " default GENERATED/Ground Truth",
    )
    p.add_argument(
        "--table",
        action="store_true",
        help="make table 2 for any methods: the folder of results has one folder per method, with"
        " videos that have the names of the real ones. Optional: NAME.own.mp4 with head motion and"
        " eyes of the method; blinks are then counted in it",
    )
    p.add_argument("-o", "--output", help="with --table: .csv file for the table")
    p.add_argument(
        "--syncnet-weights",
        metavar="FILE",
        help="compute Sync with the official SyncNet instead of ours: syncnet_v2.model of"
        " joonson/syncnet_python, or its state dict as .safetensors. Adds sync_video, the"
        " confidence of the whole video, as in papers. Slow: about 15 frames/s on one CPU core",
    )
    p.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    """`dfa score`: print the metrics of section 4.1 for a video."""
    from ..evaluation.expert import load_expert
    from ..evaluation.metrics import METRICS
    from ..evaluation.protocol import score
    from ..evaluation.statistics import CLIP
    from ..evaluation.syncnet import load_syncnet

    if args.syncnet_weights:
        expert, judge = load_syncnet(args.syncnet_weights), "official SyncNet weights"
    else:
        expert, judge = load_expert(), "expert trained on synthetic actors"
    if args.table:
        return score_table(args, expert, judge)
    if args.output:
        raise InputError("-o works only with --table: use --json and redirect the output")
    if not args.reference:
        raise InputError("give also the real video, or --table and a folder of results")
    rows = score(args.generated, args.reference, expert)
    if args.json:
        scores = json.loads(rows.set_index("metric").to_json(orient="index"))
        for metric in scores.keys() & {"sync", "sync_video"}:
            scores[metric]["expert"] = judge
        print(json.dumps(scores))
        return
    units = {name: metric.unit for name, metric in METRICS.items()}
    units |= dict(sync=judge, sync_video=f"{judge}, one offset for all: compare with papers")
    for r in rows.itertuples():
        ends = f"95 % [{r.ci_low:.3f}, {r.ci_high:.3f}]" if r.n > 1 else "no interval"
        print(f"{r.metric:13s} {r.value:8.3f}  {ends}  {r.n} clips  {units[r.metric]}")
    fewest = float(rows.n.min())
    if fewest < 3:
        print(
            f"note: only {fewest:.0f} clip(s) of {CLIP:.0f} s: the intervals are not reliable",
            file=sys.stderr,
        )


def score_table(args: argparse.Namespace, expert: object, judge: str) -> None:
    """`dfa score --table`: print table 2 of a folder of results, and write it to -o."""
    from ..evaluation.comparison import table2
    from ..evaluation.statistics import CLIP
    from ..report.provenance import write_csv
    from ..report.tables import wide

    if args.output:
        check_output(args.output, args.generated, args.reference)
    table, reasons = table2(args.generated, expert, args.reference)
    if args.output:
        write_csv(table, Path(args.output))
    if args.json:
        print(json.dumps(json.loads(table.to_json(orient="records"))))
    else:
        for testset, part in wide(table).droplevel(1, axis=1).groupby("testset", sort=False):
            print(f"{testset}\n{part.droplevel('testset').rename_axis(None).to_string()}\n")
        print(f"mean [95 % interval] over clips of {CLIP:.0f} s; Sync: {judge}")
    for reason in reasons:
        print(f"empty: {reason}", file=sys.stderr)
