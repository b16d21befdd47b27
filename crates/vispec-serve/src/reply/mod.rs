//! The objects that clients receive: complete answers, and the chunks of streamed ones.

mod log_probs;
mod responses;
mod usage;

pub(crate) use responses::{ResponseEvent, ResponseReply};
pub(crate) use usage::Usage;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use vispec::{AnswerCycle, AnswerEnd, Answered, GenerationStats, SpeculationReason, TokenLogProbs};

use crate::endpoint::Endpoint;
use crate::request::{Calls, Delivery, DeliveryMode, Extension};
use crate::tool_calls::{self, Call};

/// One complete answer.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    pub(crate) text: String,
    pub(crate) log_probs: Vec<TokenLogProbs>,
    pub(crate) answered: Option<Answered>,
}

/// Data shared by all objects of one request.
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
    /// Creates a reply to a request whose prompt has `prompt_tokens` tokens.
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

    /// How tool calls are reported.
    pub(crate) fn calls(&self) -> Calls {
        self.delivery.calls
    }

    /// Returns the object of a request whose answers have ended.
    pub(crate) fn whole(&self, choices: &[Choice]) -> Value {
        let kind = match self.endpoint {
            Endpoint::Chat => "chat.completion",
            Endpoint::Completion => "text_completion",
        };
        let mut usage = Usage::default();
        let mut stats = GenerationStats::default();
        let mut told = Vec::with_capacity(choices.len());
        for (index, choice) in choices.iter().enumerate() {
            let end = choice.answered.as_ref();
            let (text, calls) = match self.delivery.calls {
                Calls::Text => (choice.text.clone(), Vec::new()),
                Calls::Told => tool_calls::split(&choice.text),
            };
            let reason = end.and_then(|answered| finish_reason(answered.end, calls.len()));
            let mut object = json!({
                "index": index,
                "logprobs": self.log_probs(&choice.log_probs, 0),
                "finish_reason": reason,
            });
            match self.endpoint {
                Endpoint::Chat => {
                    let mut message =
                        json!({"role": "assistant", "content": text, "refusal": null});
                    if !calls.is_empty() {
                        let numbered = calls.iter().enumerate();
                        let objects = numbered.map(|(n, call)| self.call_object(index, n, call));
                        message["tool_calls"] = objects.collect();
                        if text.is_empty() {
                            message["content"] = Value::Null;
                        }
                    }
                    object["message"] = message;
                }
                Endpoint::Completion => object["text"] = choice.text.as_str().into(),
            }
            if let Some(answered) = end {
                usage.add(answered);
                stats += &answered.stats;
            }
            told.push(object);
        }
        let mut object = self.object(kind, told);
        object["usage"] = usage.object(self.prompt_tokens);
        if self.delivery.extension == Extension::Detail {
            object["vispec"] = statistics(&stats, usage.speculation());
        }
        object
    }

    /// Returns the chunk before the first text of an answer, if the endpoint has one.
    pub(crate) fn first_chunk(&self, index: u32) -> Option<Value> {
        match self.endpoint {
            Endpoint::Chat => {
                let delta = json!({"role": "assistant", "content": ""});
                Some(self.chunk(index, json!({"delta": delta, "finish_reason": null})))
            }
            Endpoint::Completion => None,
        }
    }

    /// Returns the object of the `number`th call of an answer.
    fn call_object(&self, index: usize, number: usize, call: &Call) -> Value {
        json!({
            "id": format!("call_{}_{index}_{number}", self.id.trim_start_matches("chatcmpl-")),
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        })
    }

    /// Returns the chunk with the `number`th call of an answer.
    pub(crate) fn call_chunk(&self, index: u32, number: usize, call: &Call) -> Value {
        let mut object = self.call_object(index as usize, number, call);
        object["index"] = number.into();
        self.chunk(
            index,
            json!({"delta": {"tool_calls": [object]}, "finish_reason": null}),
        )
    }

    /// Returns the chunk of a cycle with the given text, or `None` if it would be empty. `text_len`
    /// is the number of characters of tokens whose log-probabilities were already sent.
    pub(crate) fn cycle_chunk(
        &self,
        index: u32,
        cycle: &AnswerCycle,
        text: &str,
        text_len: usize,
    ) -> Option<Value> {
        let says_nothing = text.is_empty() && cycle.log_probs.is_empty();
        if says_nothing && self.delivery.extension == Extension::None {
            return None;
        }
        let mut choice = match self.endpoint {
            Endpoint::Chat => json!({"delta": {"content": text}, "finish_reason": null}),
            Endpoint::Completion => json!({"text": text, "finish_reason": null}),
        };
        choice["logprobs"] = self.log_probs(&cycle.log_probs, text_len);
        let mut chunk = self.chunk(index, choice);
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

    /// Returns the chunk after all text of an answer and `n_calls` calls.
    pub(crate) fn last_chunk(&self, index: u32, answered: &Answered, n_calls: usize) -> Value {
        let reason = finish_reason(answered.end, n_calls);
        let mut last = self.chunk(
            index,
            match self.endpoint {
                Endpoint::Chat => json!({"delta": {}, "finish_reason": reason}),
                Endpoint::Completion => json!({"text": "", "finish_reason": reason}),
            },
        );
        if self.delivery.extension == Extension::Detail {
            last["vispec"] = statistics(&answered.stats, &answered.speculation);
        }
        last
    }

    /// Returns the chunk after all answers, if the request asked for it.
    pub(crate) fn usage_chunk(&self, usage: &Usage) -> Option<Value> {
        match self.delivery.mode {
            DeliveryMode::Whole | DeliveryMode::Stream => return None,
            DeliveryMode::StreamWithUsage | DeliveryMode::StreamWithRunningUsage => {}
        }
        let mut chunk = self.object(self.chunk_kind(), Vec::new());
        chunk["usage"] = usage.object(self.prompt_tokens);
        Some(chunk)
    }

    fn log_probs(&self, tokens: &[TokenLogProbs], text_len: usize) -> Value {
        match self.endpoint {
            _ if tokens.is_empty() => Value::Null,
            Endpoint::Chat => log_probs::of_chat(tokens),
            Endpoint::Completion => log_probs::of_completion(tokens, text_len),
        }
    }

    fn chunk_kind(&self) -> &'static str {
        match self.endpoint {
            Endpoint::Chat => "chat.completion.chunk",
            Endpoint::Completion => "text_completion",
        }
    }

    fn chunk(&self, index: u32, mut choice: Value) -> Value {
        choice["index"] = index.into();
        if choice.get("logprobs").is_none() {
            choice["logprobs"] = Value::Null;
        }
        let mut chunk = self.object(self.chunk_kind(), vec![choice]);
        match self.delivery.mode {
            DeliveryMode::Whole | DeliveryMode::Stream => {}
            DeliveryMode::StreamWithUsage => chunk["usage"] = Value::Null,
            DeliveryMode::StreamWithRunningUsage => chunk = self.counted(chunk, 0),
        }
        chunk
    }

    /// Adds the token counts so far to a chunk, if the request asked for them.
    pub(crate) fn counted(&self, mut chunk: Value, completion_tokens: usize) -> Value {
        if self.delivery.mode == DeliveryMode::StreamWithRunningUsage {
            chunk["usage"] = json!({
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": self.prompt_tokens + completion_tokens,
            });
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
}

static REPLIES: AtomicU64 = AtomicU64::new(0);

fn finish_reason(end: AnswerEnd, n_calls: usize) -> Option<&'static str> {
    match end {
        AnswerEnd::Stop if n_calls > 0 => Some("tool_calls"),
        AnswerEnd::Stop => Some("stop"),
        AnswerEnd::Length | AnswerEnd::Deadline => Some("length"),
        AnswerEnd::Cancelled => None,
    }
}

fn statistics(stats: &GenerationStats, reasons: &[SpeculationReason]) -> Value {
    json!({
        "speculation_reasons": usage::names(reasons),
        "cycles": stats.n_cycles(),
        "accepted_per_cycle": stats.accepted_per_cycle(),
        "tau": stats.tau(),
        "tokens_per_cycle": stats.tokens_per_cycle(),
        "tokens_per_second": stats.decode_tokens_per_second(),
        "prefill_ms": stats.prefill_time().as_secs_f64() * 1e3,
        "decode_ms": stats.decode_time().as_secs_f64() * 1e3,
    })
}
