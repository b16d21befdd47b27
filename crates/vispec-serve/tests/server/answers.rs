//! Complete answers equal those of plain decoding.

use serde_json::{Value, json};
use vispec::Sampler;
use vispec_serve::ServeOptions;

use crate::running::Running;
use crate::tiny_model::{model, plain, plain_completion, question};

const CHAT: &str = "/v1/chat/completions";
const ASK: &str = "Describe the image briefly.";

async fn start() -> Running {
    Running::start(model(), ServeOptions::default()).await
}

fn with(mut body: Value, fields: Value) -> Value {
    let fields = fields.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(fields);
    body
}

#[tokio::test]
async fn a_chat_about_an_image_is_answered() {
    let server = start().await;
    let expected = plain(ASK, Sampler::Greedy, 0, 512);
    let answer = server.ask(CHAT, &question(ASK)).await;
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], "tiny");
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["role"], "assistant");
    assert_eq!(choice["message"]["content"], expected.text);
    assert_eq!(choice["finish_reason"], "stop");
    let (prompt, new) = (expected.prompt_tokens, expected.tokens.len());
    let usage = &answer["usage"];
    assert_eq!(usage["prompt_tokens"], prompt);
    assert_eq!(usage["completion_tokens"], new);
    assert_eq!(usage["total_tokens"], prompt + new);
    let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64();
    assert!(cached.is_some_and(|cached| (cached as usize) < prompt));
    assert!(answer.get("vispec").is_none());
}

#[tokio::test]
async fn sampled_answers_follow_the_seed() {
    let server = start().await;
    let mut texts = Vec::new();
    for seed in 0..4 {
        let settings = json!({
            "temperature": 1.5, "top_p": 0.9, "top_k": 40, "seed": seed,
            "max_completion_tokens": 24, "vispec": {"detail": true},
        });
        let answer = server.ask(CHAT, &with(question(ASK), settings)).await;
        let top_k = std::num::NonZeroUsize::new(40);
        let sampler = Sampler::new(1.5, Some(0.9), top_k).unwrap();
        let expected = plain(ASK, sampler, seed, 24);
        let content = &answer["choices"][0]["message"]["content"];
        assert_eq!(*content, expected.text, "seed {seed}");
        assert_eq!(answer["usage"]["completion_tokens"], expected.tokens.len());
        assert!(answer["vispec"]["cycles"].as_u64().unwrap() > 0);
        texts.push(expected.text);
    }
    texts.sort();
    texts.dedup();
    assert!(texts.len() > 1, "the seed changes nothing");
}

#[tokio::test]
async fn a_limit_of_tokens_is_kept() {
    let server = start().await;
    for max_tokens in [1, 2, 7] {
        let body = with(question(ASK), json!({"max_tokens": max_tokens}));
        let answer = server.ask(CHAT, &body).await;
        let expected = plain(ASK, Sampler::Greedy, 0, max_tokens);
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
        assert_eq!(answer["choices"][0]["message"]["content"], expected.text);
        assert_eq!(answer["usage"]["completion_tokens"], max_tokens);
    }
}

#[tokio::test]
async fn every_stop_string_cuts_where_it_begins() {
    let server = start().await;
    let expected = plain(ASK, Sampler::Greedy, 0, 512);
    let text = &expected.text;
    let starts = Vec::from_iter(text.char_indices().map(|(start, _)| start));
    // Strings of five characters cross the borders of tokens and of cycles.
    for window in starts.windows(6).step_by(5) {
        let stop = &text[window[0]..window[5]];
        let cut = text.find(stop).unwrap();
        let body = with(question(ASK), json!({"stop": ["never", stop]}));
        let answer = server.ask(CHAT, &body).await;
        let choice = &answer["choices"][0];
        assert_eq!(choice["message"]["content"], text[..cut], "{stop:?}");
        assert_eq!(choice["finish_reason"], "stop");
        // Tokens up to the one that completes the stop string, whatever else its cycle yielded.
        let mut len = 0;
        let complete = expected.pieces.iter().position(|piece| {
            len += piece.len();
            len >= cut + stop.len()
        });
        let tokens = complete.unwrap() + 1;
        assert_eq!(answer["usage"]["completion_tokens"], tokens, "{stop:?}");
    }
}

#[tokio::test]
async fn a_text_is_continued() {
    let server = start().await;
    let body = json!({"model": "tiny", "prompt": "The picture shows", "max_tokens": 20});
    let answer = server.ask("/v1/completions", &body).await;
    let expected = plain_completion("The picture shows", 20);
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["choices"][0]["text"], expected.text);
    assert_eq!(answer["usage"]["prompt_tokens"], expected.prompt_tokens);
    assert_eq!(answer["usage"]["completion_tokens"], expected.tokens.len());
}

#[tokio::test]
async fn neutral_and_unset_fields_change_nothing() {
    let server = start().await;
    let neutral = json!({
        "n": 1, "frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "tools": [],
        "tool_choice": "none", "response_format": {"type": "text"}, "logprobs": false,
        "top_logprobs": null, "user": "someone", "stop": null, "seed": null, "store": false,
        "modalities": ["text"], "stream": false, "top_p": 1, "temperature": 0, "max_tokens": 8,
    });
    let answer = server.ask(CHAT, &with(question(ASK), neutral)).await;
    let expected = plain(ASK, Sampler::Greedy, 0, 8);
    assert_eq!(answer["choices"][0]["message"]["content"], expected.text);
}

#[tokio::test]
async fn what_was_answered_is_measured() {
    let server = start().await;
    let answer = server.ask(CHAT, &question(ASK)).await;
    let new = answer["usage"]["completion_tokens"].as_f64().unwrap();
    let metric = async |name: &str| server.metric(name).await;
    assert!((metric("vispec_generation_tokens_total").await - new).abs() < 1e-9);
    assert!((metric("vispec_requests_total{outcome=\"stop\"}").await - 1.0).abs() < 1e-9);
    let cycles = metric("vispec_cycles_total").await;
    let accepted = metric("vispec_spec_decode_num_accepted_tokens_total").await;
    assert!(accepted > 0.0 && cycles > 0.0);
    assert!((metric("vispec_tau").await - accepted / cycles).abs() < 1e-9);
    let per_pos = "vispec_spec_decode_num_accepted_tokens_per_pos_total";
    let position = |position| format!("{per_pos}{{position=\"{position}\"}}");
    let (one, two) = (metric(&position(0)).await, metric(&position(1)).await);
    assert!(one >= two && two > 0.0 && one <= cycles);
    assert!(metric("vispec_verified_nodes_total").await > cycles);
    assert!(metric("vispec_phase_seconds_total{phase=\"verify\"}").await > 0.0);
    assert!((metric("vispec_time_to_first_token_seconds_count").await - 1.0).abs() < 1e-9);
    let between = metric("vispec_inter_token_latency_seconds_count").await;
    assert!((between - cycles).abs() < 1e-9, "{between} of {cycles}");
    assert!((metric("vispec_request_queue_time_seconds_count").await - 1.0).abs() < 1e-9);
    assert!(metric("vispec_resident_memory_bytes").await > 0.0);
}
