//! A decoder stack ready to run where its weights are.

use burn::tensor::{DType, Device, Tensor};

use super::attention::{AttentionPlan, DeviceSegment};
use super::decoder::{Decoder, DecoderConfig, ResidualStream};
#[cfg(feature = "flex")]
use super::host::{HostDecoder, HostSegment};
use super::kv_cache::ModelCache;
#[cfg(feature = "flex")]
use super::kv_cache::Storage;
use super::rope::RotaryTable;

/// A [`Decoder`] with its shapes. On the CPU it runs through the batch-invariant kernels, elsewhere
/// through Burn's operations. Cloning shares the weights.
#[derive(Debug, Clone)]
pub struct DecoderStack {
    decoder: Decoder,
    config: DecoderConfig,
    /// Weights of its linear layers.
    n_weights: usize,
    #[cfg(feature = "flex")]
    host: Option<HostDecoder>,
}

/// The rows that enter a stack, those of one segment after those of the other.
#[derive(Debug, Clone)]
pub struct StackInput {
    /// The residual stream, `[rows, hidden]`.
    pub residual: Tensor<2>,
    /// What the attention of the first layer reads, `[rows, inputs]`, if the layer is one that is
    /// given it ([`FirstInput::Given`](super::FirstInput::Given)).
    pub given: Option<Tensor<2>>,
}

impl From<Tensor<2>> for StackInput {
    fn from(residual: Tensor<2>) -> Self {
        Self {
            residual,
            given: None,
        }
    }
}

/// One sequence's part of a pass.
#[derive(Debug)]
pub struct StackSegment<'a> {
    /// Number of its rows, and what they see.
    pub plan: &'a AttentionPlan,
    /// Cache of the sequence; the rows are appended.
    pub cache: &'a mut ModelCache,
}

impl DecoderStack {
    /// Gets the stack ready.
    #[must_use]
    pub fn new(decoder: &Decoder, config: &DecoderConfig) -> Self {
        Self {
            decoder: decoder.clone(),
            config: *config,
            n_weights: decoder.n_weights(config),
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
    /// awake. `head` are the outputs of the head behind it. On devices there are no kernels to wake
    /// anybody for.
    pub fn step<R: Send>(&self, rows: usize, head: usize, work: impl FnOnce() -> R + Send) -> R {
        if !self.is_on_host() {
            return work();
        }
        let weights = self.n_weights + self.config.hidden * head;
        vispec_kernels::in_pool(rows.saturating_mul(weights), work)
    }

    /// Whether the stack runs through the kernels, with caches in plain memory.
    fn is_on_host(&self) -> bool {
        #[cfg(feature = "flex")]
        return self.host.is_some();
        #[cfg(not(feature = "flex"))]
        false
    }

    /// An empty cache with keys and values of type `dtype`. Memory is taken when rows are appended,
    /// not before.
    ///
    /// # Arguments
    /// * `dtype` - on the CPU F32 or BF16, elsewhere the type of activations.
    #[must_use]
    pub fn new_cache(&self, (device, dtype): (&Device, DType)) -> ModelCache {
        #[cfg(feature = "flex")]
        if let Some(host) = &self.host {
            return ModelCache::new(Storage::Host(host.new_cache(dtype)));
        }
        ModelCache::on_device(&self.config, (device, dtype))
    }

    /// Memory that keys and values of a row take in a cache of type `dtype`, all layers together.
    #[must_use]
    pub fn cache_bytes_per_row(&self, dtype: DType) -> usize {
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
    pub fn forward(
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
        if let Some(host) = &self.host {
            let segments = segments.iter_mut().map(|segment| HostSegment {
                plan: segment.plan,
                len: segment.cache.n_rows(),
                cache: segment.cache.host_mut(),
            });
            return host.forward(input, rotary, &mut segments.collect::<Vec<_>>(), wanted);
        }
        let segments = segments.iter_mut().map(|segment| DeviceSegment {
            plan: segment.plan,
            len: segment.cache.n_rows(),
            cache: segment.cache.device_mut(),
        });
        let mut segments: Vec<_> = segments.collect();
        self.decoder.forward(input, rotary, &mut segments, wanted)
    }
}

#[cfg(all(test, feature = "flex"))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::path::Path;

    use burn::tensor::TensorData;

    use super::*;
    use crate::nn::join_rows;
    use crate::precision::DtypeChoice;
    use crate::target::VlmTarget;

    fn stack() -> DecoderStack {
        let model = "../../fixtures/models/qwen-tied";
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(model);
        let target = VlmTarget::load(&dir, &Device::flex(), DtypeChoice::F32).unwrap();
        target.stack().clone()
    }

    /// The same stack as it runs on devices.
    fn through_burn(stack: &DecoderStack) -> DecoderStack {
        DecoderStack {
            host: None,
            ..stack.clone()
        }
    }

    fn rows(stack: &DecoderStack, n_rows: usize, seed: usize) -> Tensor<2> {
        let hidden = stack.config().hidden;
        let value = |i: usize| ((i * 7_919 + seed * 104_729) % 2_003) as f32 / 1_001.0 - 1.0;
        let values: Vec<f32> = (0..n_rows * hidden).map(value).collect();
        let data = TensorData::new(values, [n_rows, hidden]);
        Tensor::from_data(data, &Device::flex())
    }

    fn rotary(stack: &DecoderStack, positions: &[i64]) -> RotaryTable {
        let config = stack.config();
        let like = (&Device::flex(), DType::F32);
        RotaryTable::new(positions, config.head_dim, config.rope_theta, like)
    }

    /// Rows that a sequence brings into a pass, and the rows that it read before.
    struct Sequence {
        n_before: usize,
        plan: AttentionPlan,
        positions: Vec<i64>,
    }

    fn sequences() -> Vec<Sequence> {
        let paths: [&[usize]; 4] = [&[0], &[0, 1], &[0, 2], &[0, 2, 3]];
        vec![
            Sequence {
                n_before: 5,
                plan: AttentionPlan::Causal { prefix: 5, rows: 7 },
                positions: (5..12).collect(),
            },
            Sequence {
                n_before: 9,
                plan: AttentionPlan::tree(9, paths.into_iter()),
                positions: vec![9, 10, 10, 11],
            },
            Sequence {
                n_before: 0,
                plan: AttentionPlan::Causal { prefix: 0, rows: 1 },
                positions: vec![0],
            },
        ]
    }

    /// The cache of a sequence before the pass.
    fn cache(stack: &DecoderStack, sequence: &Sequence, seed: usize) -> ModelCache {
        let mut cache = stack.new_cache((&Device::flex(), DType::F32));
        let n_rows = sequence.n_before;
        if n_rows > 0 {
            let plan = AttentionPlan::Causal {
                prefix: 0,
                rows: n_rows,
            };
            let positions: Vec<i64> = (0..).take(n_rows).collect();
            let x = rows(stack, n_rows, seed);
            let segment = StackSegment {
                plan: &plan,
                cache: &mut cache,
            };
            let _ = stack.forward(x, &rotary(stack, &positions), &mut [segment]);
        }
        cache
    }

    fn floats(tensor: Tensor<2>) -> Vec<f32> {
        tensor.into_data().try_into_vec().unwrap()
    }

    /// Each sequence in a pass of its own, and all in one pass.
    fn alone_and_together(stack: &DecoderStack) -> [Vec<f32>; 2] {
        let sequences = sequences();
        let inputs = |index: usize| rows(stack, sequences[index].plan.n_rows(), 50 + index);
        let mut alone = Vec::new();
        for (index, sequence) in sequences.iter().enumerate() {
            let segment = StackSegment {
                plan: &sequence.plan,
                cache: &mut cache(stack, sequence, index),
            };
            let rotary = rotary(stack, &sequence.positions);
            alone.extend(floats(stack.forward(
                inputs(index),
                &rotary,
                &mut [segment],
            )));
        }
        let caches = sequences.iter().enumerate();
        let caches = caches.map(|(index, sequence)| cache(stack, sequence, index));
        let mut caches: Vec<ModelCache> = caches.collect();
        let segments = sequences.iter().zip(&mut caches);
        let segments = segments.map(|(sequence, cache)| StackSegment {
            plan: &sequence.plan,
            cache,
        });
        let positions = sequences.iter().flat_map(|sequence| &sequence.positions);
        let rotary = rotary(stack, &positions.copied().collect::<Vec<_>>());
        let x = join_rows((0..sequences.len()).map(inputs).collect());
        let together = stack.forward(x, &rotary, &mut segments.collect::<Vec<_>>());
        for (sequence, cache) in sequences.iter().zip(&caches) {
            assert_eq!(cache.n_rows(), sequence.n_before + sequence.plan.n_rows());
        }
        [alone, floats(together)]
    }

    #[test]
    fn states_on_the_way_are_the_same_through_kernels_and_through_burn() {
        let stack = stack();
        let layers = stack.config().layers;
        let run = |stack: &DecoderStack, wanted: &[usize]| {
            let plan = AttentionPlan::Causal { prefix: 0, rows: 3 };
            let mut cache = stack.new_cache((&Device::flex(), DType::F32));
            let segment = StackSegment {
                plan: &plan,
                cache: &mut cache,
            };
            let rotary = rotary(stack, &[0, 1, 2]);
            stack.forward_noting(rows(stack, 3, 1).into(), &rotary, &mut [segment], wanted)
        };
        let wanted: Vec<usize> = (0..=layers).collect();
        let noted = |stack: &DecoderStack| {
            let stream = run(stack, &wanted);
            let numbers: Vec<usize> = stream.noted.iter().map(|(number, _)| *number).collect();
            assert_eq!(numbers, wanted);
            let (_, last) = stream.noted.last().unwrap();
            assert_eq!(floats(last.clone()), floats(stream.last));
            let states = stream.noted.into_iter().map(|(_, state)| floats(state));
            states.collect::<Vec<_>>()
        };
        let (kernels, burn) = (noted(&stack), noted(&through_burn(&stack)));
        assert_eq!(kernels[0], floats(rows(&stack, 3, 1)));
        for (kernels, burn) in kernels.iter().zip(&burn) {
            let pairs = kernels.iter().zip(burn);
            assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-4));
        }
        assert!(kernels.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(run(&stack, &[]).noted.is_empty());
    }

    #[test]
    fn sequences_share_a_pass_through_kernels_and_through_burn() {
        let stack = stack();
        let [alone, together] = alone_and_together(&stack);
        assert!(alone == together);
        let close = |found: &[f32]| {
            let pairs = found.iter().zip(&alone);
            found.len() == alone.len() && pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-4)
        };
        let [burn_alone, burn_together] = alone_and_together(&through_burn(&stack));
        assert!(close(&burn_alone));
        assert!(close(&burn_together));
        // Burn's operations sum in another order: what is compared above would show it.
        assert!(burn_alone != alone);
    }
}
