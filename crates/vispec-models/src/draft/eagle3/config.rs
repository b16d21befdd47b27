//! The `config.json` of an EAGLE-3 draft, in the published dialects.

use std::path::Path;

use serde::Deserialize;

use super::layer_ids::{LayerIds, LayerLists};
use crate::config_file::ConfigFile;
use crate::draft::positions::DraftPositions;
use crate::error::ModelError;
use crate::features::FeatureSpec;
use crate::nn::{Bias, DecoderConfig, MropeLayout, QkNorm};
use crate::rope_fields::RopeFields;

/// The origin of a config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// The EAGLE authors, SGLang and SpecForge.
    Authors,
    /// vLLM and AngelSlim.
    Vllm,
    /// The `speculators` library.
    Speculators,
}

/// Architectures and their dialects. The authors' own files contain the target's architecture.
const DIALECTS: [(&str, Dialect); 5] = [
    ("LlamaForCausalLMEagle3", Dialect::Authors),
    ("LlamaForCausalLM", Dialect::Authors),
    ("Eagle3Qwen2_5vlForCausalLM", Dialect::Vllm),
    ("Eagle3Qwen3vlForCausalLM", Dialect::Vllm),
    ("Eagle3Speculator", Dialect::Speculators),
];
const SUPPORTED: &str = "LlamaForCausalLMEagle3, Eagle3Qwen2_5vlForCausalLM, \
                         Eagle3Qwen3vlForCausalLM, Eagle3Speculator";

/// All fields except those of the layer.
#[derive(Deserialize)]
struct RootFields {
    architectures: Option<Vec<String>>,
    draft_vocab_size: Option<usize>,
    eagle_config: Option<EagleFields>,
    eagle_aux_hidden_state_layer_ids: Option<Vec<usize>>,
    norm_before_residual: Option<bool>,
    norm_before_fc: Option<bool>,
    norm_output: Option<bool>,
    fc_norm: Option<bool>,
    target_hidden_size: Option<usize>,
    transformer_layer_config: Option<LayerFields>,
}

#[derive(Deserialize)]
struct EagleFields {
    eagle_aux_hidden_state_layer_ids: Option<Vec<usize>>,
    use_aux_hidden_state: Option<bool>,
}

/// Fields of the layer, at the top level unless `speculators` wrote the file.
#[derive(Deserialize)]
struct LayerFields {
    hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    num_hidden_layers: Option<usize>,
    vocab_size: usize,
    rms_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    #[serde(flatten)]
    rope: RopeFields,
}

/// The field that names the kind of model.
#[derive(Deserialize)]
struct Kind {
    architectures: Option<Vec<String>>,
}

/// The residual stream of the first layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::draft) enum PairResidual {
    /// The hidden state, unchanged.
    Raw,
    /// The hidden state after its norm.
    Normed,
}

/// The config of an EAGLE-3 draft.
#[derive(Debug)]
pub struct Eagle3Config {
    pub(in crate::draft) decoder: DecoderConfig,
    pub(in crate::draft) vocab_size: usize,
    pub(in crate::draft) draft_vocab_size: usize,
    pub(in crate::draft) target_hidden: usize,
    pub(in crate::draft) residual: PairResidual,
    /// Whether the concatenated states of the target are normalised before they are fused.
    pub(in crate::draft) norm_before_fc: bool,
    pub(in crate::draft) positions: DraftPositions,
    lists: LayerLists,
    file: ConfigFile,
}

impl Eagle3Config {
    /// Returns whether the architecture in the config names an EAGLE-3 draft.
    pub(in crate::draft) fn is_named_in(file: &ConfigFile) -> Result<bool, ModelError> {
        let kind: Kind = file.parse()?;
        let named = kind.architectures.as_deref().unwrap_or_default();
        // The authors' files are recognised by their tensors instead.
        let named = named.iter().any(|name| name.contains("Eagle3"));
        Ok(named)
    }

    /// Reads `dir/config.json`.
    ///
    /// # Errors
    /// [`ModelError::MissingConfig`] if the file does not exist, [`ModelError::ConfigSyntax`] if it
    /// cannot be read, [`ModelError::UnsupportedArchitecture`] if its dialect is unknown,
    /// [`ModelError::ConfigValue`] if its shapes are invalid for a draft or it requires a feature
    /// that is not implemented.
    pub fn read(dir: &Path) -> Result<Self, ModelError> {
        let file = ConfigFile::open_with_advice(dir, super::super::config::MISSING_CONFIG)?;
        let mut root: RootFields = file.parse()?;
        let dialect = root.dialect(&file)?;
        root.refuse_what_is_not_implemented(&file, dialect)?;
        let (prefix, layer) = match root.transformer_layer_config.take() {
            Some(layer) => ("transformer_layer_config.", layer),
            None => ("", file.parse()?),
        };
        let decoder = layer.decoder(&file, prefix)?;
        file.check_vocab(prefix, layer.vocab_size)?;
        let draft_vocab_size = root.draft_vocab_size.unwrap_or(layer.vocab_size);
        file.size("draft_vocab_size", draft_vocab_size, layer.vocab_size)?;
        let nested = root.eagle_config.take();
        Ok(Self {
            positions: layer.positions(&file, prefix, decoder.head_dim, dialect)?,
            decoder,
            vocab_size: layer.vocab_size,
            draft_vocab_size,
            target_hidden: root.target_hidden_size.unwrap_or(decoder.hidden),
            residual: if root.norm_before_residual == Some(true) {
                PairResidual::Normed
            } else {
                PairResidual::Raw
            },
            norm_before_fc: root.norm_before_fc == Some(true),
            lists: LayerLists {
                nested: nested.and_then(|eagle| eagle.eagle_aux_hidden_state_layer_ids),
                top: root.eagle_aux_hidden_state_layer_ids,
                top_is_known: dialect != Dialect::Authors,
            },
            file,
        })
    }

    /// Returns which hidden states the draft reads from a target with `layers` layers.
    ///
    /// # Errors
    /// [`ModelError::AmbiguousLayerIds`] if the config is ambiguous, [`ModelError::ConfigValue`] if
    /// the target does not have these layers.
    pub(crate) fn features(
        &self,
        layers: usize,
        meaning: LayerIds,
    ) -> Result<FeatureSpec, ModelError> {
        self.lists.states(&self.file, layers, meaning)
    }
}

impl RootFields {
    fn dialect(&self, file: &ConfigFile) -> Result<Dialect, ModelError> {
        let list = self.architectures.as_deref().unwrap_or_default();
        let Some(named) = list.first() else {
            return Ok(Dialect::Authors);
        };
        let known = DIALECTS.iter().find(|(name, _)| name == named);
        let known = known.map(|(_, dialect)| *dialect);
        known.ok_or_else(|| ModelError::UnsupportedArchitecture {
            path: file.path().to_owned(),
            found: named.clone(),
            supported: SUPPORTED,
        })
    }

    fn refuse_what_is_not_implemented(
        &self,
        file: &ConfigFile,
        dialect: Dialect,
    ) -> Result<(), ModelError> {
        file.off("fc_norm", self.fc_norm)?;
        let eagle = self.eagle_config.as_ref();
        if eagle.and_then(|eagle| eagle.use_aux_hidden_state) == Some(false) {
            let expected = "true; drafts that read only the last hidden state are not supported";
            return Err(file.invalid("eagle_config.use_aux_hidden_state", false, expected));
        }
        match (dialect, self.norm_output) {
            // In this dialect the field concerns the input of the next step.
            (Dialect::Speculators, norm_output) => file.off("norm_output", norm_output),
            // In the others it concerns the input of the head.
            (_, Some(false)) => {
                let expected = "true; false is not supported";
                Err(file.invalid("norm_output", false, expected))
            }
            _ => Ok(()),
        }
    }
}

impl LayerFields {
    fn decoder(&self, file: &ConfigFile, prefix: &str) -> Result<DecoderConfig, ModelError> {
        let name = |field: &str| format!("{prefix}{field}");
        if let Some(activation) = &self.hidden_act {
            file.one_of(name("hidden_act"), activation, &["silu"])?;
        }
        file.off(name("attention_bias"), self.attention_bias)?;
        file.off(name("mlp_bias"), self.mlp_bias)?;
        self.rope
            .require_unscaled(file, prefix, &["default", "mrope"])?;
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        let decoder = DecoderConfig {
            hidden,
            intermediate: self.intermediate_size,
            layers: self.num_hidden_layers.unwrap_or(1),
            heads,
            kv_heads: self.num_key_value_heads.unwrap_or(heads),
            head_dim: file.head_dim(prefix, self.head_dim, hidden, heads)?,
            qkv_bias: Bias::No,
            qk_norm: QkNorm::No,
            rms_eps: self.rms_norm_eps.unwrap_or(1e-6),
            rope_theta: self.rope.theta().unwrap_or(10_000.0),
        };
        file.check_decoder(prefix, &decoder)?;
        if decoder.layers != 1 {
            let expected = "1; drafts with more than one layer are not supported";
            return Err(file.invalid(name("num_hidden_layers"), decoder.layers, expected));
        }
        Ok(decoder)
    }

    /// Returns the rule for positions. Sections enable the three axes, regardless of the rope type.
    fn positions(
        &self,
        file: &ConfigFile,
        prefix: &str,
        head_dim: usize,
        dialect: Dialect,
    ) -> Result<DraftPositions, ModelError> {
        if self.rope.has_sections() {
            return Ok(DraftPositions::Axes {
                sections: self.rope.mrope_sections(file, prefix, head_dim)?,
                layout: self.rope.mrope_layout(),
            });
        }
        if self.rope.mrope_layout() == MropeLayout::Interleaved {
            return Err(file.missing("mrope_section"));
        }
        Ok(match dialect {
            Dialect::Authors => DraftPositions::Sequential,
            Dialect::Vllm | Dialect::Speculators => DraftPositions::Temporal,
        })
    }
}
