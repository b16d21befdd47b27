//! The config of a language model that learns to see.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vispec_data::icons::IconSettings;

use crate::error::{TrainError, at_least, setting};
use crate::files::at;
use crate::target::course::{LoopSettings, Pace};

/// Everything that determines how a language model learns to see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureConfig {
    /// Seed of the weights and of the pictures in lessons.
    pub seed: u64,
    /// The icon sets.
    pub icons: IconSettings,
    /// The vision tower.
    pub tower: TowerSettings,
    /// The questions about pictures.
    #[serde(rename = "question")]
    pub questions: Vec<PictureQuestion>,
    /// Maximum number of tokens in an answer of the language model.
    pub max_new_tokens: usize,
    /// Minimum number of things that must share a keyword for it to be one of the words.
    pub keyword_things: usize,
    /// Number of pictures for evaluation, each from taught and from held-out sets.
    pub judged: u64,
    /// Settings of the training loop.
    pub training: LoopSettings,
    /// The stages, in order.
    #[serde(rename = "stage")]
    pub stages: Vec<PictureStage>,
}

/// A vision tower in the layout of CLIP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TowerSettings {
    /// Width.
    pub hidden: usize,
    /// Width inside the feed-forward blocks.
    pub intermediate: usize,
    /// Number of layers; all are used.
    pub layers: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
}

/// A question about a picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureQuestion {
    /// The question about the picture.
    pub asked: String,
    /// The question about words, for the language model without a picture; `{words}` stands for the
    /// name and the keywords.
    pub told: String,
}

/// A number of steps with pictures of one size. Each stage starts with new moments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureStage {
    /// The task to learn.
    pub learn: Learn,
    /// Side of pictures in pixels.
    pub side: usize,
    /// Length, batch size and learning rate.
    pub pace: Pace,
}

/// The task of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Learn {
    /// Classify pictures by words, without the language model.
    Words {
        /// Pictures per lesson.
        pictures: usize,
        /// Number of patches that the tower reads of each picture, chosen at random each time.
        kept_patches: usize,
    },
    /// Make the language model write about a picture what it wrote about the words.
    Answers {
        /// Maximum number of tokens of an answer that are learned.
        tokens: usize,
    },
}

/// Paths and config of a run.
///
/// The paths are not saved with a run, so its files can be moved. It resumes only with the same
/// contents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PictureTarget {
    /// Checkpoint in the layout of LLaVA-1.5, whose language model is used.
    #[serde(skip)]
    pub language_model: PathBuf,
    /// Directory of the icon sets and of `emojibase-data`.
    #[serde(skip)]
    pub pictures: PathBuf,
    /// Directory of the files that [`prepare`](super::prepare) and the program wrote earlier.
    #[serde(skip)]
    pub prepared: PathBuf,
    /// The config.
    pub config: PictureConfig,
}

impl PictureConfig {
    /// Parses a config; messages call it `name`.
    ///
    /// # Errors
    /// [`TrainError::ConfigSyntax`] or [`TrainError::Setting`].
    pub fn parse(name: &str, text: &str) -> Result<Self, TrainError> {
        let config: Self = toml::from_str(text).map_err(|source| TrainError::ConfigSyntax {
            name: name.to_owned(),
            source: Box::new(source),
        })?;
        config.check()?;
        Ok(config)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`TrainError::Io`], or same as [`PictureConfig::parse`].
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path).map_err(at(path))?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Checks all values.
    ///
    /// # Errors
    /// [`TrainError::Setting`] with the first value that cannot be used.
    pub fn check(&self) -> Result<(), TrainError> {
        let tower = &self.tower;
        let counts = [
            ("tower.hidden", tower.hidden),
            ("tower.intermediate", tower.intermediate),
            ("tower.layers", tower.layers),
            ("tower.heads", tower.heads),
            ("tower.patch_size", tower.patch_size),
            ("question", self.questions.len()),
            ("max_new_tokens", self.max_new_tokens),
            ("icons.sets", self.icons.sets.len()),
            ("icons.held_out", self.icons.held_out.len()),
        ];
        let stages = self.stages.iter().flat_map(|stage| {
            let learned = match stage.learn {
                Learn::Words {
                    pictures,
                    kept_patches,
                } => pictures.min(kept_patches),
                Learn::Answers { tokens } => tokens,
            };
            [("stage.learn", learned), ("stage.side", stage.side)]
        });
        self.training.check(&self.paces())?;
        for (field, count) in counts.into_iter().chain(stages) {
            at_least(field, count, 1)?;
        }
        if !tower.hidden.is_multiple_of(tower.heads) {
            let expected = format!("a divisor of tower.hidden, {}", tower.hidden);
            return Err(setting("tower.heads", tower.heads.to_string(), expected));
        }
        if let Some(question) = self.questions.iter().find(|q| !q.told.contains("{words}")) {
            let found = format!("{:?}", question.told);
            return Err(setting("question.told", found, "a text with {words} in it"));
        }
        for stage in &self.stages {
            let grid = stage.side / tower.patch_size;
            if !stage.side.is_multiple_of(tower.patch_size) || grid == 0 {
                let expected = format!("a multiple of tower.patch_size, {}", tower.patch_size);
                return Err(setting("stage.side", stage.side.to_string(), expected));
            }
            if let Learn::Words { kept_patches, .. } = stage.learn
                && kept_patches > grid * grid
            {
                let expected = format!("at most {}, the patches of a picture", grid * grid);
                return Err(setting(
                    "stage.learn.kept_patches",
                    kept_patches.to_string(),
                    expected,
                ));
            }
        }
        let words_later = self.stages.windows(2).any(|two| {
            matches!(two[0].learn, Learn::Answers { .. })
                && matches!(two[1].learn, Learn::Words { .. })
        });
        if words_later {
            let found = "words after answers";
            return Err(setting(
                "stage.learn",
                found,
                "words before answers, because the head over words is not part of a model",
            ));
        }
        Ok(())
    }

    /// Returns the pace of each stage.
    pub(super) fn paces(&self) -> Vec<Pace> {
        self.stages.iter().map(|stage| stage.pace).collect()
    }
}
