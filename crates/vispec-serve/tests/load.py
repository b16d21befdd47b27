"""Runs many concurrent clients against a server; uses only the standard library.

Usage: load.py PORT burst N      N requests at the same moment, each retried when asked to wait
       load.py PORT stream N S   N clients that stream one answer after the other for S seconds
       load.py PORT leave N      N clients that disconnect in every phase of an answer
       load.py PORT mixed N GENERATE   N requests of mixed kinds, each compared with the answer of the
                                 program `generate`

The server must serve its built-in pair (`serve` without `--target`), and allow one client as
many connections as are opened at the same time (`--max-client-connections`). Exits with 1 if an answer
is wrong or lost. See docs/reliability.md.
"""

import asyncio
import base64
import json
import pathlib
import random
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
IMAGE = ROOT / "fixtures/cases/qwen-tied/q4-img-large/image_0.png"
PORT = int(sys.argv[1])


def body(stream, **fields):
    url = "data:image/png;base64," + base64.b64encode(IMAGE.read_bytes()).decode()
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "Describe the image briefly."},
    ]
    messages = [{"role": "user", "content": content}]
    return json.dumps({"messages": messages, "stream": stream, **fields}).encode()


async def connect(method, path, payload=b""):
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
            break
        except OSError:
            # The system's queue of pending connections is full.
            await asyncio.sleep(0.05)
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    writer.write(head.encode() + payload)
    return reader, writer


async def request(payload):
    """Returns status, body, seconds to the first byte, and how long the server asks to wait."""
    started = time.monotonic()
    reader, writer = await connect("POST", "/v1/chat/completions", payload)
    head = await reader.readuntil(b"\r\n\r\n")
    first = time.monotonic() - started
    rest = await reader.read()
    writer.close()
    wait = [line for line in head.lower().split(b"\r\n") if line.startswith(b"retry-after:")]
    return int(head.split()[1]), rest, first, float(wait[0].split(b":")[1]) if wait else 0.0


async def metrics():
    reader, _ = await connect("GET", "/metrics")
    text = (await reader.read()).decode()
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("vispec"))
    return {name: float(value) for name, value in lines}


def streamed_text(rest):
    text = ""
    done = False
    for line in rest.decode().splitlines():
        if line == "data: [DONE]":
            done = True
        elif line.startswith("data: "):
            chunk = json.loads(line[6:])
            for choice in chunk["choices"]:
                text += choice["delta"].get("content") or ""
    return text if done else None


def whole_text(rest):
    return json.loads(rest[rest.index(b"{") : rest.rindex(b"}") + 1])["choices"][0]["message"]["content"]


def percentile(values, share):
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


async def burst(n):
    _, rest, _, _ = await request(body(False))
    expected = whole_text(rest)
    payload = body(False)
    statuses, times, wrong = {}, [], 0

    async def one():
        nonlocal wrong
        started = time.monotonic()
        while True:
            try:
                status, rest, _, wait = await request(payload)
            except (ConnectionError, asyncio.IncompleteReadError):
                status, rest, wait = "dropped", b"", 1.0
            statuses[status] = statuses.get(status, 0) + 1
            if status not in (429, "dropped"):
                break
            await asyncio.sleep(wait * random.uniform(1, 3))
        times.append(time.monotonic() - started)
        wrong += status != 200 or whole_text(rest) != expected

    started = time.monotonic()
    await asyncio.gather(*(one() for _ in range(n)))
    print(f"{n} requests in {time.monotonic() - started:.1f} s, by status {statuses}, {wrong} wrong")
    print(f"seconds to the answer: median {percentile(times, 0.5):.2f}, largest {max(times):.2f}")
    return wrong + statuses.get("dropped", 0)


async def stream(n, seconds):
    _, rest, _, _ = await request(body(True))
    expected = streamed_text(rest)
    payload = body(True)
    end = time.monotonic() + seconds
    first_times, done, wrong, busy = [], 0, 0, 0

    async def client():
        nonlocal done, wrong, busy
        while time.monotonic() < end:
            status, rest, first, wait = await request(payload)
            if status == 429:
                busy += 1
                await asyncio.sleep(wait * random.uniform(1, 2))
                continue
            first_times.append(first)
            done += 1
            wrong += status != 200 or streamed_text(rest) != expected

    async def watch():
        step = max(seconds / 10, 1)
        while time.monotonic() < end:
            now = await metrics()
            rss = now["vispec_resident_memory_bytes"] / 2**20
            print(f"{done} answers, resident memory {rss:.1f} MiB", flush=True)
            await asyncio.sleep(step)

    await asyncio.gather(watch(), *(client() for _ in range(n)))
    now = await metrics()
    rss = now["vispec_resident_memory_bytes"] / 2**20
    median, late = percentile(first_times, 0.5), percentile(first_times, 0.99)
    print(f"{n} clients, {seconds} s: {done} answers, {wrong} wrong, {busy} asked to wait")
    print(f"seconds to the first byte: median {median:.3f}, 99th percentile {late:.3f}")
    print(f"resident memory {rss:.1f} MiB")
    return wrong


async def leave(n):
    """Disconnects after a random number of bytes sent or received."""
    payload = body(True, temperature=1.5)

    async def one(index):
        rng = random.Random(index)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
        head += b"Content-Type: application/json\r\n"
        whole = head + f"Content-Length: {len(payload)}\r\n\r\n".encode() + payload
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        if index % 2:
            writer.write(whole[: rng.randrange(len(whole))])
            await writer.drain()
        else:
            writer.write(whole)
            await reader.read(rng.randrange(1, 4000))
        writer.transport.abort()

    for start in range(0, n, 50):
        await asyncio.gather(*(one(index) for index in range(start, min(start + 50, n))))
    for _ in range(200):
        now = await metrics()
        if now["vispec_num_requests_running"] == 0 and now["vispec_num_requests_waiting"] == 0:
            break
        await asyncio.sleep(0.05)
    else:
        print("work for disconnected clients continues")
        return 1
    outcomes = {name: value for name, value in now.items() if "requests_total" in name}
    print(f"{n} clients have disconnected; {outcomes}")
    status, _, _, _ = await request(body(False))
    print(f"the next client gets status {status}")
    return status != 200


def kinds():
    """Requests of mixed kinds: messages, images, temperature, seed and length."""
    pictures = [IMAGE, ROOT / "fixtures/cases/qwen-tied/img-short/image_0.png"]
    asks = ["Describe the image briefly.", "Describe the image in detail.", "What colour is the cross?"]
    for index in range(36):
        picture = [None, *pictures][index % 3]
        yield {
            "picture": picture,
            "ask": asks[index // 3 % 3],
            "temperature": [0, 0.8][index // 9 % 2],
            "seed": index,
            "max_tokens": [4, 24, 60][index % 5 % 3],
        }


def alone(kind, generate):
    command = [generate, "--target", ROOT / "fixtures/models/qwen-scenes", "--prompt", kind["ask"]]
    if kind["picture"]:
        command += ["--image", kind["picture"]]
    command += ["--temperature", kind["temperature"], "--seed", kind["seed"]]
    command += ["--max-new-tokens", kind["max_tokens"]]
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    return run.stdout.removesuffix("\n")


def asked(kind, stream):
    content = [{"type": "text", "text": kind["ask"]}]
    if kind["picture"]:
        url = "data:image/png;base64," + base64.b64encode(kind["picture"].read_bytes()).decode()
        content.insert(0, {"type": "image_url", "image_url": {"url": url}})
    fields = {name: kind[name] for name in ("temperature", "seed", "max_tokens")}
    messages = [{"role": "user", "content": content}]
    return json.dumps({"messages": messages, "stream": stream, **fields}).encode()


async def mixed(n, generate):
    """Sends requests of random kinds, streamed or not, 64 at a time."""
    expected = [(kind, alone(kind, generate)) for kind in kinds()]
    rng, wrong, left = random.Random(7), 0, n

    async def client():
        nonlocal wrong, left
        while left > 0:
            left -= 1
            kind, text = rng.choice(expected)
            stream = rng.random() < 0.5
            while True:
                status, rest, _, wait = await request(asked(kind, stream))
                if status != 429:
                    break
                await asyncio.sleep(wait * rng.uniform(0.5, 1.5))
            answer = status == 200 and (streamed_text if stream else whole_text)(rest)
            if answer is False or answer is None or answer.strip() != text.strip():
                wrong += 1
                print(f"wrong ({status}): {kind}\n  {answer!r}\n  {text!r}")

    started = time.monotonic()
    await asyncio.gather(*(client() for _ in range(64)))
    took = time.monotonic() - started
    print(f"{n} requests of {len(expected)} kinds in {took:.1f} s, {wrong} differ from generate")
    return wrong


mode, *arguments = sys.argv[2:]
run = {"burst": burst, "stream": stream, "leave": leave, "mixed": mixed}[mode]
arguments = [int(part) if part.isdigit() else part for part in arguments]
sys.exit(bool(asyncio.run(run(*arguments))))
