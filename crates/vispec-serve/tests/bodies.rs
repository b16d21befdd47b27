//! Bodies of any content, including the seeds of the fuzz targets, give requests or error objects.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;
use vispec_serve::{read_chat, read_completion};

fn check(body: &[u8]) {
    for read in [read_chat, read_completion] {
        if let Err(error) = read(body) {
            let error = &error["error"];
            assert!(
                error["message"]
                    .as_str()
                    .is_some_and(|message| !message.is_empty())
            );
            assert!(error["code"].is_string() && error["type"].is_string());
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/server_body");
    let files = std::fs::read_dir(dir).unwrap();
    files
        .map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect()
}

#[test]
fn the_seeds_are_requests() {
    let seeds = seeds();
    assert!(seeds.iter().any(|seed| read_chat(seed).is_ok()));
    assert!(seeds.iter().any(|seed| read_completion(seed).is_ok()));
    let chat = seeds.iter().find(|seed| read_chat(seed).is_ok()).unwrap();
    // Every field with every kind of value.
    let whole: Value = serde_json::from_slice(chat).unwrap();
    for name in whole.as_object().unwrap().keys() {
        for value in [
            "null",
            "true",
            "-1",
            "1e999",
            "\"x\"",
            "[]",
            "[[]]",
            "{\"a\":{}}",
        ] {
            let mut body = whole.clone();
            body[name] = Value::Null;
            let text = body.to_string();
            check(
                text.replacen(
                    &format!("\"{name}\":null"),
                    &format!("\"{name}\":{value}"),
                    1,
                )
                .as_bytes(),
            );
        }
    }
}

#[test]
fn bodies_of_very_many_values_are_refused_before_they_are_built() {
    let code =
        |body: String| read_chat(body.as_bytes()).map_err(|error| error["error"]["code"].clone());
    let zeros = "0,".repeat(1 << 20);
    for values in [zeros.clone(), "[],".repeat(1 << 19) + &zeros] {
        let body = format!("{{\"metadata\":[{values}0],\"messages\":[]}}");
        assert_eq!(code(body).unwrap_err(), "too_many_values");
    }
    // In a string they count as one value.
    let body = format!("{{\"messages\":[{{\"role\":\"user\",\"content\":\"\\\"[{zeros}\\\\\"}}]}}");
    code(body).unwrap();
}

proptest! {
    #[test]
    fn damaged_seeds_are_told_apart(
        index in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        (cut, bytes) in (0..8_usize, prop::collection::vec(any::<u8>(), 0..8)),
    ) {
        let seeds = seeds();
        let mut body = index.get(&seeds).clone();
        let start = at.index(body.len());
        let end = (start + cut).min(body.len());
        body.splice(start..end, bytes);
        check(&body);
    }

    #[test]
    fn any_bytes_will_do(body in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&body);
    }

    #[test]
    fn deep_nesting_will_do(depth in 1..5000_usize) {
        check(format!("{{\"messages\":{}{}}}", "[".repeat(depth), "]".repeat(depth)).as_bytes());
    }
}
