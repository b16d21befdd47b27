//! A decoder stack ready to run where its weights are.

use burn::tensor::{DType, Device, Tensor};

use super::attention::AttentionPlan;
use super::decoder::{Decoder, DecoderConfig};
#[cfg(feature = "flex")]
use super::host::HostDecoder;
use super::kv_cache::{ModelCache, Storage};
use super::rope::RotaryTable;

/// A [`Decoder`] with its shapes. On the CPU it runs through the batch-invariant kernels, elsewhere
/// through Burn's operations. Cloning shares the weights.
#[derive(Debug, Clone)]
pub struct DecoderStack {
    decoder: Decoder,
    config: DecoderConfig,
    #[cfg(feature = "flex")]
    host: Option<HostDecoder>,
}

impl DecoderStack {
    /// Gets the stack ready.
    #[must_use]
    pub fn new(decoder: &Decoder, config: &DecoderConfig) -> Self {
        Self {
            decoder: decoder.clone(),
            config: *config,
            #[cfg(feature = "flex")]
            host: HostDecoder::new(decoder, config),
        }
    }

    /// Shapes of the stack.
    #[must_use]
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Runs a step of `rows` that goes through this stack where its kernels find their threads
    /// awake. `head` are the outputs of the head behind it.
    pub fn step<R: Send>(&self, rows: usize, head: usize, work: impl FnOnce() -> R + Send) -> R {
        let DecoderConfig {
            hidden,
            intermediate,
            layers,
            heads,
            kv_heads,
            head_dim,
            ..
        } = self.config;
        let attention = hidden * head_dim * 2 * (heads + kv_heads);
        let weights = layers * (attention + 3 * hidden * intermediate) + hidden * head;
        vispec_kernels::in_pool(rows * weights, work)
    }

    /// An empty cache. Memory is taken when rows are appended, not before.
    #[must_use]
    pub fn new_cache(&self, like: (&Device, DType)) -> ModelCache {
        #[cfg(feature = "flex")]
        if let Some(host) = &self.host {
            return ModelCache::new(Storage::Host(host.new_cache()));
        }
        ModelCache::on_device(&self.config, like)
    }

    /// Runs all layers and appends the rows to `cache`.
    ///
    /// # Shapes
    /// `x` and the result `[rows, hidden]`.
    ///
    /// # Panics
    /// If the cache is of a stack on another device.
    #[must_use]
    pub fn forward(
        &self,
        x: Tensor<2>,
        rotary: &RotaryTable,
        plan: &AttentionPlan,
        cache: &mut ModelCache,
    ) -> Tensor<2> {
        let [rows, _] = x.dims();
        let len = cache.n_rows();
        let y = match cache.storage_mut() {
            Storage::Device(cache) => self.decoder.forward(x, rotary, plan, cache, len),
            #[cfg(feature = "flex")]
            Storage::Host(cache) => match &self.host {
                Some(host) => host.forward(x, rotary, plan, cache, len),
                None => panic!("a cache in memory, but the weights are on a device"),
            },
        };
        cache.advance(rows);
        y
    }
}
