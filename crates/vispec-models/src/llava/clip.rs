//! The vision tower of LLaVA: CLIP without its last layers.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, activation};

use super::clip_config::{ClipActivation, ClipConfig};
use crate::nn::{Bias, LayerNorm, Linear, attend_all};
use crate::weights::Weights;

/// Computes the hidden states of an image's tiles after some of the layers.
#[derive(Module, Debug)]
pub(super) struct ClipVision {
    /// The convolution of the published model. Its stride equals its size, so it is a linear layer
    /// over the elements of a patch.
    patch_embedding: Linear,
    class_embedding: Param<Tensor<1>>,
    position_embedding: Param<Tensor<2>>,
    pre_norm: LayerNorm,
    layers: Vec<ClipLayer>,
    #[module(skip)]
    config: ClipConfig,
}

impl ClipVision {
    /// Loads the embeddings and the first `n_layers` layers from `weights`.
    pub(super) fn load(weights: &Weights<'_>, config: &ClipConfig, n_layers: usize) -> Self {
        let (hidden, side, grid) = (config.hidden, config.patch_size, config.grid_side());
        let embeddings = weights.at("embeddings");
        let kernel = embeddings.matrix("patch_embedding.weight", [hidden, 3, side, side]);
        let kernel = kernel.reshape([hidden, 3 * side * side]);
        let positions = embeddings.vector("position_embedding.weight", [grid * grid + 1, hidden]);
        let class = embeddings.vector("class_embedding", [hidden]);
        let layers = weights.at("encoder.layers");
        // The weights after the selected hidden state are not needed.
        for unused in n_layers..config.layers {
            layers.skip(&unused.to_string());
        }
        weights.skip("post_layernorm");
        Self {
            patch_embedding: Linear::from_tensors(kernel, None),
            class_embedding: Param::from_tensor(class),
            position_embedding: Param::from_tensor(positions),
            // The published name is misspelt.
            pre_norm: LayerNorm::load(&weights.at("pre_layrnorm"), hidden, config.norm_eps),
            layers: (0..n_layers)
                .map(|idx| ClipLayer::load(&layers.at(idx), config))
                .collect(),
            config: *config,
        }
    }

    /// Returns the hidden states of the class token and the patches of each tile.
    ///
    /// # Shapes
    /// `pixels` `[tiles, 3, image_size, image_size]`, result `[tiles, 1 + patches, hidden]`.
    pub(super) fn forward(&self, pixels: Tensor<4>) -> Tensor<3> {
        self.layers
            .iter()
            .fold(self.embed(pixels), |x, layer| layer.forward(x))
    }

    /// Returns the input of the first layer.
    fn embed(&self, pixels: Tensor<4>) -> Tensor<3> {
        let [tiles, channels, _, _] = pixels.dims();
        let (grid, side, hidden) = (
            self.config.grid_side(),
            self.config.patch_size,
            self.config.hidden,
        );
        let patches = pixels
            .reshape([tiles, channels, grid, side, grid, side])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([tiles, grid * grid, channels * side * side]);
        let patches = self.patch_embedding.forward(patches);
        let class = self
            .class_embedding
            .val()
            .reshape([1, 1, hidden])
            .expand([tiles, 1, hidden]);
        let embedded = Tensor::cat(vec![class, patches], 1);
        self.pre_norm
            .forward(embedded + self.position_embedding.val().unsqueeze::<3>())
    }
}

/// One pre-norm layer: attention, then a feed-forward block, each with a residual.
#[derive(Module, Debug)]
struct ClipLayer {
    layer_norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    activation: ClipActivation,
}

impl ClipLayer {
    fn load(weights: &Weights<'_>, config: &ClipConfig) -> Self {
        let (hidden, inner) = (config.hidden, config.intermediate);
        let norm = |name: &str| LayerNorm::load(&weights.at(name), hidden, config.norm_eps);
        let linear = |name: &str, inputs, outputs| {
            Linear::load(&weights.at(name), inputs, outputs, Bias::Yes)
        };
        Self {
            layer_norm1: norm("layer_norm1"),
            q_proj: linear("self_attn.q_proj", hidden, hidden),
            k_proj: linear("self_attn.k_proj", hidden, hidden),
            v_proj: linear("self_attn.v_proj", hidden, hidden),
            out_proj: linear("self_attn.out_proj", hidden, hidden),
            layer_norm2: norm("layer_norm2"),
            fc1: linear("mlp.fc1", hidden, inner),
            fc2: linear("mlp.fc2", inner, hidden),
            heads: config.heads,
            activation: config.activation,
        }
    }

    /// # Shapes
    /// `x` and the result `[tiles, tokens, hidden]`.
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [tiles, tokens, hidden] = x.dims();
        let normed = self.layer_norm1.forward(x.clone());
        let heads = |projection: &Linear| {
            projection
                .forward(normed.clone())
                .reshape([tiles, tokens, self.heads, hidden / self.heads])
                .swap_dims(1, 2) // [tiles, heads, tokens, head_dim]
        };
        let attended = attend_all(
            heads(&self.q_proj),
            heads(&self.k_proj),
            heads(&self.v_proj),
        );
        let attended = attended.swap_dims(1, 2).reshape([tiles, tokens, hidden]);
        let x = x + self.out_proj.forward(attended);
        let inner = self.fc1.forward(self.layer_norm2.forward(x.clone()));
        let inner = match self.activation {
            ClipActivation::QuickGelu => inner.clone() * activation::sigmoid(inner * 1.702),
            ClipActivation::Gelu => activation::gelu(inner),
        };
        x + self.fc2.forward(inner)
    }
}
