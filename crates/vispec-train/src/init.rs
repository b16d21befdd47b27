//! Initial weights of a draft: fresh ones, or those of a checkpoint.

use std::path::Path;

use burn::tensor::{DType, Tensor};
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Normal};
use rand_pcg::Pcg64;
use vispec_models::draft::DraftConfig;
use vispec_models::features::eagle3_states;
use vispec_models::nn::{Bias, QkNorm};
use vispec_models::weights::{Checkpoint, Weights};
use vispec_models::{HostLayers, HostWeight, Precision, TargetText};

use crate::config::{DraftHeadSetting, DraftSettings, FirstLayer};
use crate::data::DraftVocabulary;
use crate::error::TrainError;
use crate::network::{DraftShape, HostTensor, NetworkKind, Parameters};

/// Initial parameters of a draft.
#[derive(Debug, Clone)]
pub struct Start {
    /// Shape of the draft.
    pub shape: DraftShape,
    /// The parameters.
    pub parameters: Parameters,
    /// Names of the parameters that were not in the checkpoint and are fresh: the vision parts of a
    /// draft that starts from stage 1.
    pub fresh: Vec<String>,
}

/// Returns the kind of draft for a target with `layers` layers and a draft vocabulary of
/// `vocabulary` tokens.
fn kind(
    draft: &DraftSettings,
    layers: usize,
    vocabulary: usize,
) -> Result<NetworkKind, TrainError> {
    Ok(match *draft {
        DraftSettings::Vispec { num_queries } => NetworkKind::Vispec {
            n_queries: num_queries,
        },
        DraftSettings::Eagle2 => NetworkKind::Eagle2,
        DraftSettings::Eagle3 {
            num_queries,
            states,
            head,
            ..
        } => NetworkKind::Eagle3 {
            states: read_states(states, layers)?,
            n_queries: num_queries,
            head_tokens: match head {
                DraftHeadSetting::Own => vocabulary,
                DraftHeadSetting::Target => 0,
            },
        },
        DraftSettings::Medusa { num_heads } => NetworkKind::Medusa { n_heads: num_heads },
    })
}

impl DraftSettings {
    /// Returns the states of the residual stream that such a draft reads from a target with
    /// `layers` layers. Empty if the draft reads the last hidden state.
    ///
    /// # Errors
    /// [`TrainError::Setting`] if the target does not have these states.
    pub fn states(&self, layers: usize) -> Result<Vec<usize>, TrainError> {
        match self {
            Self::Eagle3 { states, .. } => Ok(read_states(*states, layers)?.to_vec()),
            _ => Ok(Vec::new()),
        }
    }
}

/// Returns the states that an EAGLE-3 draft reads from a target with `layers` layers.
fn read_states(states: Option<[usize; 3]>, layers: usize) -> Result<[usize; 3], TrainError> {
    let chosen = states.unwrap_or(eagle3_states(layers));
    let ascends = chosen[0] > 0 && chosen.is_sorted_by(|a, b| a < b) && chosen[2] <= layers;
    if ascends {
        return Ok(chosen);
    }
    Err(TrainError::Setting {
        field: "draft.states",
        found: format!("{chosen:?}"),
        expected: format!("three numbers that ascend, from 1 to {layers}, the target's layers"),
    })
}

/// Returns the shape of a fresh draft.
fn fresh_shape(draft: &DraftSettings, place: &StartPlace<'_>) -> Result<DraftShape, TrainError> {
    let mut decoder = *place.target.decoder();
    let layers = decoder.layers;
    decoder.layers = 1;
    // Published drafts have Llama layers, whatever the target is.
    decoder.qk_norm = QkNorm::No;
    let is_eagle3 = matches!(draft, DraftSettings::Eagle3 { .. });
    if is_eagle3 {
        decoder.qkv_bias = Bias::No;
    } else {
        // The config of such a draft has no head size: it is the hidden size divided by the number
        // of heads. If the target's heads are together wider than its hidden state, the draft has
        // fewer heads.
        if !decoder.hidden.is_multiple_of(decoder.head_dim) {
            return Err(TrainError::HeadSize {
                hidden: decoder.hidden,
                head_dim: decoder.head_dim,
            });
        }
        decoder.heads = decoder.hidden / decoder.head_dim;
        decoder.kv_heads = decoder.heads;
    }
    let vocabulary = place.vocabulary.map_or(0, |list| list.by_frequency().len());
    Ok(DraftShape {
        kind: kind(draft, layers, vocabulary)?,
        decoder,
        fusion_bias: if is_eagle3 { Bias::No } else { Bias::Yes },
    })
}

/// The target and the vocabulary of a draft.
#[derive(Debug, Clone, Copy)]
pub struct StartPlace<'a> {
    /// The target.
    pub target: &'a TargetText,
    /// Directory of the target's checkpoint.
    pub target_dir: &'a Path,
    /// Tokens that the draft chooses among; `None` for all.
    pub vocabulary: Option<&'a DraftVocabulary>,
}

impl Start {
    /// Returns fresh weights of a draft with one layer as wide as the target's. Like all published
    /// ViSpec drafts, it has as many key heads as query heads. EAGLE-3 drafts have the target's
    /// number of key heads.
    ///
    /// # Errors
    /// * [`TrainError::HeadSize`] if the target's width is not a multiple of its head size,
    ///   which the config of a ViSpec draft cannot express.
    /// * [`TrainError::Setting`] if the target does not have the states that the draft reads.
    /// * Any error of reading the target's last layer, if the draft starts from it.
    pub fn fresh(
        draft: &DraftSettings,
        place: &StartPlace<'_>,
        seed: u64,
    ) -> Result<Self, TrainError> {
        let shape = fresh_shape(draft, place)?;
        let names = shape.parameters();
        let mut parameters = initial(&shape, seed);
        if let DraftSettings::Eagle3 { layer, .. } = draft {
            from_target(&mut parameters, place, *layer)?;
        }
        Ok(Self {
            shape,
            parameters,
            fresh: names.into_iter().map(|(name, _)| name).collect(),
        })
    }

    /// Reads the weights of the draft in `dir`. All vision parts may be missing, because training
    /// on images starts from a draft that was trained on text.
    ///
    /// # Errors
    /// * [`TrainError::Model`] if the checkpoint cannot be read or lacks other weights.
    /// * [`TrainError::TargetMismatch`] if it was trained for another target.
    pub fn from_checkpoint(
        dir: &Path,
        draft: &DraftSettings,
        place: &StartPlace<'_>,
        seed: u64,
    ) -> Result<Self, TrainError> {
        let target = place.target;
        if let DraftSettings::Eagle3 { .. } = draft {
            let shape = fresh_shape(draft, place)?;
            return Self::read(dir, shape, place, seed);
        }
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
            kind: kind(draft, target.decoder().layers, 0)?,
            decoder: config.decoder(),
            fusion_bias: config.fusion_bias(),
        };
        Self::read(dir, shape, place, seed)
    }

    /// Reads the weights in `dir`; vision parts are fresh if the checkpoint has none.
    fn read(
        dir: &Path,
        shape: DraftShape,
        place: &StartPlace<'_>,
        seed: u64,
    ) -> Result<Self, TrainError> {
        let mut parameters = initial(&shape, seed);
        let checkpoint = Checkpoint::open(dir, &[])?;
        let has_vision = checkpoint.names().any(is_vision);
        let precision = Precision {
            storage: DType::F32,
            compute: DType::F32,
            quantization: None,
        };
        let weights = Weights::new(&checkpoint, place.target.device(), precision);
        // Frozen, and taken from the target.
        weights.skip("embed_tokens");
        if let (1.., Some(vocabulary)) = (shape.head_tokens(), place.vocabulary) {
            let listed = weights.integers("t2d", vocabulary.is_listed().len());
            let wanted = vocabulary
                .is_listed()
                .iter()
                .map(|&listed| i64::from(listed));
            if listed.is_some_and(|listed| !wanted.eq(listed)) {
                return Err(TrainError::Checkpoint {
                    path: dir.to_owned(),
                    reason: "t2d does not list the most frequent tokens of this run's answers, so \
                             the rows of the head would be used for the wrong tokens"
                        .to_owned(),
                });
            }
        }
        // d2t follows from t2d.
        weights.skip("d2t");
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

/// Initialises an EAGLE-3 draft to what the target computes after the highest of the states: `fc`
/// passes that state on, the norm and the head are the target's, and the layer is the target's last
/// if `layer` asks for it.
fn from_target(
    parameters: &mut Parameters,
    place: &StartPlace<'_>,
    layer: FirstLayer,
) -> Result<(), TrainError> {
    let last = HostLayers::last(place.target_dir, place.target.device())?;
    let hidden = last.norm.values.len();
    if let Some(fc) = parameters.get_mut("fc.weight") {
        let inputs = fc.shape[1];
        for (row, values) in fc.values.chunks_exact_mut(inputs).enumerate() {
            values.fill(0.0);
            values[inputs - hidden + row] = 1.0;
        }
    }
    if let Some(norm) = parameters.get_mut("norm.weight") {
        norm.values.clone_from(&last.norm.values);
    }
    if let (Some(head), Some(vocabulary)) = (parameters.get_mut("lm_head.weight"), place.vocabulary)
    {
        let weight = place
            .target
            .head_weight()
            .ok_or(TrainError::QuantizedHead)?;
        let weight = HostTensor::from_device(weight)?;
        for (row, id) in head
            .values
            .chunks_exact_mut(hidden)
            .zip(vocabulary.ascending())
        {
            let start = id as usize * hidden;
            row.copy_from_slice(&weight.values[start..start + hidden]);
        }
    }
    if layer == FirstLayer::Fresh {
        return Ok(());
    }
    for HostWeight { name, values, .. } in last.layers.into_iter().flatten() {
        // In the draft, the norm before attention is that of the hidden state.
        let name = match name.as_str() {
            "input_layernorm.weight" => "midlayer.hidden_norm.weight".to_owned(),
            name => format!("midlayer.{name}"),
        };
        let Some(tensor) = parameters.get_mut(&name) else {
            continue;
        };
        if tensor.values.len() == values.len() {
            tensor.values = values;
            continue;
        }
        // Queries, keys and values: the second half of their input is the hidden state.
        let rows = tensor.values.chunks_exact_mut(2 * hidden);
        for (row, values) in rows.zip(values.chunks_exact(hidden)) {
            row[hidden..].copy_from_slice(values);
        }
    }
    Ok(())
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

/// Returns fresh parameters, initialised as upstream does: PyTorch's defaults for linear layers,
/// ones for norms, variance `1 / head_dim` for queries. `img_fc` passes hidden states on unchanged;
/// so do Medusa heads, apart from their biases.
fn initial(shape: &DraftShape, seed: u64) -> Parameters {
    let mut generator = Pcg64::seed_from_u64(seed);
    let names = shape.parameters();
    let mut parameters = Parameters::new();
    let mut fan_in = 1;
    for (name, dims) in names {
        let n_elements = dims.iter().product();
        // The bias of a layer comes right after its weight.
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
            name if name.ends_with("norm.weight") => vec![1.0; n_elements],
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
