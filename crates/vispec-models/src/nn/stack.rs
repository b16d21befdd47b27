//! A decoder stack that is ready to run on the device of its weights.

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

/// A [`Decoder`] and its shapes, ready to run. Cloning shares the weights.
#[derive(Debug, Clone)]
pub(crate) struct DecoderStack {
    layers: Layers,
    config: DecoderConfig,
    /// Number of weights of its linear layers.
    n_weights: usize,
}

/// The layers, in the form that runs on their device.
#[derive(Debug, Clone)]
enum Layers {
    /// In CPU memory, through the batch-invariant kernels.
    #[cfg(feature = "flex")]
    Host(HostDecoder),
    /// On a GPU, through a few launches per layer.
    #[cfg(feature = "cube")]
    Cube(CubeDecoder),
    /// On other devices, through Burn's operations.
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

/// The input rows of a stack, with the rows of the segments in order.
#[derive(Debug, Clone)]
pub struct StackInput {
    /// The residual stream, `[rows, hidden]`.
    pub residual: Tensor<2>,
    /// Input of the first layer's attention, `[rows, inputs]`, if that layer reads separate rows
    /// (`FirstInput::Given`).
    pub given: Option<Tensor<2>>,
    /// Rows that are added after the first layers.
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
    /// Number of rows and the cache rows that they attend to.
    pub plan: &'a AttentionPlan,
    /// Cache of the sequence, to which the rows are appended.
    pub cache: &'a mut ModelCache,
}

impl DecoderStack {
    /// Prepares the stack for the device of its weights.
    pub(crate) fn new(decoder: Decoder, config: &DecoderConfig) -> Self {
        Self {
            n_weights: decoder.n_weights(config),
            layers: Layers::new(decoder, config),
            config: *config,
        }
    }

    /// Pads passes to at least `rows` rows. Returns `None` if the stack runs on a device where
    /// results do not depend on the length of a pass, or where passes cannot be padded.
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

    /// Returns whether passes over trees of `rows` rows can use plans on the device
    /// ([`AttentionPlan::unknown_tree`]).
    #[cfg(feature = "cube")]
    pub(crate) fn reads_plans_on_device(&self, rows: usize) -> bool {
        matches!(self.layers, Layers::Cube(_)) && rows < super::cube::MANY_ROWS
    }

    /// Returns the shapes of the stack.
    pub(crate) fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Runs `work`, which passes `rows` rows through this stack and a head with `head` outputs, in
    /// the kernels' thread pool. The kernels then need not wake threads. On other devices it runs
    /// `work` directly.
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

    /// Returns whether the stack runs through the CPU kernels, with caches in host memory.
    fn is_on_host(&self) -> bool {
        #[cfg(feature = "flex")]
        return matches!(self.layers, Layers::Host(_));
        #[cfg(not(feature = "flex"))]
        false
    }

    /// Creates an empty cache with keys and values of type `dtype`. Memory is allocated only when
    /// rows are appended.
    ///
    /// # Arguments
    /// * `dtype` - F32 or BF16 on the CPU; on other devices the type of activations.
    pub(crate) fn new_cache(&self, (device, dtype): (&Device, DType)) -> ModelCache {
        #[cfg(feature = "flex")]
        if let Layers::Host(host) = &self.layers {
            return ModelCache::new(Storage::Host(host.new_cache(dtype)));
        }
        ModelCache::on_device(&self.config, (device, dtype))
    }

    /// Returns the bytes per row of a cache of type `dtype`, including keys and values of all
    /// layers.
    pub(crate) fn cache_bytes_per_row(&self, dtype: DType) -> usize {
        let DecoderConfig {
            layers,
            kv_heads,
            head_dim,
            ..
        } = self.config;
        2 * layers * kv_heads * head_dim * dtype.size()
    }

    /// Runs all layers over the rows of several sequences and appends the rows to their caches.
    ///
    /// On the CPU, the rows of a sequence are bitwise equal to those of a separate pass.
    ///
    /// # Shapes
    /// The result is `[rows, hidden]`.
    ///
    /// # Panics
    /// If the numbers of rows of the plans and of the input differ, or a cache belongs to a stack
    /// on another device.
    pub(crate) fn forward(
        &self,
        input: impl Into<StackInput>,
        rotary: &RotaryTable,
        segments: &mut [StackSegment<'_>],
    ) -> Tensor<2> {
        self.forward_noting(input.into(), rotary, segments, &[])
            .last
    }

    /// Like [`forward`](Self::forward), but also records states of the residual stream.
    ///
    /// # Arguments
    /// * `wanted` - numbers of the states to record. State `i` is the input of layer `i`; with `n`
    ///   layers, state `n` is the output of the last one. Other numbers are ignored.
    ///
    /// # Panics
    /// Same as [`forward`](Self::forward).
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
            "the plans must cover the input rows"
        );
        assert!(
            input.later.levels.len() <= self.config.layers,
            "each level of added rows needs a layer"
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
