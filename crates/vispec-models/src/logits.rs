//! Logits on the device, read back at most once per pass.

use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use burn::tensor::{DType, Int, Tensor, TensorData, activation};
use vispec_core::{Ask, BoxError, LogitsError, Sampler, TargetLogits, TokenId, TopK};
use vispec_kernels::map_rows;

use crate::device::is_cpu;
use crate::error::ModelError;
use crate::read_backs::{floats, read_back};
use crate::row_picks::{Picked, RowPick, WantedRows, picks_on_device, read_picked};

/// Logits `[rows, vocab]` of one sequence from a forward pass of the target that other sequences
/// may have shared.
///
/// On the CPU rows are used in place. On other devices the first pick has the tokens of all rows of
/// the pass chosen on the device and reads these back. Sampling from part of the vocabulary, and
/// reading a row, read all rows back at once.
#[derive(Debug)]
pub struct DeviceLogits {
    pass: Arc<PassLogits>,
    rows: Range<usize>,
}

/// Logits `[rows, vocab]` of a pass.
#[derive(Debug)]
struct PassLogits {
    vocab_size: usize,
    /// How the device picks the token of each row; empty on the CPU.
    picks: Vec<RowPick>,
    /// The tensor, until the rows are read; then the host's copy replaces it.
    on_device: Mutex<Option<Tensor<2>>>,
    on_host: OnceLock<Result<TensorData, String>>,
    picked: OnceLock<Result<Vec<Picked>, String>>,
}

impl DeviceLogits {
    /// Wraps logits `[rows, vocab]` of several sequences.
    pub(crate) fn of_sequences(
        logits: Tensor<2>,
        sequences: Vec<WantedRows>,
    ) -> impl Iterator<Item = Self> {
        let n_rows: Vec<usize> = sequences.iter().map(WantedRows::len).collect();
        let picks = sequences.into_iter().flat_map(WantedRows::into_picks);
        let picks = picks.collect();
        let pass = Arc::new(PassLogits::new(logits, picks));
        n_rows.into_iter().scan(0, move |end, rows| {
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
    fn new(logits: Tensor<2>, picks: Vec<RowPick>) -> Self {
        let [_, vocab_size] = logits.dims();
        Self {
            vocab_size,
            picks: if is_cpu(&logits.device()) {
                Vec::new()
            } else {
                picks_on_device(&logits, picks)
            },
            on_device: Mutex::new(Some(logits)),
            on_host: OnceLock::new(),
            picked: OnceLock::new(),
        }
    }

    /// Returns the tensor, unless its rows have been read.
    fn tensor(&self) -> std::sync::MutexGuard<'_, Option<Tensor<2>>> {
        // Every state is valid.
        let tensor = self.on_device.lock();
        tensor.unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns all rows in host memory.
    fn host_rows(&self) -> Result<&[f32], ModelError> {
        let read = self.on_host.get_or_init(|| {
            // Take the tensor instead of cloning it: with a unique owner its data is handed over
            // without a copy.
            match self.tensor().take() {
                Some(logits) => read_back(logits, LOGITS).map_err(|error| error.to_string()),
                None => Err("an earlier read failed".to_owned()),
            }
        });
        match read {
            Ok(data) => floats(data, LOGITS),
            Err(reason) => Err(failed(reason)),
        }
    }

    /// Returns the tokens that the device picked, which avoids reading all logits.
    fn picked(&self) -> Result<&[Picked], ModelError> {
        let picked = self.picked.get_or_init(|| {
            let logits = self.tensor().clone();
            let logits = logits.ok_or("the rows have already been read")?;
            read_picked(logits, &self.picks).map_err(|error| error.to_string())
        });
        picked.as_deref().map_err(|reason| failed(reason))
    }

    /// Returns whether the device picks the row's token in the way of `sampler` and `uniform`, and
    /// still has the logits.
    fn picks(&self, row: usize, sampler: &Sampler, uniform: f64) -> bool {
        let pick = self.picks.get(row);
        self.on_host.get().is_none() && pick.is_some_and(|pick| pick.is(sampler, uniform))
    }
}

/// Name of the tensor in errors of reading it.
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
        if pass.picks(self.rows.start + row, sampler, uniform) {
            let picked = pass.picked().map_err(device_error)?[self.rows.start + row];
            return if picked.sound {
                Ok(picked.token)
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

/// Reads numbers from a device, as f32.
#[cfg(feature = "cube")]
pub(crate) fn read_numbers(tensor: Tensor<1>, what: &'static str) -> Result<Vec<f32>, ModelError> {
    Ok(floats(&read_back(tensor, what)?, what)?.to_vec())
}

/// Returns the candidates in rows of several sequences, with one read-back. Each sequence gets what
/// it asks of each of its rows. On the CPU, threads share the rows.
///
/// Other devices rank by probability, even if it is known how the target will sample.
///
/// # Shapes
/// `logits` `[rows, vocab]`, columns in the order of token ids. `sequences` are pairs of a number
/// of rows and an [`Ask`]. Results `[rows, k]`.
pub(crate) fn candidates(
    logits: Tensor<2>,
    sequences: &[(usize, Ask)],
) -> Vec<Result<TopK, BoxError>> {
    let rows = if is_cpu(&logits.device()) {
        candidates_on_host(logits, sequences)
    } else {
        candidates_on_device(logits, sequences)
    };
    let mut rows = match rows {
        Ok(rows) => rows.into_iter(),
        Err(error) => {
            let reason = error.to_string();
            let failed = |_: &_| Err(BoxError::from(reason.clone()));
            return sequences.iter().map(failed).collect();
        }
    };
    let of_sequence = |&(n_rows, ask): &(usize, Ask)| {
        // Take all rows of this sequence, so that the next one gets its own.
        let rows: Vec<_> = rows.by_ref().take(n_rows).collect();
        let mut top = TopK {
            k: ask.top_k,
            ..TopK::default()
        };
        for (row, found) in rows.into_iter().enumerate() {
            top.append(found.map_err(|error| error.at_row(row))?);
        }
        Ok(top)
    };
    sequences.iter().map(of_sequence).collect()
}

/// Inserts the columns of `more` `[rows, n]` into `logits` `[rows, vocab]`.
///
/// # Arguments
/// * `columns` - indices of the inserted columns in the result; ascending.
///
/// # Errors
/// Returns [`ModelError::DeviceRead`] if the device fails.
pub(crate) fn insert_columns(
    logits: Tensor<2>,
    more: Tensor<2>,
    columns: &[usize],
) -> Result<Tensor<2>, ModelError> {
    let ([n_rows, vocab_size], [_, n_more]) = (logits.dims(), more.dims());
    let device = logits.device();
    let width = vocab_size + n_more;
    if !is_cpu(&device) {
        let mut sources: Vec<i64> = (0..).take(vocab_size).collect();
        for (&column, source) in columns.iter().zip(vocab_size as i64..) {
            sources.insert(column, source);
        }
        let sources = Tensor::<1, Int>::from_data(TensorData::new(sources, [width]), &device);
        return Ok(Tensor::cat(vec![logits, more], 1).select(1, sources));
    }
    let (logits, more) = (
        read_back(logits, DRAFT_LOGITS)?,
        read_back(more, DRAFT_LOGITS)?,
    );
    let (logits, more) = (floats(&logits, DRAFT_LOGITS)?, floats(&more, DRAFT_LOGITS)?);
    let mut joined = Vec::with_capacity(n_rows * width);
    let rows = logits.chunks_exact(vocab_size);
    for (row, more) in rows.zip(more.chunks_exact(n_more)) {
        let mut start = 0;
        for (place, (&column, &value)) in columns.iter().zip(more).enumerate() {
            joined.extend_from_slice(&row[start..column - place]);
            joined.push(value);
            start = column - place;
        }
        joined.extend_from_slice(&row[start..]);
    }
    let joined = TensorData::new(joined, [n_rows, width]);
    Ok(Tensor::from_data(joined, &device))
}

/// Name of the tensor in errors of reading it.
const DRAFT_LOGITS: &str = "draft logits";

/// The best tokens of a row.
type RowTopK = Result<TopK, LogitsError>;

/// Number of logits below which distributing rows among threads is slower.
const SERIAL_LOGITS: usize = 1 << 14;

/// Returns what is asked of each row.
fn asked_of_rows(sequences: &[(usize, Ask)]) -> Vec<Ask> {
    let rows = sequences.iter();
    rows.flat_map(|&(n_rows, ask)| std::iter::repeat_n(ask, n_rows))
        .collect()
}

fn candidates_on_host(
    logits: Tensor<2>,
    sequences: &[(usize, Ask)],
) -> Result<Vec<RowTopK>, ModelError> {
    let [_, vocab_size] = logits.dims();
    let asked = asked_of_rows(sequences);
    let mut data = read_back(logits, DRAFT_LOGITS)?;
    let rows = data.as_mut_slice::<f32>();
    let rows = rows.map_err(|error| ModelError::device_read(DRAFT_LOGITS, &error))?;
    let best = |row: usize, logits: &mut [f32]| asked[row].rank(logits, vocab_size);
    if rows.len() < SERIAL_LOGITS {
        let rows = rows.chunks_exact_mut(vocab_size).enumerate();
        return Ok(rows.map(|(row, logits)| best(row, logits)).collect());
    }
    Ok(map_rows(rows, vocab_size, best))
}

/// Returns the `k` best columns of each row of logits and their log-probabilities in f32, in
/// descending order. The results stay on the device.
///
/// # Shapes
/// `logits` `[rows, vocab]` with at least `k` columns; results `[rows, k]`.
pub(crate) fn ranked_on_device(logits: Tensor<2>, k: usize) -> (Tensor<2>, Tensor<2, Int>) {
    let log_probs = activation::log_softmax(Tensor::<2>::cast(logits, DType::F32), 1);
    log_probs.topk_with_indices(k, 1)
}

/// Checks the log-probabilities that [`ranked_on_device`] returned for row `row`.
///
/// # Errors
/// Returns [`LogitsError::NonFinite`] if the best one is not finite or any is NaN.
pub(crate) fn check_ranked(log_probs: &[f32], row: usize) -> Result<(), LogitsError> {
    // A masked token, which has -inf, comes after at least one that may be drafted.
    if log_probs[0].is_finite() && !log_probs.iter().any(|p| p.is_nan()) {
        Ok(())
    } else {
        Err(LogitsError::NonFinite { row })
    }
}

fn candidates_on_device(
    logits: Tensor<2>,
    sequences: &[(usize, Ask)],
) -> Result<Vec<RowTopK>, ModelError> {
    let [_, vocab_size] = logits.dims();
    let k_of_rows: Vec<usize> = asked_of_rows(sequences)
        .iter()
        .map(|ask| ask.top_k)
        .collect();
    let greatest = k_of_rows.iter().copied().max().unwrap_or(0).min(vocab_size);
    if greatest == 0 {
        return Ok(k_of_rows.iter().map(|_| Ok(TopK::default())).collect());
    }
    let (values, indices) = ranked_on_device(logits, greatest);
    let indices = Tensor::<2>::cast(indices.float(), DType::F32);
    let both = read_back(Tensor::cat(vec![values, indices], 1), "draft tokens")?;
    let both = floats(&both, "draft tokens")?;
    let rows = both.chunks_exact(2 * greatest).zip(k_of_rows);
    Ok(rows
        .map(|(row, k)| {
            let (log_probs, indices) = row.split_at(greatest);
            let k = k.min(greatest);
            check_ranked(log_probs, 0)?;
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
    use burn::tensor::{Device, s};
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

    #[test]
    fn columns_are_inserted_where_they_belong() {
        let device = Device::flex();
        let listed = Tensor::from_floats([[0.0, 2.0, 3.0], [10.0, 12.0, 13.0]], &device);
        let more = Tensor::from_floats([[1.0, 4.0], [11.0, 14.0]], &device);
        let joined = insert_columns(listed.clone(), more.clone(), &[1, 4]).unwrap();
        let values = joined.into_data().try_into_vec::<f32>().unwrap();
        let expected = [0.0, 1.0, 2.0, 3.0, 4.0, 10.0, 11.0, 12.0, 13.0, 14.0];
        assert_eq!(values, expected);
        let first = insert_columns(listed, more, &[0, 1]).unwrap();
        let row = first.slice(s![0..1, ..]).into_data().try_into_vec::<f32>();
        assert_eq!(row.unwrap(), [1.0, 4.0, 0.0, 2.0, 3.0]);
    }

    /// Single -inf values are tokens that must not be picked; a row that contains nothing else is
    /// broken.
    #[test]
    fn picks_on_a_device_are_those_of_logits_in_memory() {
        let best = read_picked(tensor(), &[RowPick::Best; 6]).unwrap();
        let mut host = HostLogits::new(rows().concat(), 4);
        for (row, best) in best.iter().enumerate() {
            match host.pick(row, &Sampler::Greedy, 0.0) {
                Ok(token) => assert_eq!(*best, Picked { token, sound: true }, "row {row}"),
                Err(_) => assert!(!best.sound, "row {row}"),
            }
        }
    }

    #[test]
    fn candidates_on_a_device_are_those_of_logits_in_memory() {
        let sequences = [(1, 2), (0, 4), (2, 1), (3, 9)].map(|(rows, k)| (rows, Ask::best(k)));
        let near = |a: &[f32], b: &[f32]| {
            let pairs = a.iter().zip(b);
            a.len() == b.len()
                && pairs
                    .into_iter()
                    .all(|(a, b)| a.to_bits() == b.to_bits() || (a - b).abs() < 1e-6)
        };
        let host = candidates_on_host(tensor(), &sequences).unwrap();
        let device = candidates_on_device(tensor(), &sequences).unwrap();
        for (row, (host, device)) in host.into_iter().zip(device).enumerate() {
            match (host, device) {
                (Ok(host), Ok(device)) => {
                    // Masked tokens may come last in any order.
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
        let best = |rows| WantedRows::new(None, 0..rows);
        let picks: Vec<_> = DeviceLogits::of_sequences(tensor(), [1, 3, 2].map(best).into())
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

        let asked = [(1, 2), (3, 2), (2, 9)].map(|(rows, k)| (rows, Ask::best(k)));
        let top = candidates(tensor(), &asked);
        assert_eq!(top[0].as_ref().unwrap().tokens, [1, 3]);
        let row = |top: &Result<TopK, BoxError>| {
            let error = top.as_ref().unwrap_err().to_string();
            error.split(' ').nth(1).unwrap().to_owned()
        };
        assert_eq!([row(&top[1]), row(&top[2])], ["2", "0"]);
    }
}
