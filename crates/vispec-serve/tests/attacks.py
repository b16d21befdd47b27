"""Measures what some attacks cost a running server; uses only the standard library.

Usage: attacks.py PORT [NAME ...]     the attacks with these names, or all of them

    text         a prompt of 30 MiB, while others ask for the server's health
    leave        the same prompt, from a client that disconnects immediately
    bodies       64 connections that announce 32 MiB each and send one byte
    uploads      24 connections that send 24 MiB each and stop before the end
    connections  600 connections that send nothing
    tokens       one request for 8 endless answers, then one for two tokens
    messages     a chat of 50,001 messages
    hosts        requests without a Host header, and with two

Talks only to 127.0.0.1. Sends at most 700 MiB in total, waits at most 120 s for any answer, and ends
after at most 10 minutes. Prints figures without judging them. See docs/reliability.md.
"""

import json
import os
import signal
import socket
import sys
import threading
import time

HOST = "127.0.0.1"
PORT = int(sys.argv[1])
PATIENCE = 120
LONGEST_RUN = 600
MIB = 1 << 20


def connect():
    return socket.create_connection((HOST, PORT), timeout=PATIENCE)


def head(method, path, length=0, hosts=("x",)):
    lines = [f"{method} {path} HTTP/1.1", *(f"Host: {host}" for host in hosts), "Connection: close"]
    lines += ["Content-Type: application/json", f"Content-Length: {length}", "", ""]
    return "\r\n".join(lines).encode()


def read(stream):
    """Returns status and body; a connection that is cut off has the status 0."""
    answer = b""
    try:
        while piece := stream.recv(1 << 16):
            answer += piece
    except OSError:
        pass
    first, _, body = answer.partition(b"\r\n\r\n")
    words = first.split()
    return (int(words[1]) if len(words) > 1 else 0), body


def ask(method, path, body=b"", hosts=("x",)):
    """Returns status, body and seconds."""
    started = time.monotonic()
    with connect() as stream:
        try:
            stream.sendall(head(method, path, len(body), hosts) + body)
        except OSError:
            pass  # a server that refuses early need not read the rest
        status, answer = read(stream)
    return status, answer, time.monotonic() - started


def completion(**fields):
    return ask("POST", "/v1/completions", json.dumps({"prompt": "Hi", **fields}).encode())


def code(answer):
    try:
        return json.loads(answer)["error"]["code"]
    except (ValueError, KeyError):
        return None


def metrics():
    _, text, _ = ask("GET", "/metrics")
    lines = (line.rsplit(" ", 1) for line in text.decode().splitlines() if line.startswith("vispec"))
    return {name: float(value) for name, value in lines}


def busy():
    now = metrics()
    return now["vispec_num_requests_running"] + now["vispec_num_requests_waiting"]


def resident():
    return metrics()["vispec_resident_memory_bytes"] / MIB


class Watch:
    """Polls the server's health and memory."""

    def __enter__(self):
        self.before = self.peak = resident()
        self.slowest = 0.0
        self.going = True
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        return self

    def run(self):
        while self.going:
            self.peak = max(self.peak, resident())
            self.slowest = max(self.slowest, ask("GET", "/health")[2])
            time.sleep(0.02)

    def __exit__(self, *_):
        self.going = False
        self.thread.join()
        after = resident()
        self.told = (
            f"resident memory {self.before:.0f} MiB before, {max(self.peak, after):.0f} at most, "
            f"{after:.0f} after; /health after {self.slowest:.2f} s at most"
        )


def long_prompt():
    return json.dumps({"prompt": "a " * (15 * MIB)}).encode()


def text():
    with Watch() as watch:
        status, answer, seconds = ask("POST", "/v1/completions", long_prompt())
    return f"status {status} {code(answer)} after {seconds:.1f} s; {watch.told}"


def leave():
    body = long_prompt()
    with Watch() as watch:
        with connect() as stream:
            stream.sendall(head("POST", "/v1/completions", len(body)) + body)
            time.sleep(0.5)
        started = time.monotonic()
        while busy() and time.monotonic() - started < PATIENCE:
            time.sleep(0.02)
        seconds = time.monotonic() - started
    return f"work continued for {seconds:.1f} s after the client had left; {watch.told}"


def begun(length, sent):
    stream = connect()
    try:
        stream.sendall(head("POST", "/v1/completions", length))
        for start in range(0, sent, MIB):
            stream.sendall(b" " * min(MIB, sent - start))
    except OSError:
        pass  # refused on the way
    return stream


def waits(streams):
    """Returns the number of connections that the server has neither answered nor closed."""
    n = 0
    for stream in streams:
        stream.settimeout(0.01)
        try:
            stream.recv(1)
        except TimeoutError:
            n += 1
        except OSError:
            pass
    return n


def bodies():
    streams = [begun(32 * MIB, 1) for _ in range(64)]
    status, _, seconds = completion(max_tokens=2)
    held = waits(streams)
    for stream in streams:
        stream.close()
    return f"with {held} of 64 open, a request for two tokens had status {status} after {seconds:.2f} s"


def uploads():
    with Watch() as watch:
        streams = [begun(32 * MIB, 24 * MIB) for _ in range(24)]
        status, _, seconds = completion(max_tokens=2)
        held = waits(streams)
        for stream in streams:
            stream.close()
    return (
        f"{held} of 24 were accepted; a request for two tokens had status {status} after "
        f"{seconds:.2f} s; {watch.told}"
    )


def connections():
    streams = [connect() for _ in range(600)]
    time.sleep(0.5)
    held = waits(streams)
    # From the same address, so that it may also be refused.
    status, _, seconds = ask("GET", "/health")
    for stream in streams:
        stream.close()
    return f"{held} of 600 were kept; another had status {status} after {seconds:.2f} s"


def tokens():
    outcome = []

    # Repeated tokens are preferred, so that none ends the answer.
    def greedy():
        outcome.append(completion(n=8, max_tokens=1_000_000, repetition_penalty=0.3))

    thread = threading.Thread(target=greedy, daemon=True)
    thread.start()
    time.sleep(0.5)
    _, _, seconds = completion(max_tokens=2)
    thread.join()
    status, answer, took = outcome[0]
    made = json.loads(answer)["usage"]["completion_tokens"] if status == 200 else code(answer)
    return (
        f"status {status} with {made} (tokens, or an error) after {took:.1f} s; "
        f"a request for two tokens was answered after {seconds:.2f} s"
    )


def messages():
    roles = ["user", "assistant"]
    chat = [{"role": roles[index % 2], "content": "x"} for index in range(50_001)]
    with Watch() as watch:
        body = json.dumps({"messages": chat}).encode()
        status, answer, seconds = ask("POST", "/v1/chat/completions", body)
    return f"status {status} {code(answer)} after {seconds:.2f} s; {watch.told}"


def hosts():
    none, _, _ = ask("GET", "/health", hosts=())
    two, _, _ = ask("GET", "/health", hosts=("x", "y"))
    return f"status {none} without a Host header, {two} with two"


ATTACKS = [text, leave, bodies, uploads, connections, tokens, messages, hosts]


def too_long(*_):
    print("ended: the attacks took too long", flush=True)
    os._exit(1)


signal.signal(signal.SIGALRM, too_long)
signal.alarm(LONGEST_RUN)
wanted = sys.argv[2:] or [attack.__name__ for attack in ATTACKS]
for attack in ATTACKS:
    if attack.__name__ in wanted:
        print(f"{attack.__name__}: {attack()}", flush=True)
