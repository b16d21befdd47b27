//! Streamed answers: the joined pieces equal the complete answer.

use serde_json::{Value, json};
use vispec::Sampler;
use vispec_serve::ServeOptions;

use crate::running::{Running, chunks};
use crate::tiny_model::{model, plain, plain_completion, question};

const CHAT: &str = "/v1/chat/completions";
const ASK: &str = "Describe the image briefly.";

fn streamed(mut body: Value, fields: Value) -> Value {
    body["stream"] = true.into();
    let fields = fields.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(fields);
    body
}

fn text(chunks: &[Value]) -> String {
    let deltas = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    deltas.collect()
}

#[tokio::test]
async fn the_pieces_are_the_answer() {
    let server = Running::start(model(), ServeOptions::default()).await;
    let events = server
        .stream(CHAT, &streamed(question(ASK), json!({})))
        .await;
    let chunks = chunks(&events);
    let expected = plain(ASK, Sampler::Greedy, 0, 512);
    assert_eq!(text(&chunks), expected.text);
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let (last, others) = chunks.split_last().unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "stop");
    assert_eq!(last["choices"][0]["delta"], json!({}));
    // More than one piece, but fewer pieces than tokens: each chunk is a cycle.
    assert!(others.len() > 2 && others.len() < expected.tokens.len());
    for chunk in &chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(chunk["id"], chunks[0]["id"]);
        assert!(chunk.get("usage").is_none() && chunk.get("vispec").is_none());
    }
    assert!(
        others
            .iter()
            .all(|chunk| chunk["choices"][0]["finish_reason"].is_null())
    );
}

#[tokio::test]
async fn usage_comes_last_if_asked_for() {
    let server = Running::start(model(), ServeOptions::default()).await;
    let usage = json!({"stream_options": {"include_usage": true}, "max_tokens": 9});
    let chunks = chunks(&server.stream(CHAT, &streamed(question(ASK), usage)).await);
    let (last, others) = chunks.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 9);
    assert!(others.iter().all(|chunk| chunk["usage"].is_null()));
    assert_eq!(
        others.last().unwrap()["choices"][0]["finish_reason"],
        "length"
    );
}

/// The options that load generators send to vLLM.
#[tokio::test]
async fn usage_comes_with_every_chunk_if_asked_for() {
    let server = Running::start(model(), ServeOptions::default()).await;
    let running = json!({"include_usage": true, "continuous_usage_stats": true});
    let body = streamed(question(ASK), json!({"stream_options": running}));
    let chunks = chunks(&server.stream(CHAT, &body).await);
    let count = |chunk: &Value, what: &str| chunk["usage"][what].as_u64().unwrap();
    let counts = chunks.iter().map(|chunk| count(chunk, "completion_tokens"));
    let counts = Vec::from_iter(counts);
    let total = plain(ASK, Sampler::Greedy, 0, 512).tokens.len() as u64;
    assert_eq!((counts[0], counts[counts.len() - 1]), (0, total));
    assert!(counts.is_sorted() && counts.iter().filter(|&&n| n > 0 && n < total).count() > 1);
    for chunk in &chunks {
        let tokens = count(chunk, "prompt_tokens") + count(chunk, "completion_tokens");
        assert_eq!(count(chunk, "total_tokens"), tokens);
    }
    let body = streamed(
        question(ASK),
        json!({"stream_options": {"continuous_usage_stats": true}, "max_tokens": 3}),
    );
    let chunks = self::chunks(&server.stream(CHAT, &body).await);
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()));
}

#[tokio::test]
async fn stop_strings_never_show() {
    let server = Running::start(model(), ServeOptions::default()).await;
    let whole = plain(ASK, Sampler::Greedy, 0, 512).text;
    let stop = &whole[whole.len() / 2..whole.len() / 2 + 6];
    let body = streamed(question(ASK), json!({"stop": stop}));
    let chunks = chunks(&server.stream(CHAT, &body).await);
    assert_eq!(text(&chunks), whole[..whole.find(stop).unwrap()]);
    assert_eq!(
        chunks.last().unwrap()["choices"][0]["finish_reason"],
        "stop"
    );
}

#[tokio::test]
async fn details_tell_drafted_text() {
    let server = Running::start(model(), ServeOptions::default()).await;
    let body = streamed(question(ASK), json!({"vispec": {"detail": true}}));
    let chunks = chunks(&server.stream(CHAT, &body).await);
    let (last, others) = chunks.split_last().unwrap();
    let mut accepted = Vec::new();
    let mut drafted = 0;
    for chunk in &others[1..] {
        let detail = &chunk["vispec"];
        let pieces = detail["pieces"].as_array().unwrap();
        let joined: String = pieces
            .iter()
            .map(|piece| piece["text"].as_str().unwrap())
            .collect();
        assert_eq!(chunk["choices"][0]["delta"]["content"], joined);
        drafted += pieces
            .iter()
            .filter(|piece| piece["drafted"] == true)
            .count();
        accepted.push(detail["accepted"].clone());
    }
    assert!(drafted > 0);
    // The first chunk is the prefill, which is not a cycle.
    assert_eq!(last["vispec"]["accepted_per_cycle"], json!(accepted[1..]));
    assert!(last["vispec"]["tau"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn completions_stream_too() {
    let server = Running::start(model(), ServeOptions::default()).await;
    let body = streamed(
        json!({"prompt": ["The picture"]}),
        json!({"max_tokens": 12}),
    );
    let chunks = chunks(&server.stream("/v1/completions", &body).await);
    let texts = chunks
        .iter()
        .map(|chunk| chunk["choices"][0]["text"].as_str().unwrap());
    assert_eq!(
        texts.collect::<String>(),
        plain_completion("The picture", 12).text
    );
}
