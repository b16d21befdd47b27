//! Grouped-query self-attention over a KV cache, for prompts, single tokens and token trees.

use burn::module::Module;
#[cfg(feature = "cube")]
use burn::tensor::Int;
use burn::tensor::{Bool, DType, Device, Tensor, TensorData, activation, s};
use std::ops::Range;
use std::sync::OnceLock;

use super::decoder::{DecoderConfig, QkNorm};
use super::kv_cache::DeviceCache;
use super::linear::{Bias, Linear};
use super::norm::RmsNorm;
use super::rope::RotaryTable;
use super::rows::{join_rows, slice_rows};
use crate::weights::Weights;

/// Number of query rows that are scored at a time outside the kernels, to bound the memory of the
/// scores.
pub(super) const QUERY_BLOCK: usize = 512;

/// Which cache rows each row of a forward pass attends to.
#[derive(Debug)]
pub(crate) enum AttentionPlan {
    /// Row `r` attends to the first `prefix` cache rows and to the new rows up to itself.
    Causal {
        /// Number of rows in the cache before this pass.
        prefix: usize,
        /// Number of rows of the pass.
        rows: usize,
    },
    /// Row `r` attends to the rows that are listed for it.
    Tree(TreePlan),
    /// Like [`Tree`](Self::Tree), but the lists are on the device and the host does not know the
    /// tree.
    #[cfg(feature = "cube")]
    Unknown(UnknownTreePlan),
}

/// Cache rows that the nodes of a tree on the device attend to.
#[cfg(feature = "cube")]
#[derive(Debug)]
pub(crate) struct UnknownTreePlan {
    /// Number of leading cache rows that every row attends to.
    prefix: usize,
    rows: usize,
    /// Table in the format of [`AttentionPlan::seen`].
    seen: Box<Tensor<1, Int>>,
}

/// Cache rows that the nodes of a token tree attend to.
#[derive(Debug)]
pub(crate) struct TreePlan {
    /// Number of leading cache rows that every row attends to.
    prefix: usize,
    /// `[rows + 1]`: in addition to the prefix, row `r` attends to
    /// `rows[offsets[r]..offsets[r + 1]]`.
    offsets: Vec<usize>,
    /// Cache rows, each list from the root to the row itself.
    rows: Vec<usize>,
    /// The additive mask `[rows, total]` for devices without the kernel, created on first use.
    additive: OnceLock<Box<Tensor<2>>>,
}

impl TreePlan {
    /// Returns the offsets and the cache rows of the lists.
    #[cfg(feature = "flex")]
    pub(super) fn lists(&self) -> (&[usize], &[usize]) {
        (&self.offsets, &self.rows)
    }

    /// Returns the additive mask `[rows, total]`: 0 for rows that are attended to, -inf elsewhere.
    fn additive(&self, total: usize, (device, dtype): (&Device, DType)) -> &Tensor<2> {
        self.additive.get_or_init(|| {
            let n = self.offsets.len() - 1;
            let mut mask = vec![f32::NEG_INFINITY; n * total];
            for (row, line) in mask.chunks_exact_mut(total).enumerate() {
                line[..self.prefix].fill(0.0);
                for &seen in &self.rows[self.offsets[row]..self.offsets[row + 1]] {
                    line[seen] = 0.0;
                }
            }
            let data = TensorData::new(mask, [n, total]);
            let wide = Tensor::<2>::from_data(data, (device, DType::F32));
            Box::new(Tensor::<2>::cast(wide, dtype))
        })
    }
}

impl AttentionPlan {
    /// Creates a plan in which row `r` attends to the first `prefix` cache rows and to the rows in
    /// `paths[r]`.
    ///
    /// # Arguments
    /// * `paths` - for each row, offsets relative to the end of the prefix, from the root to the
    ///   row itself.
    pub(crate) fn tree<'p>(prefix: usize, paths: impl Iterator<Item = &'p [usize]>) -> Self {
        let (mut offsets, mut rows) = (vec![0], Vec::new());
        for path in paths {
            rows.extend(path.iter().map(|row| prefix + row));
            offsets.push(rows.len());
        }
        Self::Tree(TreePlan {
            prefix,
            offsets,
            rows,
            additive: OnceLock::new(),
        })
    }

    /// Creates a plan in which row `r` attends to the first `prefix` cache rows and to those in row
    /// `r` of `paths` `[rows, level]`. `paths` must be on a device on which a
    /// [`DecoderStack`](super::DecoderStack) can read plans.
    #[cfg(feature = "cube")]
    pub(crate) fn unknown_tree(prefix: usize, paths: Tensor<2, Int>) -> Self {
        let [rows, level] = paths.dims();
        let leading = std::iter::repeat_n(prefix, rows);
        let offsets = (0..=rows).map(|row| row * level);
        let known: Vec<u32> = leading.chain(offsets).map(cache_row).collect();
        let known = super::cube::upload(&known, &paths.device());
        let listed = paths.reshape([rows * level]).cast(DType::U32);
        Self::Unknown(UnknownTreePlan {
            prefix,
            rows,
            seen: Box::new(Tensor::cat(vec![known, listed], 0)),
        })
    }

    /// Returns the number of leading cache rows that every row attends to.
    pub(crate) fn prefix(&self) -> usize {
        match self {
            Self::Causal { prefix, .. } => *prefix,
            Self::Tree(plan) => plan.prefix,
            #[cfg(feature = "cube")]
            Self::Unknown(plan) => plan.prefix,
        }
    }

    /// Returns the number of rows of the pass.
    pub(crate) fn n_rows(&self) -> usize {
        match self {
            Self::Causal { rows, .. } => *rows,
            Self::Tree(plan) => plan.offsets.len() - 1,
            #[cfg(feature = "cube")]
            Self::Unknown(plan) => plan.rows,
        }
    }

    /// Returns a table of the visible cache rows: for each row the number of leading cache rows
    /// that it attends to; then `rows + 1` offsets into lists of the other rows that it attends to;
    /// then the concatenated lists.
    #[cfg(feature = "cube")]
    fn seen(&self, device: &Device) -> Tensor<1, Int> {
        let seen: Vec<u32> = match self {
            Self::Causal { prefix, rows } => {
                let leading = (0..*rows).map(|row| cache_row(prefix + row + 1));
                leading.chain((0..=*rows).map(|_| 0)).collect()
            }
            Self::Tree(plan) => {
                let leading = (1..plan.offsets.len()).map(|_| plan.prefix);
                let listed = plan.offsets.iter().chain(&plan.rows).copied();
                leading.chain(listed).map(cache_row).collect()
            }
            Self::Unknown(plan) => return (*plan.seen).clone(),
        };
        super::cube::upload(&seen, device)
    }

    /// Returns the additive mask `[rows, total]` of rows `range` of the pass: 0 for rows that are
    /// attended to, -inf elsewhere.
    fn additive(&self, range: Range<usize>, total: usize, like: (&Device, DType)) -> Tensor<2> {
        match self {
            Self::Causal { prefix, .. } => {
                let n_rows = range.len();
                let offset = i64::try_from(prefix + range.start).unwrap_or(i64::MAX);
                let hidden = Tensor::<2, Bool>::tril_mask([n_rows, total], offset, like.0);
                Tensor::<2>::zeros([n_rows, total], like).mask_fill(hidden, f32::NEG_INFINITY)
            }
            Self::Tree(plan) => plan.additive(total, like).clone().slice(s![range, ..]),
            #[cfg(feature = "cube")]
            Self::Unknown(_) => {
                unreachable!(
                    "trees that only the device knows run through kernels, which need no mask"
                )
            }
        }
    }
}

/// Converts a cache row, or an offset into lists of cache rows, to the kernels' integer type.
#[cfg(feature = "cube")]
fn cache_row(value: usize) -> u32 {
    u32::try_from(value).expect("rows of a cache fit 32 bits")
}

/// One sequence's part of a pass on a device.
#[derive(Debug)]
pub(super) struct DeviceSegment<'a> {
    pub(super) plan: &'a AttentionPlan,
    pub(super) cache: &'a mut DeviceCache,
    /// Number of rows in the cache before the pass.
    pub(super) len: usize,
    /// [`AttentionPlan::seen`] on the device, uploaded on first use and shared by all layers.
    #[cfg(feature = "cube")]
    seen: OnceLock<Tensor<1, Int>>,
}

impl<'a> DeviceSegment<'a> {
    pub(super) fn new(plan: &'a AttentionPlan, cache: &'a mut DeviceCache, len: usize) -> Self {
        Self {
            plan,
            cache,
            len,
            #[cfg(feature = "cube")]
            seen: OnceLock::new(),
        }
    }

    /// Returns the table of visible rows that the attention kernel reads.
    #[cfg(feature = "cube")]
    pub(super) fn seen(&self) -> Tensor<1, Int> {
        let seen = || self.plan.seen(self.cache.device());
        self.seen.get_or_init(seen).clone()
    }
}

/// Returns `1 / sqrt(head_dim)`.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "small integer"
)]
pub(super) fn scale(head_dim: usize) -> f32 {
    (1.0 / (head_dim as f64).sqrt()) as f32
}

/// Self-attention with rotary positions and a cache.
#[derive(Module, Debug)]
pub(crate) struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
}

impl Attention {
    /// Takes `q_proj`, `k_proj`, `v_proj` and `o_proj` from `weights`, and `q_norm` and `k_norm` if
    /// the config has these norms.
    ///
    /// # Arguments
    /// * `inputs`, `hidden` - widths of the input and of the output.
    pub(crate) fn load(
        weights: &Weights<'_>,
        (inputs, hidden): (usize, usize),
        config: &DecoderConfig,
    ) -> Self {
        let DecoderConfig {
            heads,
            kv_heads,
            head_dim,
            qkv_bias,
            ..
        } = *config;
        let norm = |name: &str| match config.qk_norm {
            QkNorm::No => None,
            QkNorm::PerHead => {
                let norm = weights.at(name);
                Some(RmsNorm::load(&norm, head_dim, config.rms_eps))
            }
        };
        let linear =
            |name: &str, outputs| Linear::load(&weights.at(name), inputs, outputs, qkv_bias);
        Self {
            q_proj: linear("q_proj", heads * head_dim),
            k_proj: linear("k_proj", kv_heads * head_dim),
            v_proj: linear("v_proj", kv_heads * head_dim),
            o_proj: Linear::load(&weights.at("o_proj"), heads * head_dim, hidden, Bias::No),
            q_norm: norm("q_norm"),
            k_norm: norm("k_norm"),
        }
    }

    /// Appends the rows of `x` to the caches of layer `layer` and attends according to the plans.
    ///
    /// # Shapes
    /// `x` `[rows, inputs]`, the result `[rows, hidden]`, both with the rows of the segments in
    /// order.
    pub(super) fn forward(
        &self,
        x: &Tensor<2>,
        rotary: &RotaryTable,
        layer: usize,
        segments: &mut [DeviceSegment<'_>],
    ) -> Tensor<2> {
        let projections = [&self.q_proj, &self.k_proj, &self.v_proj];
        let [query, keys, values] = Linear::forward_group(projections, x.clone());
        let query = rotary.rotate(norm_heads(self.q_norm.as_ref(), query, rotary.head_dim()));
        let keys = rotary.rotate(norm_heads(self.k_norm.as_ref(), keys, rotary.head_dim()));
        let mut attended = Vec::with_capacity(segments.len());
        let mut start = 0;
        for segment in segments {
            let rows = start..start + segment.plan.n_rows();
            start = rows.end;
            let of_segment = |all: &Tensor<2>| slice_rows(all, rows.clone());
            let cache = segment.cache.layer(layer);
            let (keys, values) = cache.append(segment.len, of_segment(&keys), of_segment(&values));
            let total = segment.len + rows.len();
            let view = |t: Tensor<4>| t.slice(s![.., .., 0..total, ..]);
            let query = of_segment(&query);
            attended.push(attend_by_products(
                query,
                view(keys),
                view(values),
                segment.plan,
            ));
        }
        self.o_proj.forward(join_rows(attended))
    }

    /// Returns the width of the input.
    pub(super) fn n_inputs(&self) -> usize {
        self.q_proj.n_inputs()
    }

    /// Returns the norms of queries and keys.
    #[cfg(any(feature = "flex", feature = "cube"))]
    pub(super) fn norms(&self) -> [Option<&RmsNorm>; 2] {
        [self.q_norm.as_ref(), self.k_norm.as_ref()]
    }

    /// Returns the projections of queries, keys, values and output.
    #[cfg(any(feature = "flex", feature = "cube"))]
    pub(super) fn projections(&self) -> [&Linear; 4] {
        [&self.q_proj, &self.k_proj, &self.v_proj, &self.o_proj]
    }
}

/// Normalises each head of `x` `[rows, heads * head_dim]` separately.
fn norm_heads(norm: Option<&RmsNorm>, x: Tensor<2>, head_dim: usize) -> Tensor<2> {
    let Some(norm) = norm else {
        return x;
    };
    let [rows, width] = x.dims();
    let heads = x.reshape([rows * width / head_dim, head_dim]);
    norm.forward(heads).reshape([rows, width])
}

/// Computes attention through matrix products, [`QUERY_BLOCK`] rows at a time.
///
/// # Shapes
/// `query` and the result `[rows, heads * head_dim]`; `keys` and `values` `[1, kv_heads, total,
/// head_dim]`, the new rows last.
pub(super) fn attend_by_products(
    query: Tensor<2>,
    keys: Tensor<4>,
    values: Tensor<4>,
    plan: &AttentionPlan,
) -> Tensor<2> {
    let [rows, width] = query.dims();
    let [_, kv_heads, total, head_dim] = keys.dims();
    let heads = width / head_dim;
    let like = (&query.device(), query.dtype());
    let query = query.reshape([1, rows, heads, head_dim]).swap_dims(1, 2);
    let groups = heads / kv_heads;
    let (keys, values) = (repeat_heads(keys, groups), repeat_heads(values, groups));
    let attended = attend_in_blocks(query, keys, values, |scores, range| {
        scores + plan.additive(range, total, like).unsqueeze::<4>()
    });
    attended.swap_dims(1, 2).reshape([rows, width])
}

/// Repeats each head of `[1, kv_heads, seq, head_dim]`, giving
/// `[1, kv_heads * groups, seq, head_dim]`.
fn repeat_heads(x: Tensor<4>, groups: usize) -> Tensor<4> {
    if groups == 1 {
        return x;
    }
    let [batch, kv_heads, seq, head_dim] = x.dims();
    x.reshape([batch, kv_heads, 1, seq, head_dim])
        .expand([batch, kv_heads, groups, seq, head_dim])
        .reshape([batch, kv_heads * groups, seq, head_dim])
}

/// Computes the softmax over the last axis in f32.
fn softmax_wide<const D: usize>(scores: Tensor<D>) -> Tensor<D> {
    let dtype = scores.dtype();
    let wide = activation::softmax(Tensor::<D>::cast(scores, DType::F32), D - 1);
    Tensor::<D>::cast(wide, dtype)
}

/// Computes attention in which every query attends to every key, as in vision towers and the vision
/// adaptor.
///
/// # Shapes
/// `query` `[batch, heads, queries, head_dim]`, `keys` and `values`
/// `[batch, heads, keys, head_dim]`; the result has the shape of `query`.
pub(crate) fn attend_all(query: Tensor<4>, keys: Tensor<4>, values: Tensor<4>) -> Tensor<4> {
    attend_in_blocks(query, keys, values, |scores, _rows| scores)
}

/// Computes attention [`QUERY_BLOCK`] rows at a time. `mask` masks the scores of a range of rows.
fn attend_in_blocks(
    query: Tensor<4>,
    keys: Tensor<4>,
    values: Tensor<4>,
    mask: impl Fn(Tensor<4>, Range<usize>) -> Tensor<4>,
) -> Tensor<4> {
    let [_, _, rows, head_dim] = query.dims();
    let keys = keys.transpose();
    let blocks = (0..rows).step_by(QUERY_BLOCK).map(|start| {
        let range = start..rows.min(start + QUERY_BLOCK);
        let block = query.clone().slice(s![.., .., range.clone(), ..]);
        let scores = mask(block.matmul(keys.clone()) * scale(head_dim), range);
        softmax_wide(scores).matmul(values.clone())
    });
    Tensor::cat(blocks.collect(), 2) // [batch, heads, queries, head_dim]
}
