//! Linear layers.

use burn::backend::Flex;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::tensor::Tensor;
use vispec_kernels::{Kernels, Matrix};

use super::record::{Input, Values, record, tensor};

/// Computes `x W + b`.
///
/// # Shapes
/// `x` `[rows, inputs]`, `weight` `[inputs, outputs]`, `bias` `[outputs]`, result
/// `[rows, outputs]`.
pub(in crate::network) fn linear(
    x: &Tensor<2>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
) -> Option<Tensor<2>> {
    let ([rows, inputs], [_, outputs]) = (x.dims(), weight.dims());
    let (x, weight) = (Input::new(x)?, Input::new(weight)?);
    let state = Layer {
        x: x.values,
        weight: weight.values,
        sizes: [rows, inputs, outputs],
    };
    let Some(bias) = bias else {
        let out = state.forward(vec![0.0; rows * outputs]);
        let out = tensor(out, [rows, outputs]);
        return Some(record(Linear, [x.node, weight.node], state, out));
    };
    let bias = Input::new(bias)?;
    let out = state.forward(bias.values.floats().repeat(rows));
    let out = tensor(out, [rows, outputs]);
    let nodes = [x.node, weight.node, bias.node];
    Some(record(Linear, nodes, state, out))
}

/// The values that the backward pass needs.
#[derive(Debug, Clone)]
struct Layer {
    x: Values,
    weight: Values,
    /// Rows, inputs and outputs.
    sizes: [usize; 3],
}

impl Layer {
    fn matrices(&self) -> [Matrix<'_>; 2] {
        let [rows, inputs, outputs] = self.sizes;
        [
            Matrix::new(self.x.floats(), rows, inputs),
            Matrix::new(self.weight.floats(), inputs, outputs),
        ]
    }

    /// Adds the product of `x` and the weight to `out`.
    fn forward(&self, mut out: Vec<f32>) -> Vec<f32> {
        let [x, weight] = self.matrices();
        Kernels::detected().add_product(x, weight, &mut out);
        out
    }

    /// Passes the gradients of `x` and the weight to `to`, for the nodes that are tracked.
    fn register<N>(
        &self,
        gradient: &Values,
        nodes: [Option<N>; 2],
        mut to: impl FnMut(N, Gradient),
    ) {
        let [rows, inputs, outputs] = self.sizes;
        let gradient = Matrix::new(gradient.floats(), rows, outputs);
        let [x, weight] = self.matrices();
        let [of_x, of_weight] = nodes;
        let product = |a, b, [rows, columns]: [usize; 2]| {
            let mut out = vec![0.0; rows * columns];
            Kernels::detected().add_product(a, b, &mut out);
            (out, [rows, columns])
        };
        if let Some(node) = of_x {
            to(node, product(gradient, weight.transposed(), [rows, inputs]));
        }
        if let Some(node) = of_weight {
            to(node, product(x.transposed(), gradient, [inputs, outputs]));
        }
    }
}

/// The values and the shape of a gradient.
type Gradient = (Vec<f32>, [usize; 2]);

#[derive(Debug)]
struct Linear;

/// The backward pass without a bias.
impl Backward<Flex, 2> for Linear {
    type State = Layer;

    fn backward(self, ops: Ops<Layer, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = Values::of_gradient(gradients.consume::<Flex>(&ops.node));
        ops.state
            .register(&gradient, ops.parents, |node, (values, shape)| {
                gradients.register::<Flex>(node.id, tensor(values, shape));
            });
    }
}

/// The backward pass with a bias.
impl Backward<Flex, 3> for Linear {
    type State = Layer;

    fn backward(self, ops: Ops<Layer, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = Values::of_gradient(gradients.consume::<Flex>(&ops.node));
        let [x, weight, bias] = ops.parents;
        ops.state
            .register(&gradient, [x, weight], |node, (values, shape)| {
                gradients.register::<Flex>(node.id, tensor(values, shape));
            });
        if let Some(bias) = bias {
            let [_, _, outputs] = ops.state.sizes;
            let mut sums = vec![0.0; outputs];
            for row in gradient.floats().chunks_exact(outputs.max(1)) {
                for (sum, value) in sums.iter_mut().zip(row) {
                    *sum += value;
                }
            }
            gradients.register::<Flex>(bias.id, tensor(sums, [outputs]));
        }
    }
}
