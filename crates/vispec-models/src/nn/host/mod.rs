//! A decoder stack on the CPU: the weights of a [`Decoder`](super::Decoder) where they lie, and one
//! set of buffers for all layers.
//!
//! A tensor operation costs about two microseconds here before it computes anything, and a layer
//! has twenty of them; at 30 layers that is more than a millisecond in each token.

mod cache;
mod weights;

use std::ops::Range;

use burn::tensor::{Tensor, TensorData};
use vispec_kernels::{AttentionShape, GroupedLinear, KeyValues, VisibleRows};

pub(super) use self::cache::HostCache;
use self::cache::HostLayerCache;
use self::weights::HostLayer;
pub(super) use self::weights::{HostLinear, host_f32};
use super::attention::{AttentionPlan, scale};
use super::decoder::{Decoder, DecoderConfig};
use super::rope::RotaryTable;

/// A decoder stack whose weights are all in the memory of the CPU. Shares them with the modules
/// that it was made from.
#[derive(Debug, Clone)]
pub(super) struct HostDecoder {
    layers: Vec<HostLayer>,
    config: DecoderConfig,
}

/// Activations of one pass; the memory is used again by the next.
#[derive(Debug, Clone, Default)]
struct Buffers {
    normed: Vec<f32>,
    query: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    attended: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    product: Vec<f32>,
    added: Vec<f32>,
}

impl Buffers {
    fn resize(&mut self, rows: usize, config: &DecoderConfig) {
        let DecoderConfig {
            hidden,
            intermediate,
            heads,
            kv_heads,
            head_dim,
            ..
        } = *config;
        self.normed.resize(rows * hidden, 0.0);
        self.query.resize(rows * heads * head_dim, 0.0);
        self.keys.resize(rows * kv_heads * head_dim, 0.0);
        self.values.resize(rows * kv_heads * head_dim, 0.0);
        self.attended.resize(rows * heads * head_dim, 0.0);
        self.gate.resize(rows * intermediate, 0.0);
        self.up.resize(rows * intermediate, 0.0);
        self.product.resize(rows * intermediate, 0.0);
        self.added.resize(rows * hidden, 0.0);
    }
}

impl HostDecoder {
    /// The stack of `decoder`, if all of its weights are on the CPU.
    pub(super) fn new(decoder: &Decoder, config: &DecoderConfig) -> Option<Self> {
        let layers = decoder.layers().iter().map(HostLayer::new);
        Some(Self {
            layers: layers.collect::<Option<_>>()?,
            config: *config,
        })
    }

    /// An empty cache for this stack.
    pub(super) fn new_cache(&self) -> HostCache {
        let DecoderConfig {
            layers,
            kv_heads,
            head_dim,
            ..
        } = self.config;
        HostCache::new(layers, kv_heads, head_dim)
    }

    /// Runs all layers over `x` `[rows, hidden]` and appends the rows to `cache` behind its first
    /// `len`.
    pub(super) fn forward(
        &self,
        x: Tensor<2>,
        rotary: &RotaryTable,
        plan: &AttentionPlan,
        cache: &mut HostCache,
        len: usize,
    ) -> Tensor<2> {
        let [rows, hidden] = x.dims();
        let device = x.device();
        let mut x = into_floats(x);
        let HostCache { layers, buffers } = cache;
        buffers.resize(rows, &self.config);
        for (layer, cache) in self.layers.iter().zip(layers) {
            let pass = Pass {
                config: &self.config,
                layer,
                rotary,
                plan,
                rows,
            };
            pass.run(&mut x, buffers, cache, len);
        }
        Tensor::from_data(TensorData::new(x, [rows, hidden]), &device)
    }
}

/// One layer over the rows of a pass.
struct Pass<'a> {
    config: &'a DecoderConfig,
    layer: &'a HostLayer,
    rotary: &'a RotaryTable,
    plan: &'a AttentionPlan,
    rows: usize,
}

impl Pass<'_> {
    fn run(&self, x: &mut [f32], buffers: &mut Buffers, cache: &mut HostLayerCache, len: usize) {
        let Buffers {
            normed,
            query,
            keys,
            values,
            attended,
            gate,
            up,
            product,
            added,
        } = buffers;
        let layer = self.layer;
        match &layer.input_norm {
            Some(norm) => norm.apply(x, normed),
            None => normed.copy_from_slice(x),
        }
        self.linear(
            normed,
            [
                (&layer.query, query),
                (&layer.key, keys),
                (&layer.value, values),
            ],
        );
        let (cos, sin) = self.rotary.host();
        vispec_kernels::rotary(query, cos, sin, self.config.head_dim);
        vispec_kernels::rotary(keys, cos, sin, self.config.head_dim);
        cache.append(len, keys, values);
        self.attend(query, cache, attended);
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

    fn attend(&self, query: &[f32], cache: &HostLayerCache, out: &mut [f32]) {
        let DecoderConfig {
            heads,
            kv_heads,
            head_dim,
            ..
        } = *self.config;
        let visible = match self.plan {
            AttentionPlan::Causal { .. } => VisibleRows::Causal,
            AttentionPlan::Tree(plan) => {
                let (offsets, rows) = plan.lists();
                VisibleRows::Lists { offsets, rows }
            }
        };
        let shape = AttentionShape {
            rows: self.rows,
            heads,
            kv_heads,
            head_dim,
            cache_stride: cache.capacity(),
            prefix: self.plan.prefix(),
            scale: scale(head_dim),
        };
        let (keys, values) = cache.all();
        vispec_kernels::attention(query, KeyValues::F32 { keys, values }, visible, out, shape);
    }
}

/// The elements of activations on the CPU, without a copy if there is no other owner.
fn into_floats(x: Tensor<2>) -> Vec<f32> {
    match x.into_data().try_into_vec::<f32>() {
        Ok(x) => x,
        Err(error) => unreachable!("activations of the CPU are f32: {error:?}"),
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// Rows of one head within a cache of `capacity` rows of `head_dim`.
fn head_rows(head: usize, capacity: usize, head_dim: usize, rows: Range<usize>) -> Range<usize> {
    (head * capacity + rows.start) * head_dim..(head * capacity + rows.end) * head_dim
}
