//! Where training starts: fresh weights, or those of a checkpoint.

use std::path::Path;

use burn::tensor::{DType, Tensor};
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Normal};
use rand_pcg::Pcg64;
use vispec_models::draft::DraftConfig;
use vispec_models::nn::Bias;
use vispec_models::weights::{Checkpoint, Weights};
use vispec_models::{Precision, TargetText};

use crate::config::DraftSettings;
use crate::error::TrainError;
use crate::network::{DraftShape, HostTensor, NetworkKind, Parameters};

/// Parameters to start from.
#[derive(Debug, Clone)]
pub struct Start {
    /// What they are the parameters of.
    pub shape: DraftShape,
    /// The parameters.
    pub parameters: Parameters,
    /// Names of those that the checkpoint did not have and that are fresh: the vision parts of a
    /// draft that starts from stage 1.
    pub fresh: Vec<String>,
}

fn kind(draft: &DraftSettings) -> NetworkKind {
    match *draft {
        DraftSettings::Vispec { num_queries } => NetworkKind::Vispec {
            n_queries: num_queries,
        },
        DraftSettings::Eagle2 => NetworkKind::Eagle2,
        DraftSettings::Medusa { num_heads } => NetworkKind::Medusa { n_heads: num_heads },
    }
}

impl Start {
    /// Fresh weights of a draft with one layer as wide as the target's. As in all published drafts
    /// there are as many key heads as query heads.
    ///
    /// # Errors
    /// [`TrainError::TargetMismatch`] if the target's heads are not an even share of its width,
    /// which the config of a draft cannot express.
    pub fn fresh(
        draft: &DraftSettings,
        target: &TargetText,
        seed: u64,
    ) -> Result<Self, TrainError> {
        let mut decoder = *target.decoder();
        if decoder.head_dim * decoder.heads != decoder.hidden {
            return Err(TrainError::TargetMismatch {
                quantity: "number of heads times their size",
                found: decoder.hidden,
                expected: decoder.head_dim * decoder.heads,
            });
        }
        decoder.layers = 1;
        decoder.kv_heads = decoder.heads;
        let shape = DraftShape {
            kind: kind(draft),
            decoder,
            fusion_bias: Bias::Yes,
        };
        let names = shape.parameters();
        let parameters = initial(&shape, seed);
        Ok(Self {
            shape,
            parameters,
            fresh: names.into_iter().map(|(name, _)| name).collect(),
        })
    }

    /// The weights of the draft in `dir`. Vision parts may be missing altogether: training on
    /// images starts from a draft that was trained on text.
    ///
    /// # Errors
    /// [`TrainError::Model`] if the checkpoint cannot be read or lacks other weights,
    /// [`TrainError::TargetMismatch`] if it was trained for another target.
    pub fn from_checkpoint(
        dir: &Path,
        draft: &DraftSettings,
        target: &TargetText,
        seed: u64,
    ) -> Result<Self, TrainError> {
        let config = DraftConfig::read(dir)?;
        for (quantity, found, expected) in [
            ("hidden size", config.hidden(), target.decoder().hidden),
            (
                "vocabulary size",
                config.vocab_size(),
                target.embedding().vocab_size(),
            ),
        ] {
            if found != expected {
                return Err(TrainError::TargetMismatch {
                    quantity,
                    found,
                    expected,
                });
            }
        }
        let shape = DraftShape {
            kind: kind(draft),
            decoder: config.decoder(),
            fusion_bias: config.fusion_bias(),
        };
        let checkpoint = Checkpoint::open(dir, &[])?;
        let has_vision = checkpoint.names().any(is_vision);
        let mut parameters = initial(&shape, seed);
        let precision = Precision {
            storage: DType::F32,
            compute: DType::F32,
            quantization: None,
        };
        let weights = Weights::new(&checkpoint, target.device(), precision);
        // Frozen, and the target's own.
        weights.skip("embed_tokens");
        let mut fresh = Vec::new();
        for (name, dims) in shape.parameters() {
            if is_vision(&name) && !has_vision {
                fresh.push(name);
                continue;
            }
            let tensor = read(&weights, &name, &dims)?;
            parameters.insert(name, tensor);
        }
        weights.finish().map_err(TrainError::Model)?;
        Ok(Self {
            shape,
            parameters,
            fresh,
        })
    }
}

fn is_vision(name: &str) -> bool {
    name.starts_with("imadpt.") || name.starts_with("img_fc.")
}

fn read(weights: &Weights<'_>, name: &str, dims: &[usize]) -> Result<HostTensor, TrainError> {
    fn host<const D: usize>(tensor: Tensor<D>) -> Result<HostTensor, TrainError> {
        HostTensor::from_device(tensor)
    }
    match *dims {
        [a] => host(weights.matrix(name, [a])),
        [a, b] => host(weights.matrix(name, [a, b])),
        [a, b, c] => host(weights.matrix(name, [a, b, c])),
        _ => Err(TrainError::Checkpoint {
            path: name.into(),
            reason: format!("{} dimensions", dims.len()),
        }),
    }
}

/// Fresh parameters as upstream has them: PyTorch's defaults for linear layers, norms of ones,
/// queries of variance `1 / head_dim`, an `img_fc` that passes hidden states on, Medusa heads that
/// pass them on but for their biases.
fn initial(shape: &DraftShape, seed: u64) -> Parameters {
    let mut generator = Pcg64::seed_from_u64(seed);
    let names = shape.parameters();
    let mut parameters = Parameters::new();
    let mut fan_in = 1;
    for (name, dims) in names {
        let n_elements = dims.iter().product();
        // The bias of a layer comes behind its weight.
        if dims.len() == 2 {
            fan_in = dims[1];
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "sizes are small, weights are f32"
        )]
        let bound = (1.0 / (fan_in as f64).sqrt()) as f32;
        let values = match name.as_str() {
            "img_fc.weight" => identity(dims[0], dims[1]),
            "img_fc.bias" => vec![0.0; n_elements],
            "imadpt.q" => normal(&mut generator, n_elements, dims[2]),
            name if name.ends_with("layernorm.weight") => vec![1.0; n_elements],
            name if name.starts_with("medusa_head") && dims.len() == 2 => vec![0.0; n_elements],
            _ => (0..n_elements)
                .map(|_| (2.0 * generator.random::<f32>() - 1.0) * bound)
                .collect(),
        };
        parameters.insert(
            name,
            HostTensor {
                shape: dims,
                values,
            },
        );
    }
    parameters
}

/// `[I | 0]`
fn identity(rows: usize, columns: usize) -> Vec<f32> {
    let mut values = vec![0.0; rows * columns];
    for row in 0..rows {
        values[row * columns + row] = 1.0;
    }
    values
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "sizes are small, weights are f32"
)]
fn normal(generator: &mut Pcg64, n: usize, head_dim: usize) -> Vec<f32> {
    let deviation = (head_dim as f64).powf(-0.5) as f32;
    match Normal::new(0.0, deviation) {
        Ok(law) => (0..n).map(|_| law.sample(generator)).collect(),
        Err(_) => vec![0.0; n],
    }
}
