//! The supported model families.

use std::path::Path;

use vispec_processor::ModelFamily;

use crate::error::ModelError;
use crate::family::FamilySpec;
use crate::{llava, qwen2_5_vl, qwen3_vl};

/// Reads the config of the checkpoint in `dir`.
///
/// # Errors
/// Fails if the config is missing, damaged or invalid, or if the architecture is not supported.
pub(crate) fn read_family(dir: &Path) -> Result<FamilySpec, ModelError> {
    match ModelFamily::of_checkpoint(dir)? {
        ModelFamily::Qwen2_5Vl => qwen2_5_vl::family(dir),
        ModelFamily::Qwen3Vl => qwen3_vl::family(dir),
        ModelFamily::Llava | ModelFamily::LlavaNext => llava::family(dir),
    }
}
