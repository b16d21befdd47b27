//! Repeated images are neither decoded nor encoded again, as far as requests leave room for them.

use std::sync::Arc;

use serde_json::{Value, json};
use vispec_serve::{RequestLimits, ServeOptions};

use crate::running::Running;
use crate::tiny_model::{data_url, image_file, load_with};

const CHAT: &str = "/v1/chat/completions";
const KEPT: &str = "vispec_kept_images_memory_bytes";
/// Bytes of a request that are not counted.
const UNCOUNTED: usize = 64 << 10;

fn ask(question: &str) -> Value {
    json!({"max_tokens": 12, "messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": data_url(&image_file())}},
        {"type": "text", "text": question},
    ]}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_comes_again_is_known() {
    let server = Running::start(Arc::new(load_with(0)), ServeOptions::default()).await;
    let mut answers = Vec::new();
    for _ in 0..2 {
        let answer = server.ask(CHAT, &ask("Describe the image briefly.")).await;
        answers.push(answer["choices"].clone());
    }
    assert_eq!(answers[0], answers[1]);
    server.ask(CHAT, &ask("Which colours are there?")).await;
    assert!((server.metric("vispec_mm_cache_queries_total").await - 3.0).abs() < 1e-9);
    assert!((server.metric("vispec_mm_cache_hits_total").await - 2.0).abs() < 1e-9);
    assert!((server.metric("vispec_kept_images").await - 1.0).abs() < 1e-9);
    assert!(server.metric(KEPT).await > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_images_give_way_to_requests() {
    let most = 1 << 20;
    let options = ServeOptions {
        request_limits: RequestLimits {
            max_memory: most,
            max_client_memory: most,
            ..RequestLimits::default()
        },
        ..ServeOptions::default()
    };
    let server = Running::start(Arc::new(load_with(0)), options).await;
    server.ask(CHAT, &ask("Describe the image briefly.")).await;
    assert!(server.metric(KEPT).await > 0.0);
    // A request that takes nearly all of the memory.
    let filler = "x".repeat(most + UNCOUNTED - 200);
    let refused = server.post("/v1/completions", &json!({"prompt": filler}));
    assert_eq!(refused.send().await.unwrap().status(), 400);
    assert!(server.metric(KEPT).await < 1.0);
    server.ask(CHAT, &ask("Describe the image briefly.")).await;
    assert!(server.metric(KEPT).await > 0.0);
}
