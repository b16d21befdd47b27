//! The config of a target that learns to see.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vispec_data::icons::IconSettings;

use crate::error::{TrainError, setting};
use crate::files::at;
use crate::optimizer::AdamWSettings;

/// Everything that decides how a language model learns to see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureConfig {
    /// Seed of weights, and of what lessons show.
    pub seed: u64,
    /// Sets of icons.
    pub icons: IconSettings,
    /// The vision tower.
    pub tower: TowerSettings,
    /// What the language model is asked, and told instead of seeing.
    #[serde(rename = "question")]
    pub questions: Vec<PictureQuestion>,
    /// Most tokens of an answer that the language model writes.
    pub max_new_tokens: usize,
    /// Keywords of at least so many things are words of their own.
    pub keyword_things: usize,
    /// Pictures of taught and of held-out sets each that are judged.
    pub judged: u64,
    /// Largest absolute value of an element of a gradient.
    pub clip_value: f64,
    /// Lessons whose gradients are computed side by side, each by one thread.
    pub workers: usize,
    /// Steps between saved states.
    pub save_every: usize,
    /// AdamW.
    #[serde(default)]
    pub adamw: AdamWSettings,
    /// What is done one after the other.
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
    /// Layers, all of which are used.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
}

/// A question about a picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureQuestion {
    /// What is asked about the picture.
    pub asked: String,
    /// What the language model without eyes is told: `{words}` stands for name and keywords.
    pub told: String,
}

/// Some steps with pictures of a size. Each stage starts with new moments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureStage {
    /// What is learned.
    pub learn: Learn,
    /// Side of pictures in pixels.
    pub side: usize,
    /// Steps.
    pub steps: usize,
    /// Lessons of a step.
    pub batch_size: usize,
    /// The highest learning rate; it falls linearly to zero.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: usize,
}

/// What a stage learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Learn {
    /// To tell pictures apart by their words, without the language model.
    Words {
        /// Pictures of a lesson.
        pictures: usize,
        /// Patches of a picture that are read, chosen anew each time.
        kept_patches: usize,
    },
    /// To make the language model write what it would write about the words.
    Answers {
        /// Tokens of an answer that are learned from.
        tokens: usize,
    },
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PictureTarget {
    /// Checkpoint in the layout of LLaVA-1.5, whose language model is used.
    pub language_model: PathBuf,
    /// Directory of the sets of icons, and of `emojibase-data`.
    pub pictures: PathBuf,
    /// Directory with what [`prepare`](super::prepare) and the program made before.
    pub prepared: PathBuf,
    /// Everything else.
    pub config: PictureConfig,
}

impl PictureConfig {
    /// Reads a config, called `name` in messages.
    ///
    /// # Errors
    /// [`TrainError::ConfigSyntax`], [`TrainError::Setting`].
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
    /// [`TrainError::Io`], and as [`PictureConfig::parse`].
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path).map_err(at(path))?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Fails if a value cannot be used.
    ///
    /// # Errors
    /// [`TrainError::Setting`] with the first such value.
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
            ("workers", self.workers),
            ("save_every", self.save_every),
            ("stage", self.stages.len()),
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
            [
                ("stage.learn", learned),
                ("stage.side", stage.side),
                ("stage.steps", stage.steps),
                ("stage.batch_size", stage.batch_size),
            ]
        });
        if let Some((field, _)) = counts.into_iter().chain(stages).find(|(_, n)| *n == 0) {
            return Err(setting(field, "0", "at least 1"));
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
            let rate = stage.learning_rate;
            if !(rate > 0.0 && rate.is_finite()) {
                return Err(setting(
                    "stage.learning_rate",
                    rate.to_string(),
                    "a number above 0",
                ));
            }
            let grid = stage.side / tower.patch_size;
            if !stage.side.is_multiple_of(tower.patch_size) || grid == 0 {
                let expected = format!("a multiple of tower.patch_size, {}", tower.patch_size);
                return Err(setting("stage.side", stage.side.to_string(), expected));
            }
            if let Learn::Words { kept_patches, .. } = stage.learn
                && kept_patches > grid * grid
            {
                let expected = format!("at most the {} of a picture", grid * grid);
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
            let found = "words behind answers";
            return Err(setting(
                "stage.learn",
                found,
                "words first, since they are no part of a model",
            ));
        }
        Ok(())
    }
}
