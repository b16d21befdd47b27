//! A decoder stack on the CPU. It uses the weights of a [`Decoder`](super::Decoder) in place and
//! one set of buffers for all layers.
//!
//! On the CPU, a tensor operation has an overhead of about two microseconds, and a layer has twenty
//! operations. With 30 layers that adds more than a millisecond to each token.

mod cache;
mod weights;
mod workspace;

use std::ops::Range;

use burn::tensor::{DType, Tensor, TensorData};
use vispec_kernels::{AttentionSegment, AttentionShape, GroupedLinear, VisibleRows};

pub(super) use self::cache::HostCache;
use self::weights::HostLayer;
pub(super) use self::weights::{HostLinear, host_f32};
use self::workspace::{Buffers, Workspace};
use super::attention::{AttentionPlan, scale};
use super::decoder::{Decoder, DecoderConfig, ResidualStream};
use super::layer_rows::LayerRows;
use super::rope::RotaryTable;
use super::stack::StackInput;

/// A decoder stack whose weights are all in CPU memory. It shares them with the modules from which
/// it was created.
#[derive(Debug, Clone)]
pub(super) struct HostDecoder {
    layers: Vec<HostLayer>,
    config: DecoderConfig,
    workspace: Workspace,
}

/// One sequence's part of a pass.
#[derive(Debug)]
pub(super) struct HostSegment<'a> {
    pub(super) plan: &'a AttentionPlan,
    pub(super) cache: &'a mut HostCache,
    /// Number of rows in the cache before the pass.
    pub(super) len: usize,
}

impl HostDecoder {
    /// Creates the stack of `decoder`, or returns `None` unless all of its weights are on the CPU.
    pub(super) fn new(decoder: &Decoder, config: &DecoderConfig) -> Option<Self> {
        let layers = decoder.layers().iter().map(HostLayer::new);
        Some(Self {
            layers: layers.collect::<Option<_>>()?,
            config: *config,
            workspace: Workspace::default(),
        })
    }

    /// Creates an empty cache for this stack.
    pub(super) fn new_cache(&self, dtype: DType) -> HostCache {
        HostCache::new(&self.config, dtype)
    }

    /// Runs all layers over the rows of the input, appends the rows to the caches and records the
    /// `wanted` states.
    pub(super) fn forward(
        &self,
        input: StackInput,
        rotary: &RotaryTable,
        segments: &mut [HostSegment<'_>],
        wanted: &[usize],
    ) -> ResidualStream {
        let [rows, hidden] = input.residual.dims();
        let device = input.residual.device();
        let tensor = |x| Tensor::from_data(TensorData::new(x, [rows, hidden]), &device);
        let mut noted = Vec::with_capacity(wanted.len());
        let mut given = input.given.map(into_floats);
        let later = HostLayerRows::new(input.later);
        let mut x = into_floats(input.residual);
        let mut buffers = self.workspace.take(rows, &self.config);
        for (idx, layer) in self.layers.iter().enumerate() {
            if wanted.contains(&idx) {
                noted.push((idx, tensor(x.clone())));
            }
            let pass = Pass {
                config: &self.config,
                layer,
                idx,
                rotary,
                rows,
            };
            pass.run(&mut x, given.take().as_deref(), &mut buffers, segments);
            later.add(idx, &mut x, hidden);
        }
        self.workspace.give_back(buffers, rows);
        ResidualStream {
            last: tensor(x),
            noted,
        }
    }
}

/// [`LayerRows`] in host memory.
struct HostLayerRows {
    rows: Vec<usize>,
    levels: Vec<Vec<f32>>,
}

impl HostLayerRows {
    fn new(later: LayerRows) -> Self {
        Self {
            rows: later.rows,
            levels: later.levels.into_iter().map(into_floats).collect(),
        }
    }

    /// Adds the values for layer `layer` to its output `x` `[rows, hidden]`.
    fn add(&self, layer: usize, x: &mut [f32], hidden: usize) {
        let Some(values) = self.levels.get(layer) else {
            return;
        };
        for (&row, values) in self.rows.iter().zip(values.chunks_exact(hidden)) {
            add(&mut x[row * hidden..(row + 1) * hidden], values);
        }
    }
}

/// One layer over the rows of a pass.
struct Pass<'a> {
    config: &'a DecoderConfig,
    layer: &'a HostLayer,
    /// Index of the layer in the stack.
    idx: usize,
    rotary: &'a RotaryTable,
    rows: usize,
}

impl Pass<'_> {
    fn run(
        &self,
        x: &mut [f32],
        given: Option<&[f32]>,
        buffers: &mut Buffers,
        segments: &mut [HostSegment<'_>],
    ) {
        let Buffers {
            normed,
            query,
            keys,
            values,
            normed_keys,
            attended,
            gate,
            up,
            product,
            added,
        } = buffers;
        let layer = self.layer;
        let attended_to = match (&layer.input_norm, given) {
            (Some(norm), _) => {
                norm.apply(x, normed);
                &**normed
            }
            (None, Some(given)) => given,
            (None, None) => x,
        };
        self.linear(
            attended_to,
            [
                (&layer.query, query),
                (&layer.key, keys),
                (&layer.value, values),
            ],
        );
        if let Some([query_norm, key_norm]) = &layer.qk_norms {
            // Write to other buffers of the same sizes, then swap.
            query_norm.apply(query, attended);
            std::mem::swap(query, attended);
            key_norm.apply(keys, normed_keys);
            std::mem::swap(keys, normed_keys);
        }
        let (cos, sin) = self.rotary.host();
        vispec_kernels::rotary(query, cos, sin, self.config.head_dim);
        vispec_kernels::rotary(keys, cos, sin, self.config.head_dim);
        self.append(keys, values, segments);
        self.attend(query, segments, attended);
        self.linear(attended, [(&layer.output, added)]);
        add(x, added);
        layer.post_norm.apply(x, normed);
        self.linear(normed, [(&layer.gate, gate), (&layer.up, up)]);
        vispec_kernels::silu_mul(gate, up, product);
        self.linear(product, [(&layer.down, added)]);
        add(x, added);
    }

    fn linear<const N: usize>(&self, x: &[f32], layers: [(&HostLinear, &mut Vec<f32>); N]) {
        let mut calls = layers.map(|(layer, out)| GroupedLinear {
            weight: layer.weight(),
            bias: layer.bias(),
            out,
            outputs: layer.n_outputs(),
        });
        vispec_kernels::linear_group(x, self.rows, x.len() / self.rows.max(1), &mut calls);
    }

    /// Appends each segment's rows to its cache.
    fn append(&self, keys: &[f32], values: &[f32], segments: &mut [HostSegment<'_>]) {
        let width = self.config.kv_heads * self.config.head_dim;
        let mut start = 0;
        for segment in segments {
            let rows = start..start + segment.plan.n_rows() * width;
            start = rows.end;
            let cache = segment.cache.layer_mut(self.idx);
            cache.append(segment.len, &keys[rows.clone()], &values[rows]);
        }
    }

    fn attend(&self, query: &[f32], segments: &[HostSegment<'_>], out: &mut [f32]) {
        let segments = segments.iter().map(|segment| {
            let cache = segment.cache.layer(self.idx);
            AttentionSegment {
                rows: segment.plan.n_rows(),
                cache: cache.all(),
                cache_stride: cache.capacity(),
                prefix: segment.plan.prefix(),
                visible: match segment.plan {
                    AttentionPlan::Causal { .. } => VisibleRows::Causal,
                    AttentionPlan::Tree(plan) => {
                        let (offsets, rows) = plan.lists();
                        VisibleRows::Lists { offsets, rows }
                    }
                    #[cfg(feature = "cube")]
                    AttentionPlan::Unknown(_) => {
                        unreachable!("trees that only the device knows are on a GPU")
                    }
                },
            }
        });
        let DecoderConfig {
            heads,
            kv_heads,
            head_dim,
            ..
        } = *self.config;
        let shape = AttentionShape {
            heads,
            kv_heads,
            head_dim,
            scale: scale(head_dim),
        };
        vispec_kernels::attention(query, &segments.collect::<Vec<_>>(), out, shape);
    }
}

/// Returns the elements of activations on the CPU, without a copy if the tensor has no other owner.
fn into_floats(x: Tensor<2>) -> Vec<f32> {
    match x.into_data().try_into_vec::<f32>() {
        Ok(x) => x,
        Err(error) => unreachable!("activations on the CPU are f32: {error:?}"),
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// Returns the element range of some rows of one head in a cache with `capacity` rows of `head_dim`
/// elements per head.
fn head_rows(head: usize, capacity: usize, head_dim: usize, rows: Range<usize>) -> Range<usize> {
    (head * capacity + rows.start) * head_dim..(head * capacity + rows.end) * head_dim
}
