//! Images at web addresses: fetched within limits if the operator allows it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use vispec::Sampler;
use vispec_serve::{RemoteAddresses, RemoteImageOptions, ServeOptions};

use crate::running::Running;
use crate::tiny_model::{image_file, model, plain};

const CHAT: &str = "/v1/chat/completions";
const ASK: &str = "Describe the image briefly.";

fn options(addresses: RemoteAddresses) -> ServeOptions {
    ServeOptions {
        remote_images: Some(RemoteImageOptions {
            max_bytes: 64 << 10,
            timeout: Duration::from_millis(500),
            addresses,
        }),
        ..ServeOptions::default()
    }
}

fn question(url: &str) -> Value {
    json!({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": ASK},
    ]}]})
}

/// Starts a web server on this machine that answers by path; returns its address.
async fn web() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = vec![0; 4096];
                let len = stream.read(&mut head).await.unwrap();
                let head = String::from_utf8_lossy(&head[..len]).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let ok = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
                let answer = match path.as_str() {
                    "/image.png" => [ok, image_file()].concat(),
                    "/large.png" => [ok, vec![0; 100 << 10]].concat(),
                    "/moved.png" => {
                        b"HTTP/1.1 302 Found\r\nLocation: /image.png\r\nContent-Length: 0\r\n\r\n"
                            .to_vec()
                    }
                    "/slow.png" => {
                        tokio::time::sleep(Duration::from_secs(5)).await;
                        ok
                    }
                    _ => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
                };
                let _ = stream.write_all(&answer).await;
            });
        }
    });
    format!("http://{address}")
}

async fn refusal(server: &Running, url: &str) -> String {
    let response = server.post(CHAT, &question(url)).send().await.unwrap();
    assert_eq!(response.status(), 400, "{url}");
    let error: Value = response.json().await.unwrap();
    assert_eq!(error["error"]["code"], "remote_image", "{url}: {error}");
    error["error"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_image_is_fetched_if_it_may_be() {
    let web = web().await;
    let url = format!("{web}/image.png");
    let server = Running::start(model(), options(RemoteAddresses::Any)).await;
    let answer = server.ask(CHAT, &question(&url)).await;
    let expected = plain(ASK, Sampler::Greedy, 0, 512);
    assert_eq!(answer["choices"][0]["message"]["content"], expected.text);

    let closed = Running::start(model(), ServeOptions::default()).await;
    assert!(refusal(&closed, &url).await.contains("not fetched"));
}

#[tokio::test]
async fn limits_of_size_and_time_are_kept() {
    let web = web().await;
    let server = Running::start(model(), options(RemoteAddresses::Any)).await;
    for (path, named) in [
        ("large.png", "65536 bytes"),
        ("moved.png", "status 302"),
        ("missing.png", "status 404"),
        ("slow.png", "could not be fetched"),
    ] {
        let message = refusal(&server, &format!("{web}/{path}")).await;
        assert!(message.contains(named), "{path}: {message}");
        assert!(
            message.contains("messages[0].content[0].image_url.url"),
            "{message}"
        );
    }
    assert!(
        refusal(&server, "file:///etc/passwd")
            .await
            .contains("expected")
    );
}

/// By number and by name; the message reveals nothing about what is there.
#[tokio::test]
async fn private_addresses_are_not_connected_to() {
    let web = web().await;
    let port = web.rsplit_once(':').unwrap().1.to_owned();
    let server = Running::start(model(), options(RemoteAddresses::Public)).await;
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "2130706433",
        "0x7f.1",
        "[::ffff:127.0.0.1]",
    ] {
        let message = refusal(&server, &format!("http://{host}:{port}/image.png")).await;
        assert!(
            message.ends_with("the image could not be fetched"),
            "{host}: {message}"
        );
    }
}
