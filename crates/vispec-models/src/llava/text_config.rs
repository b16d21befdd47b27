//! `text_config` of LLaVA, which describes a Llama. Published files contain only the fields that
//! differ from the defaults of transformers.

use serde::Deserialize;

use crate::config_file::ConfigFile;
use crate::error::ModelError;
use crate::nn::{Bias, DecoderConfig, QkNorm};
use crate::rope_fields::RopeFields;

const PREFIX: &str = "text_config.";

/// The fields in the file.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TextFields {
    model_type: Option<String>,
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    hidden_act: Option<String>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f64>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    tie_word_embeddings: Option<bool>,
    #[serde(flatten)]
    rope: RopeFields,
}

/// Checked config of the text model.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TextConfig {
    pub(super) decoder: DecoderConfig,
    pub(super) vocab_size: usize,
    pub(super) context_len: usize,
    /// `None` if the file does not specify it.
    pub(super) tie_word_embeddings: Option<bool>,
}

impl TextFields {
    /// Fills in the defaults of transformers 4.51 and checks the values.
    pub(super) fn check(self, file: &ConfigFile) -> Result<TextConfig, ModelError> {
        let name = |field: &str| format!("{PREFIX}{field}");
        if let Some(found) = self.model_type.filter(|found| found != "llama") {
            return Err(ModelError::UnsupportedArchitecture {
                path: file.path().to_owned(),
                found: format!("text model {found}"),
                supported: "llama",
            });
        }
        if let Some(activation) = &self.hidden_act {
            file.one_of(name("hidden_act"), activation, &["silu"])?;
        }
        file.off(name("attention_bias"), self.attention_bias)?;
        file.off(name("mlp_bias"), self.mlp_bias)?;
        self.rope.require_unscaled(file, PREFIX, &["default"])?;
        let hidden = self.hidden_size.unwrap_or(4096);
        let heads = self.num_attention_heads.unwrap_or(32);
        let decoder = DecoderConfig {
            hidden,
            intermediate: self.intermediate_size.unwrap_or(11008),
            layers: self.num_hidden_layers.unwrap_or(32),
            heads,
            kv_heads: self.num_key_value_heads.unwrap_or(heads),
            head_dim: file.head_dim(PREFIX, self.head_dim, hidden, heads)?,
            qkv_bias: Bias::No,
            qk_norm: QkNorm::No,
            rms_eps: self.rms_norm_eps.unwrap_or(1e-6),
            rope_theta: self.rope.theta().unwrap_or(10_000.0),
        };
        file.check_decoder(PREFIX, &decoder)?;
        let vocab_size = self.vocab_size.unwrap_or(32_000);
        let context_len = self.max_position_embeddings.unwrap_or(2048);
        file.check_limits(PREFIX, vocab_size, context_len)?;
        let tie_word_embeddings = self.tie_word_embeddings;
        Ok(TextConfig {
            decoder,
            vocab_size,
            context_len,
            tie_word_embeddings,
        })
    }
}
