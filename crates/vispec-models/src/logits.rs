//! Logits that are still on the device, read back at most once per cycle.

use burn::tensor::{DType, Tensor, TensorData, activation};
use vispec_core::{BoxError, LogitsError, Sampler, TargetLogits, TokenId, TopK};

use crate::device::is_cpu;
use crate::error::ModelError;

/// Logits `[rows, vocab]` of one forward pass of the target.
///
/// On the CPU rows are looked at where they lie. On other devices a greedy pick reads the best
/// token of all rows at once, and sampling reads all rows at once.
#[derive(Debug)]
pub struct DeviceLogits {
    shape: [usize; 2],
    /// Until the rows are read; then the host's copy takes its place.
    on_device: Option<Tensor<2>>,
    on_host: Option<TensorData>,
    best: Option<Vec<Best>>,
}

/// The best token of a row, and whether all of its logits are finite.
#[derive(Debug, Clone, Copy)]
struct Best {
    token: TokenId,
    finite: bool,
}

impl DeviceLogits {
    /// Wraps logits `[rows, vocab]`.
    #[must_use]
    pub fn new(logits: Tensor<2>) -> Self {
        Self {
            shape: logits.dims(),
            on_device: Some(logits),
            on_host: None,
            best: None,
        }
    }

    /// Whether to choose the best tokens where the logits are, instead of reading them all.
    fn picks_on_device(&self, sampler: &Sampler) -> bool {
        let remote = self
            .on_device
            .as_ref()
            .is_some_and(|logits| !is_cpu(&logits.device()));
        remote && matches!(sampler, Sampler::Greedy)
    }

    fn host_rows(&mut self) -> Result<&[f32], ModelError> {
        // Taken, not cloned: a tensor with a unique owner is handed over without a copy.
        if let Some(logits) = self.on_device.take() {
            self.on_host = Some(read_data(logits, LOGITS)?);
        }
        match &self.on_host {
            Some(data) => floats(data, LOGITS),
            None => Err(ModelError::DeviceRead {
                what: LOGITS,
                reason: "an earlier read failed".to_owned(),
            }),
        }
    }

    fn best(&mut self) -> Result<&[Best], ModelError> {
        let best = match (self.best.take(), &self.on_device) {
            (Some(best), _) => best,
            (None, Some(logits)) => read_best(logits.clone())?,
            (None, None) => Vec::new(),
        };
        Ok(self.best.insert(best))
    }
}

/// What errors of reading call the tensor.
const LOGITS: &str = "logits";

fn device_error(error: ModelError) -> LogitsError {
    LogitsError::Device(BoxError::from(error))
}

impl TargetLogits for DeviceLogits {
    fn n_rows(&self) -> usize {
        self.shape[0]
    }

    fn pick(
        &mut self,
        row: usize,
        sampler: &Sampler,
        uniform: f64,
    ) -> Result<TokenId, LogitsError> {
        if self.picks_on_device(sampler) {
            let best = self.best().map_err(device_error)?[row];
            return if best.finite {
                Ok(best.token)
            } else {
                Err(LogitsError::NonFinite { row })
            };
        }
        sampler
            .pick(self.read_row(row)?, uniform)
            .map_err(|error| error.at_row(row))
    }

    fn read_row(&mut self, row: usize) -> Result<&[f32], LogitsError> {
        let [_, vocab_size] = self.shape;
        Ok(&self.host_rows().map_err(device_error)?[row * vocab_size..(row + 1) * vocab_size])
    }
}

/// Copies a tensor to the host as f32; on the CPU a tensor with a unique owner is only handed over.
fn read_data<const D: usize>(
    tensor: Tensor<D>,
    what: &'static str,
) -> Result<TensorData, ModelError> {
    Tensor::<D>::cast(tensor, DType::F32)
        .try_into_data()
        .map_err(|error| ModelError::DeviceRead {
            what,
            reason: error.to_string(),
        })
}

fn floats<'d>(data: &'d TensorData, what: &'static str) -> Result<&'d [f32], ModelError> {
    data.as_slice::<f32>()
        .map_err(|error| ModelError::DeviceRead {
            what,
            reason: error.to_string(),
        })
}

fn read_best(logits: Tensor<2>) -> Result<Vec<Best>, ModelError> {
    let wide = Tensor::<2>::cast(logits, DType::F32);
    // Token ids are below 2^24, so f32 holds them exactly and one read serves both columns.
    let token = Tensor::<2>::cast(wide.clone().argmax(1).float(), DType::F32);
    let zero_if_finite = (wide * 0.0).sum_dim(1);
    let columns = read_data(Tensor::cat(vec![token, zero_if_finite], 1), "best tokens")?;
    Ok(floats(&columns, "best tokens")?
        .chunks_exact(2)
        .map(|row| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "an index that was cast to float"
            )]
            let token = row[0] as TokenId;
            Best {
                token,
                finite: row[1].is_finite(),
            }
        })
        .collect())
}

/// The `k` most likely tokens of each row, with one read-back.
///
/// # Shapes
/// `logits` `[rows, vocab]`, result `[rows, k]`.
pub(crate) fn top_k(logits: Tensor<2>, k: usize) -> Result<TopK, BoxError> {
    let [_, vocab_size] = logits.dims();
    if is_cpu(&logits.device()) {
        let rows = read_data(logits, "draft logits")?;
        return Ok(TopK::from_logits(
            floats(&rows, "draft logits")?,
            vocab_size,
            k,
        )?);
    }
    let k = k.min(vocab_size);
    let log_probs = activation::log_softmax(Tensor::<2>::cast(logits, DType::F32), 1);
    let (values, indices) = log_probs.topk_with_indices(k, 1);
    let indices = Tensor::<2>::cast(indices.float(), DType::F32);
    let both = read_data(Tensor::cat(vec![values, indices], 1), "draft tokens")?;
    let both = floats(&both, "draft tokens")?;
    let mut top = TopK {
        k,
        tokens: Vec::new(),
        log_probs: Vec::new(),
    };
    for row in both.chunks_exact(2 * k) {
        if !row[..k].iter().all(|p| p.is_finite()) {
            return Err(BoxError::from(ModelError::NonFinite {
                step: "the draft's logits",
            }));
        }
        top.log_probs.extend_from_slice(&row[..k]);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "indices that were cast to float"
        )]
        top.tokens
            .extend(row[k..].iter().map(|&index| index as TokenId));
    }
    Ok(top)
}
