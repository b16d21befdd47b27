//! The language model of the base, and added layers that change nothing until they are trained.

use std::path::Path;

use burn::tensor::DType;
use vispec_models::Precision;
use vispec_models::TargetText;
use vispec_models::qwen2_5_vl::{QwenConfig, RENAME_RULES};
use vispec_models::weights::{Checkpoint, Weights};

use crate::error::TrainError;
use crate::network::{HostTensor, Parameters, TargetShape};

/// The language model of a checkpoint.
#[derive(Debug, Clone)]
pub struct TargetStart {
    /// Shape of the language model.
    pub shape: TargetShape,
    /// Parameters of the language model.
    pub parameters: Parameters,
}

impl TargetStart {
    /// Reads the shape of the language model of the Qwen2.5-VL checkpoint in `dir`.
    ///
    /// # Errors
    /// * [`TrainError::Model`] if it is another model.
    /// * [`TrainError::Checkpoint`] if its head is tied to the embedding, which is not trained.
    pub fn shape(dir: &Path) -> Result<TargetShape, TrainError> {
        let config = QwenConfig::read(dir)?;
        if config.tie_word_embeddings {
            return Err(TrainError::Checkpoint {
                path: dir.to_owned(),
                reason: "the output head is tied to the embedding; the base of a target must have \
                         its own head"
                    .to_owned(),
            });
        }
        Ok(TargetShape {
            decoder: config.decoder(),
            vocab_size: config.vocab_size,
            rotary_sections: config.rotary_sections(),
        })
    }

    /// Reads the language model of the Qwen2.5-VL checkpoint in `dir`.
    ///
    /// # Errors
    /// Same as [`TargetStart::shape`], and [`TrainError::Model`] if the checkpoint is damaged.
    pub fn read(dir: &Path, text: &TargetText) -> Result<Self, TrainError> {
        let shape = Self::shape(dir)?;
        let checkpoint = Checkpoint::open(dir, RENAME_RULES)?;
        let precision = Precision {
            storage: DType::F32,
            compute: DType::F32,
            quantization: None,
        };
        let weights = Weights::new(&checkpoint, text.device(), precision);
        let mut parameters = Parameters::new();
        for (name, dims) in shape.parameters() {
            let place = full_name(&name);
            let tensor = match *dims {
                [a] => HostTensor::from_device(weights.vector(&place, [a])),
                [a, b] => HostTensor::from_device(weights.matrix(&place, [a, b])),
                _ => unreachable!("all parameters are vectors and matrices"),
            };
            parameters.insert(name, tensor?);
        }
        for name in checkpoint.names() {
            weights.skip(name);
        }
        weights.finish()?;
        Ok(Self { shape, parameters })
    }

    /// Returns a deeper model that computes the same function. The new layers are copies of the
    /// existing ones, inserted between them, with their last projections set to zero.
    #[must_use]
    pub fn deepened(self, n_layers: usize) -> Self {
        let found = self.shape.decoder.layers;
        if n_layers <= found {
            return self;
        }
        let origin = |layer: usize| layer * found / n_layers;
        let mut shape = self.shape;
        shape.decoder.layers = n_layers;
        let parameters = shape.parameters().into_iter().map(|(name, _)| {
            let Some((layer, rest)) = layer_of(&name) else {
                let tensor = self.parameters[&name].clone();
                return (name, tensor);
            };
            let mut tensor = self.parameters[&format!("layers.{}.{rest}", origin(layer))].clone();
            let is_copy = layer > 0 && origin(layer - 1) == origin(layer);
            if is_copy && (rest == "self_attn.o_proj.weight" || rest == "mlp.down_proj.weight") {
                tensor.values.fill(0.0);
            }
            (name, tensor)
        });
        Self {
            parameters: parameters.collect(),
            shape,
        }
    }
}

/// Returns the name of a parameter in a checkpoint.
pub(super) fn full_name(name: &str) -> String {
    if name.starts_with("lm_head.") {
        name.to_owned()
    } else {
        format!("model.{name}")
    }
}

/// Splits a name into the number of the layer and the name within the layer.
fn layer_of(name: &str) -> Option<(usize, &str)> {
    let (layer, rest) = name.strip_prefix("layers.")?.split_once('.')?;
    Some((layer.parse().ok()?, rest))
}
