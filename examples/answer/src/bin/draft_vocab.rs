//! Counts the tokens of a text corpus and lists the most frequent ones, for `--draft-vocab`.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use examples_answer::command_line;
use examples_answer::failure::{Failure, exit_code};
use indicatif::ProgressBar;
use vispec_core::TokenId;
use vispec_models::{DownloadProgress, DraftVocabFile, resolve_checkpoint};
use vispec_processor::{Processor, SequenceTokens};

/// List the most frequent tokens of a corpus, for a draft that chooses only among these
#[derive(Parser, Debug)]
struct Flags {
    /// Checkpoint whose tokenizer is used: a directory, or an id on the Hugging Face hub
    #[arg(long, value_name = "DIR|HUB_ID")]
    target: String,
    /// Number of tokens to keep
    #[arg(long, value_name = "N", default_value_t = 8192)]
    size: usize,
    /// File to write the list to
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Text files, read line by line; in .jsonl files, every string of each line
    #[arg(required = true, value_name = "FILE")]
    corpus: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let flags: Flags = command_line::parse(env!("CARGO_BIN_NAME"));
    exit_code(|| run(&flags))
}

fn run(flags: &Flags) -> Result<(), Failure> {
    if flags.size == 0 {
        return Err(Failure::usage("--size is 0, expected at least 1"));
    }
    let target = resolve_checkpoint(&flags.target, DownloadProgress::Bars)?;
    let processor = Processor::from_dir(&target)?;
    let mut counts = vec![0_u64; processor.tokenizer().vocab_size()];
    let progress = ProgressBar::new_spinner().with_message("lines read");
    for path in &flags.corpus {
        count(path, &processor, &mut counts, &progress)
            .with_context(|| path.display().to_string())?;
    }
    progress.finish_and_clear();

    let total: u64 = counts.iter().sum();
    // Answers must be able to end, so end-of-sequence tokens are always listed.
    for &token in processor.eos_token_ids() {
        if let Some(count) = counts.get_mut(token as usize) {
            *count = u64::MAX;
        }
    }
    let tokens = most_frequent(&counts, flags.size);
    let covered: u64 = tokens
        .iter()
        .map(|&token| counts[token as usize])
        .filter(|&count| count < u64::MAX)
        .sum();
    let list = DraftVocabFile {
        vocab_size: counts.len(),
        tokens,
    };
    write(&flags.out, &list)?;
    let share = 100.0 * covered as f64 / total.max(1) as f64;
    writeln!(
        io::stdout(),
        "{} of {} tokens; they cover {share:.2} % of the {total} tokens of the corpus",
        list.tokens.len(),
        list.vocab_size,
    )?;
    Ok(())
}

/// Counts the tokens of a file.
fn count(
    path: &Path,
    processor: &Processor,
    counts: &mut [u64],
    progress: &ProgressBar,
) -> anyhow::Result<()> {
    let json = path
        .extension()
        .is_some_and(|extension| extension == "jsonl");
    for (index, line) in BufReader::new(File::open(path)?).lines().enumerate() {
        let line = line.with_context(|| format!("line {}", index + 1))?;
        progress.inc(1);
        let mut texts = Vec::new();
        if json {
            let value = serde_json::from_str(&line);
            strings(
                value.with_context(|| format!("line {}", index + 1))?,
                &mut texts,
            );
        } else {
            texts.push(line);
        }
        for text in texts {
            let ids = processor.tokenizer().encode(&text, SequenceTokens::Omit)?;
            for id in ids {
                if let Some(count) = counts.get_mut(id as usize) {
                    *count += 1;
                }
            }
        }
    }
    Ok(())
}

/// Collects all strings within a value.
fn strings(value: serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::String(text) => found.push(text),
        serde_json::Value::Array(items) => items.into_iter().for_each(|v| strings(v, found)),
        serde_json::Value::Object(fields) => {
            fields
                .into_iter()
                .for_each(|(_, value)| strings(value, found));
        }
        _ => {}
    }
}

/// Returns at most `size` tokens that occur, the most frequent first; the lowest id comes first
/// among equals.
fn most_frequent(counts: &[u64], size: usize) -> Vec<TokenId> {
    let mut tokens: Vec<TokenId> = (0..)
        .zip(counts)
        .filter(|&(_, &count)| count > 0)
        .map(|(token, _)| token)
        .collect();
    tokens.sort_by_key(|&token| (std::cmp::Reverse(counts[token as usize]), token));
    tokens.truncate(size);
    tokens
}

/// Writes the list to a temporary file and renames it.
fn write(path: &Path, list: &DraftVocabFile) -> Result<(), Failure> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, serde_json::to_string(list)?)
        .with_context(|| temporary.display().to_string())?;
    fs::rename(&temporary, path).with_context(|| path.display().to_string())?;
    Ok(())
}
