//! `config.json` of a draft.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::error::ModelError;
use crate::nn::{Bias, DecoderConfig};

/// Fields of a published draft config that decide its shape. Everything else in the file belongs to
/// the target that it was derived from.
#[derive(Debug, Clone, Deserialize)]
pub struct DraftConfig {
    hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    #[serde(default = "one")]
    num_hidden_layers: usize,
    vocab_size: usize,
    #[serde(default = "default_rms_norm_eps")]
    rms_norm_eps: f64,
    #[serde(default = "default_rope_theta")]
    rope_theta: f64,
    #[serde(default)]
    qkv_bias: bool,
    #[serde(default = "yes")]
    bias: bool,
}

fn one() -> usize {
    1
}

/// Upstream's default for a missing field.
fn default_rms_norm_eps() -> f64 {
    1e-6
}

/// Upstream's default for a missing field.
fn default_rope_theta() -> f64 {
    10_000.0
}

fn yes() -> bool {
    true
}

fn bias(present: bool) -> Bias {
    if present { Bias::Yes } else { Bias::No }
}

impl DraftConfig {
    /// Reads `dir/config.json`.
    ///
    /// # Errors
    /// [`ModelError::MissingConfig`] if there is none (upstream would take some other model's),
    /// [`ModelError::ConfigSyntax`] if it cannot be read, [`ModelError::ConfigValue`] if no draft
    /// can have such a shape.
    pub fn read(dir: &Path) -> Result<Self, ModelError> {
        let path = dir.join("config.json");
        if !path.is_file() {
            return Err(ModelError::MissingConfig {
                path,
                advice: "put the config.json that the draft was trained with beside its weights",
            });
        }
        let text = fs::read(&path).map_err(|source| ModelError::Io {
            path: path.clone(),
            source,
        })?;
        let config: Self =
            serde_json::from_slice(&text).map_err(|source| ModelError::ConfigSyntax {
                path: path.clone(),
                source,
            })?;
        config.check(&path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<(), ModelError> {
        let refuse = |field: &str, found: String, expected: &str| {
            Err(ModelError::ConfigValue {
                path: path.to_owned(),
                field: field.into(),
                found,
                expected: expected.into(),
            })
        };
        let sizes = [
            ("hidden_size", self.hidden_size, 1 << 20),
            ("intermediate_size", self.intermediate_size, 1 << 22),
            ("num_attention_heads", self.num_attention_heads, 1 << 12),
            ("num_key_value_heads", self.kv_heads(), 1 << 12),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 8),
            ("vocab_size", self.vocab_size, 1 << 24),
        ];
        for (field, value, limit) in sizes {
            if value == 0 || value > limit {
                return refuse(field, value.to_string(), &format!("1 to {limit}"));
            }
        }
        if !self
            .hidden_size
            .is_multiple_of(2 * self.num_attention_heads)
        {
            return refuse(
                "num_attention_heads",
                self.num_attention_heads.to_string(),
                "a number that divides hidden_size into heads of even size",
            );
        }
        if !self.num_attention_heads.is_multiple_of(self.kv_heads()) {
            return refuse(
                "num_key_value_heads",
                self.kv_heads().to_string(),
                "a divisor of num_attention_heads",
            );
        }
        Ok(())
    }

    fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Width of the hidden states, the same as the target's.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.hidden_size
    }

    /// Tokens in the embedding table, the same as the target's.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Whether `fc` and `img_fc` have biases.
    #[must_use]
    pub fn fusion_bias(&self) -> Bias {
        bias(self.bias)
    }

    /// Shapes of the draft's decoder.
    #[must_use]
    pub fn decoder(&self) -> DecoderConfig {
        DecoderConfig {
            hidden: self.hidden_size,
            intermediate: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            kv_heads: self.kv_heads(),
            head_dim: self.hidden_size / self.num_attention_heads,
            qkv_bias: bias(self.qkv_bias),
            rms_eps: self.rms_norm_eps,
            rope_theta: self.rope_theta,
        }
    }
}
