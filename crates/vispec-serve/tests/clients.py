"""Tests a running server with Python client libraries: structured output, tools, images, streams.

Usage: clients.py BASE_URL [LIBRARY ...]

Prints a table of the features that work, and fails if any does not. The server must serve its built-in
pair, with a chat template that supports tools:

    serve --port 8093 --chat-template examples/chat-templates/qwen-tools.jinja

The pair was trained only to describe drawn scenes. On its own it calls no tool, so calls are requested
by `required` or by name; output for a schema has the right form but arbitrary content. See
docs/serving.md.
"""

import base64
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import traceback
from typing import Literal

from pydantic import BaseModel, Field

BASE_URL = sys.argv[1]
ROOT = pathlib.Path(__file__).resolve().parents[3]
IMAGE = ROOT / "fixtures/cases/qwen-tied/q4-img-large/image_0.png"
URL = "data:image/png;base64," + base64.b64encode(IMAGE.read_bytes()).decode()
os.environ.update(OPENAI_API_KEY="none", OPENAI_BASE_URL=BASE_URL, LITELLM_LOCAL_MODEL_COST_MAP="True")

import openai  # noqa: E402  (reads the environment)

client = openai.OpenAI(max_retries=0)
MODEL = client.models.list().data[0].id


class Shape(BaseModel):
    """One shape of a picture."""

    colour: Literal["red", "green", "blue"]
    form: Literal["circle", "square", "triangle"]
    sides: int = Field(ge=0, le=4)


class Scene(BaseModel):
    """A picture."""

    title: str = Field(max_length=20)
    shapes: list[Shape] = Field(min_length=1, max_length=2)


def look(colour: Literal["red", "green", "blue"], times: int) -> str:
    """Looks for a colour so many times."""
    return f"found {colour} {times} times"


LOOK = {
    "name": "look",
    "description": "Looks for a colour so many times.",
    "parameters": {
        "type": "object",
        "properties": {
            "colour": {"type": "string", "enum": ["red", "green", "blue"]},
            "times": {"type": "integer", "minimum": 1, "maximum": 9},
        },
        "required": ["colour", "times"],
        "additionalProperties": False,
    },
}
TEXT_PART = {"type": "text", "text": "Describe the picture."}
IMAGE_PART = {"type": "image_url", "image_url": {"url": URL}}
ASK = [{"role": "user", "content": [IMAGE_PART, TEXT_PART]}]
CHECKS = []
# Packages whose names differ from those of the libraries.
PACKAGES = {"pydantic-ai": "pydantic-ai-slim"}


def check(library, feature):
    def note(function):
        CHECKS.append((library, feature, function))
        return function

    return note


@check("openai", "chat, `parse` with pydantic, image")
def openai_parse():
    answer = client.chat.completions.parse(model=MODEL, messages=ASK, response_format=Scene)
    assert isinstance(answer.choices[0].message.parsed, Scene)


@check("openai", "chat, `stream` with pydantic")
def openai_parse_stream():
    with client.chat.completions.stream(model=MODEL, messages=ASK, response_format=Scene) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        answer = stream.get_final_completion()
    assert "".join(pieces) == answer.choices[0].message.content
    assert isinstance(answer.choices[0].message.parsed, Scene)


@check("openai", "chat, `json_object`")
def openai_json_object():
    answer = client.chat.completions.create(
        model=MODEL, messages=ASK, response_format={"type": "json_object"}, max_tokens=60
    )
    text = answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length" or isinstance(json.loads(text), dict), text


@check("openai", "chat, `guided_*` of vLLM by `extra_body`")
def openai_guided():
    for fields, allowed in [
        ({"guided_choice": ["yes", "no"]}, lambda text: text in ("yes", "no")),
        ({"guided_regex": "[0-9]{4}"}, lambda text: len(text) == 4 and text.isdigit()),
        ({"guided_json": Shape.model_json_schema()}, Shape.model_validate_json),
        ({"structured_outputs": {"choice": ["a", "b"]}}, lambda text: text in ("a", "b")),
    ]:
        answer = client.chat.completions.create(model=MODEL, messages=ASK, extra_body=fields)
        assert allowed(answer.choices[0].message.content), answer


@check("openai", "chat, tools: required, named, streamed, and their results")
def openai_tools():
    tools = [{"type": "function", "function": LOOK}]
    named = {"type": "function", "function": {"name": "look"}}
    for choice in ["required", named]:
        fields = dict(model=MODEL, messages=ASK, tools=tools, tool_choice=choice)
        answer = client.chat.completions.create(parallel_tool_calls=False, **fields)
        [call] = answer.choices[0].message.tool_calls
        assert answer.choices[0].finish_reason == "tool_calls"
        result = look(**json.loads(call.function.arguments))
        told = [
            *ASK,
            answer.choices[0].message,
            {"role": "tool", "tool_call_id": call.id, "content": result},
        ]
        last = client.chat.completions.create(model=MODEL, messages=told, tools=tools)
        assert last.choices[0].message.content
        stream = client.chat.completions.create(stream=True, parallel_tool_calls=False, **fields)
        deltas = [chunk.choices[0].delta.tool_calls or [] for chunk in stream]
        [streamed] = sum(deltas, [])
        assert streamed.function.arguments == call.function.arguments


@check("openai", "chat and responses, tools together with `parse` and pydantic")
def openai_tools_or_schema():
    strict = {"type": "function", "function": {**LOOK, "strict": True}}
    answer = client.chat.completions.parse(
        model=MODEL, messages=ASK, tools=[strict], response_format=Scene
    )
    message = answer.choices[0].message
    calls = [look(**json.loads(call.function.arguments)) for call in message.tool_calls or []]
    assert calls or isinstance(message.parsed, Scene), message
    flat = [{"type": "function", "strict": True, **LOOK}]
    answer = client.responses.parse(model=MODEL, input="Look!", tools=flat, text_format=Scene)
    items = [item for item in answer.output if item.type == "function_call"]
    calls = [look(**json.loads(item.arguments)) for item in items]
    assert calls or isinstance(answer.output_parsed, Scene), answer


@check("openai", "responses: text, image, events, `parse` with pydantic")
def openai_responses():
    content = [{"type": "input_image", "image_url": URL, "detail": "auto"}]
    content += [{"type": "input_text", "text": TEXT_PART["text"]}]
    ask = [{"role": "user", "content": content}]
    chat = client.chat.completions.create(model=MODEL, messages=ASK).choices[0].message.content
    answer = client.responses.create(model=MODEL, input=ask)
    assert answer.output_text == chat and answer.status == "completed", answer
    with client.responses.stream(model=MODEL, input=ask) as stream:
        pieces = [e.delta for e in stream if e.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(pieces) == final.output_text == chat
    parsed = client.responses.parse(model=MODEL, input=ask, text_format=Scene)
    assert isinstance(parsed.output_parsed, Scene)


@check("openai", "responses: tools, `previous_response_id`")
def openai_responses_tools():
    tools = [{"type": "function", "strict": True, **LOOK}]
    first = client.responses.create(
        model=MODEL, input="Look!", tools=tools, tool_choice="required", parallel_tool_calls=False
    )
    [call] = first.output
    output = look(**json.loads(call.arguments))
    item = {"type": "function_call_output", "call_id": call.call_id, "output": output}
    second = client.responses.create(
        model=MODEL, input=[item], tools=tools, previous_response_id=first.id
    )
    assert second.output_text
    try:
        client.responses.create(model=MODEL, input="?", previous_response_id="resp_none")
    except openai.BadRequestError as error:
        assert error.param == "previous_response_id"
    else:
        raise AssertionError("an unknown response was continued")


@check("openai", "errors name the field of a bad schema")
def openai_errors():
    schema = {"name": "x", "schema": {"type": "nothing"}}
    form = {"type": "json_schema", "json_schema": schema}
    try:
        client.chat.completions.create(model=MODEL, messages=ASK, response_format=form)
    except openai.BadRequestError as error:
        assert error.param == "response_format" and error.code == "invalid_grammar"
    else:
        raise AssertionError("a schema that makes no sense was followed")


def langchain_model():
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model=MODEL, max_retries=0)


@check("langchain-openai", "chat with image, streamed")
def langchain_chat():
    model = langchain_model()
    pieces = "".join(chunk.content for chunk in model.stream(ASK))
    assert pieces == model.invoke(ASK).content != ""


@check("langchain-openai", "`with_structured_output`, by schema and by function")
def langchain_structured():
    for method in ["json_schema", "function_calling"]:
        structured = langchain_model().with_structured_output(Scene, method=method)
        assert isinstance(structured.invoke(ASK), Scene), method


@check("langchain-openai", "`bind_tools`, and their results")
def langchain_tools():
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_core.tools import tool

    tools = [tool(look)]
    model = langchain_model()
    said = [HumanMessage("Look!")]
    said.append(model.bind_tools(tools, tool_choice="any").invoke(said))
    assert said[-1].tool_calls
    for call in said[-1].tool_calls:
        said.append(ToolMessage(tools[0].invoke(call["args"]), tool_call_id=call["id"]))
    assert model.bind_tools(tools).invoke(said).content


@check("langchain-openai", "`with_structured_output` with tools")
def langchain_tools_or_schema():
    from langchain_core.tools import tool

    structured = langchain_model().with_structured_output(
        Scene, method="json_schema", include_raw=True, tools=[tool(look)], strict=True
    )
    answer = structured.invoke(ASK)
    calls = [look(**call["args"]) for call in answer["raw"].tool_calls]
    assert calls or isinstance(answer["parsed"], Scene), answer


@check("langchain-openai", "responses API")
def langchain_responses():
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model=MODEL, max_retries=0, use_responses_api=True)
    assert model.invoke("Describe a picture.").text
    assert isinstance(model.with_structured_output(Scene).invoke("A scene!"), Scene)


@check("litellm", "chat with image, schema, tools, streamed")
def litellm_all():
    import litellm

    fields = dict(model=f"openai/{MODEL}", api_base=BASE_URL, api_key="none", messages=ASK)
    whole = litellm.completion(**fields).choices[0].message.content
    stream = litellm.completion(stream=True, **fields)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == whole
    answer = litellm.completion(response_format=Scene, **fields)
    Scene.model_validate_json(answer.choices[0].message.content)
    tools = [{"type": "function", "function": LOOK}]
    answer = litellm.completion(tools=tools, tool_choice="required", **fields)
    look(**json.loads(answer.choices[0].message.tool_calls[0].function.arguments))


@check("instructor", "tools, parallel off; JSON schema")
def instructor_all():
    import instructor

    for mode in [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA]:
        patched = instructor.from_openai(client, mode=mode)
        scene = patched.chat.completions.create(
            model=MODEL, messages=ASK, response_model=Scene, max_retries=0
        )
        assert isinstance(scene, Scene), mode


@check("pydantic-ai", "output by tool and by schema, image, tools, tools together with a schema; chat and responses")
def pydantic_ai_all():
    from pydantic_ai import Agent, BinaryContent, NativeOutput
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=BASE_URL, api_key="none")
    picture = BinaryContent(IMAGE.read_bytes(), media_type="image/png")
    for kind in [OpenAIChatModel, OpenAIResponsesModel]:
        for output in [Scene, NativeOutput(Scene)]:
            agent = Agent(kind(MODEL, provider=provider), output_type=output)
            assert isinstance(agent.run_sync(["Describe it.", picture]).output, Scene), kind
        # Output for a schema together with tools.
        agent = Agent(kind(MODEL, provider=provider), output_type=NativeOutput(Scene), tools=[look])
        assert isinstance(agent.run_sync(["Describe it.", picture]).output, Scene), kind
        agent = Agent(kind(MODEL, provider=provider), tools=[look])
        assert agent.run_sync("Describe a picture.").output


@check("llm", "prompt with image, `--schema`, `--tool`")
def llm_all():
    with tempfile.TemporaryDirectory() as home:
        models = pathlib.Path(home) / "extra-openai-models.yaml"
        models.write_text(
            f"- model_id: demo\n  model_name: {MODEL}\n  api_base: {BASE_URL}\n"
            "  vision: true\n  supports_schema: true\n  supports_tools: true\n"
        )
        environment = {**os.environ, "LLM_USER_PATH": home}

        def llm(*arguments):
            program = pathlib.Path(sys.executable).parent / "llm"
            command = [program, "-m", "demo", "--key", "none", *arguments]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            return done.stdout

        assert llm("Describe the picture.", "-a", IMAGE).strip()
        schema = json.dumps(Shape.model_json_schema())
        Shape.model_validate_json(llm("A shape!", "--schema", schema))
        assert llm("Describe a picture.", "--tool", "llm_version").strip()


failed = 0
print("| library | what | works |\n|---|---|---|")
for library, feature, function in CHECKS:
    if sys.argv[2:] and library not in sys.argv[2:]:
        continue
    try:
        function()
        verdict = "yes"
    except Exception:
        failed += 1
        verdict = "no"
        traceback.print_exc()
    print(f"| {library} {importlib.metadata.version(PACKAGES.get(library, library))} | {feature} | {verdict} |", flush=True)
sys.exit(failed > 0)
