//! The trainable vision adaptor (paper section 3.2).

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::attention::attend_all;
use super::layers::Linear;

/// Cross-attention of learned queries over the embeddings of an image, without position encoding.
#[derive(Module, Debug)]
pub(crate) struct VisionAdaptor {
    /// Learned queries `[queries, heads, head_dim]`.
    pub(super) q: Param<Tensor<3>>,
    /// Keys.
    pub(super) k_proj: Linear,
    /// Values.
    pub(super) v_proj: Linear,
    /// Output.
    pub(super) o_proj: Linear,
}

impl VisionAdaptor {
    /// Returns the number of learned queries.
    pub(crate) fn n_queries(&self) -> usize {
        self.q.dims()[0]
    }

    /// Compresses one image. All rows of the result but the last are compressed image tokens; the
    /// last is the global vector.
    ///
    /// # Shapes
    /// `image` `[image_tokens, hidden]`, result `[queries, hidden]`.
    pub(crate) fn forward(&self, image: Tensor<2>) -> Tensor<2> {
        let queries = self.q.val();
        let [_, heads, head_dim] = queries.dims();
        let [image_tokens, _] = image.dims();
        let split = |y: Tensor<2>| y.reshape([image_tokens, heads, head_dim]).swap_dims(0, 1);
        let keys = split(self.k_proj.forward(image.clone()));
        let values = split(self.v_proj.forward(image));
        let attended = attend_all(queries.swap_dims(0, 1), keys, values);
        self.o_proj.forward(attended)
    }
}
