//! Element types of weights and activations.

use std::str::FromStr;

use burn::tensor::{DType, Device};

use crate::error::ModelError;

/// What the user asks for with `--dtype`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DtypeChoice {
    /// The type that the checkpoint has on disk.
    #[default]
    Auto,
    /// 32-bit floating point.
    F32,
    /// 16-bit brain floating point.
    Bf16,
    /// 16-bit IEEE floating point.
    F16,
}

impl FromStr for DtypeChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            other => Err(format!(
                "unknown dtype {other:?}, expected auto, f32, bf16 or f16"
            )),
        }
    }
}

impl DtypeChoice {
    fn resolve(self, on_disk: DType) -> DType {
        match self {
            Self::Auto => on_disk,
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }
}

/// Element types of weights and activations on one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Precision {
    /// Type of weight matrices and embedding tables.
    pub storage: DType,
    /// Type of activations, norm weights, biases and caches.
    pub compute: DType,
}

impl Precision {
    /// Chooses the types for a checkpoint whose weights are `on_disk`.
    ///
    /// On the CPU activations are always f32 and weights keep the chosen type. Elsewhere both have
    /// the chosen type, which the device must support: some drivers compute wrong numbers instead
    /// of failing, so this is asked before anything is allocated.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedDtype`] if the device says that it cannot compute in that type.
    pub fn choose(
        choice: DtypeChoice,
        on_disk: DType,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let storage = choice.resolve(on_disk);
        if crate::device::is_cpu(device) {
            return Ok(Self {
                storage,
                compute: DType::F32,
            });
        }
        if !device.supports_dtype(storage) {
            return Err(ModelError::UnsupportedDtype {
                device: format!("{device:?}"),
                dtype: storage,
            });
        }
        Ok(Self {
            storage,
            compute: storage,
        })
    }
}
