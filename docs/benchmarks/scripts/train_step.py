#!/usr/bin/env python3
"""A training step of this workspace beside the same step in PyTorch, in turns.

    cargo bench -p vispec-train --bench step --no-run
    python3 train_step.py --bench target/release/deps/step-HASH

Run it with a Python that has torch. Each round runs the criterion bench, then torch, each in a
process of its own, `--rounds` times. A Markdown table of the best medians goes to stdout.

The torch step is written for speed, not after upstream's code: only supervised rows go through the
head, the teacher's distribution is computed once for all passes, attention is the fused kernel,
AdamW is the fused one. Parameters, sizes, losses and the number of rows are those of
crates/vispec-train/benches/step.rs; torch computes in f32, ours once with the output head in f32 and
once in bf16.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time

SIZES = {  # name: hidden, intermediate, heads, vocabulary, tokens, supervised
    "demo": (64, 160, 4, 640, 64, 48),
    "h576-v49152-t256": (576, 1536, 9, 49152, 256, 200),
}
RANKED = 10


def torch_worker(args):
    """Times all steps in this process; prints JSON."""
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

    found = {}
    for name, (hidden, intermediate, heads, vocab, tokens, supervised) in SIZES.items():
        rows = tokens - 1
        head = torch.randn(vocab, hidden) * hidden**-0.5
        embeds, states = (torch.randn(rows, hidden) * hidden**-0.5 for _ in range(2))
        target = torch.randn(rows, hidden) * hidden**-0.5 * 10
        angles = torch.arange(rows)[:, None] / 1e4 ** (torch.arange(0, hidden // heads, 2) * heads / hidden)
        cos, sin = (torch.cat([f(angles)] * 2, 1) for f in (torch.cos, torch.sin))
        wanted = slice(rows - supervised, rows)

        def ranking(logits, top):
            z = logits.gather(1, top)
            return (z.flip(1).logcumsumexp(1).flip(1) - z).sum(1).mean()

        def stage1(draft):
            out = draft(embeds, states, cos, sin)[wanted]
            with torch.no_grad():
                teacher = F.linear(target[wanted], head).softmax(1)
                top = teacher.topk(RANKED).indices
            logits = F.linear(out, head)
            entropy = -(teacher * logits.log_softmax(1)).sum(1).mean()
            return F.smooth_l1_loss(out, target[wanted]) + 0.1 * (entropy + 0.1 * ranking(logits, top))

        def stage2(draft):
            first = draft(embeds, states, cos, sin)
            second = draft(embeds, torch.cat([states[:1], first[:-1]]), cos, sin)
            with torch.no_grad():
                teacher = F.linear(target[wanted], head).softmax(1)
                top = teacher.topk(RANKED).indices
            total = 0
            for out in (first, second):
                logits = F.linear(out[wanted], head)
                total = total + 10 * (logits.softmax(1) - teacher).abs().sum(1).mean() / 2
                total = total + 0.1 * ranking(logits, top) / 2
            return total

        for stage, loss_of, vision in (("stage1", stage1, False), ("stage2", stage2, True)):
            draft = Draft(hidden, intermediate, heads, vision)
            optimizer = torch.optim.AdamW(
                draft.parameters(), lr=1e-6, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
            times = []
            started = time.perf_counter()
            while len(times) < 5 or time.perf_counter() - started < args.seconds:
                start = time.perf_counter()
                optimizer.zero_grad()
                loss_of(draft).backward()
                torch.nn.utils.clip_grad_value_(draft.parameters(), 0.5)
                optimizer.step()
                times.append(time.perf_counter() - start)
            found[f"{stage}/{name}"] = statistics.median(times[2:])
    print(json.dumps({"torch": torch.__version__, "times": found}))


def ours(args):
    """Medians of the criterion bench, in seconds."""
    command = [args.bench, "--bench", "--noplot", "--output-format", "bencher"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = re.findall(r"test step/(\S+) \.\.\. bench:\s+([\d,]+) ns/iter", text)
    return {name: int(time.replace(",", "")) / 1e9 for name, time in lines}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bench", help="the built bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--torch-worker", action="store_true")
    args = parser.parse_args()
    if args.torch_worker:
        return torch_worker(args)
    command = [sys.executable, __file__, "--torch-worker"]
    command += ["--seconds", str(args.seconds), "--threads", str(args.threads)]
    best = {"ours": {}, "torch": {}}
    for _ in range(args.rounds):
        of_torch = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for who, times in (("ours", ours(args)), ("torch", of_torch["times"])):
            for name, seconds in times.items():
                best[who][name] = min(seconds, best[who].get(name, seconds))
    print(f"torch {of_torch['torch']}, {args.threads} threads, best of {args.rounds} medians\n")
    print("| step | head | tokens | ours, ms | tokens/s | torch, ms | tokens/s | torch / ours |")
    print("|---|---|---|---|---|---|---|---|")
    for name, seconds in best["torch"].items():
        stage, size = name.split("/")
        tokens = SIZES[size][4]
        for head, mine in ("f32", best["ours"][name]), ("bf16", best["ours"][f"{stage}-bf16-head/{size}"]):
            print(f"| {name} | {head} | {tokens} | {mine * 1e3:.1f} | {tokens / mine:.0f} "
                  f"| {seconds * 1e3:.1f} | {tokens / seconds:.0f} | {seconds / mine:.2f} |")


main()
