//! Questions for a target without data: questions that it asks itself, or built-in ones about
//! pictures.
//!
//! ```text
//! UserTurn ─► Drawing, N at a time ─► Judge ─► draws.jsonl ─┐
//!                            folder of pictures ────────────┴─► questions.jsonl ─► stage 2
//! ```

mod beginnings;
mod draw;
mod draw_log;
mod judge;
mod pictures;
mod user_turn;

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use vispec_core::TreeSize;
use vispec_data::capture::fingerprint;
use vispec_models::{Engine, Method};
use vispec_report::write_whole;

use self::draw::{MAX_TOKENS, TOP_P, draw};
use self::draw_log::{DrawLog, DrawSettings, Written};
use self::user_turn::UserTurn;
use super::flags::{SourceFlags, StageFlags};
use crate::together::Together;
use examples_answer::failure::Failure;

/// Default number of sampled questions.
const DEFAULT_QUESTIONS: usize = 1000;

/// Generates the requested questions, or the remaining ones, and writes them to the file that the
/// flags name.
///
/// # Errors
/// Usage if there are too few pictures; an error if the target asks no usable question; any error
/// of models and files.
pub(super) fn make_questions(
    source: &SourceFlags,
    stage: &StageFlags,
    engine: &Engine,
    (method, tree): (Method, TreeSize),
) -> Result<(), Failure> {
    let rows = if let Some(folder) = &source.images {
        pictures::rows(folder, source.questions)?
    } else {
        let turn = UserTurn::of(engine.processor())?;
        let target = engine.target();
        let settings = DrawSettings {
            target: fingerprint(target.dir())?,
            dtype: target.precision().to_string(),
            questions: source.questions.unwrap_or(DEFAULT_QUESTIONS),
            seed: stage.seed,
            temperature: Written(source.question_temperature),
            top_p: Written(TOP_P),
            max_tokens: MAX_TOKENS,
        };
        let mut log = DrawLog::open(&stage.out, settings)?;
        draw(
            &mut log,
            &turn,
            Together::new(engine, method, stage.batch()),
            tree,
        )?;
        log.rows()
    };
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    keep(&stage.questions(), lines.as_bytes())
}

/// Writes the questions, unless the file already contains them.
fn keep(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if !path.exists() {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        return Ok(write_whole(path, bytes)?);
    }
    let found = fs::read(path).with_context(|| path.display().to_string())?;
    if found == bytes {
        return Ok(());
    }
    let message = format!(
        "{}: holds other questions than these flags produce; use another --out, or read the \
         file with --source chat --as-is",
        path.display()
    );
    Err(anyhow::anyhow!(message).into())
}
