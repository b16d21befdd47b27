//! Features for operators: request ids, pages of other origins, probes, TLS, lenient reading,
//! and answers of a given length.

use std::time::Duration;

use serde_json::{Value, json};
use vispec_serve::{ApiKey, ConnectionLimits, CorsOrigin, ServeOptions, Strictness, Tls};

use crate::running::Running;
use crate::scripted::Scripted;
use crate::tiny_model::{model, question};

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";
const ID: &str = "x-request-id";

#[tokio::test]
async fn every_response_has_the_id_of_its_request() {
    let server = Running::start(Scripted::new(), ServeOptions::default()).await;
    let body = json!({"prompt": "x"});
    let named = server.post(COMPLETIONS, &body).header(ID, "mine-1.2");
    assert_eq!(named.send().await.unwrap().headers()[ID], "mine-1.2");
    let mut given = Vec::new();
    for request in [
        server.post(COMPLETIONS, &body),
        server.post(COMPLETIONS, &json!({"prompt": 1})),
        server.post(COMPLETIONS, &body).header(ID, "not sane"),
        server.get("/nowhere"),
        server.get("/health"),
    ] {
        let response = request.send().await.unwrap();
        let id = response.headers()[ID].to_str().unwrap().to_owned();
        assert!(id.len() >= 16 && id != "not sane", "{id}");
        given.push(id);
    }
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 5);
}

#[tokio::test]
async fn pages_of_named_origins_may_ask() {
    let options = ServeOptions {
        api_key: Some(ApiKey::new("secret").unwrap()),
        cors_origins: vec![CorsOrigin::One("https://a.example".to_owned())],
        ..ServeOptions::default()
    };
    let server = Running::start(Scripted::new(), options).await;
    let preflight = |origin: &'static str| {
        let url = format!("{}{COMPLETIONS}", server.base);
        let request = server.client.request(reqwest::Method::OPTIONS, url);
        let request = request.header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        request.header(
            "access-control-request-headers",
            "authorization,content-type",
        )
    };
    let allowed = preflight("https://a.example").send().await.unwrap();
    // Browsers send preflight requests without the key.
    assert_eq!(allowed.status(), 200);
    let headers = allowed.headers();
    assert_eq!(headers["access-control-allow-origin"], "https://a.example");
    let named = headers["access-control-allow-headers"].to_str().unwrap();
    assert!(named.contains("authorization") && named.contains("content-type"));
    let other = preflight("https://b.example").send().await.unwrap();
    assert!(!other.headers().contains_key("access-control-allow-origin"));
    let ask = server.post(COMPLETIONS, &json!({"prompt": "x"}));
    let ask = ask
        .header("origin", "https://a.example")
        .bearer_auth("secret");
    let answer = ask.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(
        answer.headers()["access-control-allow-origin"],
        "https://a.example"
    );
    let exposed = answer.headers()["access-control-expose-headers"].to_str();
    assert!(exposed.unwrap().contains(ID));

    let closed = Running::start(Scripted::new(), ServeOptions::default()).await;
    let ask = closed.post(COMPLETIONS, &json!({"prompt": "x"}));
    let answer = ask
        .header("origin", "https://a.example")
        .send()
        .await
        .unwrap();
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn probes_tell_life_from_readiness() {
    let options = ServeOptions {
        connection_limits: ConnectionLimits {
            drain: Duration::from_secs(2),
            ..ConnectionLimits::default()
        },
        ..ServeOptions::default()
    };
    let mut server = Running::start(Scripted::new(), options).await;
    for path in ["/health", "/livez", "/readyz"] {
        assert_eq!(
            server.get(path).send().await.unwrap().status(),
            200,
            "{path}"
        );
    }
    server.stop();
    let mut ready = 200;
    while ready == 200 {
        let response = server.get("/readyz").send().await.unwrap();
        ready = response.status().as_u16();
        assert!(ready != 503 || response.headers().contains_key("retry-after"));
    }
    assert_eq!(ready, 503);
    // Requests that still come are answered.
    assert_eq!(server.get("/livez").send().await.unwrap().status(), 200);
    server.ask(COMPLETIONS, &json!({"prompt": "x"})).await;
    server.ended().await;
}

const CERTIFICATE: &[u8] = include_bytes!("../tls/certificate.pem");
const KEY: &[u8] = include_bytes!("../tls/key.pem");

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_encrypted_if_there_is_a_certificate() {
    let options = ServeOptions {
        tls: Some(Tls::from_pem(CERTIFICATE, KEY).unwrap()),
        ..ServeOptions::default()
    };
    let mut server = Running::start(Scripted::new(), options).await;
    let in_clear = server.get("/health").send().await;
    assert!(in_clear.is_err());
    // A client that never starts its handshake holds up nobody.
    let silent = std::net::TcpStream::connect(server.base.strip_prefix("http://").unwrap());
    let root = reqwest::Certificate::from_pem(CERTIFICATE).unwrap();
    let client = reqwest::Client::builder().add_root_certificate(root);
    server.client = client.https_only(true).build().unwrap();
    server.base = server.base.replace("http://", "https://");
    let answer = server.ask(COMPLETIONS, &json!({"prompt": "x"})).await;
    assert_eq!(answer["choices"][0]["text"], "x");
    drop(silent);
}

#[test]
fn files_that_are_no_certificate_are_named() {
    for (certificate, key) in [
        (&b""[..], KEY),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n", KEY),
        (CERTIFICATE, b"nothing"),
        (KEY, KEY),
    ] {
        assert!(Tls::from_pem(certificate, key).is_err());
    }
}

#[tokio::test]
async fn a_lenient_server_names_what_it_leaves_out() {
    let lenient = ServeOptions {
        strictness: Strictness::Lenient,
        ..ServeOptions::default()
    };
    let lenient = Running::start(model(), lenient).await;
    let strict = Running::start(model(), ServeOptions::default()).await;
    let plain = question("Describe the image briefly.");
    let mut asked = plain.clone();
    asked["reasoning_effort"] = "low".into();
    asked["chat_template_kwargs"] = json!({"enable_thinking": false});
    asked["min_p"] = 0.into();
    asked["store"] = true.into();
    asked["messages"][0]["name"] = "ann".into();
    asked["messages"][0]["content"][0]["image_url"]["detail"] = "high".into();
    let refused = strict.post(CHAT, &asked).send().await.unwrap();
    assert_eq!(refused.status(), 400);

    let response = lenient.post(CHAT, &asked).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let named = response.headers()["x-vispec-ignored"].to_str().unwrap();
    let mut named = Vec::from_iter(named.split(", "));
    named.sort_unstable();
    assert_eq!(
        named,
        [
            "chat_template_kwargs",
            "messages[].content[].image_url.detail",
            "messages[].name",
            "reasoning_effort",
            "store",
        ]
    );
    let answer: Value = response.json().await.unwrap();
    let expected = lenient.post(CHAT, &plain).send().await.unwrap();
    assert!(!expected.headers().contains_key("x-vispec-ignored"));
    let expected: Value = expected.json().await.unwrap();
    assert_eq!(answer["choices"], expected["choices"]);

    // Fields that would change the answer remain errors.
    let mut asked = plain;
    asked["min_p"] = 0.1.into();
    asked["unheard_of"] = 1.into();
    let refused = lenient.post(CHAT, &asked).send().await.unwrap();
    assert_eq!(refused.status(), 400);
    let error: Value = refused.json().await.unwrap();
    assert_eq!(error["error"]["param"], "min_p");
}

#[tokio::test]
async fn answers_have_the_length_that_load_generators_ask_for() {
    let server = Running::start(model(), ServeOptions::default()).await;
    let mut body = question("Describe the image briefly.");
    body["max_tokens"] = 200.into();
    let natural = server.ask(CHAT, &body).await;
    assert_eq!(natural["choices"][0]["finish_reason"], "stop");
    let tokens = |answer: &Value| answer["usage"]["completion_tokens"].as_u64().unwrap();
    let n = tokens(&natural);
    for temperature in [0, 1] {
        body["temperature"] = temperature.into();
        body["min_tokens"] = (n + 7).into();
        assert!(tokens(&server.ask(CHAT, &body).await) >= n + 7);
    }
    body["max_tokens"] = (n + 9).into();
    body["ignore_eos"] = true.into();
    let ignoring = server.ask(CHAT, &body).await;
    assert_eq!(tokens(&ignoring), n + 9);
    assert_eq!(ignoring["choices"][0]["finish_reason"], "length");
    body["min_tokens"] = (n + 10).into();
    let refused = server.post(CHAT, &body).send().await.unwrap();
    assert_eq!(refused.status(), 400);
    let error: Value = refused.json().await.unwrap();
    assert_eq!(error["error"]["param"], "min_tokens");
    // A grammar determines the end itself.
    body["min_tokens"] = Value::Null;
    body["guided_choice"] = serde_json::json!(["yes", "no"]);
    let refused = server.post(CHAT, &body).send().await.unwrap();
    let error: Value = refused.json().await.unwrap();
    assert_eq!(error["error"]["param"], "ignore_eos", "{error}");
}
