//! Which family of models a checkpoint belongs to.

use std::path::Path;

use crate::config_file::ConfigFile;
use crate::error::{ProcessorError, Result};

/// A family of models whose inputs this crate can prepare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelFamily {
    /// Qwen2.5-VL.
    Qwen2_5Vl,
    /// LLaVA-1.5.
    Llava,
    /// LLaVA-NeXT, also called LLaVA-1.6.
    LlavaNext,
}

const SUPPORTED: &str = "Qwen2_5_VLForConditionalGeneration, LlavaForConditionalGeneration, \
                         LlavaNextForConditionalGeneration";

impl ModelFamily {
    /// Reads the family of the checkpoint in `dir` from its `config.json`.
    ///
    /// # Errors
    /// A config that is missing or cannot be read; [`ProcessorError::UnsupportedArchitecture`].
    pub fn of_checkpoint(dir: &Path) -> Result<Self> {
        Self::from_config(&ConfigFile::open(
            dir,
            "config.json",
            "a checkpoint is a directory with this file",
        )?)
    }

    /// Reads `architectures`, or if it is absent `model_type`, of `config.json`.
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
        match found.as_str() {
            "Qwen2_5_VLForConditionalGeneration" | "qwen2_5_vl" => Ok(Self::Qwen2_5Vl),
            "LlavaForConditionalGeneration" | "llava" => Ok(Self::Llava),
            "LlavaNextForConditionalGeneration" | "llava_next" => Ok(Self::LlavaNext),
            _ => Err(ProcessorError::UnsupportedArchitecture {
                path: config.path().to_owned(),
                found,
                supported: SUPPORTED,
            }),
        }
    }
}
