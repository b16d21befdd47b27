//! The config of a target that describes scenes.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vispec_data::scenes::{Palette, SceneStyle, Wording};

use crate::error::{TrainError, at_least, setting};
use crate::files::at;
use crate::target::course::{LoopSettings, Pace};

/// Everything that determines the resulting target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MakeTargetConfig {
    /// Seed of the scenes and of the questions about them.
    pub seed: u64,
    /// Checkpoint to start from: a Qwen2.5-VL model with its own output head.
    pub base: PathBuf,
    /// File of conversations without pictures, in ShareGPT's layout, that are taught as well.
    pub text: PathBuf,
    /// One in this many lessons is such a conversation; 0 for none.
    pub text_every: u64,
    /// Maximum area of pictures in pixels, a setting of the target's processor.
    pub max_pixels: usize,
    /// Contents of the pictures.
    pub scenes: SceneSettings,
    /// Number of held-out scenes of each size, for evaluation.
    pub held_out: u64,
    /// Settings of the training loop.
    pub training: LoopSettings,
    /// The stages, in order.
    #[serde(rename = "stage")]
    pub stages: Vec<Stage>,
}

/// Contents of the pictures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SceneSettings {
    /// Number of rows and of columns of the grid.
    pub cells: u32,
    /// Minimum number of shapes.
    pub min_shapes: u32,
    /// Maximum number of shapes.
    pub max_shapes: u32,
    /// Name of the palette of colours and forms.
    pub palette: String,
    /// How much the words of answers depend on the picture.
    #[serde(default)]
    pub wording: Wording,
}

/// A number of steps with given layers and picture sizes. Each stage starts with new moments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Number of decoder layers. Missing layers are inserted between the existing ones.
    pub layers: usize,
    /// Length, batch size and learning rate.
    pub pace: Pace,
    /// Sides of pictures in pixels, chosen with equal probability.
    pub sides: Vec<u32>,
}

impl MakeTargetConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// [`TrainError::Io`], [`TrainError::ConfigSyntax`] or [`TrainError::Setting`].
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path).map_err(at(path))?;
        let config: Self = toml::from_str(&text).map_err(|source| TrainError::ConfigSyntax {
            name: path.display().to_string(),
            source: Box::new(source),
        })?;
        config.check()?;
        Ok(config)
    }

    /// Checks all values.
    ///
    /// # Errors
    /// [`TrainError::Setting`] with the first value that cannot be used.
    pub fn check(&self) -> Result<(), TrainError> {
        self.training.check(&self.paces())?;
        for stage in &self.stages {
            at_least("stage.layers", stage.layers, 1)?;
            at_least("stage.sides", stage.sides.len(), 1)?;
        }
        for &side in self.stages.iter().flat_map(|stage| &stage.sides) {
            self.style(side)?;
        }
        let shrinking = self
            .stages
            .windows(2)
            .find(|two| two[1].layers < two[0].layers);
        if let Some(two) = shrinking {
            let expected = format!("at least {}, as in the stage before", two[0].layers);
            return Err(setting("stage.layers", two[1].layers.to_string(), expected));
        }
        Ok(())
    }

    /// Returns the pace of each stage.
    pub(super) fn paces(&self) -> Vec<Pace> {
        self.stages.iter().map(|stage| stage.pace).collect()
    }

    /// Returns the style of scenes in pictures with this side.
    ///
    /// # Errors
    /// [`TrainError::Setting`] if no scenes have this side and these settings.
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

    /// Returns all sides of all stages in ascending order.
    #[must_use]
    pub fn sides(&self) -> Vec<u32> {
        let sides = self.stages.iter().flat_map(|stage| stage.sides.iter());
        let mut sides: Vec<u32> = sides.copied().collect();
        sides.sort_unstable();
        sides.dedup();
        sides
    }
}
