//! Agreement among ranks: exchange of results and failures.

use std::fmt::Display;
use std::ops::Range;
use std::rc::Rc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::communicator::{Communicator, OneProcess};
use crate::error::TrainError;

/// A failure of a rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankFailure {
    /// The rank, from 0.
    pub rank: usize,
    /// The rank's error, or what the other ranks found wrong with it.
    pub message: String,
}

/// The ranks of a run, one of which is this process.
#[derive(Debug, Clone)]
pub struct Ranks(Rc<dyn Communicator>);

/// Wraps a value, because the top level of a TOML text is a table.
#[derive(Serialize, Deserialize)]
struct Said<T> {
    value: T,
}

impl Ranks {
    /// Returns the only rank of a run in one process.
    #[must_use]
    pub fn alone() -> Self {
        Self::new(OneProcess)
    }

    /// Creates ranks that communicate through `communicator`.
    #[must_use]
    pub fn new(communicator: impl Communicator + 'static) -> Self {
        Self(Rc::new(communicator))
    }

    /// Returns the number of this rank, from 0.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.0.rank()
    }

    /// Returns the number of ranks.
    pub(crate) fn count(&self) -> usize {
        self.0.count()
    }

    /// Returns whether this is the rank that evaluates and writes.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Returns this rank's share of `n` items. Shares are contiguous, in the order of ranks, and as
    /// equal in size as possible.
    pub(crate) fn share(&self, n: usize) -> Range<usize> {
        let (rank, count) = (self.rank(), self.count());
        n * rank / count..n * (rank + 1) / count
    }

    /// Ends the other ranks, because this one failed without their knowing.
    pub fn abandon(&self) {
        self.0.abandon();
    }

    /// Returns the values of all ranks, in the order of ranks.
    ///
    /// # Errors
    /// [`TrainError::Ranks`] if the message of a rank cannot be parsed.
    pub(crate) fn gather<T: Serialize + DeserializeOwned>(
        &self,
        value: T,
    ) -> Result<Vec<T>, TrainError> {
        if self.count() == 1 {
            return Ok(vec![value]);
        }
        // TOML, because it preserves every float exactly. A value that cannot be serialised cannot
        // be parsed by any rank, and so fails on all.
        let own = toml::to_string(&Said { value }).unwrap_or_default();
        let all = self.0.gather(own.as_bytes());
        let read = |(rank, bytes): (usize, &Vec<u8>)| {
            let said = std::str::from_utf8(bytes).map_err(|error| error.to_string());
            let said = said.and_then(|text| {
                toml::from_str::<Said<T>>(text).map_err(|error| error.message().to_owned())
            });
            said.map(|said| said.value).map_err(|reason| RankFailure {
                rank,
                message: format!("sent a message that cannot be parsed ({reason})"),
            })
        };
        let mut values = Vec::with_capacity(all.len());
        let mut failures = Vec::new();
        for said in all.iter().enumerate().map(read) {
            match said {
                Ok(value) => values.push(value),
                Err(failure) => failures.push(failure),
            }
        }
        none_of(failures)?;
        Ok(values)
    }

    /// Returns this rank's result if all ranks succeeded. Otherwise fails on all ranks.
    ///
    /// # Errors
    /// With one rank, its own error. With several, [`TrainError::Ranks`].
    pub fn all_succeed<T, E>(&self, own: Result<T, E>) -> Result<T, E>
    where
        E: Display + From<TrainError>,
    {
        if self.count() == 1 {
            return own;
        }
        let failure = own.as_ref().err().map(|error| format!("{error:#}"));
        let failures = self.gather(failure.into_iter().collect::<Vec<_>>())?;
        let failures = failures
            .into_iter()
            .enumerate()
            .flat_map(|(rank, of_rank)| {
                let failure = move |message| RankFailure { rank, message };
                of_rank.into_iter().map(failure)
            });
        none_of(failures.collect())?;
        own
    }

    /// Does `work` on the first rank only, and returns its result there and `None` on the others.
    ///
    /// # Errors
    /// Same as [`Ranks::all_succeed`].
    pub(crate) fn on_first<T>(
        &self,
        work: impl FnOnce() -> Result<T, TrainError>,
    ) -> Result<Option<T>, TrainError> {
        self.all_succeed(self.is_first().then(work).transpose())
    }

    /// Does `work` on the first rank only, and returns its result on all ranks.
    ///
    /// # Errors
    /// Same as [`Ranks::all_succeed`].
    pub(crate) fn first_found<T: Serialize + DeserializeOwned>(
        &self,
        work: impl FnOnce() -> Result<Option<T>, TrainError>,
    ) -> Result<Option<T>, TrainError> {
        let found: Vec<T> = self.on_first(work)?.flatten().into_iter().collect();
        Ok(self.gather(found)?.into_iter().flatten().next())
    }

    /// Returns whether `own` is true on any rank.
    ///
    /// # Errors
    /// Same as [`Ranks::gather`].
    pub(crate) fn any(&self, own: bool) -> Result<bool, TrainError> {
        Ok(self.gather(own)?.contains(&true))
    }

    /// Fails on all ranks if the value of any rank differs from that of the first.
    ///
    /// # Arguments
    /// * `own` - computes the value of this rank; called only if there are several ranks.
    /// * `difference` - makes the message for a rank, from the value of the first rank and its own.
    ///
    /// # Errors
    /// [`TrainError::Ranks`] if values differ, and any error of `own`.
    pub fn require_equal<T: Serialize + DeserializeOwned + PartialEq>(
        &self,
        own: impl FnOnce() -> Result<T, TrainError>,
        difference: impl Fn(&T, &T) -> String,
    ) -> Result<(), TrainError> {
        if self.count() == 1 {
            return Ok(());
        }
        let own = self.all_succeed(own())?;
        let all = self.gather(own)?;
        let others = all
            .iter()
            .enumerate()
            .filter(|(_, of_rank)| **of_rank != all[0]);
        let failures = others.map(|(rank, of_rank)| RankFailure {
            rank,
            message: difference(&all[0], of_rank),
        });
        none_of(failures.collect())
    }

    pub(super) fn chain(&self, bytes: &mut [u8], add: &mut dyn FnMut(usize, &mut [u8])) {
        self.0.chain(bytes, add);
    }
}

fn none_of(failures: Vec<RankFailure>) -> Result<(), TrainError> {
    if failures.is_empty() {
        return Ok(());
    }
    Err(TrainError::Ranks { failures })
}

/// Lists failures, one line per message with all the ranks that it applies to.
pub(crate) fn list(failures: &[RankFailure]) -> String {
    let mut said: Vec<(String, &str)> = Vec::new();
    for failure in failures {
        match said
            .iter_mut()
            .find(|(_, message)| *message == failure.message)
        {
            Some((ranks, _)) => *ranks = format!("{ranks}, {}", failure.rank),
            None => said.push((failure.rank.to_string(), &failure.message)),
        }
    }
    let line = |(ranks, message): &(String, &str)| format!("rank {ranks}: {message}");
    said.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ranks_have_in_common_is_said_once() {
        let failure = |rank, message: &str| RankFailure {
            rank,
            message: message.to_owned(),
        };
        let failures = [
            failure(0, "no file"),
            failure(1, "late"),
            failure(2, "no file"),
        ];
        assert_eq!(list(&failures), "rank 0, 2: no file\nrank 1: late");
    }

    #[test]
    fn one_rank_keeps_its_own_error() {
        let own = TrainError::NoSamples {
            found: 1,
            held_out: 1,
        };
        let found = Ranks::alone().all_succeed::<(), _>(Err(own)).unwrap_err();
        assert!(matches!(found, TrainError::NoSamples { .. }));
        assert_eq!(Ranks::alone().share(7), 0..7);
    }
}
