//! Token embeddings.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};

use super::rows::row_numbers;
use crate::error::ModelError;
use crate::weights::Weights;

/// A table of one vector per token, `[vocab, hidden]`, in the storage type.
#[derive(Module, Debug)]
pub struct Embedding {
    weight: Param<Tensor<2>>,
}

impl Embedding {
    /// Takes `weight` from `weights`.
    pub(crate) fn load(weights: &Weights<'_>, vocab_size: usize, hidden: usize) -> Self {
        Self {
            weight: Param::from_tensor(weights.matrix("weight", [vocab_size, hidden])),
        }
    }

    /// Returns the table `[vocab, hidden]`.
    #[must_use]
    pub fn table(&self) -> Tensor<2> {
        self.weight.val()
    }

    /// Returns the number of rows of the table.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.weight.dims()[0]
    }

    /// Looks up `tokens` and returns `[tokens, hidden]` as `dtype`.
    ///
    /// # Errors
    /// [`ModelError::TokenOutOfRange`] if a token has no row.
    pub fn forward(
        &self,
        tokens: &[u32],
        dtype: burn::tensor::DType,
    ) -> Result<Tensor<2>, ModelError> {
        let table = self.weight.val();
        let [vocab_size, _] = table.dims();
        if let Some(&found) = tokens.iter().find(|&&t| t as usize >= vocab_size) {
            return Err(ModelError::TokenOutOfRange { found, vocab_size });
        }
        Ok(self.lookup(row_numbers(tokens, &table.device()), dtype))
    }

    /// Looks up tokens that are on the device and returns `[tokens, hidden]` as `dtype`. Each token
    /// must have a row.
    pub(crate) fn lookup(&self, ids: Tensor<1, Int>, dtype: burn::tensor::DType) -> Tensor<2> {
        Tensor::<2>::cast(self.weight.val().select(0, ids), dtype)
    }
}
