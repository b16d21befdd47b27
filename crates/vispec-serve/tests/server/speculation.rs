//! Whether answers are drafted, how this is reported, and requests that set it.

use std::sync::Arc;

use serde_json::{Value, json};
use vispec_serve::ServeOptions;

use crate::running::Running;
use crate::tiny_model::{load_plain, model, question};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const RESPONSES: &str = "/v1/responses";

#[tokio::test]
async fn what_nothing_can_draft_is_told_or_refused() {
    let server = Running::start(Arc::new(load_plain()), ServeOptions::default()).await;
    let mut chat = question("Describe the image briefly.");
    chat["max_tokens"] = 8.into();
    let response = json!({"model": "tiny", "input": "Hello", "max_output_tokens": 8});
    let completion = json!({"model": "tiny", "prompt": "Hello", "max_tokens": 8});
    for (place, body) in [
        (CHAT, &chat),
        (COMPLETIONS, &completion),
        (RESPONSES, &response),
    ] {
        let plain = server.ask(place, body).await;
        let told = &plain["usage"]["speculation_reasons"];
        assert_eq!(told, &json!(["no_drafter"]), "{place}");
        let mut body = body.clone();
        for stream in [false, true] {
            body["stream"] = stream.into();
            body["speculation"] = "required".into();
            let refused = server.post(place, &body).send().await.unwrap();
            assert_eq!(refused.status(), 400, "{place}");
            let error: Value = refused.json().await.unwrap();
            assert_eq!(error["error"]["param"], "speculation", "{place}: {error}");
            assert_eq!(error["error"]["code"], "speculation_unavailable", "{place}");
        }
    }
    let counted = r#"vispec_speculation_reasons_total{reason="no_drafter"}"#;
    assert!((server.metric(counted).await - 3.0).abs() < 0.5);
}

#[tokio::test]
async fn plain_decoding_can_be_asked_for() {
    let server = Running::start(model(), ServeOptions::default()).await;
    let mut body = question("Describe the image briefly.");
    body["vispec"] = json!({"detail": true});
    let drafted = server.ask(CHAT, &body).await;
    body["speculation"] = "off".into();
    let plain = server.ask(CHAT, &body).await;
    assert_eq!(drafted["choices"], plain["choices"]);
    assert!(drafted["vispec"]["tau"].as_f64().unwrap() > 0.5);
    assert!(plain["vispec"]["tau"].as_f64().unwrap() < 1e-9);
    for usage in ["usage", "vispec"] {
        assert_eq!(drafted[usage]["speculation_reasons"], json!([]));
        assert_eq!(plain[usage]["speculation_reasons"], json!(["not_wanted"]));
    }
    let counted = r#"vispec_speculation_reasons_total{reason="not_wanted"}"#;
    assert!(server.metric(counted).await >= 1.0);
    body["speculation"] = "required".into();
    let required = server.ask(CHAT, &body).await;
    assert_eq!(drafted["choices"], required["choices"]);
    body["speculation"] = "sometimes".into();
    let refused = server.post(CHAT, &body).send().await.unwrap();
    assert_eq!(refused.status(), 400);
    let error: Value = refused.json().await.unwrap();
    assert_eq!(error["error"]["param"], "speculation", "{error}");
}
