"""Compares the speed of answers with and without a schema of ten fields; standard library only.

Usage: structured_speed.py PORT [--rounds N]

The server must serve its built-in pair, and keep nothing of earlier answers:

    serve --port 8094 --suffix-memory 0 --conversation-memory 0

Both kinds of answers are drafted, about the same pictures, greedy and sampled, in turn, so that other
work on the machine affects both alike. Speeds are tokens over decoding time, as reported by the server;
medians over all rounds. See docs/serving.md.
"""

import base64
import http.client
import json
import pathlib
import statistics
import sys

arguments = sys.argv[1:]
ROUNDS = 10
if "--rounds" in arguments:
    place = arguments.index("--rounds")
    ROUNDS = int(arguments[place + 1])
    del arguments[place : place + 2]
PORT = int(arguments[0])
ROOT = pathlib.Path(__file__).resolve().parents[3]
PICTURES = [
    ROOT / "fixtures/cases/qwen-tied" / name / "image_0.png" for name in ("q4-img-large", "img-short")
]
COLOURS = ["red", "green", "blue", "yellow", "white", "black"]
FIELDS = {
    "title": {"type": "string", "maxLength": 24},
    "background_colour": {"enum": COLOURS},
    "main_shape": {"enum": ["circle", "square", "triangle", "cross"]},
    "main_shape_colour": {"enum": COLOURS},
    "number_of_shapes": {"type": "integer", "minimum": 0, "maximum": 20},
    "description": {"type": "string", "maxLength": 60},
    "is_symmetric": {"type": "boolean"},
    "position": {"enum": ["top left", "top right", "centre", "bottom left", "bottom right"]},
    "other_colours": {"type": "array", "items": {"enum": COLOURS}, "maxItems": 3},
    "mood": {"type": ["string", "null"], "maxLength": 16},
}
SCHEMA = {
    "type": "object",
    "properties": FIELDS,
    "required": list(FIELDS),
    "additionalProperties": False,
}


def ask(picture, temperature, seed, structured):
    url = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "Describe the picture in detail."},
    ]
    body = {
        "messages": [{"role": "user", "content": content}],
        "temperature": temperature,
        "seed": seed,
        "vispec": {"detail": True},
    }
    if structured:
        named = {"name": "scene", "schema": SCHEMA, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=120)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    choice = answer["choices"][0]
    if structured:
        assert choice["finish_reason"] == "stop", choice
        assert list(json.loads(choice["message"]["content"])) == list(FIELDS), choice
    return answer["usage"]["completion_tokens"], answer["vispec"]


told = {False: [], True: []}
for round_ in range(ROUNDS + 1):
    for picture in PICTURES:
        for temperature in (0, 0.8):
            for structured in (False, True):
                answer = ask(picture, temperature, round_, structured)
                if round_ > 0:  # the first answers of a server are slower
                    told[structured].append(answer)
speeds = {}
for structured, answers in told.items():
    speeds[structured] = statistics.median(detail["tokens_per_second"] for _, detail in answers)
    tokens = statistics.median(tokens for tokens, _ in answers)
    per_cycle = statistics.mean(detail["tokens_per_cycle"] for _, detail in answers)
    kind = "by the schema" if structured else "free"
    print(
        f"{kind}: {speeds[structured]:.0f} tokens/s, {per_cycle:.2f} tokens per cycle, "
        f"{tokens:.0f} tokens, {len(answers)} answers"
    )
print(f"by the schema over free: {speeds[True] / speeds[False]:.2f}")
