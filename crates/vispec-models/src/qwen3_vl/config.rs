//! `config.json` of Qwen3-VL.

use std::path::Path;

use serde::Deserialize;

use super::vision_config::Qwen3VisionConfig;
use crate::config_file::ConfigFile;
use crate::error::ModelError;
use crate::nn::{Bias, DecoderConfig, MropeLayout, QkNorm};
use crate::qwen2_5_vl::VisionFields;
use crate::rope_fields::RopeFields;

const ARCHITECTURE: &str = "Qwen3VLForConditionalGeneration";
const PREFIX: &str = "text_config.";

/// Config of a Qwen3-VL model: text model and vision tower.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Qwen3Config {
    decoder: DecoderConfig,
    /// Number of rows of the embedding table, which is at least the tokenizer's vocabulary size.
    pub vocab_size: usize,
    /// Whether the output head is the embedding table.
    pub tie_word_embeddings: bool,
    /// The vision tower.
    pub vision: Qwen3VisionConfig,
    context_len: usize,
    rotary_sections: [usize; 3],
}

#[derive(Deserialize)]
struct RootFields {
    tie_word_embeddings: Option<bool>,
    image_token_id: u32,
    vision_config: VisionFields,
    text_config: TextFields,
}

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
    attention_bias: Option<bool>,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    tie_word_embeddings: Option<bool>,
    #[serde(flatten)]
    rope: RopeFields,
}

impl Qwen3Config {
    /// Reads `config.json` in `dir`.
    ///
    /// # Errors
    /// Returns [`ModelError::MissingConfig`] or [`ModelError::Io`] if the file cannot be read,
    /// [`ModelError::ConfigSyntax`] if it lacks a field, [`ModelError::ConfigValue`] if a value is
    /// invalid or not supported, [`ModelError::UnsupportedArchitecture`] if it is of another model.
    pub(crate) fn read(dir: &Path) -> Result<Self, ModelError> {
        let file = ConfigFile::open(dir)?;
        // Check the architecture first, since the file of another model lacks some fields.
        file.architecture(&[(ARCHITECTURE, "qwen3_vl")], ARCHITECTURE)?;
        let root: RootFields = file.parse()?;
        let text = root.text_config;
        let (vocab_size, context_len) = (text.vocab_size, text.max_position_embeddings);
        file.check_limits(PREFIX, vocab_size, context_len)?;
        file.check_token("image_token_id", root.image_token_id, vocab_size)?;
        let (decoder, rotary_sections) = text.check(&file)?;
        let tied = root.tie_word_embeddings.or(text.tie_word_embeddings);
        Ok(Self {
            decoder,
            vocab_size,
            tie_word_embeddings: tied.unwrap_or(false),
            vision: Qwen3VisionConfig::new(root.vision_config, &file, &decoder)?,
            context_len,
            rotary_sections,
        })
    }

    /// Returns the shapes of the text model.
    pub(crate) fn decoder(&self) -> DecoderConfig {
        self.decoder
    }

    /// Returns the maximum number of positions that the model supports.
    pub(crate) fn context_len(&self) -> usize {
        self.context_len
    }

    /// Returns the numbers of rotary frequencies for time, height and width.
    pub(crate) fn rotary_sections(&self) -> [usize; 3] {
        self.rotary_sections
    }
}

impl TextFields {
    fn check(&self, file: &ConfigFile) -> Result<(DecoderConfig, [usize; 3]), ModelError> {
        let name = |field: &str| format!("{PREFIX}{field}");
        if let Some(activation) = &self.hidden_act {
            file.one_of(name("hidden_act"), activation, &["silu"])?;
        }
        file.off(name("attention_bias"), self.attention_bias)?;
        self.rope
            .require_unscaled(file, PREFIX, &["default", "mrope"])?;
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        let decoder = DecoderConfig {
            hidden,
            intermediate: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads,
            kv_heads: self.num_key_value_heads,
            // Published files contain it; 128 is the default of transformers.
            head_dim: self.head_dim.unwrap_or(128),
            qkv_bias: Bias::No,
            qk_norm: QkNorm::PerHead,
            rms_eps: self.rms_norm_eps,
            rope_theta: self.rope.theta().unwrap_or(5_000_000.0),
        };
        file.check_decoder(PREFIX, &decoder)?;
        let sections = self.rope.mrope_sections(file, PREFIX, decoder.head_dim)?;
        self.check_layout(file, sections, decoder.head_dim)?;
        Ok((decoder, sections))
    }

    /// Checks the rotary layout. The model always interleaves its axes, so a file with another
    /// layout belongs to another model. Each section must fit among the frequencies.
    fn check_layout(
        &self,
        file: &ConfigFile,
        sections: [usize; 3],
        head_dim: usize,
    ) -> Result<(), ModelError> {
        if self.rope.mrope_layout() != MropeLayout::Interleaved {
            let expected = "true: the axes of this model are interleaved";
            return Err(file.invalid(name_of("mrope_interleaved"), false, expected));
        }
        let fits =
            |axis: usize| sections[axis] == 0 || 3 * (sections[axis] - 1) + axis < head_dim / 2;
        if fits(1) && fits(2) {
            return Ok(());
        }
        Err(file.invalid(
            name_of("mrope_section"),
            format!("{sections:?}"),
            format!(
                "every third of {} frequencies for height and width, so at most a third of them each",
                head_dim / 2
            ),
        ))
    }
}

fn name_of(field: &str) -> String {
    format!("{PREFIX}rope_scaling.{field}")
}

#[cfg(test)]
mod tests;
