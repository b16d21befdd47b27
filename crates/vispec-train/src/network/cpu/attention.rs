//! Causal self-attention with rotary positions.

use std::ops::Range;
use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::tensor::Tensor;
use vispec_kernels::{Attended, AttendedGradient, CausalAttention, CausalGradients, Kernels};
use vispec_models::nn::DecoderConfig;

use super::record::{Input, Values, record, tensor};
use crate::network::attention::{Angles, Rotary};

/// Rotates queries and keys, and lets each row attend to the rows of its sample up to itself.
///
/// # Shapes
/// `projected`: queries `[rows, heads * head_dim]`, keys and values `[rows, kv_heads * head_dim]`;
/// result `[rows, heads * head_dim]`.
pub(in crate::network) fn attend_causally(
    projected: &[Tensor<2>; 3],
    rotary: &Rotary,
    samples: &[Range<usize>],
    config: &DecoderConfig,
) -> Option<Tensor<2>> {
    let shape = projected[0].dims();
    let [q, keys, values] = projected;
    let (q, keys, values) = (Input::new(q)?, Input::new(keys)?, Input::new(values)?);
    let angles = rotary.angles();
    let turned = |input: &Input| {
        let mut floats = input.values.floats().to_vec();
        let (cos, sin) = (&angles.cos, &angles.sin);
        Kernels::detected().rotary(&mut floats, cos, sin, config.head_dim);
        Arc::from(floats)
    };
    let mut read = Heads {
        q: turned(&q),
        keys: turned(&keys),
        values: values.values,
        samples: samples.into(),
        angles: Arc::clone(angles),
        config: *config,
        log_sums: Arc::default(),
    };
    let mut out = vec![0.0; shape[0] * shape[1]];
    let mut log_sums = vec![0.0; shape[0] * config.heads];
    let attended = Attended {
        out: &mut out,
        log_sums: &mut log_sums,
    };
    Kernels::detected().causal_attention(&read.call(), attended);
    read.log_sums = log_sums.into();
    let out = tensor(out, shape);
    let state = (read, Values::of_gradient(out.clone()));
    let nodes = [q.node, keys.node, values.node];
    Some(record(Attention, nodes, state, out))
}

/// What attention read: queries and keys as rotated.
#[derive(Debug, Clone)]
struct Heads {
    q: Arc<[f32]>,
    keys: Arc<[f32]>,
    values: Values,
    samples: Arc<[Range<usize>]>,
    angles: Arc<Angles>,
    config: DecoderConfig,
    /// Logarithms of sums of exponentials, `[rows, heads]`.
    log_sums: Arc<[f32]>,
}

impl Heads {
    fn call(&self) -> CausalAttention<'_> {
        let DecoderConfig {
            heads,
            kv_heads,
            head_dim,
            ..
        } = self.config;
        #[expect(clippy::cast_precision_loss, reason = "head sizes are small")]
        let scale = 1.0 / (head_dim as f32).sqrt();
        CausalAttention {
            q: &self.q,
            keys: &self.keys,
            values: self.values.floats(),
            samples: &self.samples,
            heads,
            kv_heads,
            head_dim,
            scale,
        }
    }
}

#[derive(Debug)]
struct Attention;

impl Backward<Flex, 3> for Attention {
    /// And the output.
    type State = (Heads, Values);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = Values::of_gradient(gradients.consume::<Flex>(&ops.node));
        let (read, out) = ops.state;
        let call = read.call();
        let zeros = |like: &[f32]| vec![0.0; like.len()];
        let (mut q, mut keys) = (zeros(call.q), zeros(call.keys));
        let mut values = zeros(call.values);
        let attended = AttendedGradient {
            out: out.floats(),
            log_sums: &read.log_sums,
            gradient: gradient.floats(),
        };
        let to = CausalGradients {
            q: &mut q,
            keys: &mut keys,
            values: &mut values,
        };
        Kernels::detected().causal_attention_backward(&call, attended, to);
        // Back by the same angles.
        let cos = &read.angles.cos;
        let sin: Vec<f32> = read.angles.sin.iter().map(|sin| -sin).collect();
        for turned in [&mut q, &mut keys] {
            Kernels::detected().rotary(turned, cos, &sin, call.head_dim);
        }
        let rows = q.len() / (call.heads * call.head_dim).max(1);
        for (node, values) in ops.parents.into_iter().zip([q, keys, values]) {
            if let Some(node) = node {
                let shape = [rows, values.len() / rows.max(1)];
                gradients.register::<Flex>(node.id, tensor(values, shape));
            }
        }
    }
}
