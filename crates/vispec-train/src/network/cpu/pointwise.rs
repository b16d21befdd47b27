//! Pointwise operations and norms.

use burn::backend::Flex;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::tensor::Tensor;
use vispec_kernels::Kernels;

use super::record::{Input, Values, record, tensor};

/// Computes root-mean-square normalisation.
///
/// # Shapes
/// `x` and the result `[rows, hidden]`, `weight` `[hidden]`.
pub(in crate::network) fn rms_norm(
    x: &Tensor<2>,
    weight: &Tensor<1>,
    eps: f64,
) -> Option<Tensor<2>> {
    let shape = x.dims();
    let (x, weight) = (Input::new(x)?, Input::new(weight)?);
    #[expect(clippy::cast_possible_truncation, reason = "the kernel works in f32")]
    let eps = eps as f32;
    let mut out = vec![0.0; shape[0] * shape[1]];
    Kernels::detected().rms_norm(x.values.floats(), weight.values.floats(), eps, &mut out);
    let state = Norm {
        x: x.values,
        weight: weight.values,
        eps,
        shape,
    };
    let nodes = [x.node, weight.node];
    Some(record(RmsNorm, nodes, state, tensor(out, shape)))
}

#[derive(Debug, Clone)]
struct Norm {
    x: Values,
    weight: Values,
    eps: f32,
    shape: [usize; 2],
}

#[derive(Debug)]
struct RmsNorm;

impl Backward<Flex, 2> for RmsNorm {
    type State = Norm;

    fn backward(self, ops: Ops<Norm, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = Values::of_gradient(gradients.consume::<Flex>(&ops.node));
        let state = ops.state;
        let (x, weight) = (state.x.floats(), state.weight.floats());
        let (mut of_x, mut of_weight) = (vec![0.0; x.len()], vec![0.0; weight.len()]);
        let to = [&mut of_x[..], &mut of_weight[..]];
        Kernels::detected().rms_norm_backward(x, weight, state.eps, gradient.floats(), to);
        let [x_node, weight_node] = ops.parents;
        if let Some(node) = x_node {
            gradients.register::<Flex>(node.id, tensor(of_x, state.shape));
        }
        if let Some(node) = weight_node {
            let shape = [of_weight.len()];
            gradients.register::<Flex>(node.id, tensor(of_weight, shape));
        }
    }
}

/// Computes `silu(gate) * up`, both `[rows, hidden]`.
pub(in crate::network) fn silu_mul(gate: &Tensor<2>, up: &Tensor<2>) -> Option<Tensor<2>> {
    let shape = gate.dims();
    let (gate, up) = (Input::new(gate)?, Input::new(up)?);
    let mut out = vec![0.0; shape[0] * shape[1]];
    Kernels::detected().silu_mul(gate.values.floats(), up.values.floats(), &mut out);
    let state = Gated {
        gate: gate.values,
        up: up.values,
        shape,
    };
    let nodes = [gate.node, up.node];
    Some(record(SiluMul, nodes, state, tensor(out, shape)))
}

#[derive(Debug, Clone)]
struct Gated {
    gate: Values,
    up: Values,
    shape: [usize; 2],
}

#[derive(Debug)]
struct SiluMul;

impl Backward<Flex, 2> for SiluMul {
    type State = Gated;

    fn backward(self, ops: Ops<Gated, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = Values::of_gradient(gradients.consume::<Flex>(&ops.node));
        let state = ops.state;
        let (gate, up) = (state.gate.floats(), state.up.floats());
        let (mut of_gate, mut of_up) = (vec![0.0; gate.len()], vec![0.0; up.len()]);
        let to = [&mut of_gate[..], &mut of_up[..]];
        Kernels::detected().silu_mul_backward(gate, up, gradient.floats(), to);
        for (node, values) in ops.parents.into_iter().zip([of_gate, of_up]) {
            if let Some(node) = node {
                gradients.register::<Flex>(node.id, tensor(values, state.shape));
            }
        }
    }
}
