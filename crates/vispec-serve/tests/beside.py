"""Measures how 64 hostile connections affect 8 honest clients; uses only the standard library.

Usage: beside.py PORT [--seconds N] [NAME ...]     the kinds with these names, or all of them

    silent      connect and send nothing
    heads       send a byte of a head each second
    bodies      announce 32 MiB and send a byte of them each second
    uploads     send 1 MiB of a body and stop
    nonsense    send one body after the other that is not JSON
    nested      send one body of 100,000 brackets after the other
    texts       send one prompt of 4 MiB after the other
    bombs       send one picture of 40,000 x 40,000 pixels after the other, in a file of 100 bytes
    photos      send one different picture of 4,000 x 4,000 pixels after the other
    unread      ask for streams without reading them
    flood       ask for 64 tokens again and again

Honest clients ask for streams of 16 tokens, one after the other. The program prints the time to their
first text, before and during each kind of attack. A client that is asked to retry does so after a
tenth of a second, and this delay counts. Every honest client has its own address (127.0.1.*), and all hostile
connections share one (127.0.2.1), if the system supports such addresses (Linux does).

Talks only to this machine and ends on its own. Prints figures without judging them. See
docs/reliability.md.
"""

import base64
import json
import multiprocessing
import os
import random
import socket
import statistics
import struct
import sys
import threading
import time
import zlib

arguments = sys.argv[1:]
SECONDS = 15.0
if "--seconds" in arguments:
    place = arguments.index("--seconds")
    SECONDS = float(arguments[place + 1])
    del arguments[place : place + 2]
PORT = int(arguments[0])
HOSTILE, HONEST = 64, 8
PATIENCE = 60
AGAIN = 0.1
MIB = 1 << 20


def connect(source):
    return socket.create_connection(("127.0.0.1", PORT), timeout=PATIENCE, source_address=(source, 0))


def head(path, length):
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


# Honest clients.


def first_text(source):
    """Returns the seconds to the first text of a stream, and how often the client had to retry."""
    body = json.dumps({"prompt": "Hi", "max_tokens": 16, "stream": True}).encode()
    started, refused = time.monotonic(), 0
    while True:
        with connect(source) as stream:
            stream.sendall(head("/v1/completions", len(body)) + body)
            answer = stream.recv(1 << 16)
            if answer.startswith(b"HTTP/1.1 200"):
                while b"data: " not in answer:
                    piece = stream.recv(1 << 16)
                    if not piece:
                        break
                    answer += piece
                seconds = time.monotonic() - started
                while stream.recv(1 << 16):
                    pass
                return seconds, refused
        refused += 1
        time.sleep(AGAIN)


def honest():
    """Runs all honest clients for a while; returns their times to the first text."""
    times, refused, lost = [], [0], [0]
    end = time.monotonic() + SECONDS

    def client(index):
        while time.monotonic() < end:
            try:
                seconds, again = first_text(f"127.0.1.{index + 1}")
                times.append(seconds)
                refused[0] += again
            except OSError:
                lost[0] += 1

    threads = [threading.Thread(target=client, args=(index,)) for index in range(HONEST)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, refused[0], lost[0]


# Hostile clients: each is called with one connection after the other.

SOURCE = "127.0.2.1"


def silent(stream):
    stream.recv(1)


def heads(stream):
    for byte in b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 100:
        stream.send(bytes([byte]))
        time.sleep(1)


def bodies(stream):
    stream.sendall(head("/v1/completions", 32 * MIB))
    while True:
        stream.send(b" ")
        time.sleep(1)


def uploads(stream):
    stream.sendall(head("/v1/completions", 32 * MIB) + b" " * MIB)
    stream.recv(1)
    time.sleep(1)


def send(stream, path, body):
    stream.sendall(head(path, len(body)) + body)
    while stream.recv(1 << 16):
        pass


def nonsense(stream):
    send(stream, "/v1/completions", random.randbytes(10_000))


def nested(stream):
    send(stream, "/v1/completions", b'{"prompt": ' + b"[" * 100_000)


LONG = json.dumps({"prompt": "a " * (2 * MIB)}).encode()


def texts(stream):
    send(stream, "/v1/completions", LONG)


def png(side, data, colours=b""):
    def chunk(name, content):
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", side, side, 8, 3 if colours else 0, 0, 0, 0)
    palette = chunk(b"PLTE", colours) if colours else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def about(picture):
    url = "data:image/png;base64," + base64.b64encode(picture).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What?"}]
    chat = {"messages": [{"role": "user", "content": content}], "max_tokens": 2}
    return json.dumps(chat).encode()


def bombs(stream):
    send(stream, "/v1/chat/completions", about(png(40_000, zlib.compress(b""))))


# Compressed once, so that the attack costs the attacker little; pictures differ in their colours.
PIXELS = zlib.compress((b"\0" + random.randbytes(4000)) * 4000)


def photos(stream):
    send(stream, "/v1/chat/completions", about(png(4000, PIXELS, random.randbytes(768))))


def unread(stream):
    body = json.dumps({"prompt": "Hi", "max_tokens": 64, "stream": True, "n": 2}).encode()
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    stream.sendall(head("/v1/completions", len(body)) + body)
    time.sleep(10)


def flood(stream):
    send(stream, "/v1/completions", json.dumps({"prompt": "Hi", "max_tokens": 64}).encode())


KINDS = [silent, heads, bodies, uploads, nonsense, nested, texts, bombs, photos, unread, flood]


def attack(kind):
    """Runs all hostile connections, in a separate process that is terminated later."""

    def one():
        while True:
            try:
                with connect(SOURCE) as stream:
                    kind(stream)
            except OSError:
                time.sleep(AGAIN)

    for _ in range(HOSTILE):
        threading.Thread(target=one, daemon=True).start()
    time.sleep(10 * PATIENCE)


def told(measured):
    times, refused, lost = measured
    if not times:
        return f"no text; {refused} retries, {lost} lost"
    times.sort()
    median, late = statistics.median(times), times[int(len(times) * 0.95)]
    extra = f", {refused} retries" if refused else ""
    extra += f", {lost} lost" if lost else ""
    return f"{median * 1000:.0f} ms (95 %: {late * 1000:.0f} ms, {len(times)} answers{extra})"


def main():
    wanted = arguments[1:] or [kind.__name__ for kind in KINDS]
    honest()  # the first answers of a server are slower
    for kind in KINDS:
        if kind.__name__ not in wanted:
            continue
        before = honest()
        hostile = multiprocessing.Process(target=attack, args=(kind,), daemon=True)
        hostile.start()
        time.sleep(1)
        beside = honest()
        hostile.terminate()
        hostile.join()
        factor = ""
        if before[0] and beside[0]:
            factor = f": {statistics.median(beside[0]) / statistics.median(before[0]):.2f} times"
        print(f"{kind.__name__}{factor}; before {told(before)}; during {told(beside)}", flush=True)
        time.sleep(2)


if __name__ == "__main__":
    try:
        main()
    finally:
        sys.stdout.flush()
        os._exit(0)
