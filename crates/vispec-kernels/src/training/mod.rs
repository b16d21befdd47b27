//! Training kernels: products of matrices in any layout, causal attention over whole samples,
//! gradients, and AdamW.

mod adamw;
mod backward;
mod causal;
mod matrix;

pub use adamw::AdamWFactors;
pub use causal::{
    Attended, AttendedGradient, CausalAttention, CausalGradients, CausalSample, OwnGradients,
    OwnKeys,
};
pub use matrix::Matrix;

use crate::kernels::Kernels;

impl Kernels {
    /// Computes `out += a · b` for matrices in any layout. Each element is summed in the order of
    /// the inner axis.
    ///
    /// # Shapes
    /// `a[rows, inner]`, `b[inner, columns]`, `out[rows, columns]`.
    ///
    /// # Panics
    /// If the shapes do not match.
    pub fn add_product(self, a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32]) {
        matrix::add_product(self.isa(), a, b, out);
    }

    /// Computes causal attention of whole samples.
    ///
    /// # Panics
    /// If the length of a slice does not match, `kv_heads` does not divide `heads`, samples do not
    /// ascend, or a query sees no row of its sample, or rows outside of it.
    pub fn causal_attention(self, call: &CausalAttention<'_>, attended: Attended<'_>) {
        causal::forward(self.isa(), call, attended);
    }

    /// Computes the gradients of [`Kernels::causal_attention`]. Rows outside of all samples get
    /// zero gradients.
    ///
    /// # Panics
    /// Same as [`Kernels::causal_attention`]; also if the length of a gradient does not match.
    pub fn causal_attention_backward(
        self,
        call: &CausalAttention<'_>,
        attended: AttendedGradient<'_>,
        gradients: CausalGradients<'_>,
    ) {
        causal::backward(self.isa(), call, attended, gradients);
    }

    /// Computes the gradients of `x` and `weight` in [`Kernels::rms_norm`].
    ///
    /// # Shapes
    /// `x`, `gradient` and the gradient of `x` `[rows, hidden]`, `weight` and its gradient
    /// `[hidden]`.
    ///
    /// # Panics
    /// If the length of a slice does not match.
    pub fn rms_norm_backward(
        self,
        x: &[f32],
        weight: &[f32],
        eps: f32,
        gradient: &[f32],
        of_x_and_weight: [&mut [f32]; 2],
    ) {
        backward::rms_norm(self.isa(), x, weight, eps, gradient, of_x_and_weight);
    }

    /// Computes the gradients of `gate` and `up` in [`Kernels::silu_mul`].
    ///
    /// # Shapes
    /// All slices have the same length.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn silu_mul_backward(
        self,
        gate: &[f32],
        up: &[f32],
        gradient: &[f32],
        of_gate_and_up: [&mut [f32]; 2],
    ) {
        backward::silu_mul(self.isa(), gate, up, gradient, of_gate_and_up);
    }

    /// Applies one AdamW update. `means` are the running means of the gradients and of their
    /// squares.
    ///
    /// # Panics
    /// If the lengths of the slices differ.
    pub fn adamw(
        self,
        factors: &AdamWFactors,
        gradients: &[f32],
        parameters: &mut [f32],
        means: [&mut [f32]; 2],
    ) {
        adamw::run(self.isa(), factors, gradients, parameters, means);
    }
}
