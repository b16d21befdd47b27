//! Turns of a conversation read only what is new, with the same answers as from scratch.

use std::sync::Arc;

use serde_json::{Value, json};
use vispec_serve::ServeOptions;

use crate::running::Running;
use crate::tiny_model::{data_url, image_file, load_lookup, load_with};

const CHAT: &str = "/v1/chat/completions";

fn ask(image: &[u8], question: &str) -> Value {
    json!({"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": data_url(image)}},
        {"type": "text", "text": question},
    ]})
}

/// The picture in other colours, as a bitmap.
fn other_image() -> Vec<u8> {
    let image = vispec::DecodedImage::from_bytes(&image_file(), &Default::default()).unwrap();
    let size = image.size();
    let (width, height) = (size.width, size.height);
    let padding = (4 - width * 3 % 4) % 4;
    let bytes = (width * 3 + padding) * height;
    let mut file = b"BM".to_vec();
    for field in [54 + bytes, 0, 54, 40, width, height] {
        file.extend(u32::try_from(field).unwrap().to_le_bytes());
    }
    file.extend([1, 0, 24, 0]);
    file.extend([0; 24]);
    for row in image.rgb().chunks_exact(width * 3).rev() {
        file.extend(row.iter().map(|value| 255 - value));
        file.extend(std::iter::repeat_n(0, padding));
    }
    file
}

#[tokio::test]
async fn two_conversations_take_turns() {
    let forgetful = Running::start(Arc::new(load_with(0)), ServeOptions::default()).await;
    let server = Running::start(Arc::new(load_with(64 << 20)), ServeOptions::default()).await;
    let mut chats = [
        vec![ask(&image_file(), "Describe the image briefly.")],
        vec![ask(&other_image(), "Describe the image briefly.")],
    ];
    let mut first = Vec::new();
    for turn in 0..3 {
        for messages in &mut chats {
            let body = json!({"messages": messages});
            let expected = forgetful.ask(CHAT, &body).await;
            let found = server.ask(CHAT, &body).await;
            let said = &found["choices"][0]["message"]["content"];
            assert_eq!(
                said, &expected["choices"][0]["message"]["content"],
                "turn {turn}"
            );
            let usage = |answer: &Value, field: &str| answer["usage"][field].as_u64().unwrap();
            let prompt_tokens = usage(&found, "prompt_tokens");
            assert_eq!(prompt_tokens, usage(&expected, "prompt_tokens"));
            let cached = |answer: &Value| {
                let details = &answer["usage"]["prompt_tokens_details"];
                details["cached_tokens"].as_u64().unwrap()
            };
            assert_eq!(cached(&expected), 0);
            if turn == 0 {
                first.push(prompt_tokens);
            } else {
                // Question, image and answer of the previous turn are not read again.
                assert!(
                    cached(&found) >= first[0],
                    "{} of {prompt_tokens}",
                    cached(&found)
                );
            }
            messages.push(json!({"role": "assistant", "content": said}));
            messages.push(json!({"role": "user", "content": "And the background?"}));
        }
    }
    let reused = server.metric("vispec_prefix_cache_hits_total").await;
    let read = server.metric("vispec_prompt_tokens_total").await;
    assert!(reused > 0.5 * read, "{reused} of {read}");
    assert!(server.metric("vispec_kept_conversations").await >= 2.0);
    assert!(
        server
            .metric("vispec_kept_conversations_memory_bytes")
            .await
            > 0.0
    );
    assert!(forgetful.metric("vispec_prefix_cache_hits_total").await < 0.5);
}

/// Earlier answers are drafts for later ones, for all clients, and the metrics report it.
#[tokio::test]
async fn an_answer_that_was_given_before_takes_fewer_cycles() {
    let server = Running::start(Arc::new(load_lookup()), ServeOptions::default()).await;
    let request = json!({
        "messages": [ask(&image_file(), "Describe the image briefly.")],
        "max_tokens": 48,
        "vispec": {"detail": true},
    });
    let first = server.ask(CHAT, &request).await;
    assert!(
        server
            .metric("vispec_suffix_store_accepted_tokens_total")
            .await
            < 0.5
    );
    let second = server.ask(CHAT, &request).await;
    assert_eq!(first["choices"], second["choices"]);
    let cycles = |answer: &Value| answer["vispec"]["cycles"].as_u64().unwrap();
    assert!(2 * cycles(&second) < cycles(&first), "{first} {second}");
    for metric in [
        "hits_total",
        "accepted_tokens_total",
        "tokens",
        "memory_bytes",
    ] {
        let metric = format!("vispec_suffix_store_{metric}");
        assert!(server.metric(&metric).await > 0.0, "{metric}");
    }
}
