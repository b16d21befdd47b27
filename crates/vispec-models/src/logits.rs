//! Logits that are still on the device, read back at most once per pass.

use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use burn::tensor::{DType, Tensor, TensorData, activation};
use vispec_core::{BoxError, LogitsError, Sampler, TargetLogits, TokenId, TopK};
use vispec_kernels::map_rows;

use crate::device::is_cpu;
use crate::error::ModelError;

/// Logits `[rows, vocab]` of one sequence in a forward pass of the target, which other sequences may
/// have shared.
///
/// On the CPU rows are looked at where they lie. On other devices the first greedy pick reads the
/// best tokens of the whole pass at once, and sampling reads all of its rows at once.
#[derive(Debug)]
pub struct DeviceLogits {
    pass: Arc<PassLogits>,
    rows: Range<usize>,
}

/// Logits `[rows, vocab]` of a pass.
#[derive(Debug)]
struct PassLogits {
    vocab_size: usize,
    on_cpu: bool,
    /// Until the rows are read; then the host's copy takes its place.
    on_device: Mutex<Option<Tensor<2>>>,
    on_host: OnceLock<Result<TensorData, String>>,
    best: OnceLock<Result<Vec<Best>, String>>,
}

/// The best token of a row, and whether a token may be picked from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Best {
    token: TokenId,
    sound: bool,
}

impl DeviceLogits {
    /// Wraps logits `[rows, vocab]` of one sequence.
    #[must_use]
    pub fn new(logits: Tensor<2>) -> Self {
        let [rows, _] = logits.dims();
        let pass = Arc::new(PassLogits::new(logits));
        Self {
            pass,
            rows: 0..rows,
        }
    }

    /// Wraps logits `[rows, vocab]` of several sequences, with so many rows each.
    pub(crate) fn of_sequences(
        logits: Tensor<2>,
        rows: impl IntoIterator<Item = usize>,
    ) -> impl Iterator<Item = Self> {
        let pass = Arc::new(PassLogits::new(logits));
        rows.into_iter().scan(0, move |end, rows| {
            let start = *end;
            *end += rows;
            Some(Self {
                pass: Arc::clone(&pass),
                rows: start..*end,
            })
        })
    }
}

impl PassLogits {
    fn new(logits: Tensor<2>) -> Self {
        let [_, vocab_size] = logits.dims();
        Self {
            vocab_size,
            on_cpu: is_cpu(&logits.device()),
            on_device: Mutex::new(Some(logits)),
            on_host: OnceLock::new(),
            best: OnceLock::new(),
        }
    }

    /// The tensor, unless its rows were read.
    fn tensor(&self) -> std::sync::MutexGuard<'_, Option<Tensor<2>>> {
        // Every state is valid.
        let tensor = self.on_device.lock();
        tensor.unwrap_or_else(PoisonError::into_inner)
    }

    /// All rows, in memory.
    fn host_rows(&self) -> Result<&[f32], ModelError> {
        let read = self.on_host.get_or_init(|| {
            // Taken, not cloned: a tensor with a unique owner is handed over without a copy.
            match self.tensor().take() {
                Some(logits) => read_data(logits, LOGITS).map_err(|error| error.to_string()),
                None => Err("an earlier read failed".to_owned()),
            }
        });
        match read {
            Ok(data) => floats(data, LOGITS),
            Err(reason) => Err(failed(reason)),
        }
    }

    /// Chosen where the logits are, instead of reading them all.
    fn best(&self) -> Result<&[Best], ModelError> {
        let best = self.best.get_or_init(|| {
            let logits = self.tensor().clone();
            let logits = logits.ok_or("the rows were read before")?;
            read_best(logits).map_err(|error| error.to_string())
        });
        best.as_deref().map_err(|reason| failed(reason))
    }

    fn is_read(&self) -> bool {
        self.on_host.get().is_some()
    }
}

/// What errors of reading call the tensor.
const LOGITS: &str = "logits";

fn failed(reason: &str) -> ModelError {
    ModelError::DeviceRead {
        what: LOGITS,
        reason: reason.to_owned(),
    }
}

fn device_error(error: ModelError) -> LogitsError {
    LogitsError::Device(BoxError::from(error))
}

impl TargetLogits for DeviceLogits {
    fn n_rows(&self) -> usize {
        self.rows.len()
    }

    fn pick(
        &mut self,
        row: usize,
        sampler: &Sampler,
        uniform: f64,
    ) -> Result<TokenId, LogitsError> {
        let pass = &self.pass;
        if !pass.on_cpu && !pass.is_read() && matches!(sampler, Sampler::Greedy) {
            let best = &pass.best().map_err(device_error)?[self.rows.clone()];
            return if best[row].sound {
                Ok(best[row].token)
            } else {
                Err(LogitsError::NonFinite { row })
            };
        }
        sampler
            .pick(self.read_row(row)?, uniform)
            .map_err(|error| error.at_row(row))
    }

    fn read_row(&mut self, row: usize) -> Result<&[f32], LogitsError> {
        let vocab_size = self.pass.vocab_size;
        let rows = self.pass.host_rows().map_err(device_error)?;
        let rows = &rows[self.rows.start * vocab_size..self.rows.end * vocab_size];
        Ok(&rows[row * vocab_size..][..vocab_size])
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

/// The best token of each row of `logits` `[rows, vocab]`, with one read-back.
fn read_best(logits: Tensor<2>) -> Result<Vec<Best>, ModelError> {
    let wide = Tensor::<2>::cast(logits, DType::F32);
    // Token ids are below 2^24, so f32 holds them exactly and one read serves both columns.
    let token = Tensor::<2>::cast(wide.clone().argmax(1).float(), DType::F32);
    // Masked tokens add nothing to this sum; NaN, +inf, and a row of nothing but -inf make it NaN.
    let greatest = wide.clone().max_dim(1);
    let sum = (wide - greatest).exp().sum_dim(1);
    let columns = read_data(Tensor::cat(vec![token, sum], 1), "best tokens")?;
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
                sound: row[1].is_finite(),
            }
        })
        .collect())
}

/// The most likely tokens of rows that belong to several sequences, with one read-back: for each
/// sequence the `k` best of each of its rows. On the CPU threads share the rows.
///
/// # Shapes
/// `logits` `[rows, vocab]`; `sequences` are numbers of rows and `k`. Results `[rows, k]`.
pub(crate) fn top_k(
    logits: Tensor<2>,
    sequences: &[(usize, usize)],
) -> Vec<Result<TopK, BoxError>> {
    let rows = if is_cpu(&logits.device()) {
        top_k_on_host(logits, sequences)
    } else {
        top_k_on_device(logits, sequences)
    };
    let mut rows = match rows {
        Ok(rows) => rows.into_iter(),
        Err(error) => {
            let reason = error.to_string();
            let failed = |_: &_| Err(BoxError::from(reason.clone()));
            return sequences.iter().map(failed).collect();
        }
    };
    let of_sequence = |&(n_rows, k): &(usize, usize)| {
        // All are taken, so that the next sequence finds its own.
        let rows: Vec<_> = rows.by_ref().take(n_rows).collect();
        let mut top = TopK {
            k,
            ..TopK::default()
        };
        for (row, found) in rows.into_iter().enumerate() {
            let found = found.map_err(|error| error.at_row(row))?;
            top.k = found.k;
            top.tokens.extend(found.tokens);
            top.log_probs.extend(found.log_probs);
        }
        Ok(top)
    };
    sequences.iter().map(of_sequence).collect()
}

/// The best tokens of a row.
type RowTopK = Result<TopK, LogitsError>;

/// Logits for which handing rows to other threads does not pay.
const SERIAL_LOGITS: usize = 1 << 14;

/// `k` of each row.
fn k_of_rows(sequences: &[(usize, usize)]) -> Vec<usize> {
    let rows = sequences.iter();
    rows.flat_map(|&(n_rows, k)| std::iter::repeat_n(k, n_rows))
        .collect()
}

fn top_k_on_host(
    logits: Tensor<2>,
    sequences: &[(usize, usize)],
) -> Result<Vec<RowTopK>, ModelError> {
    let what = "draft logits";
    let [_, vocab_size] = logits.dims();
    let k_of_rows = k_of_rows(sequences);
    let mut data = read_data(logits, what)?;
    let rows = data.as_mut_slice::<f32>();
    let rows = rows.map_err(|error| ModelError::DeviceRead {
        what,
        reason: error.to_string(),
    })?;
    let best =
        |row: usize, logits: &mut [f32]| TopK::from_logits(logits, vocab_size, k_of_rows[row]);
    if rows.len() < SERIAL_LOGITS {
        let rows = rows.chunks_exact_mut(vocab_size).enumerate();
        return Ok(rows.map(|(row, logits)| best(row, logits)).collect());
    }
    Ok(map_rows(rows, vocab_size, best))
}

fn top_k_on_device(
    logits: Tensor<2>,
    sequences: &[(usize, usize)],
) -> Result<Vec<RowTopK>, ModelError> {
    let [_, vocab_size] = logits.dims();
    let k_of_rows = k_of_rows(sequences);
    let greatest = k_of_rows.iter().copied().max().unwrap_or(0).min(vocab_size);
    if greatest == 0 {
        return Ok(k_of_rows.iter().map(|_| Ok(TopK::default())).collect());
    }
    let log_probs = activation::log_softmax(Tensor::<2>::cast(logits, DType::F32), 1);
    let (values, indices) = log_probs.topk_with_indices(greatest, 1);
    let indices = Tensor::<2>::cast(indices.float(), DType::F32);
    let both = read_data(Tensor::cat(vec![values, indices], 1), "draft tokens")?;
    let both = floats(&both, "draft tokens")?;
    let rows = both.chunks_exact(2 * greatest).zip(k_of_rows);
    Ok(rows
        .map(|(row, k)| {
            let (log_probs, indices) = row.split_at(greatest);
            let k = k.min(greatest);
            // A masked token, which has -inf, comes behind at least one that may be drafted.
            let sound = log_probs[0].is_finite() && !log_probs.iter().any(|p| p.is_nan());
            if !sound {
                return Err(LogitsError::NonFinite { row: 0 });
            }
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "indices that were cast to float"
            )]
            let tokens = indices[..k].iter().map(|&index| index as TokenId);
            Ok(TopK {
                k,
                tokens: tokens.collect(),
                log_probs: log_probs[..k].to_vec(),
            })
        })
        .collect())
}

#[cfg(all(test, feature = "flex"))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use burn::tensor::Device;
    use vispec_core::HostLogits;

    use super::*;

    const MASKED: f32 = f32::NEG_INFINITY;

    fn rows() -> [[f32; 4]; 6] {
        [
            [0.5, 2.0, -1.0, 1.0],
            [MASKED, -3.0, MASKED, -4.0],
            [MASKED, MASKED, 0.0, MASKED],
            [MASKED; 4],
            [0.0, f32::NAN, 1.0, 2.0],
            [0.0, f32::INFINITY, 1.0, 2.0],
        ]
    }

    fn tensor() -> Tensor<2> {
        Tensor::from_floats(rows(), &Device::flex())
    }

    /// Single -inf are tokens that must not be picked; a row of nothing else is broken.
    #[test]
    fn picks_on_a_device_are_those_of_logits_in_memory() {
        let best = read_best(tensor()).unwrap();
        let mut host = HostLogits::new(rows().concat(), 4);
        for (row, best) in best.iter().enumerate() {
            match host.pick(row, &Sampler::Greedy, 0.0) {
                Ok(token) => assert_eq!(*best, Best { token, sound: true }, "row {row}"),
                Err(_) => assert!(!best.sound, "row {row}"),
            }
        }
    }

    #[test]
    fn candidates_on_a_device_are_those_of_logits_in_memory() {
        let sequences = [(1, 2), (0, 4), (2, 1), (3, 9)];
        let near = |a: &[f32], b: &[f32]| {
            let pairs = a.iter().zip(b);
            a.len() == b.len()
                && pairs
                    .into_iter()
                    .all(|(a, b)| a.to_bits() == b.to_bits() || (a - b).abs() < 1e-6)
        };
        let host = top_k_on_host(tensor(), &sequences).unwrap();
        let device = top_k_on_device(tensor(), &sequences).unwrap();
        for (row, (host, device)) in host.into_iter().zip(device).enumerate() {
            match (host, device) {
                (Ok(host), Ok(device)) => {
                    // Of masked tokens any may come last.
                    let real = host.log_probs.iter().filter(|p| p.is_finite()).count();
                    assert_eq!(host.tokens[..real], device.tokens[..real], "row {row}");
                    assert!(near(&host.log_probs, &device.log_probs), "row {row}");
                }
                (Err(_), Err(_)) => {}
                (host, device) => panic!("row {row}: {host:?}, {device:?}"),
            }
        }
    }

    #[test]
    fn sequences_have_their_own_rows_and_errors() {
        let picks: Vec<_> = DeviceLogits::of_sequences(tensor(), [1, 3, 2])
            .flat_map(|mut logits| {
                (0..logits.n_rows())
                    .map(|row| match logits.pick(row, &Sampler::Greedy, 0.0) {
                        Ok(token) => Ok(token),
                        Err(LogitsError::NonFinite { row }) => Err(row),
                        Err(error) => panic!("{error}"),
                    })
                    .collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(picks, [Ok(1), Ok(1), Ok(2), Err(2), Err(0), Err(1)]);

        let top = top_k(tensor(), &[(1, 2), (3, 2), (2, 9)]);
        assert_eq!(top[0].as_ref().unwrap().tokens, [1, 3]);
        let row = |top: &Result<TopK, BoxError>| {
            let error = top.as_ref().unwrap_err().to_string();
            error.split(' ').nth(1).unwrap().to_owned()
        };
        assert_eq!([row(&top[1]), row(&top[2])], ["2", "0"]);
    }
}
