//! `vision_config` of LLaVA: a CLIP vision tower.

use serde::Deserialize;

use crate::config_file::{ConfigFile, MAX_LAYERS, MAX_WIDTH};
use crate::error::ModelError;

/// Maximum plausible side of a tile in pixels.
const MAX_SIDE: usize = 1 << 13;

/// The activation inside the feed-forward blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClipActivation {
    /// `x * sigmoid(1.702 x)`, as in the models of OpenAI.
    QuickGelu,
    /// `x * Phi(x)`, exact.
    Gelu,
}

/// Shapes of the vision tower.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClipConfig {
    /// Width of the tower.
    pub hidden: usize,
    /// Width inside the feed-forward blocks.
    pub intermediate: usize,
    /// Number of layers in the checkpoint.
    pub layers: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Side of a tile in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Activation inside the feed-forward blocks.
    pub activation: ClipActivation,
    /// Added to the variance in norms.
    pub norm_eps: f64,
}

impl ClipConfig {
    /// Returns the number of patches along one side of a tile.
    #[must_use]
    pub fn grid_side(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Returns the config that transformers 4.51 uses if there is no `vision_config`: CLIP ViT-L/14
    /// at 336 pixels.
    fn when_absent() -> Self {
        Self {
            hidden: 1024,
            intermediate: 4096,
            layers: 24,
            heads: 16,
            image_size: 336,
            patch_size: 14,
            ..Self::with_defaults(ClipFields::default())
        }
    }

    /// Fills in missing fields with the defaults of transformers 4.51.
    fn with_defaults(fields: ClipFields) -> Self {
        let activation = match fields.hidden_act.as_deref() {
            Some("gelu") => ClipActivation::Gelu,
            _ => ClipActivation::QuickGelu,
        };
        Self {
            hidden: fields.hidden_size.unwrap_or(768),
            intermediate: fields.intermediate_size.unwrap_or(3072),
            layers: fields.num_hidden_layers.unwrap_or(12),
            heads: fields.num_attention_heads.unwrap_or(12),
            image_size: fields.image_size.unwrap_or(224),
            patch_size: fields.patch_size.unwrap_or(32),
            activation,
            norm_eps: fields.layer_norm_eps.unwrap_or(1e-5),
        }
    }

    /// Checks the fields in `file`, or uses the defaults if there are none.
    pub(super) fn check(fields: Option<ClipFields>, file: &ConfigFile) -> Result<Self, ModelError> {
        let Some(fields) = fields else {
            return Ok(Self::when_absent());
        };
        let name = |field: &str| format!("vision_config.{field}");
        if let Some(model_type) = &fields.model_type {
            file.one_of(name("model_type"), model_type, &["clip_vision_model"])?;
        }
        if let Some(activation) = &fields.hidden_act {
            file.one_of(name("hidden_act"), activation, &["quick_gelu", "gelu"])?;
        }
        if let Some(channels) = fields.num_channels.filter(|&n| n != 3) {
            return Err(file.invalid(name("num_channels"), channels, "3, as colour images have"));
        }
        let config = Self::with_defaults(fields);
        file.size(name("hidden_size"), config.hidden, MAX_WIDTH)?;
        file.size(
            name("intermediate_size"),
            config.intermediate,
            4 * MAX_WIDTH,
        )?;
        file.size(name("num_hidden_layers"), config.layers, MAX_LAYERS)?;
        file.size(name("num_attention_heads"), config.heads, config.hidden)?;
        file.size(name("image_size"), config.image_size, MAX_SIDE)?;
        file.size(name("patch_size"), config.patch_size, config.image_size)?;
        file.epsilon(name("layer_norm_eps"), config.norm_eps)?;
        if !config.hidden.is_multiple_of(config.heads) {
            let expected = format!("a divisor of hidden_size, {}", config.hidden);
            return Err(file.invalid(name("num_attention_heads"), config.heads, expected));
        }
        if !config.image_size.is_multiple_of(config.patch_size) {
            let expected = format!("a divisor of image_size, {}", config.image_size);
            return Err(file.invalid(name("patch_size"), config.patch_size, expected));
        }
        Ok(config)
    }
}

/// The fields in the file.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ClipFields {
    model_type: Option<String>,
    hidden_size: Option<usize>,
    hidden_act: Option<String>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_channels: Option<usize>,
    image_size: Option<usize>,
    patch_size: Option<usize>,
    layer_norm_eps: Option<f64>,
}
