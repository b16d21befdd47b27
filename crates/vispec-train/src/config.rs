//! The config of a run: a TOML file, with overrides from the command line.

use std::path::Path;

use serde::{Deserialize, Serialize};
use vispec_core::TreeShape;

use crate::error::{TrainError, above_zero, at_least, setting};
use crate::objective::Objective;
use crate::optimizer::AdamWSettings;
use crate::ranks::GradientType;
use crate::schedule::Schedule;

/// The draft to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum DraftSettings {
    /// ViSpec.
    Vispec {
        /// Number of learned queries: one more than the number of compressed image tokens.
        num_queries: usize,
    },
    /// EAGLE-2.
    Eagle2,
    /// EAGLE-3.
    Eagle3 {
        /// Number of learned queries of ViSpec's vision adaptor in front of the draft. With 0, the
        /// draft reads images like text, as published drafts do.
        #[serde(default)]
        num_queries: usize,
        /// States of the target's residual stream that the draft reads: state `n` is the input of
        /// layer `n`. By default EAGLE-3's states: 2, half of the layers, and 3 before the last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        states: Option<[usize; 3]>,
        /// The head that scores the draft's vocabulary.
        #[serde(default)]
        head: DraftHeadSetting,
        /// Initial weights of the layer.
        #[serde(default)]
        layer: FirstLayer,
    },
    /// Medusa.
    Medusa {
        /// Number of heads, which is also the depth of the draft's trees.
        num_heads: usize,
    },
}

/// The output head of an EAGLE-3 draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DraftHeadSetting {
    /// The draft's own head, initialised from the target's and trained, as in published drafts.
    #[default]
    Own,
    /// The target's head, frozen. The checkpoint is smaller, and tokens of the prompt can be
    /// drafted whatever the vocabulary.
    Target,
}

/// Initial weights of the layer of an EAGLE-3 draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstLayer {
    /// Random weights.
    #[default]
    Fresh,
    /// The weights of the target's last layer, which reads the highest of the states. The weights
    /// that read embeddings start at random.
    Target,
}

/// The draft vocabulary: the tokens that losses compare and that the draft chooses among. These are
/// the most frequent tokens of the answers that the draft is trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VocabularySettings {
    /// Number of tokens.
    pub size: usize,
}

/// The samples to read, and how to read them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSettings {
    /// Maximum number of tokens per sample; longer samples are truncated.
    pub max_len: usize,
    /// Samples per batch.
    pub batch_size: usize,
    /// Batches whose mean gradient makes one step.
    pub accumulate: usize,
    /// Width of the uniform noise on hidden states, for a sample of 512 tokens.
    pub noise_width: f32,
    /// Share of the samples that is held out, taken from the end of the data.
    pub held_out: f64,
}

/// How parameters are updated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerSettings {
    /// The peak learning rate.
    pub learning_rate: f64,
    /// Epochs of linear warm-up.
    pub warmup_epochs: f64,
    /// Epochs of the run, at whose end the learning rate is zero.
    pub epochs: usize,
    /// Maximum absolute value of a gradient's element; larger ones are clipped.
    pub clip_value: f64,
    /// Settings of AdamW.
    #[serde(default)]
    pub adamw: AdamWSettings,
}

/// How the draft is evaluated after each epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationSettings {
    /// Number of held-out samples, from the first, on which drafting is simulated.
    pub drafted_samples: usize,
    /// Number of tokens that a greedy chain drafts.
    pub chain_len: usize,
    /// Depth of the dynamic tree, upstream's `depth`.
    pub tree_depth: usize,
    /// Upstream's `top_k`.
    pub tree_top_k: usize,
    /// Upstream's `total_token`: number of nodes, including the root.
    pub tree_nodes: usize,
}

/// When the state is saved, in addition to the end of each epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointSettings {
    /// Number of steps between saved states.
    pub every_steps: usize,
}

/// Element types of the products with the target's output head, which take most of a step's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadType {
    /// Everything in f32, like upstream.
    #[default]
    F32,
    /// Operands in bf16, sums in f32.
    Bf16,
}

/// Element types of computations; f32 by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComputeSettings {
    /// Types of the products with the output head.
    #[serde(default)]
    pub head: HeadType,
    /// Type of the sum of gradients over the batches of a step.
    #[serde(default)]
    pub gradients: GradientType,
}

/// Everything that determines the outcome of a run, apart from data, target and initial weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Seed of fresh weights, of the order of samples and of noise.
    pub seed: u64,
    /// The draft to train.
    pub draft: DraftSettings,
    /// The loss to minimise.
    pub objective: Objective,
    /// The part of the vocabulary that losses compare and that the draft chooses among by default.
    /// If absent, the whole vocabulary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<VocabularySettings>,
    /// The samples to read.
    pub data: DataSettings,
    /// How parameters are updated.
    pub optimizer: OptimizerSettings,
    /// How the draft is evaluated.
    pub evaluation: EvaluationSettings,
    /// When states are saved.
    pub checkpoint: CheckpointSettings,
    /// Element types of computations; f32 by default.
    #[serde(default)]
    pub compute: ComputeSettings,
}

impl TrainConfig {
    /// Reads a file and applies the overrides in `settings`, each of the form
    /// `optimizer.learning_rate=1e-4`.
    ///
    /// # Errors
    /// [`TrainError::Io`], [`TrainError::ConfigSyntax`], [`TrainError::SettingForm`], and
    /// [`TrainError::Setting`] for invalid values.
    pub fn read(path: &Path, settings: &[String]) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path).map_err(|source| TrainError::Io {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, &path.display().to_string(), settings)
    }

    /// Parses the text of a file called `name` and applies the overrides in `settings`.
    ///
    /// # Errors
    /// Same as [`TrainConfig::read`], except for [`TrainError::Io`].
    pub fn parse(text: &str, name: &str, settings: &[String]) -> Result<Self, TrainError> {
        let syntax = |name: &str, source: toml::de::Error| TrainError::ConfigSyntax {
            name: name.to_owned(),
            source: Box::new(source),
        };
        let mut table: toml::Table = toml::from_str(text).map_err(|error| syntax(name, error))?;
        for setting in settings {
            let (key, value) = setting
                .split_once('=')
                .ok_or_else(|| TrainError::SettingForm {
                    found: setting.clone(),
                })?;
            put(&mut table, key.trim(), value.trim()).ok_or_else(|| TrainError::SettingForm {
                found: setting.clone(),
            })?;
        }
        // Without overrides, parse the text again, so that errors name a position in it.
        let merged = if settings.is_empty() {
            toml::from_str(text)
        } else {
            table.try_into()
        };
        let config: Self = merged.map_err(|error| syntax(name, error))?;
        config.check()?;
        Ok(config)
    }

    /// Returns the learning rate schedule.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "few epochs")]
    pub fn schedule(&self) -> Schedule {
        Schedule {
            learning_rate: self.optimizer.learning_rate,
            warmup_epochs: self.optimizer.warmup_epochs,
            total_epochs: self.optimizer.epochs as f64,
        }
    }

    /// Returns the shape of the token tree for simulated drafting.
    ///
    /// # Errors
    /// [`TrainError::Setting`] if no tree has this shape.
    pub fn tree_shape(&self) -> Result<TreeShape, TrainError> {
        let shape = &self.evaluation;
        TreeShape::from_upstream(shape.tree_depth, shape.tree_top_k, shape.tree_nodes).map_err(
            |error| TrainError::Setting {
                field: "evaluation.tree_nodes",
                found: shape.tree_nodes.to_string(),
                expected: error.to_string(),
            },
        )
    }

    /// Checks all values.
    ///
    /// # Errors
    /// [`TrainError::Setting`] with the first value that cannot be used.
    pub(crate) fn check(&self) -> Result<(), TrainError> {
        let positive = [
            ("data.max_len", self.data.max_len, 2),
            ("data.batch_size", self.data.batch_size, 1),
            ("data.accumulate", self.data.accumulate, 1),
            ("optimizer.epochs", self.optimizer.epochs, 1),
            ("evaluation.chain_len", self.evaluation.chain_len, 1),
            ("checkpoint.every_steps", self.checkpoint.every_steps, 1),
        ];
        for (field, found, least) in positive {
            at_least(field, found, least)?;
        }
        let from_zero = |value: f64| value >= 0.0 && value.is_finite();
        above_zero("optimizer.learning_rate", self.optimizer.learning_rate)?;
        above_zero("optimizer.clip_value", self.optimizer.clip_value)?;
        if !from_zero(self.optimizer.warmup_epochs) {
            let found = self.optimizer.warmup_epochs;
            return Err(setting("optimizer.warmup_epochs", found, "at least 0"));
        }
        if !from_zero(f64::from(self.data.noise_width)) {
            let found = self.data.noise_width;
            return Err(setting("data.noise_width", found, "at least 0"));
        }
        if !(0.0..1.0).contains(&self.data.held_out) {
            let expected = "at least 0 and below 1";
            return Err(setting("data.held_out", self.data.held_out, expected));
        }
        self.check_draft()?;
        self.tree_shape().map(|_| ())
    }

    /// Fails if a step has fewer batches than there are ranks.
    pub(crate) fn check_ranks(&self, ranks: usize) -> Result<(), TrainError> {
        let batches = self.data.accumulate;
        if ranks <= batches {
            return Ok(());
        }
        let expected = format!("at least {ranks}, a batch for each rank");
        Err(setting("data.accumulate", batches, expected))
    }

    fn check_draft(&self) -> Result<(), TrainError> {
        let medusa_objective = matches!(self.objective, Objective::Medusa { .. });
        let test_time = matches!(self.objective, Objective::TestTime { .. });
        if let Objective::TestTime { passes, decay } = self.objective {
            if passes == 0 {
                return Err(setting("objective.passes", passes, "at least 1"));
            }
            if !(decay > 0.0 && decay <= 1.0) {
                let expected = "a number above 0, at most 1";
                return Err(setting("objective.decay", decay, expected));
            }
        }
        match self.draft {
            DraftSettings::Vispec { num_queries: 0 } => {
                Err(setting("draft.num_queries", 0, "at least 1"))
            }
            DraftSettings::Medusa { num_heads: 0 } => {
                Err(setting("draft.num_heads", 0, "at least 1"))
            }
            DraftSettings::Eagle3 { .. } if !test_time => {
                let expected = "test_time for an EAGLE-3 draft";
                Err(setting("objective.kind", self.objective.kind(), expected))
            }
            DraftSettings::Eagle3 {
                head: DraftHeadSetting::Own,
                ..
            } if self.vocabulary.is_none() => {
                let expected = "a section with the size of the draft's own head";
                Err(setting("vocabulary", "none", expected))
            }
            DraftSettings::Medusa { .. } if !medusa_objective => {
                let expected = "medusa for a Medusa draft";
                Err(setting("objective.kind", self.objective.kind(), expected))
            }
            DraftSettings::Vispec { .. } | DraftSettings::Eagle2
                if medusa_objective || test_time =>
            {
                let expected = "stage1 or stage2 for a draft that is neither Medusa nor EAGLE-3";
                Err(setting("objective.kind", self.objective.kind(), expected))
            }
            _ => Ok(()),
        }
    }
}

/// Sets the value at a dotted path. Returns `None` if an inner part of the path is not a table.
fn put(table: &mut toml::Table, key: &str, value: &str) -> Option<()> {
    let (path, last) = match key.rsplit_once('.') {
        Some((path, last)) => (path.split('.').collect(), last),
        None => (Vec::new(), key),
    };
    let mut inner = table;
    for part in path {
        inner = inner
            .entry(part)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()?;
    }
    // Anything that is not a TOML value is taken as an unquoted string.
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}"));
    let value = parsed
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    inner.insert(last.to_owned(), value);
    Some(())
}
