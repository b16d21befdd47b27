#!/usr/bin/env python3
"""Compares linear layers of vispec-kernels with those of PyTorch, in turn.

    python3 run_torch.py --kernels PATH/TO/crates/vispec-kernels --build DIR

Run it with a Python that has torch (the build for CPUs is enough) and numpy; cargo must be on PATH.
Each of `--rounds` rounds runs our kernels, then torch, in separate processes. Each process times
calls over eight weights in turn, which do not fit into caches, until `--seconds` have passed for
each shape. Two Markdown tables go to stdout: the minimum over all rounds, and the median of all
calls' medians. Raw results go to `--raw`.

Torch computes `torch.nn.functional.linear` in inference mode with inputs, weights and outputs of the
named dtype. Our kernels take and return f32 rows for every dtype of the weights, and return the same
bits for a row for any number of rows; torch does not guarantee that.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import turns

HERE = Path(__file__).resolve().parent
TURNS, LEAST = 8, 8  # as in linear_times.rs


def torch_worker(args):
    """Times torch in this process; prints JSON."""
    import torch

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    found = []
    with torch.inference_mode():
        for dtype in args.torch_dtypes.split(","):
            kind = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[dtype]
            first = (torch.rand(args.outputs, args.inputs) - 0.5).to(kind)
            weights = [first.clone() for _ in range(TURNS)]
            for rows in map(int, args.rows.split(",")):
                x = (torch.rand(rows, args.inputs) - 0.5).to(kind)
                torch.nn.functional.linear(x, weights[0])  # warms up
                started, times = time.perf_counter(), []
                while len(times) < LEAST or time.perf_counter() - started < args.seconds:
                    weight = weights[(len(times) + 1) % TURNS]
                    start = time.perf_counter()
                    torch.nn.functional.linear(x, weight)
                    times.append(time.perf_counter() - start)
                found.append({
                    "dtype": dtype, "rows": rows, "min": min(times), "median": statistics.median(times),
                    "repeats": len(times), "bytes": first.numel() * first.element_size(),
                })
    print(json.dumps({
        "torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability(),
        "mkldnn": torch.backends.mkldnn.is_available(), "mkl": torch.backends.mkl.is_available(),
        "threads": torch.get_num_threads(), "times": found,
    }))


def build(args):
    """Builds linear_times.rs against the kernels as they are now; returns the program."""
    package = args.build / "linear_times"
    package.mkdir(parents=True, exist_ok=True)
    (package / "Cargo.toml").write_text(f"""\
[package]
name = "linear_times"
version = "0.0.0"
edition = "2024"

[[bin]]
name = "linear_times"
path = {json.dumps(str(HERE / "linear_times.rs"))}

[dependencies]
vispec-kernels = {{ path = {json.dumps(str(args.kernels.resolve()))} }}
half = "2"
rayon = "1"

[workspace]
""")
    subprocess.run(
        ["nice", "-n", "15", "cargo", "build", "--release", "--quiet", "--manifest-path", package / "Cargo.toml"],
        check=True, env={**os.environ, "CARGO_TARGET_DIR": str(args.build / "target")},
    )
    return args.build / "target" / "release" / "linear_times"


def revision(path):
    """The commit of the kernels."""
    git = lambda *words: subprocess.run(["git", "-C", path, *words], capture_output=True, text=True).stdout.strip()
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" with changes" if git("status", "--porcelain", "--", ".") else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", type=Path, help="directory of the crate vispec-kernels")
    parser.add_argument("--build", type=Path, default=Path("build"), help="directory to build in")
    parser.add_argument("--inputs", type=int, default=2048)
    parser.add_argument("--outputs", type=int, default=11008)
    parser.add_argument("--rows", default="1,2,4,8,16,30,60")
    parser.add_argument("--dtypes", default="bf16,f32,int8,int4", help="of our kernels")
    parser.add_argument("--torch-dtypes", default="bf16,f32")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.7, help="for each shape in each round")
    parser.add_argument("--lock", help="lock file to hold during each round, shared with other measurements")
    parser.add_argument("--lock-wait", type=float, default=600, help="seconds to wait for the lock before stopping and printing the results so far")
    parser.add_argument("--raw", type=Path, default=Path("torch.json"))
    parser.add_argument("--add", action="store_true", help="add to the rounds in --raw; with --rounds 0: print them again")
    parser.add_argument("--noise", type=float, default=0.1, help="leave out rounds during which other processes used a larger share of the processors, if quieter rounds exist")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return torch_worker(args)
    if args.kernels is None:
        parser.error("--kernels is missing")

    program, commit = build(args), revision(args.kernels)
    shape = [str(args.inputs), str(args.outputs)]
    ours_command = [str(program), *shape, args.dtypes, args.rows, str(args.seconds)]
    torch_command = [
        sys.executable, str(Path(__file__).resolve()), "--worker", "--inputs", shape[0], "--outputs", shape[1],
        "--rows", args.rows, "--torch-dtypes", args.torch_dtypes, "--threads", str(args.threads),
        "--seconds", str(args.seconds),
    ]
    ours, torch = [], []
    if args.add:
        before = json.loads(args.raw.read_text())
        ours, torch = before["ours"], before["torch"]
    env = {"RAYON_NUM_THREADS": str(args.threads)}
    try:
        for number in range(args.rounds):
            with turns.held(args.lock, args.lock_wait):
                mine = turns.turn(f"ours {number + 1}", ours_command, env)
                torch.append(turns.turn(f"torch {number + 1}", torch_command))
                ours.append(mine)
                args.raw.write_text(json.dumps({"commit": commit, "ours": ours, "torch": torch}, indent=1))
    except (turns.Busy, KeyboardInterrupt) as stopped:
        print(f"stopped after {len(ours)} rounds: {stopped}", file=sys.stderr)
    if not ours:
        return 1
    ours, torch = turns.quiet(ours, torch, args.noise)

    columns = [("torch " + d, torch, d) for d in args.torch_dtypes.split(",")]
    columns += [("ours " + d, ours, d) for d in args.dtypes.split(",")]

    def milliseconds(turns_of, dtype, rows, field, choose):
        times = [t[field] for turn in turns_of for t in turn["times"] if (t["dtype"], t["rows"]) == (dtype, rows)]
        return choose(times) * 1e3

    def shown(field, choose):
        lines = []
        for rows in map(int, args.rows.split(",")):
            cells = {(name, dtype): milliseconds(of, dtype, rows, field, choose) for name, of, dtype in columns}
            line = [rows] + [f"{cells[name, dtype]:.2f}" for name, _, dtype in columns]
            for dtype in args.torch_dtypes.split(","):
                if dtype in args.dtypes.split(","):
                    line.append(f"{cells['torch ' + dtype, dtype] / cells['ours ' + dtype, dtype]:.2f}")
            lines.append(line)
        both = [d for d in args.torch_dtypes.split(",") if d in args.dtypes.split(",")]
        return turns.table(["rows"] + [name for name, _, _ in columns] + [f"torch / ours {d}" for d in both], lines)

    peak = max(turn["bytes_per_second"] for turn in ours)
    size = {t["dtype"]: t["bytes"] for t in ours[0]["times"]}
    print(f"Layer of {args.inputs} inputs and {args.outputs} outputs, milliseconds per call, {args.threads} threads.")
    print(f"{turns.processor()}; torch {torch[0]['torch']} ({torch[0]['capability']}); vispec-kernels at {commit} "
          f"({ours[0]['isa']}). Reading memory before the measurements gave at most {peak / 1e9:.1f} GB/s, at which one weight takes "
          + ", ".join(f"{n / peak * 1e3:.2f} ms in {d}" for d, n in size.items()) + ".")
    print(turns.noise(ours + torch))
    print(f"\nMinimum of {len(ours)} rounds:\n")
    print(shown("min", min))
    print("\nMedian of calls, median of rounds:\n")
    print(shown("median", statistics.median))


if __name__ == "__main__":
    sys.exit(main())
