//! A decoder stack on a GPU: the weights of a [`Decoder`] with fewer and wider products, and kernels
//! for what lies between them.
//!
//! Through Burn's operations a layer takes 64 launches, and a pass would wait for the host that makes
//! them and not for the memory. Here it takes nine: two norms with the additions before them, four
//! products, rotation and append, attention, gating.

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
    /// Rows of a pass at least: shorter ones are padded, so that all run through the same kernels.
    least_rows: usize,
}

/// The residual stream on its way: what was computed last is added by the kernel that norms the sum.
#[derive(Debug)]
struct Stream {
    settled: Tensor<2>,
    pending: Option<Tensor<2>>,
}

impl Stream {
    /// The sum, by itself.
    fn settle(&mut self) -> Tensor<2> {
        if let Some(pending) = self.pending.take() {
            self.settled = self.settled.clone() + pending;
        }
        self.settled.clone()
    }
}

impl CubeDecoder {
    /// The stack of `decoder`, if its weights are on such a device. Takes the decoder, so that weights
    /// that are joined are not there twice.
    ///
    /// # Errors
    /// The decoder, if it is elsewhere.
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

    /// Passes have at least so many rows from now on.
    pub(super) fn set_least_rows(&mut self, rows: usize) {
        self.least_rows = rows;
    }

    /// Runs all layers over the rows of the input and appends them to the caches; takes note of the
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
