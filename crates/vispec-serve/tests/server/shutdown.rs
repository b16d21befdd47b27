//! A shutdown waits for answers, or cuts them off.

use std::time::Duration;

use vispec_serve::{ConnectionLimits, ServeOptions};

use crate::running::{Running, events};
use crate::scripted::Scripted;
use crate::tiny_model::{model, question};

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
async fn nothing_new_is_accepted() {
    let mut server = Running::start(Scripted::new(), options(Duration::from_secs(600))).await;
    assert_eq!(server.get("/health").send().await.unwrap().status(), 200);
    server.stop();
    let (base, client) = (server.base.clone(), server.client.clone());
    server.ended().await;
    assert!(client.get(format!("{base}/health")).send().await.is_err());
}
