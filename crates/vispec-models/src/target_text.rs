//! The parts of a target that a draft needs.

use std::ops::Range;
use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::error::ModelError;
use crate::families::read_family;
use crate::nn::{Bias, DecoderConfig, Embedding, Linear};
use crate::precision::{DtypeChoice, Precision};
use crate::text_model::HeadWeights;
use crate::weights::{Checkpoint, Weights};

/// Embedding, output head and shapes of a target's language model, which are needed to load and
/// train drafts. Cloning shares the weights.
#[derive(Debug, Clone)]
pub struct TargetText {
    pub(crate) embedding: Embedding,
    pub(crate) head: Linear,
    pub(crate) decoder: DecoderConfig,
    pub(crate) device: Device,
    pub(crate) precision: Precision,
}

/// A weight in host memory.
#[derive(Debug, Clone, PartialEq)]
pub struct HostWeight {
    /// Name within the layer, such as `self_attn.q_proj.weight`.
    pub name: String,
    /// Shape of the weight.
    pub shape: Vec<usize>,
    /// Elements, row-major.
    pub values: Vec<f32>,
}

/// Decoder layers of a target and its final norm, in host memory. A draft is initialised from the
/// last layer; a vision tower is trained through all of them.
#[derive(Debug, Clone)]
pub struct HostLayers {
    /// Weights of each layer, `[outputs, inputs]` or `[hidden]`, without biases and norms of heads.
    pub layers: Vec<Vec<HostWeight>>,
    /// The final norm `[hidden]`.
    pub norm: HostWeight,
}

impl HostLayers {
    /// Reads the last layer of the checkpoint in `dir`, in f32.
    ///
    /// # Errors
    /// Same as [`TargetText::load`].
    pub fn last(dir: &Path, device: &Device) -> Result<Self, ModelError> {
        Self::load(dir, device, |layers| layers.saturating_sub(1)..layers)
    }

    /// Reads all layers of the checkpoint in `dir`, in f32.
    ///
    /// # Errors
    /// Same as [`TargetText::load`].
    pub fn all(dir: &Path, device: &Device) -> Result<Self, ModelError> {
        Self::load(dir, device, |layers| 0..layers)
    }

    fn load(
        dir: &Path,
        device: &Device,
        chosen: impl Fn(usize) -> Range<usize>,
    ) -> Result<Self, ModelError> {
        let family = read_family(dir)?;
        let checkpoint = Checkpoint::open(dir, family.rules)?;
        let precision = Precision {
            storage: DType::F32,
            compute: DType::F32,
            quantization: None,
        };
        let weights = Weights::new(&checkpoint, device, precision);
        let DecoderConfig {
            hidden,
            intermediate,
            heads,
            kv_heads,
            head_dim,
            ..
        } = family.decoder;
        let model = weights.at(family.model);
        let matrices = [
            ("self_attn.q_proj.weight", [heads * head_dim, hidden]),
            ("self_attn.k_proj.weight", [kv_heads * head_dim, hidden]),
            ("self_attn.v_proj.weight", [kv_heads * head_dim, hidden]),
            ("self_attn.o_proj.weight", [hidden, heads * head_dim]),
            ("mlp.gate_proj.weight", [intermediate, hidden]),
            ("mlp.up_proj.weight", [intermediate, hidden]),
            ("mlp.down_proj.weight", [hidden, intermediate]),
        ];
        let host = |name: &str, shape: &[usize], data: TensorData| {
            let values = data.try_into_vec::<f32>();
            let values = values.map_err(|error| ModelError::device_read("weights", &error))?;
            Ok::<_, ModelError>(HostWeight {
                name: name.to_owned(),
                shape: shape.to_vec(),
                values,
            })
        };
        let layer = |number: usize| {
            let layer = model.at(format!("layers.{number}"));
            let mut read = Vec::new();
            for (name, shape) in matrices {
                read.push(host(name, &shape, layer.matrix(name, shape).into_data())?);
            }
            for name in ["input_layernorm.weight", "post_attention_layernorm.weight"] {
                let data = layer.vector(name, [hidden]).into_data();
                read.push(host(name, &[hidden], data)?);
            }
            Ok::<_, ModelError>(read)
        };
        let layers: Result<Vec<_>, _> = chosen(family.decoder.layers).map(layer).collect();
        let layers = layers?;
        let norm = model.vector("norm.weight", [hidden]).into_data();
        let norm = host("norm.weight", &[hidden], norm)?;
        for name in checkpoint.names() {
            weights.skip(name);
        }
        weights.finish()?;
        Ok(Self { layers, norm })
    }
}

impl TargetText {
    /// Reads only embedding and head of the checkpoint in `dir`.
    ///
    /// # Errors
    /// Fails if config or weights are missing or damaged, or if the architecture or the element
    /// type is not supported.
    pub fn load(dir: &Path, device: &Device, dtype: DtypeChoice) -> Result<Self, ModelError> {
        let family = read_family(dir)?;
        let checkpoint = Checkpoint::open(dir, family.rules)?;
        let precision = Precision::choose(dtype, checkpoint.main_dtype(), device)?;
        let weights = Weights::new(&checkpoint, device, precision);
        let (hidden, vocab_size) = (family.decoder.hidden, family.vocab_size);
        let table = weights.at(family.model).at("embed_tokens");
        let head = match family.head_weights {
            HeadWeights::Tied => table.clone(),
            HeadWeights::Own => weights.at(family.head),
        };
        let text = Self {
            embedding: Embedding::load(&table, vocab_size, hidden),
            head: Linear::load(&head, hidden, vocab_size, Bias::No),
            decoder: family.decoder,
            device: device.clone(),
            precision,
        };
        for name in checkpoint.names() {
            weights.skip(name);
        }
        weights.finish()?;
        Ok(text)
    }

    /// Returns the token embedding.
    #[must_use]
    pub fn embedding(&self) -> &Embedding {
        &self.embedding
    }

    /// Returns the head's weight `[vocab, hidden]`, unless it is quantised.
    #[must_use]
    pub fn head_weight(&self) -> Option<Tensor<2>> {
        self.head.dense_weight()
    }

    /// Returns the shapes of the language model.
    #[must_use]
    pub fn decoder(&self) -> &DecoderConfig {
        &self.decoder
    }

    /// Returns the device of the weights.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }
}
