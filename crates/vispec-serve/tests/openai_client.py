"""Compares the answers of a running server with those of `generate`, using OpenAI's Python client.

Usage: openai_client.py BASE_URL [DIRECTORY_OF_BINARIES]

The server must serve its built-in pair (`serve` without flags). See docs/serving.md.
"""

import base64
import json
import pathlib
import subprocess
import sys

import openai

ROOT = pathlib.Path(__file__).resolve().parents[3]
FIXTURES = ROOT / "fixtures"
IMAGE = FIXTURES / "cases/qwen-tied/q4-img-large/image_0.png"
ASK = "Describe the image briefly."

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
binaries = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "target/debug"
model = client.models.list().data[0].id
url = "data:image/png;base64," + base64.b64encode(IMAGE.read_bytes()).decode()
question = {
    "role": "user",
    "content": [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": ASK},
    ],
}


def generate(*flags):
    command = [binaries / "generate", "--target", FIXTURES / "models/qwen-scenes"]
    command += ["--draft", FIXTURES / "drafts/qwen-scenes-q2", "--total-token", "30", "--json"]
    command += ["--image", IMAGE, "--prompt", ASK, *flags]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def ask(messages=(question,), **fields):
    return client.chat.completions.create(model=model, messages=list(messages), **fields)


def check_whole_and_streamed():
    settings = [
        ({}, []),
        ({"temperature": 1.2, "seed": 7, "max_tokens": 40}, "--temperature 1.2 --seed 7"),
        ({"temperature": 0.9, "top_p": 0.8, "max_tokens": 40}, "--temperature 0.9 --top-p 0.8"),
    ]
    for fields, flags in settings:
        flags = flags.split() + ["--max-new-tokens", "40"] if flags else []
        expected = generate(*flags)
        whole = ask(**fields)
        assert whole.choices[0].message.content == expected["text"]
        assert whole.choices[0].finish_reason == expected["finish_reason"]
        assert whole.usage.completion_tokens == expected["new_tokens"]
        assert whole.usage.prompt_tokens == expected["prompt_tokens"]
        text, usage, pieces = "", None, 0
        for chunk in ask(stream=True, stream_options={"include_usage": True}, **fields):
            usage = chunk.usage or usage
            if chunk.choices and chunk.choices[0].delta.content:
                text += chunk.choices[0].delta.content
                pieces += 1
        assert text == expected["text"]
        assert usage.completion_tokens == expected["new_tokens"]
        print(f"equal to generate with {fields}: {usage.completion_tokens} tokens, {pieces} pieces")


def check_stop():
    whole = ask().choices[0].message.content
    stop = whole[len(whole) // 2 :][:6]
    cut = ask(stop=[stop])
    assert cut.choices[0].message.content == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    print(f"cut before {stop!r} after {cut.usage.completion_tokens} tokens")


def check_conversation():
    first = ask()
    said = {"role": "assistant", "content": first.choices[0].message.content}
    second = ask([question, said, {"role": "user", "content": "And the background?"}])
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert cached >= first.usage.prompt_tokens, (cached, first.usage)
    print(f"second turn: {cached} of {second.usage.prompt_tokens} tokens were cached")


def check_logprobs_and_choices():
    answer = ask(logprobs=True, top_logprobs=2, max_tokens=5, n=2, temperature=1.0, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert len(choice.logprobs.content) == 5
        assert all(len(token.top_logprobs) == 2 for token in choice.logprobs.content)
    unwanted = ask(max_tokens=5, logit_bias={"5": -100}, presence_penalty=0.5)
    assert unwanted.usage.completion_tokens == 5
    text = client.completions.create(model=model, prompt="The picture", max_tokens=5, logprobs=1)
    assert len(text.choices[0].logprobs.tokens) == text.usage.completion_tokens > 0
    print("log-probabilities, several answers and penalties have the client's shapes")


def check_schema():
    """Checks complete objects and chunks strictly against the client's types, without extra fields."""
    from openai.types import Completion, Model
    from openai.types.chat import ChatCompletion, ChatCompletionChunk

    def strictly(kind, text):
        kind.model_validate_json(text, strict=True)
        known(kind.model_validate_json(text))

    def known(value):
        if isinstance(value, list):
            for item in value:
                known(item)
        elif hasattr(value, "model_fields_set"):
            extra = set(value.model_extra or {})
            assert not extra, f"{type(value).__name__} has no {extra}"
            for name in type(value).model_fields:
                known(getattr(value, name))

    chat = client.chat.completions.with_raw_response
    fields = {"model": model, "messages": [question], "max_tokens": 6}
    strictly(ChatCompletion, chat.create(logprobs=True, top_logprobs=2, n=2, **fields).text)
    prompt = {"model": model, "prompt": "The picture", "max_tokens": 6, "logprobs": 2}
    strictly(Completion, client.completions.with_raw_response.create(**prompt).text)
    strictly(Model, client.models.with_raw_response.retrieve(model).text)
    options = {"include_usage": True}
    stream = chat.create(stream=True, stream_options=options, logprobs=True, **fields)
    lines = stream.http_response.iter_lines()
    chunks = [line[6:] for line in lines if line.startswith("data: {")]
    for chunk in chunks:
        strictly(ChatCompletionChunk, chunk)
    print(f"complete objects and {len(chunks)} chunks have exactly the client's types")


def check_errors():
    bad = [
        (404, {"model": "nope", "messages": [question]}),
        (400, {"model": model, "messages": []}),
        (400, {"model": model, "messages": [{"role": "user", "content": "x" * 100_000}]}),
    ]
    for status, fields in bad:
        try:
            client.chat.completions.create(**fields)
        except openai.APIStatusError as error:
            assert error.status_code == status and error.body["code"], error
        else:
            raise AssertionError(f"{fields} was answered")
    print("errors have status and code")


check_whole_and_streamed()
check_stop()
check_conversation()
check_logprobs_and_choices()
check_schema()
check_errors()
