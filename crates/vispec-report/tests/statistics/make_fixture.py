"""Writes fixture.json: figures of made-up records, computed with numpy and scipy.

    python make_fixture.py > fixture.json     (numpy 2, scipy 1)

The bootstrap is reimplemented here with the same generator (SplitMix64), so that intervals can be
compared digit by digit; scipy's own bootstrap, with another generator, bounds the method.
"""

import json
import sys

import numpy as np
import scipy
from scipy import stats

N = 60
RESAMPLES = 1000
MASK = (1 << 64) - 1


def splitmix(state, count):
    """Returns the first `count` numbers of the generator."""
    numbers = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        mixed = state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
        numbers.append(mixed ^ (mixed >> 31))
    return numbers


def resample(index):
    state = (index * 0xD1342543DE82EF95) & MASK
    return np.array([((number >> 32) * N) >> 32 for number in splitmix(state, N)])


rng = np.random.default_rng(7)
tokens = rng.integers(20, 200, N)
cycles = np.maximum(1, (tokens / rng.uniform(1.5, 3.5, N)).astype(int))
accepted = tokens - cycles
plain_tokens = tokens.copy()
plain_tokens[:3] += 1
plain_decode = tokens * rng.uniform(18, 25, N)
decode = cycles * rng.uniform(25, 40, N)
before = rng.uniform(30, 300, N)
image_tokens = rng.choice([0, 5, 40, 100, 600], N)
# One answer consists only of the token from prefill.
tokens[10] = plain_tokens[10] = 1
cycles[10] = accepted[10] = 0
plain_decode[10] = decode[10] = 0.0

plain_total, total = plain_decode + before, decode + before


def figures(i, cast=np.float64):
    """Returns all figures of the records i; summands are rounded with `cast`."""
    c = lambda x: np.asarray(x, dtype=cast).astype(np.float64)
    a, n = c(accepted)[i], c(cycles)[i]
    pt, t = c(plain_tokens)[i], c(tokens)[i]
    pd, d, pe, e = (c(x / 1000)[i] for x in (plain_decode, decode, plain_total, total))
    ok = decode > 0
    with np.errstate(all="ignore"):
        own_tau = c(np.where(ok, accepted / cycles, 0))[i]
        ratio = c(np.where(ok, (tokens / decode) / (plain_tokens / plain_decode), 0))[i]
    end_ratio = c((tokens / total) / (plain_tokens / plain_total))[i]
    speed, plain_speed = c(tokens / total * 1000)[i], c(plain_tokens / plain_total * 1000)[i]
    return [
        a.sum() / n.sum(),
        own_tau.sum() / ok[i].sum(),
        (t.sum() / d.sum()) / (pt.sum() / pd.sum()),
        ratio.sum() / ok[i].sum(),
        (t.sum() / e.sum()) / (pt.sum() / pe.sum()),
        end_ratio.mean(),
        speed.mean() / plain_speed.mean(),
        pt.sum() / pd.sum(),
        t.sum() / d.sum(),
        t.sum() / e.sum(),
    ]


MANY, MANY_RESAMPLES = 20_000, 4000
units = np.array([
    [(number >> 11) / (1 << 53) for number in splitmix(i * 0x123456789ABCDEF1 & MASK, 4)]
    for i in range(MANY)
])
many_tokens = np.floor(20 + 180 * units[:, 0])
many_cycles = np.maximum(np.floor(many_tokens / (1.5 + 2 * units[:, 1])), 1)
many_plain = many_tokens * (18 + 7 * units[:, 2])
many_decode = many_cycles * (25 + 15 * units[:, 3])


def many_figures(i):
    """Returns some figures of the records i of the `MANY` records."""
    t, n, p, d = many_tokens[i], many_cycles[i], many_plain[i], many_decode[i]
    return [
        (t - n).sum() / n.sum(), p.sum() / d.sum(), (p / d).mean(),
        (t / (d + 100)).mean() / (t / (p + 100)).mean(),
    ]


many_rng = np.random.default_rng(11)
many_resampled = [many_figures(many_rng.integers(0, MANY, MANY)) for _ in range(MANY_RESAMPLES)]
many_low, many_high = np.quantile(many_resampled, [0.025, 0.975], axis=0)
many = dict(zip(
    ["tau", "decode_pooled", "decode_sample_mean", "ratio_of_mean_speeds"],
    zip(many_figures(np.arange(MANY)), many_low, many_high),
))

names = [
    "tau", "tau_sample_mean", "decode_pooled", "decode_sample_mean", "end_to_end_pooled",
    "end_to_end_sample_mean", "ratio_of_mean_speeds", "plain_tokens_per_second",
    "speculative_tokens_per_second", "end_to_end_tokens_per_second",
]
values = figures(np.arange(N))
resampled = np.array([figures(resample(index), np.float32) for index in range(RESAMPLES)])
low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
scipy_interval = [
    stats.bootstrap(
        (np.arange(N),), lambda i, k=k: figures(i)[k], vectorized=False, paired=False,
        n_resamples=4000, method="percentile", rng=np.random.default_rng(k),
    ).confidence_interval
    for k in range(len(names))
]
histogram = np.bincount(rng.choice(5, 500, p=[0.1, 0.2, 0.25, 0.15, 0.3]))
reached = [(histogram[d:].sum() / histogram.sum()).item() for d in range(1, 5)]
conditional = [(histogram[d:].sum() / histogram[d - 1 :].sum()).item() for d in range(1, 5)]
edges = [(0, 0), (1, 15), (32, 63), (64, 127), (512, 1023)]
bins = []
for first, last in edges:
    inside = (image_tokens >= first) & (image_tokens <= last)
    tau = (accepted[inside].sum() / cycles[inside].sum()).item()
    bins.append({"from": first, "to": last, "records": int(inside.sum()), "tau": tau})
json.dump(
    {
        "made_with": f"numpy {np.__version__}, scipy {scipy.__version__}",
        "samples": [
            dict(zip(
                ["image_tokens", "cycles", "accepted", "plain_tokens", "speculative_tokens",
                 "plain_decode_ms", "plain_total_ms", "speculative_decode_ms",
                 "speculative_total_ms"],
                [x.item() for x in row],
            ))
            for row in zip(image_tokens, cycles, accepted, plain_tokens, tokens, plain_decode,
                           plain_total, decode, total)
        ],
        "figures": {
            name: {
                "value": float(values[k]), "low": float(low[k]), "high": float(high[k]),
                "scipy_low": float(scipy_interval[k].low),
                "scipy_high": float(scipy_interval[k].high),
            }
            for k, name in enumerate(names)
        },
        "quantiles": {str(q): float(np.quantile(total, q)) for q in [0, 0.1, 0.5, 0.9, 0.99, 1]},
        "histogram": histogram.tolist(), "reached": reached, "conditional": conditional,
        "bins": bins,
        "many": {
            "records": MANY,
            "intervals": {name: [float(x) for x in row] for name, row in many.items()},
        },
    },
    sys.stdout, indent=1,
)
