//! Log-probabilities in the formats of the two endpoints.

use serde_json::{Map, Value, json};
use vispec::TokenLogProbs;

/// Stands for a probability of 0, for which JSON has no number; OpenAI uses the same value.
const IMPOSSIBLE: f32 = -9999.0;

/// The log-probability object of a chat.
pub(super) fn of_chat(tokens: &[TokenLogProbs]) -> Value {
    let content = tokens.iter().map(|token| {
        let mut object = entry(&token.token, token.log_prob);
        let top = token
            .top
            .iter()
            .map(|(text, log_prob)| entry(text, *log_prob));
        object["top_logprobs"] = top.collect();
        object
    });
    json!({"content": Value::from_iter(content), "refusal": null})
}

fn entry(text: &str, log_prob: f32) -> Value {
    // A token that is part of a character has bytes that its text does not show.
    let bytes = (!text.contains(char::REPLACEMENT_CHARACTER)).then_some(text.as_bytes());
    json!({"token": text, "logprob": number(log_prob), "bytes": bytes})
}

/// The log-probability object of a completion whose earlier tokens have `text_len` characters.
pub(super) fn of_completion(tokens: &[TokenLogProbs], text_len: usize) -> Value {
    let mut offset = text_len;
    let offsets = tokens.iter().map(|token| {
        let start = offset;
        offset += token.token.chars().count();
        start
    });
    let offsets = Vec::from_iter(offsets);
    let top = tokens.iter().map(|token| {
        let entries = token.top.iter();
        Map::from_iter(entries.map(|(text, log_prob)| (text.clone(), number(*log_prob))))
    });
    json!({
        "tokens": Vec::from_iter(tokens.iter().map(|token| &token.token)),
        "token_logprobs": Vec::from_iter(tokens.iter().map(|token| number(token.log_prob))),
        "top_logprobs": Vec::from_iter(top),
        "text_offset": offsets,
    })
}

fn number(log_prob: f32) -> Value {
    Value::from(log_prob.max(IMPOSSIBLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str, log_prob: f32) -> TokenLogProbs {
        TokenLogProbs {
            token: text.to_owned(),
            log_prob,
            top: vec![(text.to_owned(), log_prob)],
        }
    }

    #[test]
    fn both_forms_hold_every_token() {
        let tokens = [token("ä", -0.5), token("\u{fffd}", f32::NEG_INFINITY)];
        let chat = of_chat(&tokens);
        assert_eq!(chat["content"][0]["bytes"], json!([0xc3, 0xa4]));
        assert_eq!(chat["content"][0]["top_logprobs"][0]["logprob"], -0.5);
        assert_eq!(chat["content"][1]["bytes"], Value::Null);
        assert_eq!(chat["content"][1]["logprob"], -9999.0);
        let completion = of_completion(&tokens, 3);
        assert_eq!(completion["text_offset"], json!([3, 4]));
        assert_eq!(completion["token_logprobs"], json!([-0.5, -9999.0]));
        assert_eq!(completion["top_logprobs"][0], json!({"ä": -0.5}));
    }
}
