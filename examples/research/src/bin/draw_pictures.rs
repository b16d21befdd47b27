//! Draws pictures of icon sets as a dataset of chats.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use examples_answer::command_line;
use examples_answer::failure::{Failure, exit_code};
use examples_research::capture::progress::CaptureProgress;
use examples_research::chats::{ChatWriter, Shown, taken};
use vispec_data::icons::{Icons, Look};
use vispec_data::order::numpy_permutation;
use vispec_train::target::pictures::read_pictures;

/// Draw pictures of icon sets as a dataset of chats, the input of `capture --source chat`
///
/// The sets are those that make_target trained a language model on; the answer for each picture is
/// the name of the thing.
#[derive(Parser, Debug)]
struct Flags {
    /// Directory of a make_target run, which contains the index of usable pictures
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Directory with the icon sets, as npm installs @iconify-json/*
    #[arg(long, value_name = "DIR")]
    pictures: PathBuf,
    /// Directory for the pictures and chats.jsonl, whose rows refer to them
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Which pictures to draw
    #[arg(long, value_enum, default_value = "taught")]
    styles: Styles,
    /// Number of pictures
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Seed of the drawing
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Side of a picture in pixels
    #[arg(long, default_value_t = 192, value_parser = clap::value_parser!(u32).range(16..=4096))]
    side: u32,
    /// Question about each picture; repeat the flag to cycle through several
    #[arg(
        long = "question",
        value_name = "TEXT",
        default_value = "Describe this picture in detail."
    )]
    questions: Vec<String>,
}

/// The pictures to draw.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Styles {
    /// Pictures of training sets
    Taught,
    /// Pictures of held-out sets
    HeldOut,
}

fn main() -> ExitCode {
    let flags: Flags = command_line::parse(env!("CARGO_BIN_NAME"));
    exit_code(|| run(&flags))
}

fn run(flags: &Flags) -> Result<(), Failure> {
    let index = read_pictures(&flags.run)?;
    let icons = Icons::open(&flags.pictures, &index)?;
    let pictures = match flags.styles {
        Styles::Taught => &index.taught,
        Styles::HeldOut => &index.held_out,
    };
    // Each picture is used once before any is repeated.
    let order = numpy_permutation(flags.seed, pictures.len());
    let mut chats = ChatWriter::create(&flags.out)?;
    let count = usize::try_from(flags.count).unwrap_or(usize::MAX);
    let mut progress = CaptureProgress::new("pictures", count, 0);
    for number in 0..flags.count {
        let (&place, _) = taken(&order, number);
        let picture = &pictures[place];
        let look = Look::random(flags.seed, number);
        let id = format!("{number:05}-{}", picture.icon);
        let name = format!("{id}.png");
        icons.save((picture, &look, flags.side), &flags.out.join(&name))?;
        let (question, _) = taken(&flags.questions, number);
        let answer = &index.things[picture.thing].name;
        chats.add(&id, &Shown::Image(name), question, answer)?;
        progress.step(1, 0);
    }
    progress.finish();
    Ok(chats.finish()?)
}
