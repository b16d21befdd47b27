//! Causal attention and rotary positions.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::backend::{Flex, TensorMetadata as _};
use burn::tensor::Tensor;
use vispec_kernels::{
    Attended, AttendedGradient, CausalAttention, CausalGradients, CausalSample, Kernels,
    OwnGradients, OwnKeys,
};
use vispec_models::nn::DecoderConfig;

use super::record::{Input, Values, record, tensor};
use crate::network::attention::{Angles, Projected};

/// Rotates all heads of each row by the angles of its position.
///
/// # Shapes
/// `x` and the result `[rows, heads * head_dim]`.
pub(in crate::network) fn rotate(
    x: &Tensor<2>,
    angles: &Arc<Angles>,
    head_dim: usize,
) -> Option<Tensor<2>> {
    let shape = x.dims();
    let x = Input::new(x)?;
    let mut out = x.values.floats().to_vec();
    Kernels::detected().rotary(&mut out, &angles.cos, &angles.sin, head_dim);
    let state = (Arc::clone(angles), head_dim);
    Some(record(Rotation, [x.node], state, tensor(out, shape)))
}

#[derive(Debug)]
struct Rotation;

impl Backward<Flex, 1> for Rotation {
    type State = (Arc<Angles>, usize);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let shape = gradient.shape();
        let shape = [shape[0], shape[1]];
        let (angles, head_dim) = ops.state;
        // Rotate back by the same angles.
        let sin: Vec<f32> = angles.sin.iter().map(|sin| -sin).collect();
        let mut values = Values::of_gradient(gradient).floats().to_vec();
        Kernels::detected().rotary(&mut values, &angles.cos, &sin, head_dim);
        let [node] = ops.parents;
        if let Some(node) = node {
            gradients.register::<Flex>(node.id, tensor(values, shape));
        }
    }
}

/// Computes attention of each query to rows of its sample and to its own key and value in each
/// element of `own`.
///
/// # Shapes
/// `queries` and the result `[queries, heads * head_dim]`.
pub(in crate::network) fn attend(
    queries: &Tensor<2>,
    rows: &Projected,
    own: &[Projected],
    samples: &[CausalSample],
    config: &DecoderConfig,
) -> Option<Tensor<2>> {
    let shape = queries.dims();
    let [q, keys, values] = [queries, &rows.keys, &rows.values].map(Input::new);
    let (q, keys, values) = (q?, keys?, values?);
    let mut read = Heads {
        q: q.values,
        keys: keys.values,
        values: values.values,
        own: None,
        samples: samples.into(),
        config: *config,
        log_sums: Arc::default(),
    };
    let nodes = [q.node, keys.node, values.node];
    if own.is_empty() {
        let out = read.attend(shape);
        let state = (read, Values::of_gradient(out.clone()));
        return Some(record(Attention, nodes, state, out));
    }
    let joined = |of: fn(&Projected) -> &Tensor<2>| {
        Input::new(&Tensor::cat(own.iter().map(of).cloned().collect(), 0))
    };
    let (own_keys, own_values) = (joined(|own| &own.keys)?, joined(|own| &own.values)?);
    read.own = Some([own_keys.values, own_values.values]);
    let out = read.attend(shape);
    let [q, keys, values] = nodes;
    let nodes = [q, keys, values, own_keys.node, own_values.node];
    let state = (read, Values::of_gradient(out.clone()));
    Some(record(Attention, nodes, state, out))
}

/// The inputs of attention.
#[derive(Debug, Clone)]
struct Heads {
    q: Values,
    keys: Values,
    values: Values,
    /// Own keys and values of all queries, the sets concatenated.
    own: Option<[Values; 2]>,
    samples: Arc<[CausalSample]>,
    config: DecoderConfig,
    /// Log-sum-exps of the scores, `[queries, heads]`.
    log_sums: Arc<[f32]>,
}

impl Heads {
    /// Returns the number of floats in one set of own keys of all queries.
    fn own_len(&self) -> usize {
        let queries = self.q.floats().len() / (self.config.heads * self.config.head_dim).max(1);
        queries * self.config.kv_heads * self.config.head_dim
    }

    fn own(&self) -> Vec<OwnKeys<'_>> {
        let Some([keys, values]) = &self.own else {
            return Vec::new();
        };
        let len = self.own_len().max(1);
        let sets = keys.floats().chunks(len).zip(values.floats().chunks(len));
        sets.map(|(keys, values)| OwnKeys { keys, values })
            .collect()
    }

    fn call<'a>(&'a self, own: &'a [OwnKeys<'a>]) -> CausalAttention<'a> {
        let DecoderConfig {
            heads,
            kv_heads,
            head_dim,
            ..
        } = self.config;
        #[expect(clippy::cast_precision_loss, reason = "head sizes are small")]
        let scale = 1.0 / (head_dim as f32).sqrt();
        CausalAttention {
            q: self.q.floats(),
            keys: self.keys.floats(),
            values: self.values.floats(),
            samples: &self.samples,
            own,
            heads,
            kv_heads,
            head_dim,
            scale,
        }
    }

    /// Returns the output, of the given shape.
    fn attend(&mut self, shape: [usize; 2]) -> burn_flex::FlexTensor {
        let mut out = vec![0.0; shape[0] * shape[1]];
        let mut log_sums = vec![0.0; shape[0] * self.config.heads];
        let attended = Attended {
            out: &mut out,
            log_sums: &mut log_sums,
        };
        Kernels::detected().causal_attention(&self.call(&self.own()), attended);
        self.log_sums = log_sums.into();
        tensor(out, shape)
    }
}

/// The backward pass of attention: five inputs with own keys, three without.
#[derive(Debug)]
struct Attention;

impl<const N: usize> Backward<Flex, N> for Attention {
    /// The inputs and the output.
    type State = (Heads, Values);

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = Values::of_gradient(gradients.consume::<Flex>(&ops.node));
        let (read, out) = ops.state;
        let own = read.own();
        let call = read.call(&own);
        let zeros = |like: &[f32]| vec![0.0; like.len()];
        let (mut q, mut keys) = (zeros(call.q), zeros(call.keys));
        let mut values = zeros(call.values);
        let len = read.own_len();
        let (mut own_keys, mut own_values) =
            (vec![0.0; own.len() * len], vec![0.0; own.len() * len]);
        let sets = own_keys
            .chunks_mut(len.max(1))
            .zip(own_values.chunks_mut(len.max(1)));
        let mut to_own: Vec<OwnGradients<'_>> = sets
            .map(|(keys, values)| OwnGradients { keys, values })
            .collect();
        let attended = AttendedGradient {
            out: out.floats(),
            log_sums: &read.log_sums,
            gradient: gradient.floats(),
        };
        let to = CausalGradients {
            q: &mut q,
            keys: &mut keys,
            values: &mut values,
            own: &mut to_own,
        };
        Kernels::detected().causal_attention_backward(&call, attended, to);
        let width = call.heads * call.head_dim;
        let kv_width = call.kv_heads * call.head_dim;
        let parts = [
            (q, width),
            (keys, kv_width),
            (values, kv_width),
            (own_keys, kv_width),
            (own_values, kv_width),
        ];
        for (node, (values, width)) in ops.parents.into_iter().zip(parts) {
            if let Some(node) = node {
                let shape = [values.len() / width.max(1), width];
                gradients.register::<Flex>(node.id, tensor(values, shape));
            }
        }
    }
}
