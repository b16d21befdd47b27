//! The objects that clients get: whole answers and the chunks of streamed ones.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use vispec_core::GenerationStats;

use crate::model::{AnswerCycle, AnswerEnd, Answered};
use crate::request::{Delivery, DeliveryMode, Extension};

/// The two ways to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completion,
}

/// What all objects of one answer share.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    endpoint: Endpoint,
    delivery: Delivery,
    id: String,
    created: u64,
    model: String,
    prompt_tokens: usize,
}

impl Reply {
    /// A reply to a request whose prompt has so many tokens.
    pub(crate) fn new(
        endpoint: Endpoint,
        delivery: Delivery,
        model: &str,
        prompt_tokens: usize,
    ) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let since_epoch = since_epoch.unwrap_or_default();
        let prefix = match endpoint {
            Endpoint::Chat => "chatcmpl",
            Endpoint::Completion => "cmpl",
        };
        // Unique within the process by the counter, between processes by the time.
        let number = REPLIES.fetch_add(1, Ordering::Relaxed);
        Self {
            endpoint,
            delivery,
            id: format!("{prefix}-{:x}-{number:x}", since_epoch.as_micros()),
            created: since_epoch.as_secs(),
            model: model.to_owned(),
            prompt_tokens,
        }
    }

    /// A whole answer.
    pub(crate) fn whole(&self, text: &str, answered: &Answered) -> Value {
        let mut choice = json!({
            "index": 0,
            "logprobs": null,
            "finish_reason": finish_reason(answered.end),
        });
        let kind = match self.endpoint {
            Endpoint::Chat => {
                choice["message"] = json!({"role": "assistant", "content": text, "refusal": null});
                "chat.completion"
            }
            Endpoint::Completion => {
                choice["text"] = text.into();
                "text_completion"
            }
        };
        let mut object = self.object(kind, vec![choice]);
        object["usage"] = self.usage(answered);
        if self.delivery.extension == Extension::Detail {
            object["vispec"] = statistics(&answered.stats);
        }
        object
    }

    /// The chunk before the first text, if the endpoint has one.
    pub(crate) fn first_chunk(&self) -> Option<Value> {
        match self.endpoint {
            Endpoint::Chat => {
                let delta = json!({"role": "assistant", "content": ""});
                Some(self.chunk(json!({"delta": delta, "finish_reason": null})))
            }
            Endpoint::Completion => None,
        }
    }

    /// The chunk of a cycle, unless it would say nothing.
    pub(crate) fn cycle_chunk(&self, cycle: &AnswerCycle) -> Option<Value> {
        let text: String = cycle
            .pieces
            .iter()
            .map(|piece| piece.text.as_str())
            .collect();
        if text.is_empty() && self.delivery.extension == Extension::None {
            return None;
        }
        let mut chunk = self.chunk(match self.endpoint {
            Endpoint::Chat => json!({"delta": {"content": text}, "finish_reason": null}),
            Endpoint::Completion => json!({"text": text, "finish_reason": null}),
        });
        if self.delivery.extension == Extension::Detail {
            let pieces = cycle.pieces.iter();
            let pieces = pieces.map(|piece| json!({"text": piece.text, "drafted": piece.drafted}));
            chunk["vispec"] = json!({
                "accepted": cycle.accepted,
                "nodes": cycle.nodes,
                "pieces": Vec::from_iter(pieces),
            });
        }
        Some(chunk)
    }

    /// The chunks after the last text.
    pub(crate) fn last_chunks(&self, answered: &Answered) -> Vec<Value> {
        let reason = finish_reason(answered.end);
        let mut last = self.chunk(match self.endpoint {
            Endpoint::Chat => json!({"delta": {}, "finish_reason": reason}),
            Endpoint::Completion => json!({"text": "", "finish_reason": reason}),
        });
        if self.delivery.extension == Extension::Detail {
            last["vispec"] = statistics(&answered.stats);
        }
        let mut chunks = vec![last];
        if self.delivery.mode == DeliveryMode::StreamWithUsage {
            let mut usage = self.object(self.chunk_kind(), Vec::new());
            usage["usage"] = self.usage(answered);
            chunks.push(usage);
        }
        chunks
    }

    fn chunk_kind(&self) -> &'static str {
        match self.endpoint {
            Endpoint::Chat => "chat.completion.chunk",
            Endpoint::Completion => "text_completion",
        }
    }

    fn chunk(&self, mut choice: Value) -> Value {
        choice["index"] = 0.into();
        choice["logprobs"] = Value::Null;
        let mut chunk = self.object(self.chunk_kind(), vec![choice]);
        if self.delivery.mode == DeliveryMode::StreamWithUsage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn object(&self, kind: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": concat!("vispec-", env!("CARGO_PKG_VERSION")),
            "choices": choices,
        })
    }

    fn usage(&self, answered: &Answered) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": answered.completion_tokens,
            "total_tokens": self.prompt_tokens + answered.completion_tokens,
        })
    }
}

static REPLIES: AtomicU64 = AtomicU64::new(0);

fn finish_reason(end: AnswerEnd) -> Option<&'static str> {
    match end {
        AnswerEnd::Stop => Some("stop"),
        AnswerEnd::Length => Some("length"),
        AnswerEnd::Cancelled => None,
    }
}

fn statistics(stats: &GenerationStats) -> Value {
    json!({
        "cycles": stats.n_cycles(),
        "accepted_per_cycle": stats.accepted_per_cycle(),
        "tau": stats.tau(),
        "tokens_per_cycle": stats.tokens_per_cycle(),
        "tokens_per_second": stats.decode_tokens_per_second(),
        "prefill_ms": stats.prefill_time().as_secs_f64() * 1e3,
        "decode_ms": stats.decode_time().as_secs_f64() * 1e3,
    })
}
