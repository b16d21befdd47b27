//! Requests that cannot be answered: each gets a status and an error object with the reason.

use serde_json::{Value, json};
use vispec_serve::{RequestLimits, ServeOptions};

use crate::running::Running;
use crate::scripted::Scripted;
use crate::tiny_model::{data_url, image_file, model, question};

const CHAT: &str = "/v1/chat/completions";

async fn refused(server: &Running, path: &str, body: &Value) -> (u16, Value) {
    let response = server.post(path, body).send().await.unwrap();
    let status = response.status().as_u16();
    let answer: Value = response.json().await.unwrap();
    let error = answer["error"].clone();
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|message| !message.is_empty())
    );
    assert!(error["type"].is_string(), "{answer}");
    (status, error)
}

/// Sends each of the fields, and expects the code and the name of the field.
pub async fn expect_refused(server: &Running, cases: &[(Value, &str, &str)]) {
    for (fields, code, param) in cases {
        let mut body = question("Hi");
        let added = fields.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(added);
        let (status, error) = refused(server, CHAT, &body).await;
        assert_eq!(status, 400, "{fields}");
        assert_eq!(error["type"], "invalid_request_error", "{fields}");
        assert_eq!(
            (&error["code"], &error["param"]),
            (&json!(code), &json!(param)),
            "{fields}"
        );
    }
    let counted = server.metric("vispec_requests_total{outcome=\"refused\"}");
    assert!((counted.await - cases.len() as f64).abs() < 0.5);
}

#[tokio::test]
async fn fields_that_would_change_the_answer_are_refused() {
    let server = Running::start(model(), ServeOptions::default()).await;
    let cases = [
        (json!({"n": 9}), "invalid_value", "n"),
        (json!({"n": 0}), "invalid_value", "n"),
        (json!({"best_of": 2}), "unsupported_value", "best_of"),
        (
            json!({"logit_bias": {"5": 101}}),
            "invalid_value",
            "logit_bias.5",
        ),
        (
            json!({"logit_bias": {"cat": 1}}),
            "invalid_value",
            "logit_bias",
        ),
        (
            json!({"logit_bias": {"5": "1"}}),
            "invalid_type",
            "logit_bias.5",
        ),
        (json!({"logit_bias": [5]}), "invalid_type", "logit_bias"),
        (
            json!({"frequency_penalty": 2.5}),
            "invalid_value",
            "frequency_penalty",
        ),
        (
            json!({"presence_penalty": "x"}),
            "invalid_type",
            "presence_penalty",
        ),
        (
            json!({"repetition_penalty": 0}),
            "invalid_value",
            "repetition_penalty",
        ),
        (json!({"logprobs": 1}), "invalid_type", "logprobs"),
        (json!({"top_logprobs": 2}), "invalid_value", "top_logprobs"),
        (
            json!({"logprobs": true, "top_logprobs": 21}),
            "invalid_value",
            "top_logprobs",
        ),
        (
            json!({"functions": [{"name": "f"}]}),
            "unsupported_value",
            "functions",
        ),
        (
            json!({"reasoning_effort": "high"}),
            "unsupported_value",
            "reasoning_effort",
        ),
        (
            json!({"no_such_field": 1}),
            "unknown_field",
            "no_such_field",
        ),
        (json!({"prompt": "x"}), "unknown_field", "prompt"),
    ];
    expect_refused(&server, &cases).await;
}

#[tokio::test]
async fn fields_with_values_that_make_no_sense_are_refused() {
    let server = Running::start(model(), ServeOptions::default()).await;
    let cases = [
        (json!({"max_tokens": 0}), "invalid_value", "max_tokens"),
        (json!({"max_tokens": "5"}), "invalid_type", "max_tokens"),
        (json!({"max_tokens": 1.5}), "invalid_value", "max_tokens"),
        (
            json!({"max_tokens": 5, "max_completion_tokens": 6}),
            "invalid_value",
            "max_tokens",
        ),
        (json!({"temperature": -1}), "invalid_value", "temperature"),
        (json!({"temperature": "hot"}), "invalid_type", "temperature"),
        (
            json!({"temperature": 1, "top_p": 0}),
            "invalid_value",
            "top_p",
        ),
        (json!({"top_k": -2}), "invalid_type", "top_k"),
        (json!({"seed": -1}), "invalid_value", "seed"),
        (json!({"stop": ""}), "invalid_value", "stop"),
        (
            json!({"stop": ["a", "b", "c", "d", "e"]}),
            "invalid_value",
            "stop",
        ),
        (json!({"stop": [1]}), "invalid_type", "stop"),
        (json!({"stream": 1}), "invalid_type", "stream"),
        (
            json!({"stream_options": {"include_usage": true}}),
            "invalid_value",
            "stream_options",
        ),
        (
            json!({"stream": true, "stream_options": {"x": 1}}),
            "unknown_field",
            "stream_options.x",
        ),
        (
            json!({"vispec": {"detail": "yes"}}),
            "invalid_type",
            "vispec.detail",
        ),
    ];
    expect_refused(&server, &cases).await;
}

#[tokio::test]
async fn messages_that_make_no_sense_are_refused() {
    let server = Running::start(model(), ServeOptions::default()).await;
    let user = |content: Value| json!([{"role": "user", "content": content}]);
    let picture = |url: &str| user(json!([{"type": "image_url", "image_url": {"url": url}}]));
    let cases = [
        (json!(null), "missing_field"),
        (json!([]), "invalid_value"),
        (json!({}), "invalid_type"),
        (json!([{"content": "x"}]), "missing_field"),
        (
            json!([{"role": "robot", "content": "x"}]),
            "unsupported_value",
        ),
        (json!([{"role": "tool", "content": "x"}]), "missing_field"),
        (json!([{"role": "user"}]), "missing_field"),
        (
            json!([{"role": "user", "content": "x", "name": "me"}]),
            "unsupported_value",
        ),
        (
            json!([{"role": "user", "content": "x", "colour": 1}]),
            "unknown_field",
        ),
        (user(json!([{"type": "input_audio"}])), "unsupported_value"),
        (user(json!(" ")), "invalid_messages"),
        (user(json!("<|image_pad|>")), "invalid_messages"),
        (picture("https://example.com/x.png"), "remote_image"),
        (picture("file:///etc/passwd"), "remote_image"),
        (picture("data:image/png;base64,!"), "invalid_image"),
        (picture(&data_url(b"no image")), "invalid_image"),
        (picture(&data_url(&image_file()[..400])), "invalid_image"),
        (picture(&data_url(&bomb())), "invalid_image"),
        (user(json!("word ".repeat(5000))), "context_length_exceeded"),
    ];
    for (messages, code) in cases {
        for stream in [false, true] {
            let body = json!({"messages": messages, "stream": stream});
            let (status, error) = refused(&server, CHAT, &body).await;
            let shown = messages.to_string();
            let shown = &shown[..shown.len().min(200)];
            assert_eq!(
                (status, &error["code"]),
                (400, &json!(code)),
                "{shown}: {error}"
            );
            let param = error["param"].as_str().unwrap_or_default();
            assert!(param.starts_with("messages"), "{shown}: {error}");
        }
    }
}

/// Texts of which only the beginning can be tokenised, because they or the template are too long.
#[tokio::test]
async fn prompts_that_are_too_long_by_far_are_told_so_at_once() {
    let server = Running::start(model(), ServeOptions::default()).await;
    let started = std::time::Instant::now();
    let message = |index: usize| {
        let role = ["user", "assistant"][index % 2];
        json!({"role": role, "content": "x"})
    };
    let many: Vec<Value> = (0..50_001).map(message).collect();
    let long = "a ".repeat(15 << 20);
    let cases = [
        (CHAT, json!({"messages": many}), "messages"),
        (
            CHAT,
            json!({"messages": [{"role": "user", "content": long}]}),
            "messages",
        ),
        ("/v1/completions", json!({"prompt": long}), "prompt"),
    ];
    for (path, body, param) in cases {
        let (status, error) = refused(&server, path, &body).await;
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{error}");
        assert_eq!(error["code"], "context_length_exceeded", "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains("at least") && message.contains("4096"),
            "{message}"
        );
    }
    // Without optimisation, tokenising them completely would take minutes.
    assert!(started.elapsed() < std::time::Duration::from_secs(60));
}

#[tokio::test]
async fn the_operator_limits_tokens_and_answers() {
    let options = ServeOptions {
        request_limits: RequestLimits {
            max_answer_tokens: 5,
            max_choices: 2,
            ..RequestLimits::default()
        },
        ..ServeOptions::default()
    };
    let server = Running::start(model(), options).await;
    let cases = [
        (json!({"max_tokens": 6}), "max_tokens", "6", "5"),
        (
            json!({"max_completion_tokens": 1e18 as u64}),
            "max_completion_tokens",
            "1000",
            "5",
        ),
        (json!({"n": 3}), "n", "3", "2"),
    ];
    for (fields, param, found, most) in cases {
        let mut body = question("Hi");
        let added = fields.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(added);
        let (status, error) = refused(&server, CHAT, &body).await;
        assert_eq!((status, &error["code"]), (400, &json!("invalid_value")));
        assert_eq!(error["param"], param);
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains(found) && message.contains(most),
            "{message}"
        );
    }
    // A request without a limit gets the server's limit, which is below the default.
    let mut body = question("Describe the image briefly.");
    body["n"] = json!(2);
    let answer = server.ask(CHAT, &body).await;
    assert_eq!(answer["usage"]["completion_tokens"], 10);
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
}

/// A PNG header that announces 60 000 x 60 000 pixels.
fn bomb() -> Vec<u8> {
    let mut bytes = image_file();
    bytes[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
    bytes[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
    bytes
}

#[tokio::test]
async fn prompts_of_completions_are_one_text() {
    let server = Running::start(model(), ServeOptions::default()).await;
    let cases = [
        (json!({}), "missing_field"),
        (json!({"prompt": ["a", "b"]}), "unsupported_value"),
        (json!({"prompt": [1, 2]}), "unsupported_value"),
        (json!({"prompt": 7}), "invalid_type"),
        (json!({"prompt": "x", "echo": true}), "unsupported_value"),
        (json!({"prompt": "x", "suffix": "y"}), "unsupported_value"),
        (json!({"prompt": "x", "best_of": 3}), "unsupported_value"),
        (json!({"prompt": "x", "messages": []}), "unknown_field"),
        (json!({"prompt": ""}), "invalid_messages"),
    ];
    for (body, code) in cases {
        let (status, error) = refused(&server, "/v1/completions", &body).await;
        assert_eq!((status, &error["code"]), (400, &json!(code)), "{body}");
    }
}

#[tokio::test]
async fn other_models_and_places_are_not_found() {
    let server = Running::start(Scripted::new(), ServeOptions::default()).await;
    let body = json!({"model": "gpt-5", "prompt": "x"});
    let (status, error) = refused(&server, "/v1/completions", &body).await;
    assert_eq!((status, &error["code"]), (404, &json!("model_not_found")));
    let (status, error) = refused(&server, "/v1/audio/speech", &body).await;
    assert_eq!((status, &error["code"]), (404, &json!("not_found")));
    let message = error["message"].as_str().unwrap();
    for place in [
        "POST /v1/chat/completions",
        "POST /v1/completions",
        "GET /v1/models",
        "/health",
    ] {
        assert!(message.contains(place), "{message}");
    }
    let (status, error) = refused(&server, "/v1/models", &body).await;
    assert_eq!(
        (status, &error["code"]),
        (405, &json!("method_not_allowed"))
    );
}

#[tokio::test]
async fn bodies_are_json_and_not_too_long() {
    let options = ServeOptions {
        request_limits: RequestLimits {
            max_body: 1000,
            ..RequestLimits::default()
        },
        ..ServeOptions::default()
    };
    let server = Running::start(Scripted::new(), options).await;
    let cases: [(&str, String, u16); 6] = [
        ("application/json", "{".to_owned(), 400),
        ("application/json", "[]".to_owned(), 400),
        ("application/json", "\u{0}".to_owned(), 400),
        ("application/json", "[".repeat(900), 400),
        ("application/json", " ".repeat(1001), 413),
        ("text/plain", "{\"prompt\": \"x\"}".to_owned(), 415),
    ];
    for (content_type, body, expected) in cases {
        let url = format!("{}/v1/completions", server.base);
        let request = server.client.post(url).header("content-type", content_type);
        let response = request.body(body.clone()).send().await.unwrap();
        let status = response.status().as_u16();
        assert_eq!(status, expected, "{body:.20}");
        let answer: Value = response.json().await.unwrap();
        assert!(answer["error"]["message"].is_string());
    }
}

#[tokio::test]
async fn failures_of_the_model_show_no_paths_and_end_nothing() {
    let server = Running::start(Scripted::new(), ServeOptions::default()).await;
    for prompt in ["fail", "panic"] {
        let response = server.post("/v1/completions", &json!({"prompt": prompt}));
        let response = response.send().await.unwrap();
        assert_eq!(response.status(), 500);
        let text = response.text().await.unwrap();
        assert!(
            text.contains("model_failed") && !text.contains("secret"),
            "{text}"
        );
        let request = json!({"prompt": prompt, "stream": true});
        let events = server.stream("/v1/completions", &request).await;
        assert_eq!(events.len(), 1);
        assert!(events[0].contains("model_failed") && !events[0].contains("secret"));
    }
    let answer = server
        .ask("/v1/completions", &json!({"prompt": "still there"}))
        .await;
    assert_eq!(answer["choices"][0]["text"], "still there");
}

#[tokio::test]
async fn images_are_limited_in_number() {
    let options = ServeOptions {
        request_limits: RequestLimits {
            max_images: 1,
            ..RequestLimits::default()
        },
        ..ServeOptions::default()
    };
    let server = Running::start(model(), options).await;
    let mut body = question("Hi");
    let part = body["messages"][0]["content"][0].clone();
    body["messages"][0]["content"]
        .as_array_mut()
        .unwrap()
        .push(part);
    let (status, error) = refused(&server, CHAT, &body).await;
    assert_eq!((status, &error["code"]), (400, &json!("too_many_images")));
}
