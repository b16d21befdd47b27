//! Objects and events of `/v1/responses`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use vispec::{AnswerEnd, Answered};

use super::Usage;
use crate::request::Calls;
use crate::tool_calls::{Call, CallScanner, Said};

/// A response under construction, complete or streamed.
#[derive(Debug)]
pub(crate) struct ResponseReply {
    id: String,
    created: u64,
    model: String,
    repeated: Map<String, Value>,
    prompt_tokens: usize,
    scanner: Option<CallScanner>,
    /// Finished items.
    output: Vec<Value>,
    /// Text of the message that is being written.
    open: Option<String>,
    events: u64,
}

/// An event of a streamed response: its name and its data.
pub(crate) type ResponseEvent = (&'static str, Value);

impl ResponseReply {
    /// Creates a response to a request whose prompt has `prompt_tokens` tokens; `repeated` are the
    /// request fields that it repeats.
    pub(crate) fn new(
        id: String,
        model: &str,
        prompt_tokens: usize,
        repeated: Map<String, Value>,
        calls: Calls,
    ) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            id,
            created: since_epoch.unwrap_or_default().as_secs(),
            model: model.to_owned(),
            repeated,
            prompt_tokens,
            scanner: match calls {
                Calls::Told => Some(CallScanner::default()),
                Calls::Text => None,
            },
            output: Vec::new(),
            open: None,
            events: 0,
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Returns the events before the first text.
    pub(crate) fn begin(&mut self) -> Vec<ResponseEvent> {
        let names = ["response.created", "response.in_progress"];
        let events = names.map(|name| {
            let response = self.object("in_progress");
            self.event(name, json!({"response": response}))
        });
        events.into()
    }

    /// Takes more text.
    pub(crate) fn take(&mut self, piece: &str) -> Vec<ResponseEvent> {
        let said = match &mut self.scanner {
            Some(scanner) => scanner.push(piece),
            None => vec![Said::Text(piece.to_owned())],
        };
        self.say(said)
    }

    /// Ends the response; returns the last events and the complete response.
    pub(crate) fn end(&mut self, answered: &Answered) -> (Vec<ResponseEvent>, Value) {
        let rest = self.scanner.as_mut().map(CallScanner::finish);
        let mut events = self.say(rest.unwrap_or_default());
        if self.output.is_empty() && self.open.is_none() {
            events.extend(self.open_message());
        }
        let status = match answered.end {
            AnswerEnd::Stop => "completed",
            AnswerEnd::Length | AnswerEnd::Deadline | AnswerEnd::Cancelled => "incomplete",
        };
        events.extend(self.close_message(status));
        let mut response = self.object(status);
        if status == "incomplete" {
            response["incomplete_details"] = json!({"reason": "max_output_tokens"});
        } else {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            response["completed_at"] = now.unwrap_or_default().as_secs().into();
        }
        let mut usage = Usage::default();
        usage.add(answered);
        response["usage"] = usage.of_response(self.prompt_tokens);
        let name = match status {
            "completed" => "response.completed",
            _ => "response.incomplete",
        };
        events.push(self.event(name, json!({"response": response})));
        (events, response)
    }

    /// Returns the event of a response that failed.
    pub(crate) fn fail(&mut self, message: &str) -> ResponseEvent {
        let mut response = self.object("failed");
        response["error"] = json!({"code": "server_error", "message": message});
        self.event("response.failed", json!({"response": response}))
    }

    /// Returns the answer as a chat message.
    pub(crate) fn as_message(&self) -> Value {
        let (mut text, mut calls) = (String::new(), Vec::new());
        for item in &self.output {
            if item["type"] == "message" {
                text.push_str(item["content"][0]["text"].as_str().unwrap_or_default());
            } else {
                let function = json!({"name": item["name"], "arguments": item["arguments"]});
                calls.push(json!({
                    "id": item["call_id"], "type": "function", "function": function,
                }));
            }
        }
        let mut message = json!({"role": "assistant", "content": text});
        if !calls.is_empty() {
            message["tool_calls"] = calls.into();
        }
        message
    }

    fn say(&mut self, said: Vec<Said>) -> Vec<ResponseEvent> {
        let mut events = Vec::new();
        for said in said {
            match said {
                Said::Text(text) if text.is_empty() => {}
                Said::Text(text) => events.extend(self.say_text(&text)),
                Said::Call(call) => {
                    events.extend(self.close_message("completed"));
                    events.extend(self.call(&call));
                }
            }
        }
        events
    }

    fn say_text(&mut self, text: &str) -> Vec<ResponseEvent> {
        let mut events = Vec::new();
        if self.open.is_none() {
            events.extend(self.open_message());
        }
        if let Some(open) = &mut self.open {
            open.push_str(text);
        }
        let place = self.place();
        events.push(self.event(
            "response.output_text.delta",
            with(place, json!({"delta": text, "logprobs": []})),
        ));
        events
    }

    fn open_message(&mut self) -> [ResponseEvent; 2] {
        self.open = Some(String::new());
        let item = self.message("", "in_progress");
        let index = self.output.len();
        let place = self.place();
        let part = json!({"type": "output_text", "text": "", "annotations": [], "logprobs": []});
        let mut item = item;
        item["content"] = json!([]);
        [
            self.event(
                "response.output_item.added",
                json!({"output_index": index, "item": item}),
            ),
            self.event(
                "response.content_part.added",
                with(place, json!({"part": part})),
            ),
        ]
    }

    fn close_message(&mut self, status: &'static str) -> Vec<ResponseEvent> {
        let place = self.place();
        let Some(text) = self.open.take() else {
            return Vec::new();
        };
        let item = self.message(&text, status);
        let part = item["content"][0].clone();
        let index = self.output.len();
        let done = [
            self.event(
                "response.output_text.done",
                with(place.clone(), json!({"text": text, "logprobs": []})),
            ),
            self.event(
                "response.content_part.done",
                with(place, json!({"part": part})),
            ),
            self.event(
                "response.output_item.done",
                json!({"output_index": index, "item": item}),
            ),
        ];
        self.output.push(item);
        done.into()
    }

    fn call(&mut self, call: &Call) -> [ResponseEvent; 4] {
        let index = self.output.len();
        let item_id = self.item_id("fc");
        let item = |arguments: &str, status: &str| {
            json!({
                "type": "function_call",
                "id": item_id,
                "call_id": self.item_id("call"),
                "name": call.name,
                "arguments": arguments,
                "status": status,
            })
        };
        let (added, done) = (item("", "in_progress"), item(&call.arguments, "completed"));
        let place = json!({"item_id": item_id, "output_index": index});
        let events = [
            self.event(
                "response.output_item.added",
                json!({"output_index": index, "item": added}),
            ),
            self.event(
                "response.function_call_arguments.delta",
                with(place.clone(), json!({"delta": call.arguments})),
            ),
            self.event(
                "response.function_call_arguments.done",
                with(
                    place,
                    json!({"name": call.name, "arguments": call.arguments}),
                ),
            ),
            self.event(
                "response.output_item.done",
                json!({"output_index": index, "item": done}),
            ),
        ];
        self.output.push(done);
        events
    }

    /// Returns an id for the next item.
    fn item_id(&self, prefix: &str) -> String {
        let own = self.id.trim_start_matches("resp_");
        format!("{prefix}_{own}_{}", self.output.len())
    }

    fn message(&self, text: &str, status: &str) -> Value {
        let part = json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
        json!({
            "type": "message",
            "id": self.item_id("msg"),
            "status": status,
            "role": "assistant",
            "content": [part],
        })
    }

    /// Fields that locate the text of the message that is being written.
    fn place(&self) -> Value {
        json!({
            "item_id": self.item_id("msg"),
            "output_index": self.output.len(),
            "content_index": 0,
        })
    }

    fn event(&mut self, name: &'static str, fields: Value) -> ResponseEvent {
        let sequence_number = self.events;
        self.events += 1;
        let head = json!({"type": name, "sequence_number": sequence_number});
        (name, with(head, fields))
    }

    fn object(&self, status: &str) -> Value {
        let head = json!({
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": null,
            "incomplete_details": null,
            "model": self.model,
            "output": self.output,
            "reasoning": {"effort": null, "summary": null},
            "usage": null,
        });
        with(head, Value::Object(self.repeated.clone()))
    }
}

/// Merges the fields of both objects.
fn with(mut first: Value, second: Value) -> Value {
    if let (Value::Object(first), Value::Object(second)) = (&mut first, second) {
        first.extend(second);
    }
    first
}
