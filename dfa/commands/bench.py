"""`dfa bench`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..media import check_output
from . import DEVICES, write_json

TEXT = (
    "Measure how fast the fast field and the paper's field train and render, on the sample"
    " captures of synthetic actors. About half an hour on two CPU cores."
)


def arguments(p: argparse.ArgumentParser) -> None:
    """Its options."""
    p.add_argument("--profile", default="quick", choices=("smoke", "quick"), help="settings")
    p.add_argument("--subject", help="use only this test subject")
    p.add_argument(
        "--paper-seconds",
        metavar="S",
        type=float,
        default=300.0,
        help="training time of the paper's field in seconds, at least 3 steps; the fast field"
        " trains for the steps of the profile",
    )
    p.add_argument("--threads", type=int, help="CPU threads; by default one per core")
    p.add_argument("--device", default="auto", choices=DEVICES, help="device of the benchmark")
    p.add_argument("-o", "--output", help="also write the JSON to this file")
    p.add_argument(
        "--gpu",
        action="store_true",
        help="instead: prove a GPU in 8 minutes, step by step, each written to -o (by default"
        " bench_gpu.json); run it again to continue; only -o and --json go with it",
    )
    p.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    """`dfa bench`: print the training and rendering speed of both fields."""
    from ..evaluation.bench import bench
    from ..profiles import profile
    from ..report.machine import device_name
    from ..training import pick_device

    if args.output:
        check_output(args.output)
    if args.gpu:
        from ..gpu.proof import prove

        result = prove(Path(args.output or "bench_gpu.json"))
        print(json.dumps(result) if args.json else gpu_text(result))
        bad = [s for s in result["steps"].values() if "failed" in s or not s.get("agrees", True)]
        raise SystemExit(int(bool(bad)))
    p = profile(args.profile)
    chosen = [args.subject] if args.subject else p.test
    found = bench(p, chosen, args.paper_seconds, args.threads, args.device)
    threads = f"{found['threads']} thread{'s' * (found['threads'] > 1)}"
    result = {"device": f"{device_name(str(pick_device(args.device)))}, {threads}", **found}
    if args.output:
        write_json(Path(args.output), result)
    print(json.dumps(result) if args.json else bench_table(result))


def bench_table(result: dict) -> str:
    """The result of `evaluation.bench.bench` as text."""
    fields, gain = result["fields"], result["speedup"]
    names = dict(
        step_s="a training step, s", train_s="training in all, s",
        psnr="held-out PSNR then, dB", fps_128="frames/s, 128x128", fps_256="frames/s, 256x256",
        peak_memory_mb="peak memory of training, MB", peak_gpu_memory_mb="the same on the GPU, MB",
        peak_share="share of peak FLOP/s",
    )  # fmt: skip
    rows = {
        what: [f[k] for f in fields.values()] for k, what in names.items() if k in fields["fast"]
    }
    for db in fields["fast"]["seconds_to_db"]:
        rows[f"training to {db} dB, s"] = [f["seconds_to_db"][db] for f in fields.values()]
    cell = lambda v: "never" if v is None else f"{v:.4g}" if v < 1e4 else f"{v:.0f}"  # noqa: E731
    lines = [f"{what:28s}" + "".join(f"{cell(v):>10s}" for v in row) for what, row in rows.items()]
    times = lambda v: "no" if v is None else f"{v:.0f} times"  # noqa: E731
    return "\n".join(
        [
            f"{result['device']}, peak {result['peak_gflops']:.0f} GFLOP/s",
            f"{result['data']}, profile {result['profile']};"
            f" each number the worst of {', '.join(result['subjects'])}",
            " " * 28 + "".join(f"{kind:>10s}" for kind in fields),
            *lines,
            f"fast renders {gain['fps_128']:.0f} times the frames/s of paper, in batches of 8;",
            f"it trains {times(gain['to_paper_best'])} faster to {gain['at_db']:.1f} dB, the best"
            f" of paper, and {times(gain['to_any'])} at least to any PSNR on the way",
        ]
    )


def gpu_text(result: dict) -> str:
    """The result of `gpu.proof.prove` as text: a line or a few for each step."""
    lines = [f"{result['device']}, PyTorch {result['torch']}"]
    for name, step in result["steps"].items():
        for why in ("skipped", "failed"):
            if why in step:
                lines.append(f"{name}: {why}: {step[why]}")
        if "curve" in step:
            rates = ", ".join(f"{v:.0f} frames/s at {k[4:]}" for k, v in step.items()
                              if k.startswith("fps_"))  # fmt: skip
            memory = step.get("peak_gpu_memory_mb", step["peak_memory_mb"])
            lines.append(
                f"{name}, {step['size']}x{step['size']}: {step['psnr']:.2f} dB held out after"
                f" {step['train_s']:.0f} s, {step['curve_steps'][-1]} steps of"
                f" {1000 * step['step_s']:.1f} ms; {rates}; {memory:.0f} MB;"
                f" {100 * step['peak_share']:.1f} % of {step['peak_gflops']:.0f} GFLOP/s"
            )
        for key, unit in (("difference", "largest difference of a loss"),
                          ("mixed_to_full", "loss of mixed precision, of float32's")):  # fmt: skip
            if key in step:
                lines.append(f"{name}, {unit}:")
                lines += [f"  {what:32s} {value:.4g}" if isinstance(value, float) else
                          f"  {what:32s} {value}" for what, value in step[key].items()]  # fmt: skip
        if "agrees" in step:
            lines.append(f"  {'all' if step['agrees'] else 'NOT all'} within {step['tolerance']}")
        if "loss_alone" in step:
            lines.append(f"{name}: loss {step['loss']:.4g}, alone {step['loss_alone']:.4g}")
    return "\n".join(lines)
