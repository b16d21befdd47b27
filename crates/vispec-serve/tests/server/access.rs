//! Endpoints with and without the key, and input that is not a request at all.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use vispec_serve::{ApiKey, ConnectionLimits, RequestLimits, ServeOptions};

use crate::running::Running;
use crate::scripted::Scripted;

#[tokio::test]
async fn the_model_is_listed() {
    let server = Running::start(Scripted::new(), ServeOptions::default()).await;
    let list: Value = server.look("/v1/models").await;
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"][0]["id"], "org/scripted");
    let one = server.get("/v1/models/org/scripted").send().await.unwrap();
    let one: Value = one.json().await.unwrap();
    assert_eq!(one, list["data"][0]);
    let other = server.get("/v1/models/org/other").send().await.unwrap();
    assert_eq!(other.status(), 404);
}

#[tokio::test]
async fn the_key_protects_answers_and_metrics() {
    let options = ServeOptions {
        api_key: Some(ApiKey::new("secret").unwrap()),
        ..ServeOptions::default()
    };
    let server = Running::start(Scripted::new(), options).await;
    let body = json!({"prompt": "x"});
    for key in [None, Some("wrong"), Some("secre"), Some("")] {
        for request in [
            server.post("/v1/completions", &body),
            server.post("/v1/chat/completions", &body),
            server.get("/v1/models"),
            server.get("/metrics"),
        ] {
            let request = match key {
                Some(key) => request.bearer_auth(key),
                None => request,
            };
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 401);
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
            assert!(response.text().await.unwrap().contains("invalid_api_key"));
        }
    }
    let request = server.post("/v1/completions", &body).bearer_auth("secret");
    assert_eq!(request.send().await.unwrap().status(), 200);
    for open in ["/health", "/"] {
        assert_eq!(server.get(open).send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn the_page_brings_all_that_it_needs() {
    let server = Running::start(Scripted::new(), ServeOptions::default()).await;
    let page = server.get("/").send().await.unwrap();
    let policy = page.headers()["content-security-policy"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(policy.contains("default-src 'none'"));
    let html = page.text().await.unwrap();
    for (path, content_type) in [("/page.js", "text/javascript"), ("/page.css", "text/css")] {
        assert!(html.contains(path), "{html}");
        let part = server.get(path).send().await.unwrap();
        let found = part.headers()["content-type"].to_str().unwrap().to_owned();
        assert!(found.starts_with(content_type));
        assert!(!part.text().await.unwrap().is_empty());
    }
    assert!(!html.contains("http://") && !html.contains("https://"));
}

/// Sends bytes and then waits; returns what the server sends before it closes the connection.
async fn stalled(server: &Running, sent: impl Into<String>) -> String {
    let sent = sent.into();
    let address = server.base.strip_prefix("http://").unwrap().to_owned();
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        // A server that refuses early does not read the rest.
        let _ = stream.write_all(sent.as_bytes());
        let mut answer = Vec::new();
        // A reset also ends the connection.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    });
    answer.await.unwrap()
}

#[tokio::test]
async fn clients_that_send_slowly_are_dropped() {
    let options = ServeOptions {
        request_limits: RequestLimits {
            body_timeout: Duration::from_millis(50),
            ..RequestLimits::default()
        },
        connection_limits: ConnectionLimits {
            header_timeout: Duration::from_millis(50),
            ..ConnectionLimits::default()
        },
        ..ServeOptions::default()
    };
    let server = Running::start(Scripted::new(), options).await;
    let answer = stalled(&server, "POST /v1/completions HTTP/1.1\r\nHost:").await;
    assert!(answer.is_empty() || answer.contains("408"), "{answer}");
    let head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
        Content-Length: 100\r\n\r\n{";
    assert!(stalled(&server, head).await.contains("request_timeout"));
    let answer = stalled(&server, "no request\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    for flood in [
        format!(
            "GET /health HTTP/1.1\r\n{}\r\n",
            "X-Flood: x\r\n".repeat(5000)
        ),
        format!(
            "GET /health HTTP/1.1\r\nX-Flood: {}\r\n\r\n",
            "x".repeat(1 << 20)
        ),
    ] {
        let answer = stalled(&server, flood).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
            "{answer}"
        );
    }
    assert_eq!(server.get("/health").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn requests_name_one_host() {
    let server = Running::start(Scripted::new(), ServeOptions::default()).await;
    for (version, hosts, status) in [
        ("1.1", "", 400),
        ("1.1", "Host: x\r\nHost: x\r\n", 400),
        ("1.1", "Host: x\r\nhost: y\r\n", 400),
        ("1.0", "Host: x\r\nHost: y\r\n", 400),
        ("1.1", "Host: x\r\n", 200),
        ("1.1", "Host:\r\n", 200),
        ("1.0", "", 200),
    ] {
        let head = format!("GET /health HTTP/{version}\r\n{hosts}Connection: close\r\n\r\n");
        let answer = stalled(&server, head.clone()).await;
        assert_eq!(
            answer.split(' ').nth(1),
            Some(&*status.to_string()),
            "{head}{answer}"
        );
        assert_eq!(
            answer.contains("invalid_host"),
            status == 400,
            "{head}{answer}"
        );
    }
}

#[tokio::test]
async fn heads_that_are_too_large_are_told_so() {
    let server = Running::start(Scripted::new(), ServeOptions::default()).await;
    let close = "Host: x\r\nConnection: close\r\n";
    for (status, code, head) in [
        (
            431,
            "headers_too_large",
            format!(
                "/health HTTP/1.1\r\n{close}{}",
                "X-Flood: x\r\n".repeat(500)
            ),
        ),
        (
            431,
            "headers_too_large",
            format!("/health HTTP/1.1\r\n{close}X: {}\r\n", "x".repeat(100_000)),
        ),
        (
            414,
            "path_too_long",
            format!("/{} HTTP/1.1\r\n{close}", "x".repeat(20_000)),
        ),
        (
            400,
            "invalid_path",
            format!("/v1/models/%ff HTTP/1.1\r\n{close}"),
        ),
    ] {
        let answer = stalled(&server, format!("GET {head}\r\n")).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error"]["code"], code);
    }
}
