//! The frozen language model, through which gradients flow to the tower.

use std::path::Path;

use burn::tensor::{DType, Device, Tensor};
use vispec_models::llava::LlavaConfig;
use vispec_models::{DtypeChoice, HostLayers, TargetText};

use super::super::cross_entropy::negative_mean;
use super::lessons::Prompt;
use crate::error::TrainError;
use crate::network::{
    HostTensor, Parameters, Pictures, SeeingNetwork, TargetInputs, TargetNetwork, TargetShape,
    Trainable as _,
};

/// A picture, a question, and the answer to learn.
#[derive(Debug)]
pub(super) struct AnswerLesson {
    pub(super) pictures: Pictures,
    pub(super) prompt: Prompt,
    pub(super) answer: Vec<u32>,
}

/// A frozen language model.
#[derive(Debug)]
pub(super) struct Speaker {
    text: TargetText,
    network: TargetNetwork,
}

impl Speaker {
    pub(super) fn load(
        dir: &Path,
        config: &LlavaConfig,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let text = TargetText::load(dir, device, DtypeChoice::F32)?;
        let layers = HostLayers::all(dir, device)?;
        let host = |shape, values| HostTensor { shape, values };
        let mut parameters = Parameters::new();
        for (number, layer) in layers.layers.into_iter().enumerate() {
            for weight in layer {
                let name = format!("layers.{number}.{}", weight.name);
                parameters.insert(name, host(weight.shape, weight.values));
            }
        }
        parameters.insert(
            "norm.weight".to_owned(),
            host(layers.norm.shape, layers.norm.values),
        );
        let head = text.head_weight().ok_or(TrainError::QuantizedHead)?;
        parameters.insert("lm_head.weight".to_owned(), HostTensor::from_device(head)?);
        let decoder = config.decoder();
        let shape = TargetShape {
            decoder,
            vocab_size: config.vocab_size(),
            // All frequencies use the single position.
            rotary_sections: [decoder.head_dim / 2, 0, 0],
        };
        let network = shape.build(&parameters, &device.clone().autodiff());
        Ok(Self {
            text,
            network: network.frozen(),
        })
    }

    /// Returns the width of the model's inputs.
    pub(super) fn hidden(&self) -> usize {
        self.text.decoder().hidden
    }

    pub(super) fn device(&self) -> &Device {
        self.text.device()
    }

    /// Returns the embedding table, `[vocab, hidden]`.
    pub(super) fn table(&self) -> Result<HostTensor, TrainError> {
        HostTensor::from_device(Tensor::<2>::cast(self.text.embedding().table(), DType::F32))
    }

    /// Returns the cross entropy of an answer, as the mean over its tokens.
    pub(super) fn loss(&self, network: &SeeingNetwork, lesson: &AnswerLesson) -> Tensor<1> {
        negative_mean(self.says(network, lesson), &lesson.answer)
    }

    /// Returns the log-probabilities at the tokens of an answer, `[answer, vocab]`.
    pub(super) fn says(&self, network: &SeeingNetwork, lesson: &AnswerLesson) -> Tensor<2> {
        let features = network.features(&lesson.pictures);
        let Prompt { before, behind } = &lesson.prompt;
        let embed = |tokens: &[u32]| {
            let rows = self.text.embedding().forward(tokens, DType::F32);
            rows.expect("tokens of the model's own vocabulary")
                .autodiff()
        };
        let said = lesson.answer.len() - 1;
        let rest = [behind, &lesson.answer[..said]].concat();
        let first = before.len() + features.dims()[0] + behind.len() - 1;
        let embeds = Tensor::cat(vec![embed(before), features, embed(&rest)], 0);
        let [seq, _] = embeds.dims();
        #[expect(clippy::cast_possible_truncation, reason = "short sequences")]
        let positions: Vec<u32> = (0..seq as u32).collect();
        let rows: Vec<usize> = (first..seq).collect();
        self.network.log_probabilities(&TargetInputs {
            embeds,
            axes: [&positions; 3],
            rows: &rows,
        })
    }
}
