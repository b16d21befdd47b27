//! `cargo xtask load`: measures how fast a server on this machine answers several concurrent
//! clients.
//!
//! The same questions are asked by one client after another, then by several at a time; ratios
//! compare figures of one run. Any server with OpenAI's chat interface can be measured, so that
//! others can be compared with ours. Only servers on this machine are accepted: otherwise the
//! network would be measured, too.

mod client;
mod plots;
mod summary;

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::json;

use self::client::{Answer, Question, ask};
use self::summary::{Stall, Summary};

/// Subjects of the default questions.
const SUBJECTS: [&str; 16] = [
    "a river",
    "bread",
    "the moon",
    "a bicycle",
    "glass",
    "a market",
    "winter",
    "a library",
    "salt",
    "a bridge",
    "music",
    "a garden",
    "paper",
    "the sea",
    "a clock",
    "tea",
];
/// Time that the others decode before the long prompt arrives.
const BEFORE_LONG: Duration = Duration::from_secs(3);
/// Maximum number of concurrent clients.
const MOST_CLIENTS: usize = 256;

#[derive(clap::Args)]
pub(crate) struct LoadFlags {
    /// Address of the server, on this machine
    #[arg(long, default_value = "127.0.0.1:8000")]
    server: String,
    /// Numbers of clients, each measured in turn
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8])]
    clients: Vec<usize>,
    /// Questions asked with each number of clients
    #[arg(long, default_value_t = 16)]
    requests: usize,
    /// Maximum number of tokens of an answer
    #[arg(long, default_value_t = 96)]
    max_tokens: usize,
    /// Temperature; each question has its own seed
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Number of rounds; the round with the median tokens per second is reported
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// File with questions: lines of JSON with a field `prompt`
    #[arg(long)]
    prompts: Option<PathBuf>,
    /// Also measure how much a prompt of this many words stalls seven other clients
    #[arg(long, value_name = "WORDS")]
    long_prompt: Option<usize>,
    /// Name of the server, for tables and plots
    #[arg(long, default_value = "vispec")]
    name: String,
    /// Folder for load.json, load.md and the plots
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Deserialize)]
struct PromptLine {
    prompt: String,
}

#[expect(clippy::print_stdout, reason = "output of the program")]
pub(crate) fn run(flags: &LoadFlags) -> Result<()> {
    let server = address(&flags.server)?;
    let questions = questions(flags)?;
    let sensible = flags
        .clients
        .iter()
        .all(|clients| (1..=MOST_CLIENTS).contains(clients));
    ensure!(
        sensible,
        "--clients: expected numbers from 1 to {MOST_CLIENTS}"
    );
    // A first request triggers whatever the server loads lazily.
    ask(server, &questions[0])?;
    let mut expected: Option<Vec<String>> = None;
    let mut rounds: Vec<Vec<Summary>> = vec![Vec::new(); flags.clients.len()];
    for _ in 0..flags.rounds.max(1) {
        for (summaries, &clients) in rounds.iter_mut().zip(&flags.clients) {
            let started = Instant::now();
            let answers = ask_all(server, &questions, clients)?;
            let seconds = started.elapsed().as_secs_f64();
            let texts = Vec::from_iter(answers.iter().map(|answer| answer.text.clone()));
            let identical = *expected.get_or_insert_with(|| texts.clone()) == texts;
            summaries.push(Summary::new(clients, &answers, seconds, identical));
        }
    }
    let summaries = Vec::from_iter(rounds.into_iter().map(median));
    let stall = match flags.long_prompt {
        Some(words) => Some(stall(server, flags, words)?),
        None => None,
    };
    let page = page(flags, &summaries, stall.as_ref())?;
    println!("{page}");
    if let Some(out) = &flags.out {
        fs::create_dir_all(out)?;
        let record = json!({ "name": flags.name, "clients": summaries, "long_prompt": stall });
        fs::write(
            out.join("load.json"),
            serde_json::to_string_pretty(&record)?,
        )?;
        fs::write(out.join("load.md"), page)?;
        plots::write(out, &flags.name, &summaries)?;
    }
    Ok(())
}

/// Resolves the address, which must be on this machine.
fn address(server: &str) -> Result<SocketAddr> {
    let wrong = || format!("--server {server}: expected HOST:PORT");
    let mut found = server.to_socket_addrs().with_context(wrong)?;
    let address = found.next().with_context(wrong)?;
    ensure!(
        address.ip().is_loopback(),
        "--server {server}: only servers on this machine are measured"
    );
    Ok(address)
}

fn questions(flags: &LoadFlags) -> Result<Vec<Question>> {
    ensure!(flags.requests > 0, "--requests must be above 0");
    let prompts: Vec<String> = match &flags.prompts {
        None => {
            let ask =
                |subject| format!("Tell me in a few sentences what you know about {subject}.");
            SUBJECTS.map(ask).to_vec()
        }
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            let prompts = lines.enumerate().map(|(index, line)| {
                let row: PromptLine = serde_json::from_str(line)
                    .with_context(|| format!("{}, line {}", path.display(), index + 1))?;
                Ok(row.prompt)
            });
            prompts.collect::<Result<_>>()?
        }
    };
    ensure!(!prompts.is_empty(), "--prompts: the file has no questions");
    let question = |index: usize| Question {
        prompt: prompts[index % prompts.len()].clone(),
        max_tokens: flags.max_tokens,
        temperature: flags.temperature,
        seed: index as u64,
    };
    Ok((0..flags.requests).map(question).collect())
}

/// Asks questions from `clients` threads and returns the answers in the order of the questions.
fn ask_all(server: SocketAddr, questions: &[Question], clients: usize) -> Result<Vec<Answer>> {
    let next = AtomicUsize::new(0);
    let answers: Mutex<Vec<Option<Result<Answer>>>> =
        Mutex::new(questions.iter().map(|_| None).collect());
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(question) = questions.get(index) else {
                        return;
                    };
                    let answer = ask(server, question);
                    answers.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(answer);
                }
            });
        }
    });
    let answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    let answers = answers.into_iter().enumerate();
    answers
        .map(|(index, answer)| {
            let answer = answer.context("a client stopped")?;
            answer.with_context(|| format!("question {index}"))
        })
        .collect()
}

/// Returns the summary with the median tokens per second; it is identical only if all are.
fn median(mut summaries: Vec<Summary>) -> Summary {
    summaries.sort_by(|a, b| a.tokens_per_second.total_cmp(&b.tokens_per_second));
    let identical = summaries.iter().all(|summary| summary.identical);
    let mut middle = summaries.swap_remove(summaries.len() / 2);
    middle.identical = identical;
    middle
}

/// Runs seven clients with long answers, and after some time a client with a long prompt.
fn stall(server: SocketAddr, flags: &LoadFlags, words: usize) -> Result<Stall> {
    let others = Vec::from_iter((0..7).map(|index| Question {
        prompt: format!("Tell me a long story about {}.", SUBJECTS[index]),
        max_tokens: 4 * flags.max_tokens,
        temperature: flags.temperature,
        seed: index as u64,
    }));
    let text = Vec::from_iter((0..words).map(|word| SUBJECTS[word % 16].trim_start_matches("a ")));
    let long = Question {
        prompt: format!("Sum this up: {}", text.join(" ")),
        max_tokens: 8,
        temperature: flags.temperature,
        seed: 0,
    };
    let (long, others) = thread::scope(|scope| {
        let others = scope.spawn(|| ask_all(server, &others, others.len()));
        thread::sleep(BEFORE_LONG);
        let long = ask(server, &long);
        (long, others.join())
    });
    let others = others.map_err(|_| anyhow::anyhow!("a client panicked"))??;
    let stall = Stall::new(&long?, &others);
    stall.context("the long prompt got no answer")
}

fn page(flags: &LoadFlags, summaries: &[Summary], stall: Option<&Stall>) -> Result<String> {
    let mut page = format!(
        "{}: {} questions, at most {} tokens each, temperature {}, median of {} rounds\n\n",
        flags.name, flags.requests, flags.max_tokens, flags.temperature, flags.rounds
    );
    page += "| clients | tokens/s | relative to the first row | first token, median / p95 | \
             between tokens, median / p95 / maximum | same answers as the first run |\n\
             |---|---|---|---|---|---|\n";
    let base = summaries
        .first()
        .map_or(f64::NAN, |first| first.tokens_per_second);
    for summary in summaries {
        let millis = |seconds: f64| format!("{:.0}", 1e3 * seconds);
        let first = summary.first_token.map(millis).join(" / ");
        let between = summary.between_tokens.map(millis).join(" / ");
        let ratio = summary.tokens_per_second / base;
        let identical = if summary.identical { "yes" } else { "NO" };
        writeln!(
            page,
            "| {} | {:.1} | {ratio:.2} x | {first} ms | {between} ms | {identical} |",
            summary.clients, summary.tokens_per_second
        )?;
    }
    if let Some(stall) = stall {
        let millis = |seconds: f64| format!("{:.0} ms", 1e3 * seconds);
        writeln!(
            page,
            "\nA prompt of {} words while seven answers are running: first token after {}. Time \
             between tokens of the others, median / p95: {} before, {} during its prefill \
             (maximum {}).",
            flags.long_prompt.unwrap_or_default(),
            millis(stall.first_token),
            stall.usual.map(millis).join(" / "),
            [stall.meanwhile[0], stall.meanwhile[1]]
                .map(millis)
                .join(" / "),
            millis(stall.meanwhile[2])
        )?;
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_measured() {
        assert!(address("127.0.0.1:80").is_ok());
        assert!(address("[::1]:80").is_ok());
        let error = address("192.0.2.7:80").unwrap_err().to_string();
        assert!(error.contains("only servers on this machine"), "{error}");
        assert!(address("nowhere").is_err());
    }
}
