//! Answers of the language model about words.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use vispec_data::capture::fingerprint;
use vispec_data::icons::IconIndex;
use vispec_models::DeviceSpec;
use vispec_train::target::pictures::{
    ANSWERS_FILE, PictureQuestion, PictureTarget, WordAnswer, read_answers,
};

use super::{Question, answer_all, load};
use crate::capture::progress::CaptureProgress;
use crate::ranks::Interrupted;
use examples_answer::failure::Failure;
use vispec_report::write_whole;

/// The settings that determine the answers, stored in a file next to them.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct AnswerSettings {
    /// Hash of the language model.
    language_model: String,
    questions: Vec<PictureQuestion>,
    max_new_tokens: usize,
    /// Names of the things.
    things: Vec<String>,
}

/// Name of the settings file.
const SETTINGS_FILE: &str = "answers.json";

/// Generates the missing answers of `run`'s language model about `index`.
///
/// # Errors
/// If the answers were generated with other settings; any error of the model and of files; an error
/// after an interruption, from which the same call resumes.
pub fn write_word_answers(
    run: &PictureTarget,
    index: &IconIndex,
    device: DeviceSpec,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    let questions = &run.config.questions;
    check_settings(run, index)?;
    let path = run.prepared.join(ANSWERS_FILE);
    let at = || path.display().to_string();
    let there = read_answers(&path)?;
    let total = index.things.len() * questions.len();
    if there.len() >= total {
        return Ok(());
    }
    let engine = load(&run.language_model, device)?;
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(at)?;
    // A kill may have left a partial line.
    let text = std::fs::read(&path).with_context(at)?;
    let whole = text.iter().rposition(|&byte| byte == b'\n');
    file.set_len(whole.map_or(0, |end| end as u64 + 1))
        .with_context(at)?;
    let mut progress = CaptureProgress::new("answers about words", total, there.len());
    let places = (0..index.things.len()).flat_map(|thing| {
        let questions = questions.iter().enumerate();
        questions.map(move |(number, question)| (thing, number, question))
    });
    let missing = places
        .filter(|&(thing, number, _)| !there.contains_key(&(thing, number)))
        .take_while(|_| !stop.load(Ordering::Relaxed))
        .map(|(thing, number, question)| {
            Ok(Question {
                key: (thing, number),
                text: question.about(&index.things[thing]),
                image: None,
            })
        });
    let mut written = there.len();
    answer_all(
        &engine,
        run.config.max_new_tokens,
        missing,
        |(thing, question), tokens| {
            let answer = WordAnswer {
                thing,
                question,
                tokens: tokens.to_vec(),
            };
            let line = serde_json::to_string(&answer)?;
            writeln!(file, "{line}").with_context(at)?;
            written += 1;
            progress.step(1, 0);
            Ok(())
        },
    )?;
    progress.finish();
    if written < total {
        return Err(Interrupted::Preparing.into());
    }
    Ok(())
}

fn check_settings(run: &PictureTarget, index: &IconIndex) -> Result<(), Failure> {
    let settings = AnswerSettings {
        language_model: fingerprint(&run.language_model)?,
        questions: run.config.questions.clone(),
        max_new_tokens: run.config.max_new_tokens,
        things: index
            .things
            .iter()
            .map(|thing| thing.name.clone())
            .collect(),
    };
    let path = run.prepared.join(SETTINGS_FILE);
    if !path.exists() {
        return Ok(write_whole(&path, &serde_json::to_vec(&settings)?)?);
    }
    let found = read_settings(&path)?;
    if found == settings {
        return Ok(());
    }
    let message = format!(
        "{}: the answers next to it come from another language model, other pictures, or other \
         questions; use another --out, or remove {SETTINGS_FILE} and {ANSWERS_FILE}",
        path.display()
    );
    Err(anyhow::anyhow!(message).into())
}

fn read_settings(path: &Path) -> Result<AnswerSettings, Failure> {
    let text = std::fs::read(path).with_context(|| path.display().to_string())?;
    let settings = serde_json::from_slice(&text);
    Ok(settings.with_context(|| path.display().to_string())?)
}
