//! Checking whether answers name the things in pictures.

use std::path::Path;

use serde::{Deserialize, Serialize};
use vispec_data::icons::{IconIndex, Icons, Thing};
use vispec_models::DeviceSpec;
use vispec_processor::SpecialText;
use vispec_train::target::pictures::{
    ANSWERS_FILE, PictureStage, PictureTarget, Seen, judged, read_answers,
};

use super::{Question, answer_all, load};
use crate::capture::progress::CaptureProgress;
use examples_answer::failure::Failure;
use vispec_report::write_whole;

/// An answer about a picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Named {
    /// Whether the picture is from a training or a held-out set.
    seen: Seen,
    /// Set and icon of the picture.
    picture: String,
    /// Name of the thing in the picture.
    name: String,
    /// The answer of the model.
    answer: String,
    /// Whether the answer contains the name or a keyword of the thing.
    found: Found,
    /// Whether the answer contains words of the next picture's thing, as a measure of chance.
    by_chance: Found,
    /// Whether the language model's own answer contains the name, when told what the picture shows.
    told: Found,
    /// Path of the picture below the run's directory; only stored for some.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

/// Number of held-out pictures that are stored with their answers.
const KEPT: u64 = 20;

/// The words of a thing that an answer contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Found {
    Name,
    Keyword,
    Nothing,
}

/// Lets the checkpoint of a stage describe pictures of training and held-out sets, and writes the
/// answers next to it. Returns one summary line for each kind of pictures.
///
/// # Errors
/// Any error of the model, of pictures and of files.
pub fn name_pictures(
    run: &PictureTarget,
    (index, stage): (&IconIndex, &PictureStage),
    (out, device): (&Path, DeviceSpec),
) -> Result<Vec<String>, Failure> {
    let file = out.join(format!("named-{}.jsonl", run.image_tokens(stage)));
    if !file.exists() {
        let named = describe(run, (index, stage), (out, device))?;
        let lines: Result<Vec<String>, _> = named.iter().map(serde_json::to_string).collect();
        let lines: String = lines?.iter().map(|line| format!("{line}\n")).collect();
        write_whole(&file, lines.as_bytes())?;
    }
    let text = std::fs::read_to_string(&file)?;
    let named: Result<Vec<Named>, _> = text.lines().map(serde_json::from_str).collect();
    let named = named?;
    let lines =
        [Seen::Taught, Seen::HeldOut].map(|seen| summary(&named, run.image_tokens(stage), seen));
    Ok(lines.to_vec())
}

fn summary(named: &[Named], image_tokens: usize, seen: Seen) -> String {
    let of: Vec<&Named> = named.iter().filter(|named| named.seen == seen).collect();
    let share = |has: fn(&&&Named) -> bool| {
        let n_has = of.iter().filter(has).count();
        #[expect(clippy::cast_precision_loss, reason = "few pictures")]
        let share = 100.0 * n_has as f64 / of.len().max(1) as f64;
        share
    };
    let sets = match seen {
        Seen::Taught => "training sets",
        Seen::HeldOut => "held-out sets",
    };
    format!(
        "{image_tokens} image tokens, {} pictures of {sets}: {:.1} % of answers contain the name of \
         the thing, {:.1} % the name or a keyword, {:.1} % by chance a word for another thing; \
         {:.1} % of the language model's answers to a description contain the name",
        of.len(),
        share(|named| named.found == Found::Name),
        share(|named| named.found != Found::Nothing),
        share(|named| named.by_chance != Found::Nothing),
        share(|named| named.told == Found::Name),
    )
}

fn describe(
    run: &PictureTarget,
    (index, stage): (&IconIndex, &PictureStage),
    (out, device): (&Path, DeviceSpec),
) -> Result<Vec<Named>, Failure> {
    let icons = Icons::open(&run.pictures, index)?;
    let engine = load(&run.checkpoint(out, stage), device)?;
    let config = &run.config;
    let side = u32::try_from(stage.side).unwrap_or(u32::MAX);
    let places: Vec<(Seen, u64)> = [Seen::Taught, Seen::HeldOut]
        .into_iter()
        .flat_map(|seen| (0..config.judged).map(move |number| (seen, number)))
        .collect();
    let shown = |&(seen, number): &(Seen, u64)| judged(config.seed, index, (seen, number));
    let questions = places.iter().enumerate().map(|(place, judged)| {
        let (picture, look) = shown(judged);
        Ok(Question {
            key: place,
            text: config.questions[0].asked.clone(),
            image: Some(icons.draw(picture, &look, side)?),
        })
    });
    let told = read_answers(&run.prepared.join(ANSWERS_FILE))?;
    let folder = format!("named-{}", run.image_tokens(stage));
    std::fs::create_dir_all(out.join(&folder))?;
    let mut answers = vec![String::new(); places.len()];
    let mut progress = CaptureProgress::new("descriptions", places.len(), 0);
    let tokenizer = engine.processor().tokenizer();
    answer_all(
        &engine,
        config.max_new_tokens,
        questions,
        |place, tokens| {
            let text = tokenizer.decode(tokens, SpecialText::Skip);
            answers[place] = text.map_err(anyhow::Error::from)?;
            progress.step(1, 0);
            Ok(())
        },
    )?;
    progress.finish();
    let named = places.iter().enumerate().map(|(place, judged)| {
        let (picture, look) = shown(judged);
        let (other, _) = shown(&places[(place + 1) % places.len()]);
        let thing = &index.things[picture.thing];
        let answer = answers[place].clone();
        let told = told.get(&(picture.thing, 0)).map_or(&[][..], Vec::as_slice);
        let told = tokenizer.decode(told, SpecialText::Skip);
        let file = match judged {
            (Seen::HeldOut, number) if *number < KEPT => {
                let name = format!("{folder}/{number:02}.png");
                icons.save((picture, &look, side), &out.join(&name))?;
                Some(name)
            }
            _ => None,
        };
        Ok(Named {
            seen: judged.0,
            picture: format!("{}:{}", picture.set, picture.icon),
            name: thing.name.clone(),
            found: found(&answer, thing),
            by_chance: found(&answer, &index.things[other.thing]),
            told: found(&told.map_err(anyhow::Error::from)?, thing),
            answer,
            file,
        })
    });
    named.collect()
}

/// Returns whether `text` contains the name or a keyword of `thing`.
fn found(text: &str, thing: &Thing) -> Found {
    if has_words(text, &thing.name) {
        return Found::Name;
    }
    let mut keywords = thing.keywords.iter();
    match keywords.any(|keyword| has_words(text, keyword)) {
        true => Found::Keyword,
        false => Found::Nothing,
    }
}

/// Returns whether `text` contains the words of `phrase` in sequence; the last word may have an
/// additional `s`.
fn has_words(text: &str, phrase: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        let lower = text.to_lowercase();
        let words = lower.split(|letter: char| !letter.is_alphanumeric());
        words
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let (text, phrase) = (words(text), words(phrase));
    let Some((last, before)) = phrase.split_last() else {
        return false;
    };
    text.windows(phrase.len()).any(|found| {
        let end = &found[before.len()];
        found[..before.len()] == *before && (end == last || end.strip_suffix('s') == Some(last))
    })
}

#[cfg(test)]
mod tests {
    use super::has_words;

    #[test]
    fn names_are_found_as_words() {
        let text = "The picture shows red apples, and a hot-air balloon.";
        assert!(has_words(text, "red apple"));
        assert!(has_words(text, "hot air balloon"));
        assert!(!has_words(text, "air apple"));
        assert!(!has_words(text, "ball"));
        assert!(!has_words(text, ""));
    }
}
