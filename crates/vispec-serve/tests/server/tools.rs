//! Tools: required calls, optional calls, and their results.

use std::sync::Arc;

use serde_json::{Value, json};
use vispec_serve::ServeOptions;

use crate::bad_requests::expect_refused;
use crate::running::{Running, chunks};
use crate::scripted::Saying;
use crate::tiny_model::{load_with_tools, model, question};

const CHAT: &str = "/v1/chat/completions";

fn look() -> Value {
    json!({"type": "function", "function": {
        "name": "look",
        "description": "Looks for a colour.",
        "parameters": {
            "type": "object",
            "properties": {"colour": {"enum": ["red", "blue"]}, "large": {"type": "boolean"}},
            "required": ["colour", "large"],
            "additionalProperties": false,
        },
    }})
}

fn count() -> Value {
    let parameters = json!({"type": "object", "properties": {}, "additionalProperties": false});
    json!({"type": "function", "function": {"name": "count", "parameters": parameters}})
}

fn asking(fields: Value) -> Value {
    let mut body = question("What is there?");
    let fields = fields.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(fields);
    body
}

async fn start() -> Running {
    Running::start(Arc::new(load_with_tools()), ServeOptions::default()).await
}

fn check_call(call: &Value) {
    assert!(call["id"].as_str().unwrap().starts_with("call_"));
    assert_eq!(call["type"], "function");
    let arguments = call["function"]["arguments"].as_str().unwrap();
    let arguments: Value = serde_json::from_str(arguments).unwrap();
    match call["function"]["name"].as_str() {
        Some("look") => {
            assert!(["red", "blue"].contains(&arguments["colour"].as_str().unwrap()));
            assert!(arguments["large"].is_boolean());
        }
        Some("count") => assert_eq!(arguments, json!({})),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn calls_that_have_to_be_made_are_made() {
    let server = start().await;
    let named = json!({"type": "function", "function": {"name": "count"}});
    for (choice, parallel) in [
        (json!("required"), true),
        (json!("required"), false),
        (named, true),
    ] {
        let body = asking(json!({
            "tools": [look(), count()], "tool_choice": choice, "parallel_tool_calls": parallel,
            "temperature": 1.0, "seed": 3, "max_tokens": 200,
        }));
        let answer = server.ask(CHAT, &body).await;
        let told = &answer["choices"][0];
        let calls = told["message"]["tool_calls"].as_array().unwrap();
        // Parallel calls may continue until they are cut off in the middle.
        if told["finish_reason"] == "tool_calls" {
            assert_eq!(told["message"]["content"], Value::Null);
        }
        calls.iter().for_each(check_call);
        if choice != "required" || !parallel {
            assert_eq!(
                (calls.len(), &told["finish_reason"]),
                (1, &json!("tool_calls"))
            );
        }
        if choice != "required" {
            assert_eq!(calls[0]["function"]["name"], "count");
        }

        let mut body = body;
        body["stream"] = true.into();
        let chunks = chunks(&server.stream(CHAT, &body).await);
        let deltas = chunks.iter().flat_map(|chunk| {
            let calls = chunk["choices"][0]["delta"]["tool_calls"]
                .as_array()
                .cloned();
            calls.unwrap_or_default()
        });
        let deltas = Vec::from_iter(deltas);
        assert_eq!(deltas.len(), calls.len());
        for (index, (delta, call)) in deltas.iter().zip(calls).enumerate() {
            assert_eq!(delta["index"], index);
            assert_eq!(delta["function"], call["function"]);
        }
        let last = &chunks[chunks.len() - 1]["choices"][0]["finish_reason"];
        assert_eq!(*last, told["finish_reason"]);
    }
}

#[tokio::test]
async fn results_of_calls_are_read() {
    let server = start().await;
    let call = |id: &str| {
        json!({"id": id, "type": "function",
            "function": {"name": "look", "arguments": "{\"colour\": \"red\", \"large\": true}"}})
    };
    let result = |id: &str| json!({"role": "tool", "tool_call_id": id, "content": "found"});
    let mut body = question("What is there?");
    let messages = body["messages"].as_array_mut().unwrap();
    let calls = [call("a"), call("b")];
    messages.push(json!({"role": "assistant", "content": null, "tool_calls": calls}));
    messages.extend([result("b"), result("a")]);
    body["tools"] = json!([look()]);
    let with_results = server.ask(CHAT, &body).await;
    assert!(
        !with_results["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .is_empty()
    );
    // The template tells the model about tools, calls and results.
    let mut without = question("What is there?");
    let prompt_tokens = |answer: &Value| answer["usage"]["prompt_tokens"].as_u64().unwrap();
    let plain = prompt_tokens(&server.ask(CHAT, &without).await);
    without["tools"] = json!([look()]);
    let with_tools = prompt_tokens(&server.ask(CHAT, &without).await);
    assert!(plain + 50 < with_tools && with_tools + 50 < prompt_tokens(&with_results));
    without["tool_choice"] = "none".into();
    assert_eq!(prompt_tokens(&server.ask(CHAT, &without).await), plain);
}

#[tokio::test]
async fn calls_that_may_be_made_are_told_from_text() {
    let text = "Let me see.\n<tool_call>\n{\"name\": \"look\", \"arguments\": {\"colour\": \
        \"red\", \"large\": true}}\n</tool_call>\n<tool_call>\n{\"name\": \"count\", \
        \"arguments\": {}}\n</tool_call>";
    let server = Running::start(Arc::new(Saying(text)), ServeOptions::default()).await;
    let mut body =
        json!({"messages": [{"role": "user", "content": "Hi"}], "tools": [look(), count()]});
    let answer = server.ask(CHAT, &body).await;
    let told = &answer["choices"][0];
    assert_eq!(told["message"]["content"], "Let me see.");
    assert_eq!(told["finish_reason"], "tool_calls");
    let calls = told["message"]["tool_calls"].as_array().unwrap();
    assert_eq!(calls.len(), 2);
    calls.iter().for_each(check_call);
    body["stream"] = true.into();
    let chunks = chunks(&server.stream(CHAT, &body).await);
    let deltas = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]);
    let content = deltas.clone().filter_map(|delta| delta["content"].as_str());
    assert_eq!(content.collect::<String>(), "Let me see.");
    assert_eq!(
        deltas
            .filter(|delta| delta["tool_calls"].is_array())
            .count(),
        2
    );
    // Without tools it is ordinary text.
    body = json!({"messages": [{"role": "user", "content": "Hi"}]});
    let answer = server.ask(CHAT, &body).await;
    assert_eq!(answer["choices"][0]["message"]["content"], text);
}

/// Clients that want structured output while tools are present.
#[tokio::test]
async fn an_answer_is_a_call_or_what_its_schema_says() {
    let server = start().await;
    let schema = json!({
        "type": "object", "properties": {"large": {"type": "boolean"}}, "required": ["large"],
    });
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    let (mut calls, mut texts) = (0, 0);
    for seed in 0..12 {
        let mut body = asking(json!({
            "tools": [look(), count()], "response_format": format, "parallel_tool_calls": false,
            "temperature": 2.0, "seed": seed, "max_tokens": 200,
        }));
        let answer = server.ask(CHAT, &body).await;
        let told = &answer["choices"][0];
        match told["message"]["tool_calls"].as_array() {
            Some(made) => {
                calls += 1;
                assert_eq!(told["finish_reason"], "tool_calls");
                assert_eq!(told["message"]["content"], Value::Null);
                assert_eq!(made.len(), 1);
                check_call(&made[0]);
            }
            None => {
                texts += 1;
                assert_eq!(told["finish_reason"], "stop");
                let text = told["message"]["content"].as_str().unwrap();
                assert!(["{\"large\": true}", "{\"large\": false}"].contains(&text));
            }
        }
        // A required call leaves no room for text.
        body["tool_choice"] = "required".into();
        let answer = server.ask(CHAT, &body).await;
        assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
    }
    assert!(calls > 0 && texts > 0, "{calls} calls, {texts} texts");
}

#[tokio::test]
async fn a_template_without_tools_is_told() {
    let server = Running::start(model(), ServeOptions::default()).await;
    let cases = [(json!({"tools": [look()]}), "tools_unsupported", "tools")];
    expect_refused(&server, &cases).await;
}

#[tokio::test]
async fn tools_that_make_no_sense_are_refused() {
    let server = start().await;
    let of = |name: &str| json!({"type": "function", "function": {"name": name}});
    let result = json!({"role": "tool", "tool_call_id": "x", "content": "found"});
    let call = json!({"id": "x", "function": {"name": "look", "arguments": "red"}});
    let called = json!({"role": "assistant", "tool_calls": [call]});
    let unknown =
        json!({"type": "function", "function": {"name": "f", "parameters": {"type": "x"}}});
    let nonsense = json!({"type": "json_schema", "json_schema": {
        "name": "x", "schema": {"type": "x"},
    }});
    let cases = [
        (
            json!({"tools": [look(), look()]}),
            "invalid_value",
            "tools[1].function.name",
        ),
        (
            json!({"tools": [of("a b")]}),
            "invalid_value",
            "tools[0].function.name",
        ),
        (
            json!({"tools": [{"type": "function"}]}),
            "missing_field",
            "tools[0].function",
        ),
        (
            json!({"tools": [{"type": "web"}]}),
            "unsupported_value",
            "tools[0].type",
        ),
        (
            json!({"tool_choice": "required"}),
            "invalid_value",
            "tool_choice",
        ),
        (
            json!({"tools": [look()], "tool_choice": {"type": "function", "function": {"name": "f"}}}),
            "invalid_value",
            "tool_choice",
        ),
        (
            json!({"tools": [unknown], "tool_choice": "required"}),
            "invalid_tools",
            "tools",
        ),
        (
            json!({"tools": [unknown], "response_format": {"type": "json_object"}}),
            "invalid_tools",
            "tools",
        ),
        (
            json!({"tools": [look()], "response_format": nonsense}),
            "invalid_grammar",
            "response_format",
        ),
        (
            json!({"tools": [look()], "guided_grammar": "start: \"a\""}),
            "unsupported_value",
            "guided_grammar",
        ),
        (
            json!({"messages": [result]}),
            "invalid_value",
            "messages[0].tool_call_id",
        ),
        (
            json!({"messages": [called]}),
            "invalid_value",
            "messages[0].tool_calls[0].function.arguments",
        ),
    ];
    expect_refused(&server, &cases).await;
}
