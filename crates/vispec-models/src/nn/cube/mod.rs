//! A decoder stack on a GPU. It joins the weights of a [`Decoder`] into fewer and wider products
//! and has kernels for the operations between them.
//!
//! Through Burn's operations a layer takes 64 launches, and a pass would be limited by the host
//! that issues the launches instead of by memory bandwidth. Here a layer takes nine: two norms with
//! the additions before them, four products, rotation with append, attention, and gating.

mod attention;
mod bridge;
mod gating;
mod grid;
mod layer;
mod norm;
mod pick;
mod rotation;
mod rows;

use burn::tensor::Tensor;

pub(crate) use self::bridge::is_here;
pub(super) use self::bridge::upload;
use self::layer::CubeLayer;
pub(super) use self::layer::MANY_ROWS;
pub(crate) use self::pick::picked_rows;
pub(super) use self::rows::move_rows;
use super::attention::DeviceSegment;
use super::decoder::{Decoder, DecoderConfig, ResidualStream};
use super::rope::RotaryTable;
use super::rows::{pad_rows, slice_rows};
use super::stack::StackInput;

/// A decoder stack whose weights are on a device that CubeCL compiles for.
#[derive(Debug, Clone)]
pub(super) struct CubeDecoder {
    layers: Vec<CubeLayer>,
    config: DecoderConfig,
    /// Minimum number of rows of a pass. Shorter passes are padded, so that all use the same
    /// kernels.
    least_rows: usize,
}

/// The residual stream between layers. The last result may be pending: the kernel that normalises
/// the sum also adds it.
#[derive(Debug)]
struct Stream {
    settled: Tensor<2>,
    pending: Option<Tensor<2>>,
}

impl Stream {
    /// Adds the pending result and returns the sum.
    fn settle(&mut self) -> Tensor<2> {
        if let Some(pending) = self.pending.take() {
            self.settled = self.settled.clone() + pending;
        }
        self.settled.clone()
    }
}

impl CubeDecoder {
    /// Creates the stack of `decoder`, if its weights are on a device that CubeCL compiles for.
    /// Consumes the decoder, so that joined weights are not stored twice.
    ///
    /// # Errors
    /// The decoder itself, if its weights are elsewhere or there is no kernel for its head size.
    pub(super) fn new(decoder: Decoder, config: &DecoderConfig) -> Result<Self, Decoder> {
        let is_here = decoder.any_weight().is_some_and(|weight| is_here(&weight));
        if !is_here || !attention::supports(config.head_dim) {
            return Err(decoder);
        }
        let layers = decoder.into_layers().into_iter();
        Ok(Self {
            layers: layers.map(CubeLayer::new).collect(),
            config: *config,
            least_rows: 0,
        })
    }

    /// Sets the minimum number of rows of a pass.
    pub(super) fn set_least_rows(&mut self, rows: usize) {
        self.least_rows = rows;
    }

    /// Runs all layers over the rows of the input, appends the rows to the caches and records the
    /// `wanted` states.
    pub(super) fn forward(
        &self,
        input: StackInput,
        rotary: &RotaryTable,
        segments: &mut [DeviceSegment<'_>],
        wanted: &[usize],
    ) -> ResidualStream {
        let [n_rows, _] = input.residual.dims();
        let padded = |rows| pad_rows(rows, self.least_rows);
        let (mut given, later) = (input.given.map(padded), input.later);
        let mut stream = Stream {
            settled: padded(input.residual),
            pending: None,
        };
        let mut noted = Vec::with_capacity(wanted.len());
        for (idx, layer) in self.layers.iter().enumerate() {
            if wanted.contains(&idx) {
                noted.push((idx, slice_rows(&stream.settle(), 0..n_rows)));
            }
            layer.forward(
                &mut stream,
                given.take(),
                (rotary, &self.config),
                idx,
                segments,
            );
            if !later.is_empty(idx) {
                stream.settled = later.added(idx, stream.settle());
            }
        }
        ResidualStream {
            last: slice_rows(&stream.settle(), 0..n_rows),
            noted,
        }
    }
}
