//! Rotary position embedding with explicit positions and half-split layout, as in Hugging Face
//! models.

use std::sync::OnceLock;

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::cpu;

/// Rotary angles of the rows of one forward pass.
///
/// The angles are computed on the host once per pass. Positions are explicit because nodes of a
/// token tree share positions, compressed image tokens skip some, and Qwen's rotary embedding has
/// three axes.
#[derive(Debug, Clone)]
pub(crate) struct RotaryTable {
    cos: Vec<f32>,
    sin: Vec<f32>,
    head_dim: usize,
    device: Device,
    dtype: DType,
    /// Cosines and sines `[rows, 1, head_dim]`, uploaded on first use and shared by all layers.
    on_device: OnceLock<(Tensor<3>, Tensor<3>)>,
    /// The same values in the layout of the GPU kernels.
    #[cfg(feature = "cube")]
    turns: OnceLock<Tensor<2>>,
}

/// Assignment of frequencies to the three position axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MropeLayout {
    /// As in Qwen2-VL: the first frequencies belong to time, the next to height, the last to width.
    Chunked,
    /// As in Qwen3-VL: frequencies belong to time, height and width in turn until the section of an
    /// axis is used up; all others belong to time.
    Interleaved,
}

impl MropeLayout {
    /// Returns the axis of frequency `j`.
    fn axis(self, j: usize, sections: [usize; 3]) -> usize {
        match self {
            Self::Chunked if j < sections[0] => 0,
            Self::Chunked if j < sections[0] + sections[1] => 1,
            Self::Chunked => 2,
            Self::Interleaved => match j % 3 {
                axis if j / 3 < sections[axis] => axis,
                _ => 0,
            },
        }
    }
}

/// Returns the inverse frequencies `theta^(-2j/head_dim)`, rounded to f32 as in the published
/// models.
fn inverse_frequencies(head_dim: usize, theta: f64) -> Vec<f32> {
    (0..head_dim / 2)
        .map(|j| {
            #[expect(clippy::cast_precision_loss, reason = "head sizes are small")]
            let exponent = (2 * j) as f64 / head_dim as f64;
            #[expect(
                clippy::cast_possible_truncation,
                reason = "rounding to f32 is the point"
            )]
            let value = (1.0 / theta.powf(exponent)) as f32;
            value
        })
        .collect()
}

impl RotaryTable {
    /// Creates a table with one position per row.
    pub(crate) fn new(
        positions: &[i64],
        head_dim: usize,
        theta: f64,
        like: (&Device, DType),
    ) -> Self {
        let frequencies = inverse_frequencies(head_dim, theta);
        Self::from_angles(
            positions
                .iter()
                .flat_map(|&p| frequencies.iter().map(move |f| angle(p, *f))),
            head_dim,
            like,
        )
    }

    /// Creates a table from positions on three axes (time, height, width), `[3][rows]`. `sections`
    /// contains the number of frequencies of each axis, and `layout` assigns frequencies to axes.
    pub(crate) fn multimodal(
        positions: [&[u32]; 3],
        (sections, layout): ([usize; 3], MropeLayout),
        head_dim: usize,
        theta: f64,
        like: (&Device, DType),
    ) -> Self {
        let frequencies = inverse_frequencies(head_dim, theta);
        let axis = |j: usize| layout.axis(j, sections);
        let angles = (0..positions[0].len())
            .flat_map(|row| {
                frequencies
                    .iter()
                    .enumerate()
                    .map(move |(j, f)| angle(i64::from(positions[axis(j)][row]), *f))
            })
            .collect::<Vec<_>>();
        Self::from_angles(angles.into_iter(), head_dim, like)
    }

    /// Creates a table from angles `[rows, head_dim / 2]` in row-major order.
    pub(crate) fn from_angles(
        angles: impl Iterator<Item = f32>,
        head_dim: usize,
        (device, dtype): (&Device, DType),
    ) -> Self {
        let (cos, sin) = angles
            .map(|a| {
                let (sin, cos) = f64::from(a).sin_cos();
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "rounding to f32 is the point"
                )]
                (cos as f32, sin as f32)
            })
            .unzip();
        Self {
            cos,
            sin,
            head_dim,
            device: device.clone(),
            dtype,
            on_device: OnceLock::new(),
            #[cfg(feature = "cube")]
            turns: OnceLock::new(),
        }
    }

    /// Appends the rows of `next`, which must have the same head size.
    pub(crate) fn followed_by(mut self, next: &Self) -> Self {
        self.cos.extend_from_slice(&next.cos);
        self.sin.extend_from_slice(&next.sin);
        self.on_device = OnceLock::new();
        #[cfg(feature = "cube")]
        {
            self.turns = OnceLock::new();
        }
        self
    }

    /// Returns the size of a head.
    pub(crate) fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Returns cosines and sines, each `[rows, head_dim / 2]`.
    pub(super) fn host(&self) -> (&[f32], &[f32]) {
        (&self.cos, &self.sin)
    }

    /// Returns the cosines followed by the sines of each row, `[rows, head_dim]` in f32, uploaded
    /// on first use.
    #[cfg(feature = "cube")]
    pub(super) fn turns(&self) -> Tensor<2> {
        let upload = || {
            let half = self.head_dim / 2;
            let rows = self.cos.chunks_exact(half).zip(self.sin.chunks_exact(half));
            let values: Vec<f32> = rows.flat_map(|(cos, sin)| [cos, sin].concat()).collect();
            let dims = [values.len() / self.head_dim, self.head_dim];
            Tensor::<2>::from_data(TensorData::new(values, dims), (&self.device, DType::F32))
        };
        self.turns.get_or_init(upload).clone()
    }

    fn upload(&self, values: &[f32]) -> Tensor<3> {
        let half = self.head_dim / 2;
        let data = TensorData::new(values.to_vec(), [values.len() / half, 1, half]);
        let one = Tensor::<3>::from_data(data, (&self.device, DType::F32));
        let one = Tensor::<3>::cast(one, self.dtype);
        Tensor::cat(vec![one.clone(), one], 2)
    }

    /// Rotates each head of each row.
    ///
    /// # Shapes
    /// `x` and the result `[rows, heads * head_dim]`.
    pub(crate) fn rotate(&self, x: Tensor<2>) -> Tensor<2> {
        if let Some(rotated) = cpu::rotary(&x, self) {
            return rotated;
        }
        let [rows, width] = x.dims();
        let (half, heads) = (self.head_dim / 2, width / self.head_dim);
        let (cos, sin) = self
            .on_device
            .get_or_init(|| (self.upload(&self.cos), self.upload(&self.sin)));
        let x = x.reshape([rows, heads, self.head_dim]);
        let first = x.clone().slice([0..rows, 0..heads, 0..half]);
        let second = x.clone().slice([0..rows, 0..heads, half..self.head_dim]);
        let turned = Tensor::cat(vec![second.neg(), first], 2);
        (x * cos.clone() + turned * sin.clone()).reshape([rows, width])
    }
}

#[expect(clippy::cast_precision_loss, reason = "positions stay far below 2^24")]
fn angle(position: i64, frequency: f32) -> f32 {
    position as f32 * frequency
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_have_their_axes() {
        let axes = |layout: MropeLayout, sections: [usize; 3]| -> Vec<usize> {
            let n = sections.iter().sum();
            (0..n).map(|j| layout.axis(j, sections)).collect()
        };
        let chunked = axes(MropeLayout::Chunked, [2, 3, 3]);
        assert_eq!(chunked, [0, 0, 1, 1, 1, 2, 2, 2]);
        let interleaved = axes(MropeLayout::Interleaved, [4, 2, 2]);
        assert_eq!(interleaved, [0, 1, 2, 0, 1, 2, 0, 0]);
        // Qwen3-VL itself.
        let published = axes(MropeLayout::Interleaved, [24, 20, 20]);
        let counts = [0, 1, 2].map(|axis| published.iter().filter(|&&a| a == axis).count());
        assert_eq!(counts, [24, 20, 20]);
        assert_eq!(published[57..], [0, 1, 2, 0, 0, 0, 0]);
    }
}
