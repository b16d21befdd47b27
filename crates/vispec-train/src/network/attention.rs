//! Causal attention over the rows of several samples, and rotary position angles.

use std::cell::OnceCell;
use std::ops::Range;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Bool, Device, Tensor, TensorData, activation, s};
use vispec_kernels::CausalSample;
use vispec_models::nn::DecoderConfig;

use super::cpu;
use super::layers::Linear;

/// Cosines and sines of position angles, each `[rows, head_dim / 2]`.
#[derive(Debug)]
pub(super) struct Angles {
    pub(super) cos: Vec<f32>,
    pub(super) sin: Vec<f32>,
}

/// The angles of rows in host memory, and on the device once they are needed there.
#[derive(Debug, Clone)]
pub(super) struct Rotary {
    angles: Arc<Angles>,
    /// Cosines and sines `[rows, 1, head_dim]`.
    tables: OnceCell<[Tensor<3>; 2]>,
    head_dim: usize,
    device: Device,
}

impl Rotary {
    /// Creates angles from one position per row, half-split as in Hugging Face models.
    pub(super) fn new(positions: &[usize], config: &DecoderConfig, device: &Device) -> Self {
        Self::from_positions(positions.len(), |row, _| positions[row], config, device)
    }

    /// Creates angles from positions on the axes time, height and width, `[3][rows]`, as in
    /// Qwen2-VL: the first `sections[0]` frequencies use time, the next `sections[1]` height, the
    /// rest width.
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

    /// Creates angles from `position`, a function of the row and the index of the frequency.
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

    /// Returns the angles in host memory.
    #[cfg(test)]
    pub(super) fn angles(&self) -> &Arc<Angles> {
        &self.angles
    }

    /// Rotates all heads of each row.
    ///
    /// # Shapes
    /// `x` and the result `[rows, heads * head_dim]`.
    pub(super) fn rotate(&self, x: Tensor<2>) -> Tensor<2> {
        match cpu::rotate(&x, &self.angles, self.head_dim) {
            Some(rotated) => rotated,
            None => self.rotate_on_device(x),
        }
    }

    /// Like [`cpu::rotate`], but with Burn's operations.
    pub(super) fn rotate_on_device(&self, x: Tensor<2>) -> Tensor<2> {
        let [rows, width] = x.dims();
        let half = self.head_dim / 2;
        let [cos, sin] = self.tables.get_or_init(|| {
            [&self.angles.cos, &self.angles.sin].map(|values| {
                let shape = [values.len() / half.max(1), 1, half];
                let halves = TensorData::new(values.clone(), shape);
                Tensor::from_data(halves, &self.device).repeat_dim(2, 2)
            })
        });
        let x = x.reshape([rows, width / self.head_dim, self.head_dim]);
        let first = x.clone().slice(s![.., .., 0..half]);
        let second = x.clone().slice(s![.., .., half..]);
        let turned = Tensor::cat(vec![second.neg(), first], 2);
        (x * cos.clone() + turned * sin.clone()).reshape([rows, width])
    }
}

/// Queries, keys and values of rows.
#[derive(Debug, Clone)]
pub(super) struct Projected {
    /// Rotated queries `[rows, heads * head_dim]`.
    pub(super) queries: Tensor<2>,
    /// Rotated keys `[rows, kv_heads * head_dim]`.
    pub(super) keys: Tensor<2>,
    /// Values `[rows, kv_heads * head_dim]`.
    pub(super) values: Tensor<2>,
}

/// Self-attention with rotary positions, within each sample.
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
    /// Computes self-attention within each sample.
    ///
    /// # Shapes
    /// `x` and the result `[rows, hidden]`; `samples` are the rows of each sample.
    pub(super) fn forward(
        &self,
        x: &Tensor<2>,
        rotary: &Rotary,
        samples: &[Range<usize>],
        config: &DecoderConfig,
    ) -> Tensor<2> {
        let samples: Vec<CausalSample> = samples
            .iter()
            .map(|rows| CausalSample::of_itself(rows.clone()))
            .collect();
        let projected = self.project(x, rotary);
        self.attend(&projected.queries, &projected, &[], &samples, config)
    }

    /// # Shapes
    /// `x` `[rows, inputs]`.
    pub(super) fn project(&self, x: &Tensor<2>, rotary: &Rotary) -> Projected {
        Projected {
            queries: rotary.rotate(self.q_proj.forward(x.clone())),
            keys: rotary.rotate(self.k_proj.forward(x.clone())),
            values: self.v_proj.forward(x.clone()),
        }
    }

    /// Like [`attend`], followed by the output projection.
    ///
    /// # Shapes
    /// `queries` `[queries, heads * head_dim]`, result `[queries, hidden]`.
    pub(super) fn attend(
        &self,
        queries: &Tensor<2>,
        rows: &Projected,
        own: &[Projected],
        samples: &[CausalSample],
        config: &DecoderConfig,
    ) -> Tensor<2> {
        self.o_proj
            .forward(attend(queries, rows, own, samples, config))
    }
}

/// Computes attention of each query to rows of its sample and to its own key and value in each
/// element of `own`.
///
/// # Shapes
/// `queries` and the result `[queries, heads * head_dim]`.
pub(super) fn attend(
    queries: &Tensor<2>,
    rows: &Projected,
    own: &[Projected],
    samples: &[CausalSample],
    config: &DecoderConfig,
) -> Tensor<2> {
    match cpu::attend(queries, rows, own, samples, config) {
        Some(attended) => attended,
        None => attend_samples(queries, rows, own, samples, config),
    }
}

/// Like [`cpu::attend`], but with Burn's operations.
pub(super) fn attend_samples(
    queries: &Tensor<2>,
    rows: &Projected,
    own: &[Projected],
    samples: &[CausalSample],
    config: &DecoderConfig,
) -> Tensor<2> {
    let heads = |y: &Tensor<2>, range: &Range<usize>, heads: usize| {
        let part = y.clone().slice(s![range.clone(), ..]);
        let part = part.reshape([range.len(), heads, config.head_dim]);
        repeat_heads(part.swap_dims(0, 1), config.heads / heads)
    };
    let attended = samples
        .iter()
        .filter(|sample| !sample.queries.is_empty())
        .map(|sample| {
            let of_query = |y| heads(y, &sample.queries, config.kv_heads);
            let own: Vec<[Tensor<3>; 2]> = own
                .iter()
                .map(|own| [of_query(&own.keys), of_query(&own.values)])
                .collect();
            attend_sample(
                heads(queries, &sample.queries, config.heads),
                heads(&rows.keys, &sample.rows, config.kv_heads),
                heads(&rows.values, &sample.rows, config.kv_heads),
                &own,
                sample.first,
            )
        })
        .collect();
    Tensor::cat(attended, 0)
}

/// Computes attention within one sample. Query `i` sees the first `first + i` rows, and element `i`
/// of the keys and values of each `own`.
///
/// # Shapes
/// Queries and each of `own` `[heads, queries, head_dim]`, keys and values
/// `[heads, rows, head_dim]`, result `[queries, heads * head_dim]`.
#[expect(clippy::cast_precision_loss, reason = "head sizes are small")]
fn attend_sample(
    queries: Tensor<3>,
    keys: Tensor<3>,
    values: Tensor<3>,
    own: &[[Tensor<3>; 2]],
    first: usize,
) -> Tensor<2> {
    let [heads, n_queries, head_dim] = queries.dims();
    let [_, n_rows, _] = keys.dims();
    let offset = i64::try_from(first).unwrap_or(i64::MAX) - 1;
    let hidden = Tensor::<2, Bool>::tril_mask([n_queries, n_rows], offset, &queries.device());
    let hidden = hidden.unsqueeze::<3>().expand([heads, n_queries, n_rows]);
    let queries = queries * (1.0 / (head_dim as f64).sqrt());
    let scores = queries.clone().matmul(keys.transpose());
    let mut scores = vec![scores.mask_fill(hidden, f32::NEG_INFINITY)];
    for [key, _] in own {
        scores.push((queries.clone() * key.clone()).sum_dim(2));
    }
    let weights = activation::softmax(Tensor::cat(scores, 2), 2);
    let mut out = weights.clone().slice(s![.., .., 0..n_rows]).matmul(values);
    for (index, [_, value]) in own.iter().enumerate() {
        let at = n_rows + index;
        out = out + weights.clone().slice(s![.., .., at..=at]) * value.clone();
    }
    out.swap_dims(0, 1).reshape([n_queries, heads * head_dim])
}

/// Computes scaled dot-product attention in which every query sees every key.
///
/// # Shapes
/// `query` `[heads, queries, head_dim]`, `keys` and `values` `[heads, keys, head_dim]`, result
/// `[queries, heads * head_dim]`.
#[expect(clippy::cast_precision_loss, reason = "head sizes are small")]
pub(super) fn attend_all(query: Tensor<3>, keys: Tensor<3>, values: Tensor<3>) -> Tensor<2> {
    let [heads, queries, head_dim] = query.dims();
    let scale = 1.0 / (head_dim as f64).sqrt();
    let scores = (query * scale).matmul(keys.transpose());
    activation::softmax(scores, 2)
        .matmul(values)
        .swap_dims(0, 1)
        .reshape([queries, heads * head_dim])
}

/// Repeats each head: `[kv_heads, rows, head_dim]` to `[kv_heads * groups, rows, head_dim]`.
fn repeat_heads(x: Tensor<3>, groups: usize) -> Tensor<3> {
    if groups == 1 {
        return x;
    }
    let [kv_heads, rows, head_dim] = x.dims();
    x.reshape([kv_heads, 1, rows, head_dim])
        .expand([kv_heads, groups, rows, head_dim])
        .reshape([kv_heads * groups, rows, head_dim])
}
