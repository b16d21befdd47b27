//! Rotary position embedding with explicit positions, half-split as in Hugging Face models.

use std::sync::OnceLock;

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::cpu;

/// Angles of the rows of one forward pass.
///
/// Made on the host, once per pass, from explicit positions: nodes of a token tree share positions,
/// compressed image tokens skip some, and Qwen's rotary embedding has three axes.
#[derive(Debug, Clone)]
pub struct RotaryTable {
    cos: Vec<f32>,
    sin: Vec<f32>,
    head_dim: usize,
    device: Device,
    dtype: DType,
    /// Cosines and sines `[rows, 1, head_dim]`, uploaded at first use and shared by all layers.
    on_device: OnceLock<(Tensor<3>, Tensor<3>)>,
}

/// Inverse frequencies `theta^(-2j/head_dim)`, rounded to f32 as the published models have them.
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
    /// One position for each row.
    #[must_use]
    pub fn new(positions: &[i64], head_dim: usize, theta: f64, like: (&Device, DType)) -> Self {
        let frequencies = inverse_frequencies(head_dim, theta);
        Self::from_angles(
            positions
                .iter()
                .flat_map(|&p| frequencies.iter().map(move |f| angle(p, *f))),
            head_dim,
            like,
        )
    }

    /// Positions on three axes (time, height, width), `[3][rows]`, as in Qwen2-VL: the first
    /// `sections[0]` frequencies turn with time, the next `sections[1]` with height, the rest with
    /// width.
    #[must_use]
    pub fn multimodal(
        positions: [&[u32]; 3],
        sections: [usize; 3],
        head_dim: usize,
        theta: f64,
        like: (&Device, DType),
    ) -> Self {
        let frequencies = inverse_frequencies(head_dim, theta);
        let axis = |j: usize| {
            if j < sections[0] {
                0
            } else if j < sections[0] + sections[1] {
                1
            } else {
                2
            }
        };
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

    /// Angles `[rows, head_dim / 2]` in row-major order.
    #[must_use]
    pub fn from_angles(
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
        }
    }

    /// The rows of this table, then those of `next`, which is for the same heads.
    #[must_use]
    pub fn followed_by(mut self, next: &Self) -> Self {
        self.cos.extend_from_slice(&next.cos);
        self.sin.extend_from_slice(&next.sin);
        self.on_device = OnceLock::new();
        self
    }

    /// Size of a head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Cosines and sines, each `[rows, head_dim / 2]`.
    pub(super) fn host(&self) -> (&[f32], &[f32]) {
        (&self.cos, &self.sin)
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
    #[must_use]
    pub fn rotate(&self, x: Tensor<2>) -> Tensor<2> {
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
