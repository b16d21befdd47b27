//! Causal self-attention over the rows of several samples, and the angles of their positions.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Bool, Device, Tensor, TensorData, activation, s};
use vispec_models::nn::DecoderConfig;

use super::layers::Linear;

/// Cosines and sines of positions, `[rows, 1, head_dim]`.
#[derive(Debug, Clone)]
pub(super) struct Rotary {
    cos: Tensor<3>,
    sin: Tensor<3>,
}

impl Rotary {
    /// Angles of one position for each row, half-split as in Hugging Face models.
    #[must_use]
    pub(super) fn new(positions: &[usize], config: &DecoderConfig, device: &Device) -> Self {
        Self::from_positions(positions.len(), |row, _| positions[row], config, device)
    }

    /// Angles of positions on the axes time, height and width, `[3][rows]`, as in Qwen2-VL: the
    /// first `sections[0]` frequencies turn with time, the next `sections[1]` with height, the rest
    /// with width.
    #[must_use]
    pub(super) fn multimodal(
        axes: [&[u32]; 3],
        sections: [usize; 3],
        config: &DecoderConfig,
        device: &Device,
    ) -> Self {
        let axis = |frequency: usize| match frequency {
            j if j < sections[0] => axes[0],
            j if j < sections[0] + sections[1] => axes[1],
            _ => axes[2],
        };
        let position = |row: usize, frequency: usize| axis(frequency)[row] as usize;
        Self::from_positions(axes[0].len(), position, config, device)
    }

    /// `position` is given a row and the index of a frequency.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "positions stay far below 2^24, and published models have f32 frequencies"
    )]
    fn from_positions(
        n_rows: usize,
        position: impl Fn(usize, usize) -> usize,
        config: &DecoderConfig,
        device: &Device,
    ) -> Self {
        let head_dim = config.head_dim;
        let frequencies: Vec<f32> = (0..head_dim / 2)
            .map(|j| (1.0 / config.rope_theta.powf((2 * j) as f64 / head_dim as f64)) as f32)
            .collect();
        let table = |of: fn(f64) -> f64| {
            let mut values = Vec::with_capacity(n_rows * head_dim);
            for row in 0..n_rows {
                let angles = frequencies.iter().enumerate().map(|(j, frequency)| {
                    of(f64::from(position(row, j) as f32 * frequency)) as f32
                });
                values.extend(angles.clone());
                values.extend(angles);
            }
            Tensor::from_data(TensorData::new(values, [n_rows, 1, head_dim]), device)
        };
        Self {
            cos: table(f64::cos),
            sin: table(f64::sin),
        }
    }

    /// # Shapes
    /// `x` and the result `[rows, heads, head_dim]`.
    fn rotate(&self, x: Tensor<3>) -> Tensor<3> {
        let [_, _, head_dim] = x.dims();
        let first = x.clone().slice(s![.., .., 0..head_dim / 2]);
        let second = x.clone().slice(s![.., .., head_dim / 2..]);
        let turned = Tensor::cat(vec![second.neg(), first], 2);
        x * self.cos.clone() + turned * self.sin.clone()
    }
}

/// Self-attention with rotary positions, each sample for itself.
#[derive(Module, Debug)]
pub(super) struct Attention {
    /// Queries.
    pub(super) q_proj: Linear,
    /// Keys.
    pub(super) k_proj: Linear,
    /// Values.
    pub(super) v_proj: Linear,
    /// Output.
    pub(super) o_proj: Linear,
}

impl Attention {
    /// # Shapes
    /// `x` and the result `[rows, hidden]`; `samples` are the rows of each sample.
    #[must_use]
    pub(super) fn forward(
        &self,
        x: &Tensor<2>,
        rotary: &Rotary,
        samples: &[Range<usize>],
        config: &DecoderConfig,
    ) -> Tensor<2> {
        let [rows, _] = x.dims();
        let split = |y: Tensor<2>, heads| y.reshape([rows, heads, config.head_dim]);
        let query = rotary.rotate(split(self.q_proj.forward(x.clone()), config.heads));
        let keys = rotary.rotate(split(self.k_proj.forward(x.clone()), config.kv_heads));
        let values = split(self.v_proj.forward(x.clone()), config.kv_heads);
        let attended = samples
            .iter()
            .map(|range| {
                let rows = |y: &Tensor<3>| y.clone().slice(s![range.clone(), .., ..]);
                attend_causally(rows(&query), rows(&keys), rows(&values))
            })
            .collect();
        self.o_proj.forward(Tensor::cat(attended, 0))
    }
}

/// # Shapes
/// `query` `[rows, heads, head_dim]`, `keys` and `values` `[rows, kv_heads, head_dim]`, result
/// `[rows, heads * head_dim]`.
fn attend_causally(query: Tensor<3>, keys: Tensor<3>, values: Tensor<3>) -> Tensor<2> {
    let [rows, heads, _] = query.dims();
    let [_, kv_heads, _] = keys.dims();
    let groups = heads / kv_heads;
    let hidden = Tensor::<2, Bool>::tril_mask([rows, rows], 0, &query.device());
    let hidden = hidden.unsqueeze::<3>().expand([heads, rows, rows]);
    attend(
        query.swap_dims(0, 1),
        repeat_heads(keys.swap_dims(0, 1), groups),
        repeat_heads(values.swap_dims(0, 1), groups),
        Some(hidden),
    )
}

/// Scaled dot-product attention; `hidden` `[heads, queries, keys]` is true where a key is not seen.
///
/// # Shapes
/// `query` `[heads, queries, head_dim]`, `keys` and `values` `[heads, keys, head_dim]`, result
/// `[queries, heads * head_dim]`.
#[expect(clippy::cast_precision_loss, reason = "head sizes are small")]
pub(super) fn attend(
    query: Tensor<3>,
    keys: Tensor<3>,
    values: Tensor<3>,
    hidden: Option<Tensor<3, Bool>>,
) -> Tensor<2> {
    let [heads, queries, head_dim] = query.dims();
    let scale = 1.0 / (head_dim as f64).sqrt();
    let scores = (query * scale).matmul(keys.transpose());
    let scores = match hidden {
        Some(hidden) => scores.mask_fill(hidden, f32::NEG_INFINITY),
        None => scores,
    };
    activation::softmax(scores, 2)
        .matmul(values)
        .swap_dims(0, 1)
        .reshape([queries, heads * head_dim])
}

/// `[kv_heads, rows, head_dim]` to `[kv_heads * groups, rows, head_dim]`, each head repeated.
fn repeat_heads(x: Tensor<3>, groups: usize) -> Tensor<3> {
    if groups == 1 {
        return x;
    }
    let [kv_heads, rows, head_dim] = x.dims();
    x.reshape([kv_heads, 1, rows, head_dim])
        .expand([kv_heads, groups, rows, head_dim])
        .reshape([kv_heads * groups, rows, head_dim])
}
