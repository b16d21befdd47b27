//! The language model of a target without its layers: embedding, final norm and head.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::nn::{Bias, DecoderConfig, Embedding, Linear, RmsNorm};
use crate::weights::Weights;

/// Where the output head's weight comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadWeights {
    /// `lm_head.weight`
    Own,
    /// The embedding table.
    Tied,
}

impl HeadWeights {
    /// Returns the variant for a config's `tie_word_embeddings`.
    pub(crate) fn tied_if(tied: bool) -> Self {
        if tied { Self::Tied } else { Self::Own }
    }
}

/// A Llama or Qwen language model, without its layers.
#[derive(Module, Debug)]
pub struct TextModel {
    embed_tokens: Embedding,
    norm: RmsNorm,
    lm_head: Linear,
}

impl TextModel {
    /// Loads embedding and norm from `model` and, unless it is tied, the head from `head`.
    pub(crate) fn load(
        model: &Weights<'_>,
        head: &Weights<'_>,
        config: &DecoderConfig,
        vocab_size: usize,
        head_weights: HeadWeights,
    ) -> Self {
        let embed_tokens = Embedding::load(&model.at("embed_tokens"), vocab_size, config.hidden);
        let lm_head = match head_weights {
            HeadWeights::Own => Linear::load(head, config.hidden, vocab_size, Bias::No),
            HeadWeights::Tied => {
                // Some files contain the tied head again.
                head.skip("weight");
                let embedding = model.at("embed_tokens");
                Linear::load(&embedding, config.hidden, vocab_size, Bias::No)
            }
        };
        Self {
            embed_tokens,
            norm: RmsNorm::load(&model.at("norm"), config.hidden, config.rms_eps),
            lm_head,
        }
    }

    /// Returns the token embedding.
    #[must_use]
    pub fn embedding(&self) -> &Embedding {
        &self.embed_tokens
    }

    /// Returns the output head, `[vocab, hidden]`.
    #[must_use]
    pub fn head(&self) -> &Linear {
        &self.lm_head
    }

    /// Applies the final norm.
    ///
    /// # Shapes
    /// `hidden` and the result are `[rows, hidden]`.
    #[must_use]
    pub fn finish(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.norm.forward(hidden)
    }
}
