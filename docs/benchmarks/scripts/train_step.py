#!/usr/bin/env python3
"""Compares training steps of `train` with the same steps in PyTorch, in turn.

    python3 train_step.py --train target/release/train --target TARGET --data CAPTURE

Run it with a Python that has torch. `train` takes `--steps` steps of stage 1 (an EAGLE-2 draft) and of
stage 2 (ViSpec, one unrolled pass), each with the output head in f32 and in bf16; its metrics have
the time of each step, including reading samples, and its numbers of tokens and supervised positions.
Torch then takes steps of exactly these sizes in f32. This is repeated `--rounds` times, in separate
processes. A Markdown table of the best rounds goes to stdout: wall time, which is meaningful only on
an otherwise idle machine, and CPU time, which with `--threads 1` (waiting threads spin) is also
meaningful on a busy one.

The torch step is written for speed and does not follow upstream's code: only supervised rows go through the
head, the teacher's distribution is computed once for all passes, attention is the fused kernel,
AdamW is the fused one, samples are in memory.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIGS = Path(__file__).resolve().parents[3] / "examples" / "configs" / "train"
STAGES = {"stage1": "eagle2.toml", "stage2": "vispec-stage2.toml"}
RANKED = 10
WARM_UP = 3  # steps that are not counted


def torch_worker(args):
    """Takes the steps of the job on stdin in this process; prints JSON."""
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    class Draft(torch.nn.Module):
        def __init__(self, hidden, intermediate, heads, vision):
            super().__init__()
            linear = lambda i, o, bias=False: torch.nn.Linear(i, o, bias=bias)
            self.heads = heads
            self.fc = linear(2 * hidden, hidden, True)
            self.img_fc = linear(2 * hidden, hidden, True) if vision else None
            self.q, self.k, self.v, self.o = (linear(hidden, hidden) for _ in range(4))
            self.gate, self.up = linear(hidden, intermediate), linear(hidden, intermediate)
            self.down = linear(intermediate, hidden)
            self.norm = torch.nn.Parameter(torch.ones(hidden))

        def forward(self, embeds, hidden, cos, sin):
            rows, width = embeds.shape
            if self.img_fc is not None:  # a text-only sample has zeros for the image
                hidden = self.img_fc(torch.cat([hidden, torch.zeros_like(hidden)], 1))
            x = self.fc(torch.cat([embeds, hidden], 1))
            split = lambda y: y.view(rows, self.heads, -1).transpose(0, 1)
            half = width // self.heads // 2
            turn = lambda y: y * cos + torch.cat([-y[..., half:], y[..., :half]], -1) * sin
            q, k, v = turn(split(self.q(x))), turn(split(self.k(x))), split(self.v(x))
            a = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
            x = x + self.o(a.transpose(0, 1).reshape(rows, width))
            y = F.rms_norm(x, (width,), self.norm, 1e-5)
            return x + self.down(F.silu(self.gate(y)) * self.up(y))

    job = json.load(sys.stdin)
    hidden, intermediate, heads, vocab = (job[key] for key in ("hidden", "intermediate", "heads", "vocab"))
    head = torch.randn(vocab, hidden) * hidden**-0.5

    def ranking(logits, top):
        z = logits.gather(1, top)
        return (z.flip(1).logcumsumexp(1).flip(1) - z).sum(1).mean()

    def loss_of(draft, stage, rows, supervised):
        embeds, states = (torch.randn(rows, hidden) * hidden**-0.5 for _ in range(2))
        wanted = slice(rows - supervised, rows)
        target = (torch.randn(rows, hidden) * hidden**-0.5 * 10)[wanted]
        angles = torch.arange(rows)[:, None] / 1e4 ** (torch.arange(0, hidden // heads, 2) * heads / hidden)
        cos, sin = (torch.cat([f(angles)] * 2, 1) for f in (torch.cos, torch.sin))
        first = draft(embeds, states, cos, sin)
        with torch.no_grad():
            teacher = F.linear(target, head).softmax(1)
            top = teacher.topk(RANKED).indices
        if stage == "stage1":
            out = first[wanted]
            logits = F.linear(out, head)
            entropy = -(teacher * logits.log_softmax(1)).sum(1).mean()
            return F.smooth_l1_loss(out, target) + 0.1 * (entropy + 0.1 * ranking(logits, top))
        second = draft(embeds, torch.cat([states[:1], first[:-1]]), cos, sin)
        total = 0
        for out in (first, second):
            logits = F.linear(out[wanted], head)
            total = total + 10 * (logits.softmax(1) - teacher).abs().sum(1).mean() / 2
            total = total + 0.1 * ranking(logits, top) / 2
        return total

    seconds, cpu = {}, {}
    for stage, steps in job["steps"].items():
        draft = Draft(hidden, intermediate, heads, stage == "stage2")
        optimizer = torch.optim.AdamW(
            draft.parameters(), lr=1e-6, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
        times = []
        for number, (tokens, supervised) in enumerate(steps):
            if number == WARM_UP:
                before = time.process_time()
            start = time.perf_counter()
            optimizer.zero_grad()
            loss_of(draft, stage, tokens - 1, supervised).backward()
            torch.nn.utils.clip_grad_value_(draft.parameters(), 0.5)
            optimizer.step()
            times.append(time.perf_counter() - start)
        seconds[stage] = sum(times[WARM_UP:])
        cpu[stage] = (time.process_time() - before) / (len(steps) - WARM_UP)
    print(json.dumps({"torch": torch.__version__, "seconds": seconds, "cpu": cpu}))


def run(args, stage, head, n_steps):
    """Runs `train` for `n_steps`; returns its records of steps and its CPU seconds."""
    out = Path(tempfile.mkdtemp())
    command = [args.train, "--config", CONFIGS / STAGES[stage], "--target", args.target, "--data", args.data]
    command += ["--set", f"compute.head={head}", "--out", out]
    environment = os.environ | {"RAYON_NUM_THREADS": str(args.threads)}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    metrics, lines = out / "metrics.jsonl", []
    while len(lines) < n_steps:
        if process.poll() is not None:
            sys.exit(f"{args.train} ended after {len(lines)} steps")
        time.sleep(0.1)
        lines = metrics.read_text().splitlines() if metrics.exists() else []
    process.send_signal(signal.SIGINT)
    _, _, usage = os.wait4(process.pid, 0)
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    shutil.rmtree(out)
    return records, usage.ru_utime + usage.ru_stime


def ours(args, stage, head):
    """Sizes of steps, the seconds of those that count, and CPU seconds of one."""
    short, start = run(args, stage, head, 1)
    records, whole = run(args, stage, head, args.steps)
    cpu = (whole - start) / (len(records) - len(short))
    records = records[: args.steps]
    sizes = [(r["losses"]["tokens"], r["losses"]["supervised"]) for r in records]
    seconds = sum(r["losses"]["tokens"] / r["tokens_per_second"] for r in records[WARM_UP:])
    return sizes, seconds, cpu


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--train", help="the program")
    parser.add_argument("--target", help="directory of the target")
    parser.add_argument("--data", help="a capture of it")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--torch-worker", action="store_true")
    args = parser.parse_args()
    if args.torch_worker:
        return torch_worker(args)
    config = json.loads((Path(args.target) / "config.json").read_text())
    text = config.get("text_config", config)
    job = {"hidden": text["hidden_size"], "intermediate": text["intermediate_size"],
           "heads": text["num_attention_heads"], "vocab": text["vocab_size"], "steps": {}}
    best, tokens = {}, {}

    def keep(stage, by, *found):
        best[stage, by] = [min(pair) for pair in zip(found, best.get((stage, by), found))]

    for _ in range(args.rounds):
        for stage in STAGES:
            for head in "f32", "bf16":
                job["steps"][stage], seconds, cpu = ours(args, stage, head)
                keep(stage, head, seconds, cpu)
            tokens[stage] = sum(size[0] for size in job["steps"][stage][WARM_UP:])
        command = [sys.executable, __file__, "--torch-worker", "--threads", str(args.threads)]
        done = subprocess.run(command, input=json.dumps(job), check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
        for stage, seconds in found["seconds"].items():
            keep(stage, "torch", seconds, found["cpu"][stage])
    counted = args.steps - WARM_UP
    print(f"torch {found['torch']}, {args.threads} threads, {counted} steps, best of {args.rounds} rounds\n")
    print("| stage | by | ms per step | tokens/s | torch / this | CPU ms per step | torch / this |")
    print("|---|---|---|---|---|---|---|")
    for stage in STAGES:
        for by in "f32", "bf16", "torch":
            (seconds, cpu), (torch_seconds, torch_cpu) = best[stage, by], best[stage, "torch"]
            name = "torch, f32" if by == "torch" else f"ours, head in {by}"
            print(f"| {stage} | {name} | {1e3 * seconds / counted:.0f} | {tokens[stage] / seconds:.0f} "
                  f"| {torch_seconds / seconds:.2f} | {1e3 * cpu:.0f} | {torch_cpu / cpu:.2f} |")


main()
