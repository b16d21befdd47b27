//! A decoder stack ready to run where its weights are.

use burn::tensor::{DType, Device, Tensor};

use super::attention::{AttentionPlan, DeviceSegment};
#[cfg(feature = "cube")]
use super::cube::CubeDecoder;
use super::decoder::{Decoder, DecoderConfig, ResidualStream};
#[cfg(feature = "flex")]
use super::host::{HostDecoder, HostSegment};
use super::kv_cache::ModelCache;
#[cfg(feature = "flex")]
use super::kv_cache::Storage;
use super::layer_rows::LayerRows;
use super::rope::RotaryTable;

/// A [`Decoder`] with its shapes, ready to run. Cloning shares the weights.
#[derive(Debug, Clone)]
pub(crate) struct DecoderStack {
    layers: Layers,
    config: DecoderConfig,
    /// Weights of its linear layers.
    n_weights: usize,
}

/// The layers, in the form in which they run where they are.
#[derive(Debug, Clone)]
enum Layers {
    /// In the memory of the CPU, through the batch-invariant kernels.
    #[cfg(feature = "flex")]
    Host(HostDecoder),
    /// On a GPU, through few launches.
    #[cfg(feature = "cube")]
    Cube(CubeDecoder),
    /// Elsewhere, through Burn's operations.
    Burn(Decoder),
}

impl Layers {
    fn new(decoder: Decoder, config: &DecoderConfig) -> Self {
        #[cfg(feature = "flex")]
        if let Some(host) = HostDecoder::new(&decoder, config) {
            return Self::Host(host);
        }
        #[cfg(feature = "cube")]
        return match CubeDecoder::new(decoder, config) {
            Ok(cube) => Self::Cube(cube),
            Err(decoder) => Self::Burn(decoder),
        };
        #[cfg(not(feature = "cube"))]
        Self::Burn(decoder)
    }
}

/// The rows that enter a stack, those of one segment after those of the other.
#[derive(Debug, Clone)]
pub struct StackInput {
    /// The residual stream, `[rows, hidden]`.
    pub residual: Tensor<2>,
    /// What the attention of the first layer reads, `[rows, inputs]`, if the layer is one that is
    /// given it (`FirstInput::Given`).
    pub given: Option<Tensor<2>>,
    /// What is added behind the first layers.
    pub later: LayerRows,
}

impl From<Tensor<2>> for StackInput {
    fn from(residual: Tensor<2>) -> Self {
        Self {
            residual,
            given: None,
            later: LayerRows::default(),
        }
    }
}

/// One sequence's part of a pass.
#[derive(Debug)]
pub(crate) struct StackSegment<'a> {
    /// Number of its rows, and what they see.
    pub plan: &'a AttentionPlan,
    /// Cache of the sequence; the rows are appended.
    pub cache: &'a mut ModelCache,
}

impl DecoderStack {
    /// Gets the stack ready.
    #[must_use]
    pub(crate) fn new(decoder: Decoder, config: &DecoderConfig) -> Self {
        Self {
            n_weights: decoder.n_weights(config),
            layers: Layers::new(decoder, config),
            config: *config,
        }
    }

    /// The same stack, whose passes are padded to so many rows; `None` if it runs where passes of
    /// other lengths are no other computation, or where they cannot be padded.
    #[must_use]
    pub(crate) fn padded(mut self, rows: usize) -> Option<Self> {
        match &mut self.layers {
            #[cfg(feature = "cube")]
            Layers::Cube(decoder) => {
                decoder.set_least_rows(rows);
                Some(self)
            }
            _ => {
                let _ = rows;
                None
            }
        }
    }

    /// Whether passes over trees of so many rows can have plans that are on the device
    /// ([`AttentionPlan::unknown_tree`]).
    #[cfg(feature = "cube")]
    pub(crate) fn reads_plans_on_device(&self, rows: usize) -> bool {
        matches!(self.layers, Layers::Cube(_)) && rows < super::cube::MANY_ROWS
    }

    /// Shapes of the stack.
    #[must_use]
    pub(crate) fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Runs a step of `rows` that goes through this stack where its kernels find their threads
    /// awake. `head` are the outputs of the head behind it. On devices there are no kernels to wake
    /// anybody for.
    pub(crate) fn step<R: Send>(
        &self,
        rows: usize,
        head: usize,
        work: impl FnOnce() -> R + Send,
    ) -> R {
        if !self.is_on_host() {
            return work();
        }
        let weights = self.n_weights + self.config.hidden * head;
        vispec_kernels::in_pool(rows.saturating_mul(weights), work)
    }

    /// Whether the stack runs through the kernels, with caches in plain memory.
    fn is_on_host(&self) -> bool {
        #[cfg(feature = "flex")]
        return matches!(self.layers, Layers::Host(_));
        #[cfg(not(feature = "flex"))]
        false
    }

    /// An empty cache with keys and values of type `dtype`. Memory is taken when rows are appended,
    /// not before.
    ///
    /// # Arguments
    /// * `dtype` - on the CPU F32 or BF16, elsewhere the type of activations.
    #[must_use]
    pub(crate) fn new_cache(&self, (device, dtype): (&Device, DType)) -> ModelCache {
        #[cfg(feature = "flex")]
        if let Layers::Host(host) = &self.layers {
            return ModelCache::new(Storage::Host(host.new_cache(dtype)));
        }
        ModelCache::on_device(&self.config, (device, dtype))
    }

    /// Memory that keys and values of a row take in a cache of type `dtype`, all layers together.
    #[must_use]
    pub(crate) fn cache_bytes_per_row(&self, dtype: DType) -> usize {
        let DecoderConfig {
            layers,
            kv_heads,
            head_dim,
            ..
        } = self.config;
        2 * layers * kv_heads * head_dim * dtype.size()
    }

    /// Runs all layers over the rows of some sequences and appends the rows to their caches.
    ///
    /// On the CPU a sequence's rows are, bit for bit, what they are in a pass of its own.
    ///
    /// # Shapes
    /// The result is `[rows, hidden]`.
    ///
    /// # Panics
    /// If the plans have other rows than the input, or a cache is of a stack on another device.
    #[must_use]
    pub(crate) fn forward(
        &self,
        input: impl Into<StackInput>,
        rotary: &RotaryTable,
        segments: &mut [StackSegment<'_>],
    ) -> Tensor<2> {
        self.forward_noting(input.into(), rotary, segments, &[])
            .last
    }

    /// The same, and the residual stream on its way.
    ///
    /// # Arguments
    /// * `wanted` - numbers of the states that are taken note of: those that enter the layers of
    ///   these numbers, and behind them what leaves the last one. Others are not there.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub(crate) fn forward_noting(
        &self,
        input: StackInput,
        rotary: &RotaryTable,
        segments: &mut [StackSegment<'_>],
        wanted: &[usize],
    ) -> ResidualStream {
        let planned: usize = segments.iter().map(|segment| segment.plan.n_rows()).sum();
        assert_eq!(
            input.residual.dims()[0],
            planned,
            "the rows of all segments"
        );
        assert!(
            input.later.levels.len() <= self.config.layers,
            "a layer for each level"
        );
        let mut stream = self.run(input, rotary, segments, wanted);
        if wanted.contains(&self.config.layers) {
            let last = stream.last.clone();
            stream.noted.push((self.config.layers, last));
        }
        for segment in segments {
            segment.cache.advance(segment.plan.n_rows());
        }
        stream
    }

    fn run(
        &self,
        input: StackInput,
        rotary: &RotaryTable,
        segments: &mut [StackSegment<'_>],
        wanted: &[usize],
    ) -> ResidualStream {
        #[cfg(feature = "flex")]
        if let Layers::Host(host) = &self.layers {
            let segments = segments.iter_mut().map(|segment| HostSegment {
                plan: segment.plan,
                len: segment.cache.n_rows(),
                cache: segment.cache.host_mut(),
            });
            return host.forward(input, rotary, &mut segments.collect::<Vec<_>>(), wanted);
        }
        let segments = segments.iter_mut().map(|segment| {
            let len = segment.cache.n_rows();
            DeviceSegment::new(segment.plan, segment.cache.device_mut(), len)
        });
        let mut segments: Vec<_> = segments.collect();
        match &self.layers {
            #[cfg(feature = "flex")]
            Layers::Host(_) => unreachable!("ran above"),
            #[cfg(feature = "cube")]
            Layers::Cube(decoder) => decoder.forward(input, rotary, &mut segments, wanted),
            Layers::Burn(decoder) => decoder.forward(input, rotary, &mut segments, wanted),
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests;
