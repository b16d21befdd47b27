//! What ranks settle among themselves before any of them goes on.

use std::fmt::Display;
use std::ops::Range;
use std::rc::Rc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::communicator::{Communicator, OneProcess};
use crate::error::TrainError;

/// What failed on a rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankFailure {
    /// The rank, from 0.
    pub rank: usize,
    /// What it says, or what the others say of it.
    pub message: String,
}

/// The ranks of a run, one of which is this process.
#[derive(Debug, Clone)]
pub struct Ranks(Rc<dyn Communicator>);

/// Texts are tables at their top.
#[derive(Serialize, Deserialize)]
struct Said<T> {
    value: T,
}

impl Ranks {
    /// One process by itself.
    #[must_use]
    pub fn alone() -> Self {
        Self::new(OneProcess)
    }

    /// Ranks that reach each other in some way.
    #[must_use]
    pub fn new(communicator: impl Communicator + 'static) -> Self {
        Self(Rc::new(communicator))
    }

    /// Number of this rank, from 0.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.0.rank()
    }

    /// Number of ranks.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        self.0.count()
    }

    /// Whether this is the rank that evaluates and writes.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Which of `n` things this rank does: contiguous, in the order of ranks, and as equal as they can
    /// be.
    #[must_use]
    pub(crate) fn share(&self, n: usize) -> Range<usize> {
        let (rank, count) = (self.rank(), self.count());
        n * rank / count..n * (rank + 1) / count
    }

    /// Ends the other ranks, because this one failed in a way that they do not know of.
    pub fn abandon(&self) {
        self.0.abandon();
    }

    /// What each rank says, in the order of ranks.
    ///
    /// # Errors
    /// [`TrainError::Ranks`] if a rank says what this program does not understand.
    pub(crate) fn gather<T: Serialize + DeserializeOwned>(
        &self,
        value: T,
    ) -> Result<Vec<T>, TrainError> {
        if self.count() == 1 {
            return Ok(vec![value]);
        }
        // TOML, whose readers give back every float exactly. What cannot be written is understood
        // by nobody, and fails on all ranks.
        let own = toml::to_string(&Said { value }).unwrap_or_default();
        let all = self.0.gather(own.as_bytes());
        let read = |(rank, bytes): (usize, &Vec<u8>)| {
            let said = std::str::from_utf8(bytes).map_err(|error| error.to_string());
            let said = said.and_then(|text| {
                toml::from_str::<Said<T>>(text).map_err(|error| error.message().to_owned())
            });
            said.map(|said| said.value).map_err(|reason| RankFailure {
                rank,
                message: format!("says something that is not understood ({reason})"),
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

    /// What a rank did by itself, if all ranks succeeded; otherwise what failed, on all ranks.
    ///
    /// # Errors
    /// With one rank its own; with several [`TrainError::Ranks`].
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

    /// What the first rank, which alone does this, finds; nothing on the others.
    ///
    /// # Errors
    /// As [`Ranks::all_succeed`].
    pub(crate) fn on_first<T>(
        &self,
        work: impl FnOnce() -> Result<T, TrainError>,
    ) -> Result<Option<T>, TrainError> {
        self.all_succeed(self.is_first().then(work).transpose())
    }

    /// What the first rank, which alone does this, finds, if it finds something; on all ranks.
    ///
    /// # Errors
    /// As [`Ranks::all_succeed`].
    pub(crate) fn first_found<T: Serialize + DeserializeOwned>(
        &self,
        work: impl FnOnce() -> Result<Option<T>, TrainError>,
    ) -> Result<Option<T>, TrainError> {
        let found: Vec<T> = self.on_first(work)?.flatten().into_iter().collect();
        Ok(self.gather(found)?.into_iter().flatten().next())
    }

    /// Whether it is so on any rank.
    ///
    /// # Errors
    /// As [`Ranks::gather`].
    pub(crate) fn any(&self, own: bool) -> Result<bool, TrainError> {
        Ok(self.gather(own)?.contains(&true))
    }

    /// Fails on all ranks if one has something else than the first.
    ///
    /// # Arguments
    /// * `own` - what this rank has; asked only if there are several.
    /// * `difference` - what to say of a rank, from what the first and that rank have.
    ///
    /// # Errors
    /// [`TrainError::Ranks`].
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

/// Failures, each said once with the ranks that it is of.
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
