//! Converting a row to the messages of a sample.

use std::path::Path;

use vispec_processor::{Content, Message, Messages, Part};

use super::definition::{FieldRule, ListStyle, PartDefinition, TURN, TaskDefinition};
use super::frames::video_source;
use super::sample::Sample;
use crate::error::{DataError, Result};
use crate::rows::{ImageSource, Record, Table, path_below};

/// A row together with the fields that the task derives from it.
pub(super) struct RowView<'a> {
    task: &'a TaskDefinition,
    record: &'a Record,
    turn: Option<&'a str>,
}

impl<'a> RowView<'a> {
    pub(super) fn new(task: &'a TaskDefinition, record: &'a Record, turn: Option<&'a str>) -> Self {
        Self { task, record, turn }
    }

    /// Returns the value of a template name: the turn, a field of the task, or a column of the row.
    pub(super) fn value(&self, name: &str) -> Result<String> {
        match (self.task.fields.get(name), self.turn) {
            (Some(rule), _) => self.field(name, rule),
            (None, Some(turn)) if name == TURN => Ok(turn.to_owned()),
            (None, _) => self.record.text(name),
        }
    }

    fn field(&self, name: &str, rule: &FieldRule) -> Result<String> {
        let mut texts = Vec::new();
        for column in &rule.columns {
            if rule.default.is_some() && !self.record.has(column) {
                continue;
            }
            let text = match rule.list {
                None => self.record.text(column)?,
                Some(ListStyle::Lettered) => lettered(&self.record.texts(column)?),
            };
            let before = rule.before.as_deref();
            let kept = before.and_then(|end| text.split_once(end));
            let kept = kept.map_or(text.as_str(), |(kept, _)| kept);
            if !kept.trim().is_empty() {
                texts.push(kept.to_owned());
            }
        }
        match (texts.is_empty(), &rule.default) {
            (false, _) => Ok(texts.join(&rule.join)),
            (true, Some(default)) => Ok(default.clone()),
            (true, None) => Err(DataError::Field {
                origin: self.record.origin.clone(),
                field: name.to_owned(),
                found: "empty".to_owned(),
                expected: "text",
            }),
        }
    }
}

/// Formats a list as `(A) first (B) second`.
fn lettered(items: &[String]) -> String {
    let items: Vec<String> = ('A'..)
        .zip(items)
        .map(|(letter, item)| format!("({letter}) {item}"))
        .collect();
    items.join(" ")
}

/// Builds the sample of a row.
pub(super) fn make_sample(
    task: &TaskDefinition,
    data_dir: &Path,
    table: &mut dyn Table,
    row: usize,
    id: String,
) -> Result<Sample> {
    let record = table.record(row)?;
    let turns = task.prompt.turns.as_deref();
    let mut turns = turns.map(|column| record.texts(column)).transpose()?;
    let following_turns = turns.as_mut().map(|turns| turns.split_off(1));
    let turn = turns.as_ref().and_then(|turns| turns.first());
    let view = RowView::new(task, &record, turn.map(String::as_str));
    let mut parts = Vec::new();
    let (mut images, mut videos) = (Vec::new(), Vec::new());
    for part in &task.prompt.user {
        let image = match part {
            PartDefinition::Text(text) => {
                parts.push(Part::Text(text.fill(|name| view.value(name))?));
                continue;
            }
            PartDefinition::Rewritten { text, replace } => {
                let text = text.fill(|name| view.value(name))?;
                parts.push(Part::Text(rewritten(text, replace)));
                continue;
            }
            PartDefinition::ImageColumn(column) => table.image(row, column)?,
            PartDefinition::ImageFile(path) => {
                let path = path.fill(|name| view.value(name))?;
                let path = below(data_dir, &record, path)?;
                ImageSource::file(record.origin.clone(), path)
            }
            PartDefinition::Frames { video, at_most } => {
                let video = video.fill(|name| view.value(name))?;
                let video = below(data_dir, &record, video)?;
                parts.push(Part::Video);
                videos.push(video_source(&record.origin, &video, *at_most)?);
                continue;
            }
        };
        parts.push(Part::Image);
        images.push(image);
    }
    let reference = task.reference.as_ref();
    let reference = reference.map(|text| text.fill(|name| view.value(name)));
    let system = task.prompt.system.iter().map(|text| {
        let parts = vec![Part::Text(text.clone())];
        message("system", parts)
    });
    let messages = system.chain([message("user", parts)]).collect();
    Ok(Sample {
        id,
        messages: Messages::new(messages).map_err(|error| DataError::RowSyntax {
            origin: record.origin.clone(),
            expected: "a valid conversation",
            reason: error.to_string(),
        })?,
        images,
        videos,
        following_turns: following_turns.unwrap_or_default(),
        reference: reference.transpose()?,
        origin: record.origin,
    })
}

fn message(role: &str, parts: Vec<Part>) -> Message {
    Message {
        role: role.to_owned(),
        content: Content::Parts(parts),
    }
}

/// Applies the replacements in order, each to the whole text, and trims the result.
fn rewritten(text: String, replace: &[[String; 2]]) -> String {
    let text = replace
        .iter()
        .fold(text, |text, [from, to]| text.replace(from, to));
    text.trim().to_owned()
}

fn below(data_dir: &Path, record: &Record, path: String) -> Result<std::path::PathBuf> {
    path_below(data_dir, &path).ok_or_else(|| DataError::PathOutside {
        origin: record.origin.clone(),
        path,
    })
}
