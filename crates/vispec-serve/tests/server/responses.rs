//! `/v1/responses`, and the endpoints for tokens and for information about the server.

use std::sync::Arc;

use serde_json::{Value, json};
use vispec::Sampler;
use vispec_serve::ServeOptions;

use crate::running::Running;
use crate::tiny_model::{data_url, image_file, load_with_tools, model, plain};

const RESPONSES: &str = "/v1/responses";
const ASK: &str = "Describe the image briefly.";

async fn start() -> Running {
    Running::start(model(), ServeOptions::default()).await
}

fn asking(fields: Value) -> Value {
    let content = json!([
        {"type": "input_image", "image_url": data_url(&image_file()), "detail": "auto"},
        {"type": "input_text", "text": ASK},
    ]);
    let mut body = json!({"model": "tiny", "input": [{"role": "user", "content": content}]});
    let fields = fields.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(fields);
    body
}

fn text(response: &Value) -> &str {
    response["output"][0]["content"][0]["text"]
        .as_str()
        .unwrap()
}

/// Returns the name and data of each event.
async fn events(server: &Running, body: &Value) -> Vec<(String, Value)> {
    let response = server.post(RESPONSES, body).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let stream = response.text().await.unwrap();
    let mut events = Vec::new();
    let mut name = String::new();
    for line in stream.lines() {
        if let Some(found) = line.strip_prefix("event: ") {
            found.clone_into(&mut name);
        } else if let Some(data) = line.strip_prefix("data: ") {
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(data["type"], name);
            assert_eq!(data["sequence_number"], events.len());
            events.push((name.clone(), data));
        }
    }
    events
}

#[tokio::test]
async fn a_response_is_the_answer_of_a_chat() {
    let server = start().await;
    let expected = plain(ASK, Sampler::Greedy, 0, 512);
    let response = server.ask(RESPONSES, &asking(json!({}))).await;
    assert_eq!(text(&response), expected.text);
    assert_eq!(response["status"], "completed");
    assert_eq!(response["usage"]["input_tokens"], expected.prompt_tokens);
    assert_eq!(response["usage"]["output_tokens"], expected.tokens.len());
    let cut = server
        .ask(RESPONSES, &asking(json!({"max_output_tokens": 5})))
        .await;
    assert_eq!(cut["status"], "incomplete");
    assert_eq!(cut["incomplete_details"]["reason"], "max_output_tokens");

    let events = events(&server, &asking(json!({"stream": true}))).await;
    let deltas = events
        .iter()
        .filter(|(name, _)| name == "response.output_text.delta");
    let streamed = deltas.map(|(_, data)| data["delta"].as_str().unwrap());
    assert_eq!(streamed.collect::<String>(), expected.text);
    let names = Vec::from_iter(events.iter().map(|(name, _)| name.as_str()));
    let (first, last) = (&names[..4], &names[names.len() - 4..]);
    assert_eq!(
        first,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
        ]
    );
    assert_eq!(
        last,
        [
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let whole = &events[events.len() - 1].1["response"];
    assert_eq!(
        whole["output"][0]["content"],
        response["output"][0]["content"]
    );
}

#[tokio::test]
async fn conversations_go_on_from_a_response() {
    let server = start().await;
    let first = server
        .ask(RESPONSES, &asking(json!({"instructions": "Be brief."})))
        .await;
    let next = |previous: &Value| json!({"input": "And?", "previous_response_id": previous});
    let second = server.ask(RESPONSES, &next(&first["id"])).await;
    let again = json!([
        asking(json!({}))["input"][0],
        {"type": "message", "role": "assistant", "content": [
            {"type": "output_text", "text": text(&first), "annotations": []}]},
        {"role": "user", "content": "And?"},
    ]);
    let spelled_out = server.ask(RESPONSES, &json!({"input": again})).await;
    assert_eq!(text(&second), text(&spelled_out));
    let tokens = |response: &Value| response["usage"]["input_tokens"].as_u64().unwrap();
    assert_eq!(tokens(&second), tokens(&spelled_out));
    let unstored = server
        .ask(RESPONSES, &asking(json!({"store": false})))
        .await;
    for id in [json!("resp_0"), unstored["id"].clone()] {
        let response = server.post(RESPONSES, &next(&id)).send().await.unwrap();
        assert_eq!(response.status(), 400);
        let error: Value = response.json().await.unwrap();
        assert_eq!(error["error"]["code"], "previous_response_not_found");
        assert_eq!(error["error"]["param"], "previous_response_id");
    }
}

#[tokio::test]
async fn schemas_and_tools_have_the_form_of_responses() {
    let server = Running::start(Arc::new(load_with_tools()), ServeOptions::default()).await;
    let schema = json!({"enum": ["red", "blue"]});
    let format = json!({"type": "json_schema", "name": "colour", "schema": schema, "strict": true});
    let response = server
        .ask(RESPONSES, &asking(json!({"text": {"format": format}})))
        .await;
    assert!(["\"red\"", "\"blue\""].contains(&text(&response)));
    let tool = json!({"type": "function", "name": "look", "strict": true, "parameters": {
        "type": "object", "properties": {"at": {"enum": [1, 2]}}, "required": ["at"],
        "additionalProperties": false,
    }});
    let mut body = asking(json!({
        "tools": [tool], "tool_choice": "required", "parallel_tool_calls": false,
    }));
    let response = server.ask(RESPONSES, &body).await;
    let call = &response["output"][0];
    assert_eq!(
        (&call["type"], &call["name"]),
        (&json!("function_call"), &json!("look"))
    );
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["at"].is_u64());
    let output = json!([
        {"type": "function_call_output", "call_id": call["call_id"], "output": "found"},
    ]);
    let next = json!({"input": output, "previous_response_id": response["id"], "tools": [tool]});
    assert!(!text(&server.ask(RESPONSES, &next).await).is_empty());
    let both = asking(json!({"tools": [tool], "text": {"format": format}}));
    let response = server.ask(RESPONSES, &both).await;
    let output = &response["output"][0];
    assert!(
        output["name"] == "look" || ["\"red\"", "\"blue\""].contains(&text(&response)),
        "{response}"
    );
    body["stream"] = true.into();
    let events = events(&server, &body).await;
    let done = events
        .iter()
        .find(|(name, _)| name == "response.function_call_arguments.done");
    assert_eq!(done.unwrap().1["arguments"], call["arguments"]);
}

#[tokio::test]
async fn inputs_that_cannot_be_read_are_named() {
    let server = start().await;
    let cases = [
        (json!({}), "missing_field", "input"),
        (json!({"input": 3}), "invalid_type", "input"),
        (
            json!({"input": [{"type": "reasoning"}]}),
            "unsupported_value",
            "input[0].type",
        ),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}),
            "unsupported_value",
            "input[0].content[0].type",
        ),
        (
            json!({"input": [{"type": "function_call_output", "call_id": "x", "output": ""}]}),
            "invalid_value",
            "input[0].tool_call_id",
        ),
        (
            json!({"input": "Hi", "truncation": "auto"}),
            "unsupported_value",
            "truncation",
        ),
        (
            json!({"input": "Hi", "background": true}),
            "unsupported_value",
            "background",
        ),
        (
            json!({"input": "Hi", "text": {"format": {"type": "json_schema", "name": "x",
                "schema": {"type": "x"}}}}),
            "invalid_grammar",
            "text.format",
        ),
    ];
    for (body, code, param) in cases {
        let response = server.post(RESPONSES, &body).send().await.unwrap();
        assert_eq!(response.status(), 400, "{body}");
        let error: Value = response.json().await.unwrap();
        let error = &error["error"];
        assert_eq!(
            (&error["code"], &error["param"]),
            (&json!(code), &json!(param)),
            "{body}"
        );
    }
}

#[tokio::test]
async fn tokens_and_the_server_are_told() {
    let server = start().await;
    let text = "The picture shows <|im_end|>";
    let told = server.ask("/tokenize", &json!({"prompt": text})).await;
    let back = json!({"tokens": told["tokens"]});
    assert_eq!(server.ask("/detokenize", &back).await["prompt"], text);
    assert_eq!(told["count"], told["tokens"].as_array().unwrap().len());
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let chat = server
        .ask("/tokenize", &json!({"messages": messages}))
        .await;
    let answer = json!({"messages": messages, "max_tokens": 1});
    let answer = server.ask("/v1/chat/completions", &answer).await;
    assert_eq!(chat["count"], answer["usage"]["prompt_tokens"]);
    let models: Value = server.look("/v1/models").await;
    assert!(models["data"][0]["max_model_len"].as_u64().unwrap() > 0);
    assert_eq!(models["data"][0]["max_model_len"], chat["max_model_len"]);
    let version: Value = server.look("/version").await;
    assert!(version["version"].is_string());
    for (path, body, code) in [
        (
            "/v1/embeddings",
            json!({"input": "Hi"}),
            "embeddings_unsupported",
        ),
        (
            "/tokenize",
            json!({"prompt": "a ".repeat(200_000)}),
            "context_length_exceeded",
        ),
        (
            "/tokenize",
            json!({"prompt": "a", "add_special_tokens": false}),
            "unsupported_value",
        ),
        ("/detokenize", json!({"tokens": [-1]}), "invalid_type"),
    ] {
        let response = server.post(path, &body).send().await.unwrap();
        assert_eq!(response.status(), 400, "{path}");
        let error: Value = response.json().await.unwrap();
        assert_eq!(error["error"]["code"], code, "{path}");
    }
}
