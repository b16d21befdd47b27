//! Draws scenes as a dataset of chats: pictures, and a file of questions with the correct answers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use examples_answer::command_line;
use examples_answer::failure::{Failure, exit_code};
use examples_research::chats::{ChatWriter, Shown, taken};
use indicatif::{ProgressBar, ProgressStyle};
use vispec_data::scenes::{Palette, Scene, SceneStyle, Telling, Wording};

/// Draw scenes as a dataset of chats, the input of `capture --source chat`
#[derive(Parser, Debug)]
struct Flags {
    /// Directory for the pictures and chats.jsonl, whose rows refer to them
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Number of scenes
    #[arg(long, default_value_t = 100, allow_negative_numbers = true)]
    count: u64,
    /// Seed of the scenes
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    seed: u64,
    /// Rows and columns of the grid
    #[arg(long, default_value_t = 3, allow_negative_numbers = true)]
    cells: u32,
    /// Minimum number of shapes per scene
    #[arg(long, default_value_t = 2, allow_negative_numbers = true)]
    min_shapes: u32,
    /// Maximum number of shapes per scene
    #[arg(long, default_value_t = 5, allow_negative_numbers = true)]
    max_shapes: u32,
    /// Colours and forms: standard, or carried, which the tiny models know
    #[arg(long, default_value = "standard")]
    palette: Palette,
    /// Side of a picture in pixels; repeat the flag to cycle through several
    #[arg(long = "side", default_value = "84", allow_negative_numbers = true)]
    sides: Vec<u32>,
    /// Draw videos with this many frames per scene, two per second; the shapes move by one cell per
    /// second, and the answers describe the first frame
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=64))]
    frames: Option<u32>,
    /// Question about each picture; repeat the flag to cycle through several
    #[arg(
        long = "question",
        value_name = "TEXT",
        default_value = "Describe the image."
    )]
    questions: Vec<String>,
    /// The form of the answers
    #[arg(long, value_enum, default_value = "description")]
    answer: Answer,
}

/// The form of the answers.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// All shapes by row and column, and the number of shapes of each form
    Description,
    /// One sentence with all shapes, in the vocabulary of the tiny models
    Caption,
}

impl Answer {
    fn about(self, scene: &Scene) -> String {
        match self {
            Self::Description => scene.description(),
            Self::Caption => scene.told(Telling::Sentence, Wording::Even),
        }
    }
}

/// Frames per second of videos.
const FRAMES_PER_SECOND: u32 = 2;

fn main() -> ExitCode {
    let flags: Flags = command_line::parse(env!("CARGO_BIN_NAME"));
    exit_code(|| run(&flags))
}

fn run(flags: &Flags) -> Result<(), Failure> {
    let styles = flags.styles()?;
    if flags.count == 0 {
        return Err(Failure::usage("--count is 0, expected at least 1"));
    }
    let mut chats = ChatWriter::create(&flags.out)?;
    let bar = ProgressBar::new(flags.count);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} scenes, {eta} left") {
        bar.set_style(style);
    }
    for index in 0..flags.count {
        // Every combination of side and question occurs equally often.
        let (style, rest) = taken(&styles, index);
        let (question, _) = taken(&flags.questions, rest);
        let scene = Scene::generate(style, flags.seed, index);
        let shown = match flags.frames {
            None => {
                let name = format!("{index:05}.png");
                save(&scene, &flags.out.join(&name))?;
                Shown::Image(name)
            }
            Some(frames) => {
                let name = format!("{index:05}");
                let folder = flags.out.join(&name);
                fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
                for frame in 0..frames {
                    let file = folder.join(format!("{frame:02}.png"));
                    save(&scene.moved(frame / FRAMES_PER_SECOND), &file)?;
                }
                Shown::Video(format!("{name}@{FRAMES_PER_SECOND}"))
            }
        };
        let answer = flags.answer.about(&scene);
        chats.add(&format!("scene {index}"), &shown, question, &answer)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(chats.finish()?)
}

impl Flags {
    /// Returns one style per side.
    fn styles(&self) -> Result<Vec<SceneStyle>, Failure> {
        let shapes = self.min_shapes..=self.max_shapes;
        let style = |&side| {
            let style = SceneStyle::new(side, self.cells, shapes.clone());
            let style = style.map(|style| style.with_palette(self.palette));
            style.ok_or_else(|| {
                Failure::Usage(format!(
                    "--side {side} --cells {} --min-shapes {} --max-shapes {}: expected 1 to 9 \
                     cells, at least 10 pixels per cell, at most 8192 pixels, and 1 to cells x \
                     cells shapes",
                    self.cells, self.min_shapes, self.max_shapes
                ))
            })
        };
        self.sides.iter().map(style).collect()
    }
}

fn save(scene: &Scene, path: &Path) -> anyhow::Result<()> {
    let saved = scene.draw().save(path);
    saved.with_context(|| path.display().to_string())
}
