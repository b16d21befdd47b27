//! The `config.json` of a draft.

use std::path::Path;

use serde::Deserialize;

use crate::config_file::ConfigFile;
use crate::error::ModelError;
use crate::nn::{Bias, DecoderConfig, QkNorm};

/// Advice for a draft without a config.
pub(super) const MISSING_CONFIG: &str =
    "put the config.json that the draft was trained with next to its weights";

/// The fields of the file.
#[derive(Deserialize)]
struct Fields {
    hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    num_hidden_layers: Option<usize>,
    vocab_size: usize,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    qkv_bias: Option<bool>,
    bias: Option<bool>,
}

/// The part of a published draft config that determines the draft's shape. Everything else in the
/// file belongs to the target that the draft was derived from.
///
/// Missing fields take upstream's defaults: one layer, the same number of key heads as query heads,
/// epsilon 1e-6, rotary base 10000, no bias in attention, a bias in the fusion layers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DraftConfig {
    decoder: DecoderConfig,
    vocab_size: usize,
    fusion_bias: Bias,
}

fn bias(present: bool) -> Bias {
    if present { Bias::Yes } else { Bias::No }
}

impl DraftConfig {
    /// Reads `dir/config.json`.
    ///
    /// # Errors
    /// [`ModelError::MissingConfig`] if the file does not exist (upstream would use another model's
    /// config), [`ModelError::ConfigSyntax`] if it cannot be read, [`ModelError::ConfigValue`] if
    /// its shapes are invalid for a draft.
    pub fn read(dir: &Path) -> Result<Self, ModelError> {
        let file = ConfigFile::open_with_advice(dir, MISSING_CONFIG)?;
        let fields: Fields = file.parse()?;
        let heads = fields.num_attention_heads;
        let decoder = DecoderConfig {
            hidden: fields.hidden_size,
            intermediate: fields.intermediate_size,
            layers: fields.num_hidden_layers.unwrap_or(1),
            heads,
            kv_heads: fields.num_key_value_heads.unwrap_or(heads),
            head_dim: file.head_dim("", None, fields.hidden_size, heads)?,
            qkv_bias: bias(fields.qkv_bias.unwrap_or(false)),
            qk_norm: QkNorm::No,
            rms_eps: fields.rms_norm_eps.unwrap_or(1e-6),
            rope_theta: fields.rope_theta.unwrap_or(10_000.0),
        };
        file.check_decoder("", &decoder)?;
        file.check_vocab("", fields.vocab_size)?;
        Ok(Self {
            decoder,
            vocab_size: fields.vocab_size,
            fusion_bias: bias(fields.bias.unwrap_or(true)),
        })
    }

    /// Returns the width of the hidden states, the same as the target's.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.decoder.hidden
    }

    /// Returns the number of tokens in the embedding table, the same as the target's.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Returns whether `fc` and `img_fc` have biases.
    #[must_use]
    pub fn fusion_bias(&self) -> Bias {
        self.fusion_bias
    }

    /// Returns the shapes of the draft's decoder.
    #[must_use]
    pub fn decoder(&self) -> DecoderConfig {
        self.decoder
    }
}
