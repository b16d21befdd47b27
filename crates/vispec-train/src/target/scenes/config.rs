//! The config of a target that is made.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vispec_data::scenes::{Palette, SceneStyle, Wording};

use crate::error::{TrainError, setting};
use crate::files::at;
use crate::optimizer::AdamWSettings;

/// Everything that decides what a target becomes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MakeTargetConfig {
    /// Seed of scenes and of what is asked about them.
    pub seed: u64,
    /// Checkpoint that is started from: a Qwen2.5-VL model with an output head of its own.
    pub base: PathBuf,
    /// Conversations without pictures, in ShareGPT's layout, that are taught as well.
    pub text: PathBuf,
    /// Of so many lessons one is such a conversation.
    pub text_every: u64,
    /// Largest area of pictures in pixels, as the processor of the target is told.
    pub max_pixels: usize,
    /// What pictures show.
    pub scenes: SceneSettings,
    /// Scenes of each size that are judged and not taught.
    pub held_out: u64,
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
    pub stages: Vec<Stage>,
}

/// What pictures show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SceneSettings {
    /// Rows and columns of the grid.
    pub cells: u32,
    /// Fewest shapes.
    pub min_shapes: u32,
    /// Most shapes.
    pub max_shapes: u32,
    /// Colours and forms by name.
    pub palette: String,
    /// How much the words of answers depend on the picture.
    #[serde(default)]
    pub wording: Wording,
}

/// Some steps with a number of layers and sizes of pictures. Each stage starts with new moments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Decoder layers; what is missing is put between those that are there.
    pub layers: usize,
    /// Steps.
    pub steps: usize,
    /// Lessons of a step.
    pub batch_size: usize,
    /// The highest learning rate; it falls linearly to zero.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: usize,
    /// Sides of pictures in pixels, each as often as the others.
    pub sides: Vec<u32>,
}

impl MakeTargetConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// [`TrainError::Io`], [`TrainError::ConfigSyntax`], [`TrainError::Setting`].
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path).map_err(at(path))?;
        let config: Self = toml::from_str(&text).map_err(|source| TrainError::ConfigSyntax {
            name: path.display().to_string(),
            source: Box::new(source),
        })?;
        config.check()?;
        Ok(config)
    }

    /// Fails if a value cannot be used.
    ///
    /// # Errors
    /// [`TrainError::Setting`] with the first such value.
    pub fn check(&self) -> Result<(), TrainError> {
        let counts = [
            ("workers", self.workers),
            ("save_every", self.save_every),
            ("stage", self.stages.len()),
        ];
        let stages = self.stages.iter().flat_map(|stage| {
            [
                ("stage.layers", stage.layers),
                ("stage.steps", stage.steps),
                ("stage.batch_size", stage.batch_size),
                ("stage.sides", stage.sides.len()),
            ]
        });
        if let Some((field, _)) = counts.into_iter().chain(stages).find(|(_, n)| *n == 0) {
            return Err(setting(field, "0", "at least 1"));
        }
        for stage in &self.stages {
            if !above_zero(stage.learning_rate) {
                let found = stage.learning_rate.to_string();
                return Err(setting("stage.learning_rate", found, "a number above 0"));
            }
            for &side in &stage.sides {
                self.style(side)?;
            }
        }
        let shrinking = self
            .stages
            .windows(2)
            .find(|two| two[1].layers < two[0].layers);
        if let Some(two) = shrinking {
            let expected = format!("at least the {} of the stage before", two[0].layers);
            return Err(setting("stage.layers", two[1].layers.to_string(), expected));
        }
        if !above_zero(self.clip_value) {
            let found = self.clip_value.to_string();
            return Err(setting("clip_value", found, "a number above 0"));
        }
        Ok(())
    }

    /// Scenes of pictures of this side.
    ///
    /// # Errors
    /// [`TrainError::Setting`] if there are no such scenes.
    pub fn style(&self, side: u32) -> Result<SceneStyle, TrainError> {
        let scenes = &self.scenes;
        let palette: Palette = scenes.palette.parse().map_err(|expected: String| {
            setting("scenes.palette", scenes.palette.clone(), expected)
        })?;
        let style = SceneStyle::new(side, scenes.cells, scenes.min_shapes..=scenes.max_shapes);
        let style = style.filter(|_| (side as usize).pow(2) <= self.max_pixels);
        let style = style.ok_or_else(|| {
            setting(
                "stage.sides",
                format!("{side} with scenes of {scenes:?}"),
                "1 to 9 cells of at least 10 pixels, 1 to cells x cells shapes, and an area of at \
                 most max_pixels",
            )
        })?;
        Ok(style.with_palette(palette))
    }

    /// All sides of all stages, from the smallest.
    #[must_use]
    pub fn sides(&self) -> Vec<u32> {
        let sides = self.stages.iter().flat_map(|stage| stage.sides.iter());
        let mut sides: Vec<u32> = sides.copied().collect();
        sides.sort_unstable();
        sides.dedup();
        sides
    }
}

fn above_zero(value: f64) -> bool {
    value > 0.0 && value.is_finite()
}
