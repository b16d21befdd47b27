//! `config.json` of Qwen2.5-VL.

use std::path::Path;

use serde::Deserialize;

use super::tower_shape::VisionFields;
use super::vision_config::QwenVisionConfig;
use crate::config_file::ConfigFile;
use crate::error::ModelError;
use crate::nn::{Bias, DecoderConfig, QkNorm};
use crate::rope_fields::RopeFields;

const ARCHITECTURE: &str = "Qwen2_5_VLForConditionalGeneration";

/// Config of a Qwen2.5-VL model: text model and vision tower.
#[derive(Debug, Clone, PartialEq)]
pub struct QwenConfig {
    decoder: DecoderConfig,
    /// Number of rows of the embedding table, which is at least the tokenizer's vocabulary size.
    pub vocab_size: usize,
    /// Whether the output head is the embedding table.
    pub tie_word_embeddings: bool,
    /// The vision tower.
    pub vision: QwenVisionConfig,
    context_len: usize,
    rotary_sections: [usize; 3],
}

/// Fields outside the text model.
#[derive(Deserialize)]
struct RootFields {
    tie_word_embeddings: Option<bool>,
    image_token_id: Option<u32>,
    vision_config: VisionFields,
    /// Fields of the text model in newer files.
    text_config: Option<TextFields>,
}

/// Fields of the text model, at the top level in older files.
#[derive(Deserialize)]
struct TextFields {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: Option<usize>,
    hidden_act: Option<String>,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    use_sliding_window: Option<bool>,
    layer_types: Option<Vec<String>>,
    tie_word_embeddings: Option<bool>,
    image_token_id: Option<u32>,
    #[serde(flatten)]
    rope: RopeFields,
}

impl QwenConfig {
    /// Reads `config.json` in `dir`.
    ///
    /// # Errors
    /// Returns [`ModelError::MissingConfig`] or [`ModelError::Io`] if the file cannot be read,
    /// [`ModelError::ConfigSyntax`] if it lacks a field, [`ModelError::ConfigValue`] if a value is
    /// invalid or not supported, [`ModelError::UnsupportedArchitecture`] if it is of another model.
    pub fn read(dir: &Path) -> Result<Self, ModelError> {
        let file = ConfigFile::open(dir)?;
        // Check the architecture first, since the file of another model lacks some fields.
        file.architecture(&[(ARCHITECTURE, "qwen2_5_vl")], ARCHITECTURE)?;
        let mut root: RootFields = file.parse()?;
        let (prefix, text) = match root.text_config.take() {
            Some(text) => ("text_config.", text),
            None => ("", file.parse()?),
        };
        let image_token_id = root
            .image_token_id
            .or(text.image_token_id)
            .ok_or_else(|| file.missing("image_token_id"))?;
        let tied = root
            .tie_word_embeddings
            .or(text.tie_word_embeddings)
            .unwrap_or(false);
        let (vocab_size, context_len) = (text.vocab_size, text.max_position_embeddings);
        file.check_limits(prefix, vocab_size, context_len)?;
        file.check_token("image_token_id", image_token_id, vocab_size)?;
        let (decoder, rotary_sections) = text.check(&file, prefix)?;
        Ok(Self {
            decoder,
            vocab_size,
            tie_word_embeddings: tied,
            vision: QwenVisionConfig::new(root.vision_config, &file, decoder.hidden)?,
            context_len,
            rotary_sections,
        })
    }

    /// Returns the shapes of the text model.
    #[must_use]
    pub fn decoder(&self) -> DecoderConfig {
        self.decoder
    }

    /// Returns the maximum number of positions that the model supports.
    #[must_use]
    pub fn context_len(&self) -> usize {
        self.context_len
    }

    /// Returns the numbers of rotary frequencies for time, height and width.
    #[must_use]
    pub fn rotary_sections(&self) -> [usize; 3] {
        self.rotary_sections
    }
}

impl TextFields {
    fn check(
        &self,
        file: &ConfigFile,
        prefix: &str,
    ) -> Result<(DecoderConfig, [usize; 3]), ModelError> {
        let name = |field: &str| format!("{prefix}{field}");
        if let Some(activation) = &self.hidden_act {
            file.one_of(name("hidden_act"), activation, &["silu"])?;
        }
        file.off(name("use_sliding_window"), self.use_sliding_window)?;
        for layer_type in self.layer_types.iter().flatten() {
            file.one_of(name("layer_types"), layer_type, &["full_attention"])?;
        }
        self.rope
            .require_unscaled(file, prefix, &["default", "mrope"])?;
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        let decoder = DecoderConfig {
            hidden,
            intermediate: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads,
            kv_heads: self.num_key_value_heads,
            head_dim: file.head_dim(prefix, self.head_dim, hidden, heads)?,
            qkv_bias: Bias::Yes,
            qk_norm: QkNorm::No,
            rms_eps: self.rms_norm_eps,
            rope_theta: self.rope.theta().unwrap_or(1_000_000.0),
        };
        file.check_decoder(prefix, &decoder)?;
        let sections = self.rope.mrope_sections(file, prefix, decoder.head_dim)?;
        Ok((decoder, sections))
    }
}

#[cfg(test)]
mod tests;
