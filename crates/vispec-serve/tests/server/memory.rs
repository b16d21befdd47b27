//! The memory of all requests is bounded, and small requests never wait for large ones.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use vispec_serve::{
    ConnectionLimits, RemoteAddresses, RemoteImageOptions, RequestLimits, ServeOptions,
};

use crate::running::Running;
use crate::scripted::Scripted;
use crate::tiny_model::model;

const PATH: &str = "/v1/completions";
const HELD: &str = "vispec_request_memory_bytes";
/// Bytes of a request that are not counted.
const UNCOUNTED: usize = 64 << 10;

fn options(max_memory: usize, max_client_memory: usize) -> ServeOptions {
    ServeOptions {
        request_limits: RequestLimits {
            max_memory,
            max_client_memory,
            ..RequestLimits::default()
        },
        ..ServeOptions::default()
    }
}

/// A connection that announced a body of `length` bytes and sent only part of it.
fn begun(server: &Running, length: usize, sent: usize) -> TcpStream {
    let mut stream = TcpStream::connect(server.base.strip_prefix("http://").unwrap()).unwrap();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![b' '; sent]).unwrap();
    stream
}

async fn until_held(server: &Running, bytes: usize) {
    server.wait_for(HELD, bytes as f64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn announced_bodies_hold_nothing() {
    let server = Running::start(Scripted::new(), ServeOptions::default()).await;
    let silent = [(); 40].map(|()| begun(&server, 32 << 20, 1));
    let started = Instant::now();
    let answer = server.ask(PATH, &json!({"prompt": "hello"})).await;
    assert_eq!(answer["choices"][0]["text"], "hello");
    let large = json!({"prompt": "x".repeat(8 << 20)});
    server.ask(PATH, &large).await;
    assert!(started.elapsed() < Duration::from_secs(20));
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_is_bounded_and_small_requests_never_wait() {
    let server = Running::start(Scripted::new(), options(3 << 20, 2 << 20)).await;
    let sent = UNCOUNTED + (1 << 20);
    let held = [(); 2].map(|()| begun(&server, 32 << 20, sent));
    until_held(&server, 2 << 20).await;

    let large = json!({"prompt": "x".repeat(UNCOUNTED)});
    let refused = server.post(PATH, &large).send().await.unwrap();
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "1");
    let error: Value = refused.json().await.unwrap();
    assert_eq!(error["error"]["code"], "memory_full");
    assert_eq!(error["error"]["type"], "rate_limit_error");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("this client") && message.contains("2097152"),
        "{message}"
    );

    let small = json!({"prompt": "x".repeat(UNCOUNTED - 100)});
    server.ask(PATH, &small).await;
    drop(held);
    until_held(&server, 0).await;
    server.ask(PATH, &large).await;
    until_held(&server, 0).await;
}

/// A request that waits or is answered holds the memory of its body.
#[tokio::test(flavor = "multi_thread")]
async fn memory_is_held_until_the_end_of_the_answer() {
    let server = Running::start(Scripted::new(), options(1 << 20, 1 << 20)).await;
    let prompt = format!("hold{}", "x".repeat(UNCOUNTED));
    let body = json!({"prompt": prompt, "stream": true});
    let length = body.to_string().len();
    let answer = server.post(PATH, &body).send().await.unwrap();
    until_held(&server, length - UNCOUNTED).await;
    drop(answer);
    until_held(&server, 0).await;
}

/// A web server on this machine with images of one megabyte.
async fn web() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
                    .await;
                let _ = stream.write_all(&vec![0; 1 << 20]).await;
            });
        }
    });
    format!("http://{address}/image.png")
}

#[tokio::test(flavor = "multi_thread")]
async fn fetched_images_are_of_the_same_budget() {
    let url = web().await;
    let part = json!({"type": "image_url", "image_url": {"url": url}});
    let body = |n| json!({"messages": [{"role": "user", "content": vec![part.clone(); n]}]});
    let remote = ServeOptions {
        remote_images: Some(RemoteImageOptions {
            addresses: RemoteAddresses::Any,
            ..RemoteImageOptions::default()
        }),
        ..options(5 << 19, 5 << 19)
    };
    let server = Running::start(model(), remote).await;
    for (n, status, code) in [(2, 400, "invalid_image"), (3, 429, "memory_full")] {
        let response = server.post("/v1/chat/completions", &body(n));
        let response = response.send().await.unwrap();
        assert_eq!(response.status(), status);
        let error: Value = response.json().await.unwrap();
        assert_eq!(error["error"]["code"], code);
        until_held(&server, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_does_not_take_all_connections() {
    let options = ServeOptions {
        connection_limits: ConnectionLimits {
            max_client_connections: 3,
            ..ConnectionLimits::default()
        },
        ..ServeOptions::default()
    };
    let server = Running::start(Scripted::new(), options).await;
    let address = server.base.strip_prefix("http://").unwrap().to_owned();
    let ask = move || {
        let mut stream = TcpStream::connect(&address).unwrap();
        let head = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(head).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    let open = [(); 3].map(|()| begun(&server, 100, 1));
    let fourth = {
        let ask = ask.clone();
        tokio::task::spawn_blocking(ask).await.unwrap()
    };
    assert!(fourth.starts_with("HTTP/1.1 429"), "{fourth}");
    assert!(fourth.to_lowercase().contains("retry-after: 1"), "{fourth}");
    assert!(fourth.contains("too_many_connections"), "{fourth}");
    drop(open);
    let again = tokio::task::spawn_blocking(move || {
        loop {
            let answer = ask();
            if !answer.starts_with("HTTP/1.1 429") {
                return answer;
            }
        }
    });
    let again = again.await.unwrap();
    assert!(again.starts_with("HTTP/1.1 200"), "{again}");
}
