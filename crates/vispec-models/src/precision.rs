//! Element types of weights and activations.

use std::fmt;
use std::str::FromStr;

use burn::tensor::{DType, Device};
use vispec_kernels::Bits;

use crate::error::ModelError;

/// Value of the `--dtype` option.
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
    /// 8-bit or 4-bit linear layers in the language model and the draft.
    Quantized(Quantization),
}

/// Integer weights with one scale per group of inputs (round to nearest, symmetric).
///
/// Only linear layers of the language model and of the draft are quantised, including the output
/// head. Embedding tables, norms and the vision tower keep the type on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantization {
    /// Number of bits per weight.
    pub bits: Bits,
    /// Number of weights that share a scale; by default 64, or 32 where 64 does not divide the
    /// inputs.
    pub group: Option<usize>,
    /// Where quantised weights are kept.
    pub keep: KeepQuantized,
}

/// Where quantised weights are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeepQuantized {
    /// In memory only: weights are quantised at each load.
    #[default]
    InMemory,
    /// In a file in the checkpoint's directory, from which they are read as long as the weight
    /// files do not change.
    BesideCheckpoint,
}

impl Quantization {
    /// Returns the group size for a layer with `inputs` inputs.
    pub(crate) fn group_for(self, inputs: usize) -> usize {
        self.group
            .unwrap_or(if inputs.is_multiple_of(64) { 64 } else { 32 })
    }

    fn parse(name: &str) -> Option<Self> {
        let (kind, group) = match name.split_once(':') {
            Some((kind, group)) => (kind, Some(group.parse().ok()?)),
            None => (name, None),
        };
        let bits = match kind {
            "int8" => Bits::Eight,
            "int4" => Bits::Four,
            _ => return None,
        };
        Some(Self {
            bits,
            group,
            keep: KeepQuantized::default(),
        })
    }
}

impl fmt::Display for Quantization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.bits {
            Bits::Eight => "int8",
            Bits::Four => "int4",
        })?;
        match self.group {
            Some(group) => write!(f, ":{group}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for DtypeChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::F32 => f.write_str("f32"),
            Self::Bf16 => f.write_str("bf16"),
            Self::F16 => f.write_str("f16"),
            Self::Quantized(quantization) => quantization.fmt(f),
        }
    }
}

impl FromStr for DtypeChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            other => Quantization::parse(other)
                .map(Self::Quantized)
                .ok_or_else(|| {
                    format!(
                        "unknown dtype {other:?}, expected auto, f32, bf16, f16, int8[:GROUP] or \
                     int4[:GROUP]"
                    )
                }),
        }
    }
}

impl DtypeChoice {
    fn resolve(self, on_disk: DType) -> DType {
        match self {
            Self::Auto | Self::Quantized(_) => on_disk,
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }
}

/// Element type of cached keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvPrecision {
    /// The type of activations, which is f32 on the CPU.
    #[default]
    Auto,
    /// 16-bit brain floating point. It takes half the memory of f32 and makes hidden states
    /// slightly less exact. A sequence still has the same hidden states whether drafted or not,
    /// alone or in a batch.
    Bf16,
}

impl fmt::Display for KvPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Bf16 => "bf16",
        })
    }
}

impl FromStr for KvPrecision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Auto, Self::Bf16]
            .into_iter()
            .find(|precision| precision.to_string() == name)
            .ok_or_else(|| format!("unknown cache type {name:?}, expected auto or bf16"))
    }
}

impl KvPrecision {
    /// Returns the element type of caches for activations of type `compute` on `device`.
    ///
    /// # Errors
    /// Returns [`ModelError::UnsupportedDtype`] if the device is not the CPU and the type would
    /// differ from that of the activations.
    pub(crate) fn resolve(self, compute: DType, device: &Device) -> Result<DType, ModelError> {
        match self {
            Self::Auto => Ok(compute),
            Self::Bf16 if compute == DType::BF16 || crate::device::is_cpu(device) => {
                Ok(DType::BF16)
            }
            Self::Bf16 => Err(ModelError::UnsupportedDtype {
                device: format!("{device:?}"),
                dtype: "a bf16 cache with activations of another type".to_owned(),
            }),
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
    /// Quantisation of linear layers, if their weights are not kept in the storage type.
    pub quantization: Option<Quantization>,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.quantization {
            Some(quantization) => quantization.fmt(f),
            None => f.write_str(match self.storage {
                DType::F32 => "f32",
                DType::F16 => "f16",
                DType::BF16 => "bf16",
                _ => "other",
            }),
        }
    }
}

impl Precision {
    /// Chooses the types for a checkpoint whose weights have the type `on_disk`.
    ///
    /// On the CPU, activations are always f32 and weights keep the chosen type. On other devices
    /// both have the chosen type, which the device must support; only the CPU has quantised layers.
    /// Some drivers compute wrong numbers instead of failing, so the device is queried and tested
    /// before anything is allocated.
    ///
    /// # Errors
    /// Returns [`ModelError::UnsupportedDtype`] if the device reports that it does not support the
    /// type, [`ModelError::WrongArithmetic`] if it reports support but computes wrong numbers.
    pub fn choose(
        choice: DtypeChoice,
        on_disk: DType,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let storage = choice.resolve(on_disk);
        let quantization = match choice {
            DtypeChoice::Quantized(quantization) => Some(quantization),
            _ => None,
        };
        if crate::device::is_cpu(device) {
            return Ok(Self {
                storage,
                compute: DType::F32,
                quantization,
            });
        }
        if quantization.is_some() || !device.supports_dtype(storage) {
            return Err(ModelError::UnsupportedDtype {
                device: format!("{device:?}"),
                dtype: choice.to_string(),
            });
        }
        crate::device::check_arithmetic(device, storage)?;
        Ok(Self {
            storage,
            compute: storage,
            quantization: None,
        })
    }
}
