//! Export of drafts in the layouts that `vispec_models::Engine` and the publishers' own programs
//! load.

use std::fs;
use std::path::Path;

use safetensors::Dtype;
use serde_json::{Map, Value, json};
use vispec_models::nn::Bias;
use vispec_models::{DraftVocabFile, TargetText};

use crate::data::DraftVocabulary;
use crate::error::TrainError;
use crate::files::{self, StoredTensor};
use crate::network::{DraftShape, HostTensor, NetworkKind, Parameters};

/// Number of positions in upstream's rotary table. The drafts of this workspace have no limit.
const MAX_POSITIONS: usize = 8192;

/// A draft that can be written to files.
#[derive(Debug, Clone, Copy)]
pub struct Export<'a> {
    /// Shape of the draft.
    pub shape: &'a DraftShape,
    /// Parameters of the draft.
    pub parameters: &'a Parameters,
    /// The target that the draft is for.
    pub target: &'a TargetText,
    /// Tokens that the draft was trained to choose among; `None` for all.
    pub vocabulary: Option<&'a DraftVocabulary>,
}

impl Export<'_> {
    /// Writes `config.json` and `model.safetensors` to `dir`, which is created if necessary. If the
    /// draft has a vocabulary and no head of its own, writes the list of tokens to a third file.
    ///
    /// ViSpec, EAGLE-2 and Medusa drafts have upstream's layout, with a copy of the target's
    /// embedding. EAGLE-3 drafts have the layout of its authors, without the embedding.
    ///
    /// # Errors
    /// [`TrainError::Io`] and [`TrainError::Checkpoint`] if files cannot be written,
    /// [`TrainError::Device`] if the embedding cannot be read.
    pub fn write(&self, dir: &Path) -> Result<(), TrainError> {
        fs::create_dir_all(dir).map_err(files::at(dir))?;
        let vocab_size = self.target.embedding().vocab_size();
        let mut tensors: Vec<(String, StoredTensor<'_>)> = self
            .parameters
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.into()))
            .collect();
        let mut config = self.common_config(vocab_size);
        let embedding;
        let more = if let NetworkKind::Eagle3 { states, .. } = self.shape.kind {
            self.eagle3_config(states, vocab_size)
        } else {
            embedding = HostTensor::from_device(self.target.embedding().table())?;
            tensors.push(("embed_tokens.weight".into(), (&embedding).into()));
            self.upstream_config()
        };
        config.extend(more);
        let has_own_head = self.shape.head_tokens() > 0;
        match self.vocabulary {
            Some(vocabulary) if has_own_head => tensors.extend(draft_ids(vocabulary)),
            Some(vocabulary) => write_list(dir, vocabulary)?,
            None => {}
        }
        let format = ("format", "pt".to_owned());
        files::write_tensors(&dir.join("model.safetensors"), tensors, format)?;
        let text = format!("{:#}\n", Value::Object(config));
        files::write(&dir.join("config.json"), text.as_bytes())
    }

    /// Returns the fields that the configs of all drafts have in common.
    fn common_config(&self, vocab_size: usize) -> Map<String, Value> {
        let decoder = &self.shape.decoder;
        let fields = json!({
            "hidden_act": "silu",
            "hidden_size": decoder.hidden,
            "intermediate_size": decoder.intermediate,
            "max_position_embeddings": MAX_POSITIONS,
            "model_type": "llama",
            "num_attention_heads": decoder.heads,
            "num_hidden_layers": decoder.layers,
            "num_key_value_heads": decoder.kv_heads,
            "rms_norm_eps": decoder.rms_eps,
            "rope_scaling": null,
            "rope_theta": decoder.rope_theta,
            "tie_word_embeddings": false,
            "torch_dtype": "float32",
            "vocab_size": vocab_size,
        });
        object(fields)
    }

    fn upstream_config(&self) -> Map<String, Value> {
        object(json!({
            "architectures": ["LlamaForCausalLM"],
            "bias": self.shape.fusion_bias == Bias::Yes,
            "qkv_bias": self.shape.decoder.qkv_bias == Bias::Yes,
        }))
    }

    fn eagle3_config(&self, states: [usize; 3], vocab_size: usize) -> Map<String, Value> {
        let draft_vocab_size = match self.shape.head_tokens() {
            0 => vocab_size,
            own => own,
        };
        object(json!({
            "architectures": ["LlamaForCausalLMEagle3"],
            "attention_bias": false,
            "draft_vocab_size": draft_vocab_size,
            // In this field, layer `i` stands for its output, which is state `i + 1`.
            "eagle_config": {
                "eagle_aux_hidden_state_layer_ids": states.map(|state| state - 1),
            },
            "head_dim": self.shape.decoder.head_dim,
        }))
    }
}

fn object(fields: Value) -> Map<String, Value> {
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// Returns `d2t`, the offsets to add to draft ids to get the target's ids, and `t2d`, the flags of
/// the target's ids that have a draft id.
fn draft_ids(vocabulary: &DraftVocabulary) -> [(String, StoredTensor<'static>); 2] {
    let ids = vocabulary.ascending();
    let offsets = ids.iter().zip(0_i64..);
    let offsets: Vec<u8> = offsets
        .flat_map(|(&id, draft)| (i64::from(id) - draft).to_le_bytes())
        .collect();
    let listed: Vec<u8> = vocabulary
        .is_listed()
        .iter()
        .map(|&l| u8::from(l))
        .collect();
    [
        (
            "d2t".to_owned(),
            StoredTensor::new(Dtype::I64, vec![ids.len()], offsets),
        ),
        (
            "t2d".to_owned(),
            StoredTensor::new(Dtype::BOOL, vec![listed.len()], listed),
        ),
    ]
}

/// Writes the token list for a draft whose checkpoint does not contain one.
fn write_list(dir: &Path, vocabulary: &DraftVocabulary) -> Result<(), TrainError> {
    let list = DraftVocabFile {
        vocab_size: vocabulary.is_listed().len(),
        tokens: vocabulary.by_frequency().to_vec(),
    };
    let path = dir.join(DraftVocabFile::NAME);
    let text = serde_json::to_string(&list).map_err(|error| TrainError::Checkpoint {
        path: path.clone(),
        reason: error.to_string(),
    })?;
    files::write(&path, text.as_bytes())
}
