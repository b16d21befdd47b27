//! The vision adaptor of ViSpec (paper section 3.2): learned queries compress the tokens of an
//! image into a few tokens and one global vector.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, s};

use crate::nn::{Bias, Linear, attend_all};
use crate::weights::Weights;

/// A cross-attention layer in which learned queries attend to the embeddings of an image, without
/// positions.
#[derive(Module, Debug)]
pub(crate) struct VisionAdaptor {
    /// Learned queries `[queries, heads, head_dim]`.
    q: Param<Tensor<3>>,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
}

/// An image as the draft sees it.
#[derive(Debug, Clone)]
pub(crate) struct CompressedImage {
    /// The compressed image tokens `[queries - 1, hidden]`; absent for a single query.
    pub tokens: Option<Tensor<2>>,
    /// The global image vector `[1, hidden]`, added to all text that follows.
    pub global: Tensor<2>,
}

impl VisionAdaptor {
    /// Takes `q` and the projections from `weights`.
    pub(crate) fn load(
        weights: &Weights<'_>,
        n_queries: usize,
        (heads, head_dim): (usize, usize),
        hidden: usize,
        kv_bias: Bias,
    ) -> Self {
        let width = heads * head_dim;
        Self {
            q: Param::from_tensor(weights.vector("q", [n_queries, heads, head_dim])),
            k_proj: Linear::load(&weights.at("k_proj"), hidden, width, kv_bias),
            v_proj: Linear::load(&weights.at("v_proj"), hidden, width, kv_bias),
            o_proj: Linear::load(&weights.at("o_proj"), width, hidden, Bias::No),
        }
    }

    /// Returns the number of learned queries.
    pub(crate) fn n_queries(&self) -> usize {
        self.q.dims()[0]
    }

    /// Compresses one image.
    ///
    /// # Shapes
    /// `image` `[image_tokens, hidden]`: the target's input embeddings at the image's positions.
    pub(crate) fn forward(&self, image: Tensor<2>) -> CompressedImage {
        let queries = self.q.val();
        let [n_queries, heads, head_dim] = queries.dims();
        let [image_tokens, _] = image.dims();
        let split = |x: Tensor<2>| {
            x.reshape([1, image_tokens, heads, head_dim])
                .swap_dims(1, 2)
        };
        let keys = split(self.k_proj.forward(image.clone()));
        let values = split(self.v_proj.forward(image));
        let queries = queries.unsqueeze::<4>().swap_dims(1, 2); // [1, heads, queries, head_dim]
        let attended = attend_all(queries, keys, values)
            .swap_dims(1, 2)
            .reshape([n_queries, heads * head_dim]);
        let out = self.o_proj.forward(attended); // [queries, hidden]
        let last = n_queries - 1;
        CompressedImage {
            tokens: (last > 0).then(|| out.clone().slice(s![0..last, ..])),
            global: out.slice(s![last..n_queries, ..]),
        }
    }
}
