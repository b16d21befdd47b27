//! A trainable vision tower and projector of LLaVA: CLIP's encoder over rows of patches, and the
//! two layers that project its states to the width of the language model.
//!
//! Parameter names follow those of checkpoints, below `vision_tower.vision_model` and
//! `multi_modal_projector`.

use std::ops::Range;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, activation};
use vispec_kernels::CausalSample;
use vispec_models::llava::ClipConfig;
use vispec_models::nn::{Bias, DecoderConfig, QkNorm};

use super::attention::{Projected, attend};
use super::build::Source;
use super::cpu;
use super::layers::{LayerNorm, Linear};
use super::parameters::Parameters;
use super::rows::indices;

/// CLIP's factor inside the sigmoid that approximates the Gaussian error function.
const QUICK_GELU: f64 = 1.702;

/// Everything that determines the parameters of a tower.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TowerShape {
    /// The encoder, whose activation is `quick_gelu`.
    pub vision: ClipConfig,
    /// Width of the language model.
    pub projected: usize,
    /// Number of words that the head over pooled features classifies pictures by; 0 without such a
    /// head.
    pub words: usize,
}

impl TowerShape {
    /// Returns the number of floats in a patch.
    #[must_use]
    pub fn patch_len(&self) -> usize {
        3 * self.vision.patch_size.pow(2)
    }

    /// Returns the number of patches in a picture.
    #[must_use]
    pub fn patches(&self) -> usize {
        self.vision.grid_side().pow(2)
    }

    /// Returns the names and shapes of all parameters; matrices are `[outputs, inputs]`.
    #[must_use]
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let (hidden, inner) = (self.vision.hidden, self.vision.intermediate);
        let mut list = vec![
            ("tower.class_embedding".to_owned(), vec![hidden]),
            (
                "tower.position_embedding".to_owned(),
                vec![1, self.patches() + 1, hidden],
            ),
            (
                "tower.patch_embedding.weight".to_owned(),
                vec![hidden, self.patch_len()],
            ),
        ];
        let mut norm = |name: String| {
            list.push((format!("{name}.weight"), vec![hidden]));
            list.push((format!("{name}.bias"), vec![hidden]));
        };
        norm("tower.pre_norm".to_owned());
        for layer in 0..self.vision.layers {
            norm(format!("tower.layers.{layer}.layer_norm1"));
            norm(format!("tower.layers.{layer}.layer_norm2"));
        }
        let mut linear = |name: String, outputs: usize, inputs: usize| {
            list.push((format!("{name}.weight"), vec![outputs, inputs]));
            list.push((format!("{name}.bias"), vec![outputs]));
        };
        for layer in 0..self.vision.layers {
            for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                linear(format!("tower.layers.{layer}.{name}"), hidden, hidden);
            }
            linear(format!("tower.layers.{layer}.fc1"), inner, hidden);
            linear(format!("tower.layers.{layer}.fc2"), hidden, inner);
        }
        linear("projector.linear_1".to_owned(), self.projected, hidden);
        linear(
            "projector.linear_2".to_owned(),
            self.projected,
            self.projected,
        );
        if self.words > 0 {
            list.push(("words.weight".to_owned(), vec![self.words, self.projected]));
        }
        list
    }

    /// Builds a network from `parameters` on `device`.
    ///
    /// # Panics
    /// If a parameter of [`TowerShape::parameters`] is missing.
    #[must_use]
    pub fn build(&self, parameters: &Parameters, device: &Device) -> SeeingNetwork {
        let source = Source { parameters, device };
        let eps = self.vision.norm_eps;
        let layer = |layer: usize| {
            let at = |name: &str| format!("tower.layers.{layer}.{name}");
            TowerLayer {
                layer_norm1: source.layer_norm(&at("layer_norm1"), eps),
                q_proj: source.linear(&at("q_proj")),
                k_proj: source.linear(&at("k_proj")),
                v_proj: source.linear(&at("v_proj")),
                out_proj: source.linear(&at("out_proj")),
                layer_norm2: source.layer_norm(&at("layer_norm2"), eps),
                fc1: source.linear(&at("fc1")),
                fc2: source.linear(&at("fc2")),
            }
        };
        SeeingNetwork {
            tower: Tower {
                class_embedding: Param::from_tensor(source.tensor("tower.class_embedding")),
                position_embedding: Param::from_tensor(source.tensor("tower.position_embedding")),
                patch_embedding: source.linear("tower.patch_embedding"),
                pre_norm: source.layer_norm("tower.pre_norm", eps),
                layers: (0..self.vision.layers).map(layer).collect(),
            },
            projector: Projector {
                linear_1: source.linear("projector.linear_1"),
                linear_2: source.linear("projector.linear_2"),
            },
            words: (self.words > 0).then(|| source.linear("words")),
            shape: *self,
        }
    }

    /// Returns the config of attention in the encoder, which has no rotary positions.
    fn attention(&self) -> DecoderConfig {
        let vision = &self.vision;
        DecoderConfig {
            hidden: vision.hidden,
            intermediate: vision.intermediate,
            layers: vision.layers,
            heads: vision.heads,
            kv_heads: vision.heads,
            head_dim: vision.hidden / vision.heads,
            qkv_bias: Bias::Yes,
            qk_norm: QkNorm::No,
            rms_eps: vision.norm_eps,
            rope_theta: 1.0,
        }
    }
}

/// A batch of pictures.
#[derive(Debug, Clone)]
pub struct Pictures {
    /// `[pictures * kept, patch_len]`: the kept patches, channel by channel, row by row.
    pub patches: Tensor<2>,
    /// For each picture, the indices of its kept patches, ascending. All pictures keep the same
    /// number.
    pub kept: Vec<Vec<usize>>,
}

/// Tower, projector and, while words are taught, a head over words.
#[derive(Module, Debug)]
pub struct SeeingNetwork {
    tower: Tower,
    projector: Projector,
    words: Option<Linear>,
    #[module(skip)]
    shape: TowerShape,
}

impl SeeingNetwork {
    /// Returns the features of pictures that the language model reads.
    ///
    /// # Shapes
    /// Result `[pictures * kept, projected]`.
    #[must_use]
    pub fn features(&self, pictures: &Pictures) -> Tensor<2> {
        let states = self.tower.forward(pictures, &self.shape);
        let inner = activation::gelu(self.projector.linear_1.forward(states));
        self.projector.linear_2.forward(inner)
    }

    /// Returns the scores of all words for each picture.
    ///
    /// # Shapes
    /// Result `[pictures, words]`.
    ///
    /// # Panics
    /// If the network has no head over words.
    #[must_use]
    pub fn word_scores(&self, pictures: &Pictures) -> Tensor<2> {
        let head = self
            .words
            .as_ref()
            .expect("the network has a head over words");
        let n_pictures = pictures.kept.len();
        let features = self.features(pictures);
        let [rows, width] = features.dims();
        let pooled = features
            .reshape([n_pictures, rows / n_pictures.max(1), width])
            .mean_dim(1)
            .reshape([n_pictures, width]);
        // Score directions only: the language model learns the length of the vectors.
        let length = (pooled.clone().square().mean_dim(1) + 1e-6).sqrt();
        head.forward(pooled / length)
    }
}

/// CLIP's encoder.
#[derive(Module, Debug)]
struct Tower {
    class_embedding: Param<Tensor<1>>,
    /// `[1, 1 + patches, hidden]`
    position_embedding: Param<Tensor<3>>,
    patch_embedding: Linear,
    pre_norm: LayerNorm,
    layers: Vec<TowerLayer>,
}

impl Tower {
    /// Returns the states of the patches.
    ///
    /// # Shapes
    /// Result `[pictures * kept, hidden]`.
    fn forward(&self, pictures: &Pictures, shape: &TowerShape) -> Tensor<2> {
        let device = pictures.patches.device();
        let n_kept = pictures.kept.first().map_or(0, Vec::len);
        let [_, places, hidden] = self.position_embedding.dims();
        let positions = self.position_embedding.val().reshape([places, hidden]);
        let patches = self.patch_embedding.forward(pictures.patches.clone());
        let class = self.class_embedding.val().reshape([1, hidden]);
        // The patches of all pictures followed by the class token, ordered by one selection.
        let n_patches = patches.dims()[0];
        let embedded = Tensor::cat(vec![patches, class], 0);
        let mut rows = Vec::with_capacity(n_patches + pictures.kept.len());
        let mut at = Vec::with_capacity(rows.capacity());
        for (picture, kept) in pictures.kept.iter().enumerate() {
            rows.push(n_patches);
            rows.extend(picture * n_kept..(picture + 1) * n_kept);
            at.push(0);
            at.extend(kept.iter().map(|patch| patch + 1));
        }
        let embedded = embedded.select(0, indices(&rows, &device));
        let embedded = embedded + positions.select(0, indices(&at, &device));
        let samples: Vec<Range<usize>> = (0..pictures.kept.len())
            .map(|picture| picture * (n_kept + 1)..(picture + 1) * (n_kept + 1))
            .collect();
        let seen: Vec<CausalSample> = samples.iter().cloned().map(CausalSample::of_all).collect();
        let config = shape.attention();
        let mut x = self.pre_norm.forward(embedded);
        for layer in &self.layers {
            x = layer.forward(x, &seen, &config);
        }
        let without_class: Vec<usize> = samples
            .into_iter()
            .flat_map(|rows| rows.start + 1..rows.end)
            .collect();
        x.select(0, indices(&without_class, &device))
    }
}

/// One pre-norm layer.
#[derive(Module, Debug)]
struct TowerLayer {
    layer_norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl TowerLayer {
    /// # Shapes
    /// `x` and the result `[rows, hidden]`.
    fn forward(&self, x: Tensor<2>, samples: &[CausalSample], config: &DecoderConfig) -> Tensor<2> {
        let normed = self.layer_norm1.forward(x.clone());
        let projected = Projected {
            queries: self.q_proj.forward(normed.clone()),
            keys: self.k_proj.forward(normed.clone()),
            values: self.v_proj.forward(normed),
        };
        let attended = attend(&projected.queries, &projected, &[], samples, config);
        let x = x + self.out_proj.forward(attended);
        let inner = self.fc1.forward(self.layer_norm2.forward(x.clone()));
        x + self.fc2.forward(quick_gelu(inner))
    }
}

/// `x * sigmoid(1.702 x)`.
fn quick_gelu(x: Tensor<2>) -> Tensor<2> {
    let gate = x.clone() * QUICK_GELU;
    match cpu::silu_mul(
        &gate,
        &Tensor::full(x.dims(), 1.0 / QUICK_GELU, &x.device()),
    ) {
        Some(out) => out,
        None => x * activation::sigmoid(gate),
    }
}

/// Projects the states of the tower to the width of the language model.
#[derive(Module, Debug)]
struct Projector {
    linear_1: Linear,
    linear_2: Linear,
}
