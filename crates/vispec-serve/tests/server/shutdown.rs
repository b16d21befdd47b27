//! A shutdown lets answers end, or ends them.

use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::json;
use vispec_serve::{ConnectionLimits, ServeOptions};

use crate::running::{Running, events};
use crate::scripted::Scripted;
use crate::tiny_model::{model, question};

const PATH: &str = "/v1/completions";

fn options(shutdown_timeout: Duration) -> ServeOptions {
    ServeOptions {
        connection_limits: ConnectionLimits {
            shutdown_timeout,
            ..ConnectionLimits::default()
        },
        ..ServeOptions::default()
    }
}

#[tokio::test]
async fn answers_that_run_may_end() {
    let mut server = Running::start(model(), options(Duration::from_secs(600))).await;
    let mut body = question("Describe the image briefly.");
    body["stream"] = true.into();
    let response = server
        .post("/v1/chat/completions", &body)
        .send()
        .await
        .unwrap();
    server.stop();
    let text = response.text().await.unwrap();
    assert_eq!(events(&text).last().unwrap(), "[DONE]");
    server.ended().await;
}

#[tokio::test]
async fn answers_that_take_too_long_are_ended_with_an_error() {
    let mut server = Running::start(Scripted::new(), options(Duration::from_millis(50))).await;
    let body = json!({"prompt": "hold", "stream": true});
    let streamed = server.post(PATH, &body).send().await.unwrap();
    let waits = tokio::spawn(server.post(PATH, &json!({"prompt": "hold"})).send());
    server.wait_for("vispec_waiting_requests", 1.0).await;
    server.stop();
    let chunks: Vec<_> = streamed.bytes_stream().collect().await;
    let text: String = chunks
        .into_iter()
        .map(|chunk| String::from_utf8(chunk.unwrap().to_vec()).unwrap())
        .collect();
    assert!(events(&text).last().unwrap().contains("shutting_down"));
    let waited = waits.await.unwrap().unwrap();
    assert_eq!(waited.status(), 503);
    assert!(waited.headers().contains_key("retry-after"));
    server.ended().await;
}

#[tokio::test]
async fn nothing_new_is_accepted() {
    let mut server = Running::start(Scripted::new(), options(Duration::from_secs(600))).await;
    assert_eq!(server.get("/health").send().await.unwrap().status(), 200);
    server.stop();
    let (base, client) = (server.base.clone(), server.client.clone());
    server.ended().await;
    assert!(client.get(format!("{base}/health")).send().await.is_err());
}
