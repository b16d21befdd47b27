//! Answers one prompt about images: text on stdout and notes on stderr, or one JSON object.
#![allow(clippy::print_stderr, reason = "a command-line program")]

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use examples_answer::failure::Failure;
use examples_answer::flags::{DecodeFlags, PromptFlags, SpeculationFlags};
use examples_answer::json_schema::SchemaFlags;
use examples_answer::measured::MeasuredPasses;
use examples_answer::record::{Drafted, Record, Report};
use examples_answer::run::{OuterTimes, Run, Settings, answer, warm_up};
use examples_answer::served::{self, ServedFlags};
use examples_answer::stream::TextStream;
use indicatif::ProgressBar;
use vispec_core::Speculation;
use vispec_models::Method;

/// Answer a prompt, speculatively if there is a draft; the text equals that of plain decoding
#[derive(Parser, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "switches on the command line are independent"
)]
struct Flags {
    #[command(flatten)]
    models: ServedFlags,
    #[command(flatten)]
    prompt: PromptFlags,
    #[command(flatten)]
    decode: DecodeFlags,
    #[command(flatten)]
    speculation: SpeculationFlags,
    #[command(flatten)]
    schema: SchemaFlags,
    /// Decode plainly as well, and compare tokens and speed
    #[arg(long)]
    compare: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let name = env!("CARGO_BIN_NAME");
    served::main(
        name,
        |flags: &mut Flags| (&flags.models, &mut flags.decode),
        run,
    )
}

fn run(flags: &Flags) -> Result<(), Failure> {
    let chat = flags.prompt.read()?;
    let schema = flags.schema.read()?;

    let spinner = ProgressBar::new_spinner().with_message("loading");
    spinner.enable_steady_tick(std::time::Duration::from_millis(100));
    let started = Instant::now();
    let served = flags.models.load(&flags.decode.tree)?;
    let engine = &served.engine;
    let method = flags.speculation.method(served.method)?;
    let load = started.elapsed();
    spinner.set_message("reading the prompt");
    let (prompt, encode) = engine.encode_media(&chat.messages, chat.media())?;
    spinner.finish_and_clear();

    let times = OuterTimes { load, encode };
    let (size, notes) = flags.decode.tree.measured_size(engine, method)?;
    for note in notes {
        eprintln!("{note}");
    }
    let mut passes = MeasuredPasses::new(&size, flags.decode.tree.place());
    let grammar = schema.map(|file| file.compile(engine));
    let settings = Settings {
        grammar: grammar.transpose()?,
        ..Settings::new(&flags.decode, engine, size)?
    };

    let baseline = if flags.compare {
        warm_up(engine, &prompt, &[Method::None, method], &settings)?;
        Some(answer(engine, &prompt, Method::None, &settings, &mut ())?)
    } else {
        None
    };
    let (speculative, drift) = if flags.json {
        let mut nobody = ();
        let mut watched = passes.watch(&mut nobody);
        let speculative = answer(engine, &prompt, method, &settings, &mut watched)?;
        (speculative, watched.drift())
    } else {
        let mut stream = TextStream::new(engine.processor().tokenizer(), io::stdout().lock());
        let mut watched = passes.watch(&mut stream);
        let speculative = answer(engine, &prompt, method, &settings, &mut watched);
        let drift = watched.drift();
        if speculative.is_ok() {
            // A write error explains why a generation was cancelled.
            stream.finish()?;
        } else {
            stream.abandon()?;
        }
        (speculative?, drift)
    };
    if let Some(drift) = drift {
        eprintln!("{}", passes.doubt(engine, method, drift));
    }

    let summary = passes.summary(&speculative);
    let drafted = |wanted, summary, run: &Run| {
        let stats = &run.generation.stats;
        let reasons = engine.speculation_reasons((run.method, wanted), &prompt, stats);
        Drafted::new(wanted, summary, &reasons)
    };
    let told = drafted(flags.speculation.speculation, summary, &speculative);
    let record = Record::new(engine, &speculative, &times, told)?;
    let baseline = baseline
        .map(|run| {
            let told = drafted(Speculation::Off, None, &run);
            Record::new(engine, &run, &times, told)
        })
        .transpose()?;
    let report = Report::new(record, baseline);
    if flags.json {
        writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?;
    } else {
        note(&report);
    }
    Ok(())
}

/// Prints a summary to stderr.
fn note(report: &Report) {
    let record = &report.record;
    eprintln!(
        "{} new tokens, {:.1} tokens/s; {}: tau {:.2}, {:.2} tokens per cycle ({})",
        record.new_tokens,
        record.tokens_per_second,
        record.method,
        record.tau,
        record.tokens_per_cycle,
        record.finish_reason,
    );
    if !record.speculation.summary.is_empty() {
        eprintln!("{}", record.speculation.summary);
    }
    if let (Some(baseline), Some(identical)) = (&report.baseline, report.identical) {
        eprintln!(
            "plain decoding: {:.1} tokens/s; speed-up {:.2}; identical: {}",
            baseline.tokens_per_second,
            report.speedup.unwrap_or(f64::NAN),
            if identical { "yes" } else { "no" },
        );
    }
}
