//! The definition of a task in a TOML file. `docs/tasks.md` explains the fields.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::subset::Subset;
use super::template::Template;
use crate::error::{DataError, Result};
use crate::rows::{Columns, RowsDefinition, SceneRows};

/// Default maximum number of tokens per answer, from upstream's evaluation.
const MAX_NEW_TOKENS: usize = 512;

/// Name that templates use for the first turn of a task with several turns.
pub(super) const TURN: &str = "turn";

/// Limits of the number of pixels of an image, for processors that resize to a number of pixels
/// (Qwen2.5-VL). `None` means that the checkpoint's own limit applies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PixelLimits {
    /// Minimum number of pixels.
    pub min: Option<usize>,
    /// Maximum number of pixels.
    pub max: Option<usize>,
}

/// The definition of a task: files, fields, prompt and sample selection.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskDefinition {
    name: String,
    title: String,
    source: String,
    #[serde(default = "default_max_new_tokens")]
    max_new_tokens: usize,
    #[serde(default)]
    pixels: PixelLimits,
    pub(super) id: Template,
    #[serde(default)]
    pub(super) repeated_ids: RepeatedIds,
    /// Column whose values are made unique: the last row with a value is kept, at the position of
    /// the first.
    pub(super) unique_by: Option<String>,
    pub(super) reference: Option<Template>,
    pub(super) rows: RowsDefinition,
    #[serde(default)]
    pub(super) fields: BTreeMap<String, FieldRule>,
    #[serde(default)]
    pub(super) filters: Vec<Filter>,
    #[serde(default)]
    pub(super) subset: Subset,
    pub(super) prompt: PromptDefinition,
}

/// How to handle rows with the same id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RepeatedIds {
    /// The publisher's ids are unique: a repeated id is an error.
    #[default]
    Refuse,
    /// The publisher repeats ids: the second row with an id gets the suffix `#2`, and so on.
    Number,
}

/// A field composed of columns.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FieldRule {
    /// Columns to join; empty ones are skipped.
    pub(super) columns: Vec<String>,
    /// Text between columns.
    #[serde(default = "default_join")]
    pub(super) join: String,
    /// Cuts each column before the first occurrence of this text.
    pub(super) before: Option<String>,
    /// Value if all columns are empty. Without it, missing columns are an error.
    pub(super) default: Option<String>,
    /// How to format columns that are lists.
    pub(super) list: Option<ListStyle>,
}

/// Formatting of a list as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ListStyle {
    /// `(A) first (B) second`.
    Lettered,
}

/// A condition that rows must meet.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Filter {
    /// The column is neither missing nor null nor empty.
    Present { column: String },
    /// The column starts with a given text.
    StartsWith { column: String, prefix: String },
}

impl Filter {
    fn column(&self) -> &str {
        match self {
            Self::Present { column } | Self::StartsWith { column, .. } => column,
        }
    }
}

/// The prompt template.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PromptDefinition {
    pub(super) system: Option<String>,
    /// Column with a list of user turns: the first is `{turn}` in `user`, the others are later
    /// turns.
    pub(super) turns: Option<String>,
    /// Parts of the first user message, in order.
    pub(super) user: Vec<PartDefinition>,
}

/// One part of a message.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum PartDefinition {
    /// Text.
    Text(Template),
    /// Text in which passages are replaced, pair by pair, after the fields are filled in.
    Rewritten {
        text: Template,
        replace: Vec<[String; 2]>,
    },
    /// An image file below the data directory.
    ImageFile(Template),
    /// An image in a column of the table.
    ImageColumn(String),
    /// Frames of a video, from a folder named like the video without its extension.
    Frames { video: Template, at_most: usize },
}

impl TaskDefinition {
    /// Reads a definition from the text of a TOML file; `name` identifies it in errors.
    ///
    /// # Errors
    /// [`DataError::DefinitionSyntax`] if the text is not TOML, or has missing or unknown fields;
    /// [`DataError::DefinitionValue`] if a value is invalid.
    pub fn from_toml(name: &str, text: &str) -> Result<Self> {
        let definition: Self =
            toml::from_str(text).map_err(|source| DataError::DefinitionSyntax {
                name: name.to_owned(),
                source: Box::new(source),
            })?;
        definition.validate(name)?;
        Ok(definition)
    }

    /// Reads a definition from a TOML file.
    ///
    /// # Errors
    /// [`DataError::Io`], and the errors of [`Self::from_toml`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| DataError::Io {
            path: path.to_owned(),
            source,
        })?;
        Self::from_toml(&path.display().to_string(), &text)
    }

    /// Returns the short name: lower-case letters, digits and underscores.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns a short description of the task.
    pub(crate) fn title(&self) -> &str {
        &self.title
    }

    /// Returns where the publisher provides the files: a URL or a hub id.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Returns the maximum number of tokens per answer.
    #[must_use]
    pub fn max_new_tokens(&self) -> usize {
        self.max_new_tokens
    }

    /// Returns the limits of the number of pixels per image or frame.
    #[must_use]
    pub fn pixel_limits(&self) -> PixelLimits {
        self.pixels
    }

    /// Returns the files that must exist below the data directory; `*` matches any characters of a
    /// name. Empty for drawn tasks.
    pub(crate) fn files(&self) -> Vec<&str> {
        self.rows.files()
    }

    /// Returns a description of the sample selection.
    pub(crate) fn subset(&self) -> String {
        self.subset.to_string()
    }

    /// Returns the columns that are read from the files.
    pub(super) fn columns(&self) -> Columns {
        let mut names: BTreeSet<&str> = BTreeSet::new();
        let mut columns = Columns::default();
        names.extend(self.id.fields());
        names.extend(self.reference.iter().flat_map(Template::fields));
        names.extend(self.prompt.turns.as_deref());
        names.extend(self.unique_by.as_deref());
        names.extend(self.filters.iter().map(Filter::column));
        for part in &self.prompt.user {
            match part {
                PartDefinition::Text(text)
                | PartDefinition::Rewritten { text, .. }
                | PartDefinition::ImageFile(text)
                | PartDefinition::Frames { video: text, .. } => names.extend(text.fields()),
                PartDefinition::ImageColumn(column) => {
                    columns.images.insert(column.clone());
                }
            }
        }
        for name in names {
            match self.fields.get(name) {
                Some(rule) => columns.text.extend(rule.columns.iter().cloned()),
                None if name == TURN => {}
                None => {
                    columns.text.insert(name.to_owned());
                }
            }
        }
        columns
    }

    fn validate(&self, file: &str) -> Result<()> {
        let wrong = |field: &str, found: String, expected: &str| {
            Err(DataError::DefinitionValue {
                name: file.to_owned(),
                field: field.to_owned(),
                found,
                expected: expected.to_owned(),
            })
        };
        let is_plain =
            |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
        if self.name.is_empty() || !self.name.chars().all(is_plain) {
            let expected = "lower-case letters, digits and underscores";
            return wrong("name", self.name.clone(), expected);
        }
        if self.max_new_tokens == 0 {
            return wrong("max_new_tokens", "0".to_owned(), "at least 1");
        }
        if let PixelLimits {
            min: Some(min),
            max: Some(max),
        } = self.pixels
            && min > max
        {
            return wrong("pixels.min", min.to_string(), "at most pixels.max");
        }
        if self.prompt.user.is_empty() {
            return wrong("prompt.user", "[]".to_owned(), "one or more parts");
        }
        for part in &self.prompt.user {
            if let PartDefinition::Frames { at_most: 0, .. } = part {
                return wrong("prompt.user.frames.at_most", "0".to_owned(), "at least 1");
            }
        }
        if let Some(rule) = self.fields.iter().find(|rule| rule.1.columns.is_empty()) {
            let field = format!("fields.{}.columns", rule.0);
            return wrong(&field, "[]".to_owned(), "one or more columns");
        }
        self.validate_rows(&wrong)
    }

    fn validate_rows(&self, wrong: &impl Fn(&str, String, &str) -> Result<()>) -> Result<()> {
        let leads_out = |path: &&str| crate::rows::path_below(Path::new(""), path).is_none();
        if let Some(path) = self.files().into_iter().find(leads_out) {
            return wrong("rows", path.to_owned(), "a path below the data directory");
        }
        if !matches!(self.rows, RowsDefinition::Scenes { .. }) {
            return Ok(());
        }
        let columns = self.columns();
        let unknown = |column: &&String| !SceneRows::TEXT_COLUMNS.contains(&column.as_str());
        if let Some(column) = columns.text.iter().find(unknown) {
            let expected = SceneRows::TEXT_COLUMNS.join(", ");
            return wrong("prompt", format!("{{{column}}}"), &expected);
        }
        Ok(())
    }
}

fn default_max_new_tokens() -> usize {
    MAX_NEW_TOKENS
}

fn default_join() -> String {
    " ".to_owned()
}
