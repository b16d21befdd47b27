//! A client that streams one answer and records when its parts arrive.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// Time without data after which an answer counts as failed.
const PATIENCE: Duration = Duration::from_secs(300);
/// Maximum length of a line of a reply.
const LONGEST_LINE: u64 = 1 << 20;

/// One question.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) prompt: String,
    pub(super) max_tokens: usize,
    pub(super) temperature: f64,
    pub(super) seed: u64,
}

/// The answer to a question.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) text: String,
    /// Number of tokens, as reported by the server.
    pub(super) tokens: usize,
    pub(super) asked: Instant,
    /// When each part of the text arrived.
    pub(super) parts: Vec<Instant>,
    pub(super) ended: Instant,
}

impl Answer {
    /// Returns the time to the first part; `None` for an empty answer.
    pub(super) fn first(&self) -> Option<Duration> {
        Some(*self.parts.first()? - self.asked)
    }

    /// Returns the times between parts, with the arrival of the later part.
    pub(super) fn gaps(&self) -> impl Iterator<Item = (Instant, Duration)> {
        let pairs = self.parts.windows(2);
        pairs.map(|pair| (pair[1], pair[1] - pair[0]))
    }
}

/// Sends a question to a server with the OpenAI interface and reads the answer to its end.
pub(super) fn ask(server: SocketAddr, question: &Question) -> Result<Answer> {
    let body = json!({
        "messages": [{"role": "user", "content": question.prompt}],
        "max_tokens": question.max_tokens,
        "temperature": question.temperature,
        "seed": question.seed,
        "stream": true,
        "stream_options": {"include_usage": true},
    })
    .to_string();
    let asked = Instant::now();
    let mut stream = TcpStream::connect(server).context("could not connect to the server")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes())?;
    let mut lines = Lines(BufReader::new(stream));
    let status = lines.next()?.context("the server closed the connection")?;
    ensure!(status.contains(" 200"), "{}", refusal(&status, &mut lines));
    let mut answer = Answer {
        text: String::new(),
        tokens: 0,
        asked,
        parts: Vec::new(),
        ended: asked,
    };
    while let Some(line) = lines.next()? {
        // Header lines and chunk sizes between the events are ignored.
        let Some(event) = line.strip_prefix("data: ") else {
            continue;
        };
        if event == "[DONE]" {
            answer.ended = Instant::now();
            ensure!(answer.tokens > 0, "the server reported no usage");
            return Ok(answer);
        }
        let event: Value = serde_json::from_str(event).context("an event is not JSON")?;
        if let Some(error) = event.get("error") {
            bail!("the answer ended with {error}");
        }
        if let Some(tokens) = event["usage"]["completion_tokens"].as_u64() {
            answer.tokens = usize::try_from(tokens)?;
        }
        match event["choices"][0]["delta"]["content"].as_str() {
            None | Some("") => {}
            Some(text) => {
                answer.text.push_str(text);
                answer.parts.push(Instant::now());
            }
        }
    }
    bail!("the connection ended before the answer")
}

/// Returns the status and body of a refusal.
fn refusal(status: &str, lines: &mut Lines) -> String {
    let mut text = status.to_owned();
    while let Ok(Some(line)) = lines.next() {
        if line.starts_with('{') {
            text = format!("{text}: {line}");
        }
    }
    text
}

struct Lines(BufReader<TcpStream>);

impl Lines {
    /// Returns the next line without its line end; `None` at the end of the connection.
    fn next(&mut self) -> Result<Option<String>> {
        let mut line = Vec::new();
        let mut limited = self.0.by_ref().take(LONGEST_LINE);
        if limited.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let text = String::from_utf8(line).context("a line is not UTF-8")?;
        Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
    }
}
