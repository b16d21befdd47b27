//! Element types of weights and their sizes.

use clap::ValueEnum;
use vispec_kernels::Bits;
use vispec_kernels::measure::Unit;

/// Element types, named as in `generate --dtype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Dtype {
    F32,
    Bf16,
    F16,
    Int8,
    Int4,
}

impl Dtype {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }

    /// Returns the width of the integers of quantised weights.
    pub(super) fn bits(self) -> Option<Bits> {
        match self {
            Self::F32 | Self::Bf16 | Self::F16 => None,
            Self::Int8 => Some(Bits::Eight),
            Self::Int4 => Some(Bits::Four),
        }
    }

    /// Returns the bytes of a matrix `[outputs, inputs]`, including the bf16 scales of quantised
    /// groups.
    pub(super) fn matrix_bytes(self, outputs: usize, inputs: usize) -> usize {
        let len = outputs * inputs;
        let scales = 2 * outputs * inputs.div_ceil(group(inputs));
        match self {
            Self::F32 => 4 * len,
            Self::Bf16 | Self::F16 => 2 * len,
            Self::Int8 => len + scales,
            Self::Int4 => len / 2 + scales,
        }
    }

    /// Returns the arithmetic unit whose peak products are compared with; the peak for integers is
    /// not measured.
    pub(super) fn unit(self) -> Unit {
        match self {
            Self::Bf16 => Unit::Bf16,
            Self::F32 | Self::F16 | Self::Int8 | Self::Int4 => Unit::F32,
        }
    }
}

/// Returns the number of weights that share a scale in a matrix with `inputs` inputs, as chosen by
/// the loader.
pub(super) fn group(inputs: usize) -> usize {
    if inputs.is_multiple_of(64) { 64 } else { 32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_matrix_count_scales() {
        for (dtype, bytes) in [
            (Dtype::F32, 4 * 1_280),
            (Dtype::Bf16, 2 * 1_280),
            (Dtype::F16, 2 * 1_280),
            (Dtype::Int8, 1_280 + 2 * 20),
            (Dtype::Int4, 640 + 2 * 20),
        ] {
            assert_eq!(dtype.matrix_bytes(10, 128), bytes, "{dtype:?}");
        }
        assert_eq!(Dtype::Int8.matrix_bytes(1, 96), 96 + 2 * 3);
    }
}
