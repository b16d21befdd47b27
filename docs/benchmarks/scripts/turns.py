"""Code shared by the comparison scripts: turns of measuring processes, and reports about noise."""

import contextlib
import fcntl
import json
import os
import shlex
import statistics
import subprocess
import sys
import time


def cpu_ticks():
    """Returns (busy, all) clock ticks of this machine since it started."""
    with open("/proc/stat") as f:
        ticks = [int(n) for n in f.readline().split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


class Busy(Exception):
    """Another process held the lock for too long."""


@contextlib.contextmanager
def held(lock, patience):
    """Holds the lock file shared by all measurements on this machine (like `flock -x`).

    Raises `Busy` after waiting for `patience` seconds.
    """
    if lock is None:
        yield
        return
    with open(lock, "a") as f:
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise Busy(f"{lock} was not free for {patience:.0f} s") from None
                time.sleep(0.02)
        yield
    time.sleep(0.1)  # lets others have the lock


def turn(name, command, env=None, tries=3):
    """Runs one measuring process; returns its JSON object (the last line it prints) with
    `others`: the share of all processors that other processes used meanwhile.

    Retries if the process fails, as it does while its program is being rebuilt.
    """
    for attempt in range(tries):
        ticks, times, started = cpu_ticks(), os.times(), time.monotonic()
        try:
            done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})})
            failure = done.stderr if done.returncode else None
        except OSError as error:  # no such program: it is being linked
            failure = str(error)
        now, used = cpu_ticks(), os.times()
        seconds = time.monotonic() - started
        if failure is None:
            break
        print(f"{name} failed: {failure.strip()[-800:]}", file=sys.stderr)
        if attempt + 1 == tries:
            raise SystemExit(f"{name}: gave up: {shlex.join(command)}")
        time.sleep(5)
    own = used.children_user + used.children_system - times.children_user - times.children_system
    others = max(0.0, now[0] - ticks[0] - own * os.sysconf("SC_CLK_TCK")) / max(1, now[1] - ticks[1])
    print(f"{name}: {seconds:.0f} s, other processes used {others:.0%} of the processors", file=sys.stderr)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    found["others"] = others
    return found


def quiet(ours, theirs, share):
    """Returns the rounds during which other processes used at most `share` of the processors, or all
    rounds if there are none."""
    loudest = [max(a["others"], b["others"]) for a, b in zip(ours, theirs)]
    chosen = [i for i, others in enumerate(loudest) if others <= share] or list(range(len(ours)))
    if len(chosen) < len(ours):
        print(f"left out {len(ours) - len(chosen)} of {len(ours)} rounds, during which other processes ran", file=sys.stderr)
    return [ours[i] for i in chosen], [theirs[i] for i in chosen]


def processor():
    """Returns the processor's name and the number of processors that this process may use."""
    with open("/proc/cpuinfo") as f:
        name = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), "unknown")
    return f"{name}, {len(os.sched_getaffinity(0))} processors"


def noise(turns):
    """Returns a sentence about other processes. `turns` are results of `turn`."""
    shares = [t["others"] for t in turns]
    return (
        f"Other processes used {min(shares):.0%} to {max(shares):.0%} of the processors during the "
        f"{len(shares)} turns (median {statistics.median(shares):.0%})."
    )


def table(head, rows):
    """Returns a Markdown table with the first column left-aligned and the others right-aligned."""
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join([" --- "] + [" ---: "] * (len(head) - 1)) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])
