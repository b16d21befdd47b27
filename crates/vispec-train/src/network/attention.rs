//! Causal self-attention over the rows of several samples, and the angles of their positions.

use std::cell::OnceCell;
use std::ops::Range;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Bool, Device, Tensor, TensorData, activation, s};
use vispec_models::nn::DecoderConfig;

use super::cpu;
use super::layers::Linear;

/// Cosines and sines of the angles of positions, each `[rows, head_dim / 2]`.
#[derive(Debug)]
pub(super) struct Angles {
    pub(super) cos: Vec<f32>,
    pub(super) sin: Vec<f32>,
}

/// The angles of rows in memory, and on their device when they are asked for there.
#[derive(Debug, Clone)]
pub(super) struct Rotary {
    angles: Arc<Angles>,
    /// Cosines and sines `[rows, 1, head_dim]`.
    tables: OnceCell<[Tensor<3>; 2]>,
    head_dim: usize,
    device: Device,
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
        let n_angles = n_rows * frequencies.len();
        let mut angles = Angles {
            cos: Vec::with_capacity(n_angles),
            sin: Vec::with_capacity(n_angles),
        };
        for row in 0..n_rows {
            for (j, frequency) in frequencies.iter().enumerate() {
                let angle = f64::from(position(row, j) as f32 * frequency);
                angles.cos.push(angle.cos() as f32);
                angles.sin.push(angle.sin() as f32);
            }
        }
        Self {
            angles: Arc::new(angles),
            tables: OnceCell::new(),
            head_dim,
            device: device.clone(),
        }
    }

    /// The angles in memory.
    pub(super) fn angles(&self) -> &Arc<Angles> {
        &self.angles
    }

    /// # Shapes
    /// `x` and the result `[rows, heads, head_dim]`.
    fn rotate(&self, x: Tensor<3>) -> Tensor<3> {
        let half = self.head_dim / 2;
        let [cos, sin] = self.tables.get_or_init(|| {
            [&self.angles.cos, &self.angles.sin].map(|values| {
                let shape = [values.len() / half.max(1), 1, half];
                let halves = TensorData::new(values.clone(), shape);
                Tensor::from_data(halves, &self.device).repeat_dim(2, 2)
            })
        });
        let first = x.clone().slice(s![.., .., 0..half]);
        let second = x.clone().slice(s![.., .., half..]);
        let turned = Tensor::cat(vec![second.neg(), first], 2);
        x * cos.clone() + turned * sin.clone()
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
        let query = self.q_proj.forward(x.clone());
        let keys = self.k_proj.forward(x.clone());
        let values = self.v_proj.forward(x.clone());
        let projected = [query, keys, values];
        let attended = match cpu::attend_causally(&projected, rotary, samples, config) {
            Some(attended) => attended,
            None => attend_samples(projected, rotary, samples, config),
        };
        self.o_proj.forward(attended)
    }
}

/// [`cpu::attend_causally`] by Burn's operations.
pub(super) fn attend_samples(
    projected: [Tensor<2>; 3],
    rotary: &Rotary,
    samples: &[Range<usize>],
    config: &DecoderConfig,
) -> Tensor<2> {
    let [query, keys, values] = projected;
    let [rows, _] = query.dims();
    let split = |y: Tensor<2>, heads| y.reshape([rows, heads, config.head_dim]);
    let query = rotary.rotate(split(query, config.heads));
    let keys = rotary.rotate(split(keys, config.kv_heads));
    let values = split(values, config.kv_heads);
    let attended = samples
        .iter()
        .map(|range| {
            let rows = |y: &Tensor<3>| y.clone().slice(s![range.clone(), .., ..]);
            attend_causally(rows(&query), rows(&keys), rows(&values))
        })
        .collect();
    Tensor::cat(attended, 0)
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
