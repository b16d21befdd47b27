//! The model family of a checkpoint.

use std::path::Path;

use crate::config_file::ConfigFile;
use crate::error::{ProcessorError, Result};

/// A family of models whose inputs this crate can prepare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelFamily {
    /// Qwen2.5-VL.
    Qwen2_5Vl,
    /// Qwen3-VL, the dense models.
    Qwen3Vl,
    /// LLaVA-1.5.
    Llava,
    /// LLaVA-NeXT, also called LLaVA-1.6.
    LlavaNext,
}

/// How a family turns an image into tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageForm {
    /// Resized to an area between two limits and cut into patches: Qwen.
    Patches,
    /// One square crop: LLaVA-1.5.
    Crop,
    /// The whole image and tiles of it: LLaVA-NeXT.
    Tiles,
}

/// The prompt format of the conversations that a family was trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TrainingForm {
    /// Its chat template.
    ChatTemplate,
    /// FastChat's `vicuna_v1.1`, unlike the chat template published with the weights.
    Vicuna,
}

/// Constants of a family.
struct Facts {
    family: ModelFamily,
    architecture: &'static str,
    model_type: &'static str,
    images: ImageForm,
    training: TrainingForm,
    /// The field that names the image token in the config files that the family was published with.
    image_token_field: &'static str,
    /// Default of `max_position_embeddings` in transformers, for configs without it.
    context_limit: usize,
}

const FAMILIES: [Facts; 4] = [
    Facts {
        family: ModelFamily::Qwen2_5Vl,
        architecture: "Qwen2_5_VLForConditionalGeneration",
        model_type: "qwen2_5_vl",
        images: ImageForm::Patches,
        training: TrainingForm::ChatTemplate,
        image_token_field: "image_token_id",
        context_limit: 32_768,
    },
    Facts {
        family: ModelFamily::Qwen3Vl,
        architecture: "Qwen3VLForConditionalGeneration",
        model_type: "qwen3_vl",
        images: ImageForm::Patches,
        training: TrainingForm::ChatTemplate,
        image_token_field: "image_token_id",
        context_limit: 128_000,
    },
    Facts {
        family: ModelFamily::Llava,
        architecture: "LlavaForConditionalGeneration",
        model_type: "llava",
        images: ImageForm::Crop,
        training: TrainingForm::Vicuna,
        image_token_field: "image_token_index",
        context_limit: 2048,
    },
    Facts {
        family: ModelFamily::LlavaNext,
        architecture: "LlavaNextForConditionalGeneration",
        model_type: "llava_next",
        images: ImageForm::Tiles,
        training: TrainingForm::Vicuna,
        image_token_field: "image_token_index",
        context_limit: 2048,
    },
];

const SUPPORTED: &str = "Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration, \
                         LlavaForConditionalGeneration, LlavaNextForConditionalGeneration";

impl ModelFamily {
    /// Reads the family of the checkpoint in `dir` from its `config.json`.
    ///
    /// # Errors
    /// If the config is missing or cannot be read; [`ProcessorError::UnsupportedArchitecture`].
    pub fn of_checkpoint(dir: &Path) -> Result<Self> {
        Self::from_config(&ConfigFile::open(
            dir,
            "config.json",
            "a checkpoint is a directory with this file",
        )?)
    }

    /// Reads `architectures`, or `model_type` if it is absent, from `config.json`.
    pub(crate) fn from_config(config: &ConfigFile) -> Result<Self> {
        let architectures = config
            .optional::<Vec<String>>("architectures", "a list of names")?
            .unwrap_or_default();
        let found = match architectures.into_iter().next() {
            Some(name) => name,
            None => match config.optional::<String>("model_type", "a name")? {
                Some(name) => name,
                None => return Err(config.missing("architectures")),
            },
        };
        let known = |facts: &&Facts| [facts.architecture, facts.model_type].contains(&&*found);
        match FAMILIES.iter().find(known) {
            Some(facts) => Ok(facts.family),
            None => Err(ProcessorError::UnsupportedArchitecture {
                path: config.path().to_owned(),
                found,
                supported: SUPPORTED,
            }),
        }
    }

    fn facts(self) -> &'static Facts {
        match FAMILIES.iter().find(|facts| facts.family == self) {
            Some(facts) => facts,
            None => unreachable!("each family has an entry"),
        }
    }

    /// Returns how images become tokens.
    #[must_use]
    pub fn images(self) -> ImageForm {
        self.facts().images
    }

    pub(crate) fn training(self) -> TrainingForm {
        self.facts().training
    }

    pub(crate) fn image_token_field(self) -> &'static str {
        self.facts().image_token_field
    }

    pub(crate) fn context_limit(self) -> usize {
        self.facts().context_limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_its_entry() {
        for facts in &FAMILIES {
            assert_eq!(facts.family.facts().architecture, facts.architecture);
            assert!(SUPPORTED.contains(facts.architecture));
        }
    }
}
