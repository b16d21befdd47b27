//! A tiny model from the repository answers a question about an image, with plain and with
//! speculative decoding. It needs no download.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use examples_answer::command_line;
use examples_answer::demo_pair::DemoPair;
use examples_answer::failure::{Failure, exit_code};
use examples_answer::run::{Run, Settings, answer, warm_up};
use examples_answer::stream::TextStream;
use vispec_core::{AutoTree, GenerationConfig};
use vispec_models::{
    CalibrationPlace, DeviceSpec, DraftVocab, DtypeChoice, EncodedPrompt, Engine, EngineOptions,
    KvPrecision, LayerIds, Method, calibrate,
};
use vispec_processor::{DecodedImage, ImageOptions, Messages};

/// Directory of the tiny models and images in the repository.
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures");

/// Watch a vision-language model answer with plain and with speculative decoding
#[derive(Parser, Debug)]
struct Flags {
    /// Image to ask about, instead of the one that comes with the demo
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// The question; the tiny model was trained only on pictures of coloured shapes
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "Describe the image in detail."
    )]
    prompt: String,
}

fn main() -> ExitCode {
    let flags: Flags = command_line::parse(env!("CARGO_BIN_NAME"));
    exit_code(|| run(&flags))
}

fn run(flags: &Flags) -> Result<(), Failure> {
    let fixtures = Path::new(FIXTURES);
    let image = flags
        .image
        .clone()
        .unwrap_or_else(|| fixtures.join("scenes/three-shapes.png"));
    let images = [DecodedImage::open(&image, &ImageOptions::default())?];
    let engine = Engine::load(&EngineOptions {
        target: fixtures.join("models/qwen-scenes"),
        draft: Some(fixtures.join("drafts/qwen-scenes-q2")),
        draft_vocab: DraftVocab::Auto,
        draft_layer_ids: LayerIds::Auto,
        device: DeviceSpec::Flex.open()?,
        dtype: DtypeChoice::F32,
        kv: KvPrecision::Auto,
    })?;
    let (prompt, _) = engine.encode(&Messages::from_prompt(None, &flags.prompt, 1), &images)?;
    let method = engine.default_method();
    let costs = calibrate(&engine, method, &CalibrationPlace::Nowhere)?.costs;
    let settings = Settings {
        config: GenerationConfig {
            max_new_tokens: 256,
            stop_tokens: engine.processor().eos_token_ids().iter().copied().collect(),
        },
        sampler: vispec_core::Sampler::Greedy,
        seed: 0,
        tree: AutoTree {
            max_loss: DemoPair::MAX_LOSS,
            ..AutoTree::new(Arc::new(costs))
        }
        .into(),
        grammar: None,
    };
    warm_up(&engine, &prompt, &[Method::None, method], &settings)?;

    writeln!(io::stdout(), "image     {}", from_here(&image).display())?;
    writeln!(io::stdout(), "question  {}\n", flags.prompt)?;
    let plain = stream(&engine, &prompt, Method::None, &settings)?;
    let speculative = stream(&engine, &prompt, method, &settings)?;
    print_table(&plain, &speculative)?;
    if plain.generation.tokens == speculative.generation.tokens {
        Ok(())
    } else {
        Err(anyhow::anyhow!("the two answers differ; please report this").into())
    }
}

/// Returns the path relative to the current directory if it lies below it.
fn from_here(path: &Path) -> PathBuf {
    let absolute = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    match std::env::current_dir() {
        Ok(here) => absolute
            .strip_prefix(here)
            .map(Path::to_owned)
            .unwrap_or(absolute),
        Err(_) => absolute,
    }
}

fn stream(
    engine: &Engine,
    prompt: &EncodedPrompt,
    method: Method,
    settings: &Settings,
) -> Result<Run, Failure> {
    writeln!(io::stdout(), "{}:", label(method))?;
    let mut stream = TextStream::new(engine.processor().tokenizer(), io::stdout().lock());
    let run = answer(engine, prompt, method, settings, &mut stream);
    stream.finish()?;
    writeln!(io::stdout())?;
    run
}

fn label(method: Method) -> String {
    match method {
        Method::None => "plain decoding".to_owned(),
        method => format!("speculative decoding ({method})"),
    }
}

fn print_table(plain: &Run, speculative: &Run) -> io::Result<()> {
    let (a, b) = (&plain.generation.stats, &speculative.generation.stats);
    let identical = plain.generation.tokens == speculative.generation.tokens;
    writeln!(
        io::stdout(),
        "{:<26}{:>12}{:>14}",
        "",
        "plain",
        "speculative"
    )?;
    writeln!(
        io::stdout(),
        "{:<26}{:>12}{:>14}",
        "tokens",
        a.new_tokens(),
        b.new_tokens()
    )?;
    writeln!(
        io::stdout(),
        "{:<26}{:>12}{:>14}",
        "passes of the target",
        a.n_cycles() + 1,
        b.n_cycles() + 1
    )?;
    writeln!(
        io::stdout(),
        "{:<26}{:>12}{:>14.2}",
        "tau (accepted per cycle)",
        "-",
        b.tau()
    )?;
    writeln!(
        io::stdout(),
        "{:<26}{:>12.2}{:>14.2}",
        "tokens per cycle",
        a.tokens_per_cycle(),
        b.tokens_per_cycle()
    )?;
    writeln!(
        io::stdout(),
        "{:<26}{:>12.0}{:>14.0}",
        "tokens per second",
        a.decode_tokens_per_second(),
        b.decode_tokens_per_second()
    )?;
    writeln!(io::stdout(), "\ncycles by accepted draft tokens")?;
    let histogram = b.accepted_histogram();
    let most = histogram.iter().copied().max().unwrap_or(1).max(1);
    for (accepted, &cycles) in histogram.iter().enumerate() {
        let width = usize::try_from(cycles * 40 / most).unwrap_or(40);
        writeln!(
            io::stdout(),
            "{accepted:>4}  {:<40}  {cycles}",
            "#".repeat(width)
        )?;
    }
    writeln!(
        io::stdout(),
        "\nidentical: {}",
        if identical { "yes" } else { "no" }
    )
}
