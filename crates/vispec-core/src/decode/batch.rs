//! Several generations in shared passes.

use std::borrow::Borrow;
use std::fmt;
use std::time::{Duration, Instant};

use super::session::{Session, Work};
use super::stop::FinishReason;
use crate::panics::guarded;
use crate::{
    AcceptanceRule, BoxError, DecodeError, Drafter, GenerationObserver, KvCache as _, PassLoad,
    TargetModel,
};

/// Id of a sequence in a [`Batch`]; ids are never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SequenceId(u64);

/// Generations that share the passes of a target and, where possible, those of a draft.
///
/// Each sequence emits the same tokens as on its own, provided that target and drafters keep their
/// contracts. Failures are isolated: an error or a panic of a sequence's drafter, rule or observer
/// ends only that sequence.
pub struct Batch<T: TargetModel, P, D, A, O> {
    sequences: Vec<Sequence<T, P, D, A, O>>,
    next_id: u64,
}

/// A sequence and its observer.
struct Sequence<T: TargetModel, P, D, A, O> {
    id: SequenceId,
    session: Session<T, P, D, A>,
    observer: O,
    failure: Option<DecodeError>,
}

/// A sequence that has ended.
pub struct Ended<T: TargetModel, P, D, A, O> {
    /// Id of the sequence.
    pub id: SequenceId,
    /// Why the sequence ended.
    pub outcome: Result<FinishReason, DecodeError>,
    /// The generation.
    pub session: Session<T, P, D, A>,
    /// Its observer.
    pub observer: O,
}

impl<T: TargetModel, P, D, A, O> fmt::Debug for Ended<T, P, D, A, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ended")
            .field("id", &self.id)
            .field("outcome", &self.outcome)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

/// Contents of a pass.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct PassRows {
    /// Number of sequences.
    pub sequences: usize,
    /// Number of prompt rows.
    pub prompt: usize,
    /// Number of tree rows, roots included.
    pub tree: usize,
    /// Number of tokens in the caches of these sequences before the pass.
    pub context: usize,
}

/// Times of a pass.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct PassTimes {
    /// Time to draft the trees.
    pub draft: Duration,
    /// Time of the target's pass and of processing its results.
    pub target: Duration,
}

/// Result of a pass.
#[derive(Debug)]
pub struct Pass<T: TargetModel, P, D, A, O> {
    /// Contents of the pass.
    pub rows: PassRows,
    /// Times of the pass.
    pub times: PassTimes,
    /// Number of tokens emitted by all sequences.
    pub emitted: usize,
    /// Sequences that ended with the pass; they are no longer in the batch.
    pub ended: Vec<Ended<T, P, D, A, O>>,
}

impl<T: TargetModel, P, D, A, O> Default for Batch<T, P, D, A, O> {
    fn default() -> Self {
        Self {
            sequences: Vec::new(),
            next_id: 0,
        }
    }
}

impl<T: TargetModel, P, D, A, O> fmt::Debug for Batch<T, P, D, A, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.sequences.iter().map(|sequence| sequence.id);
        f.debug_list().entries(ids).finish()
    }
}

impl<T, P, D, A, O> Batch<T, P, D, A, O>
where
    T: TargetModel,
    P: Borrow<T::Prompt>,
    D: Drafter<T>,
    A: AcceptanceRule,
    O: GenerationObserver,
{
    /// Adds a generation; its work is part of the next pass.
    pub fn add(&mut self, session: Session<T, P, D, A>, observer: O) -> SequenceId {
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.sequences.push(Sequence {
            id,
            session,
            observer,
            failure: None,
        });
        id
    }

    /// Returns the number of sequences.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Returns `true` if the batch holds no sequences.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Returns the generations, oldest first.
    pub fn sessions(&self) -> impl Iterator<Item = (SequenceId, &Session<T, P, D, A>)> {
        self.sequences
            .iter()
            .map(|sequence| (sequence.id, &sequence.session))
    }

    /// Removes a generation in any state and returns it.
    pub fn remove(&mut self, id: SequenceId) -> Option<(Session<T, P, D, A>, O)> {
        let index = self.sequences.iter().position(|found| found.id == id)?;
        let Sequence {
            session, observer, ..
        } = self.sequences.remove(index);
        Some((session, observer))
    }

    /// Drafts for all decoding sequences, then runs one pass of the target for all.
    ///
    /// The pass also reads at most `prompt_rows` prompt tokens, and at least one if a prompt is
    /// waiting.
    ///
    /// Half of them go to the prompt that has waited longest, so that every prompt is eventually
    /// read; the rest go to the prompts with the fewest tokens left.
    pub fn pass(&mut self, target: &T, prompt_rows: usize) -> Pass<T, P, D, A, O> {
        let shares = self.prompt_shares(prompt_rows.max(1));
        let reading = shares.iter().filter(|&&share| share > 0).count();
        let start = Instant::now();
        self.draft(shares.iter().sum(), reading);
        let draft = start.elapsed();
        let (rows, emitted) = self.run(target, &shares);
        Pass {
            rows,
            times: PassTimes {
                draft,
                target: start.elapsed().saturating_sub(draft),
            },
            emitted,
            ended: self.take_ended(),
        }
    }

    /// Returns the number of prompt tokens that each sequence reads in this pass.
    fn prompt_shares(&self, rows: usize) -> Vec<usize> {
        let left = self.sequences.iter().map(|sequence| match sequence.work() {
            Some(Work::Prompt { left }) => left,
            _ => 0,
        });
        let mut left = Vec::from_iter(left);
        let mut shares = vec![0; left.len()];
        let mut order = Vec::from_iter((0..left.len()).filter(|&index| left[index] > 0));
        let Some(&oldest) = order.first() else {
            return shares;
        };
        let mut spare = rows;
        let mut give = |index: usize, most: usize| {
            let share = left[index].min(most).min(spare);
            shares[index] += share;
            left[index] -= share;
            spare -= share;
        };
        give(oldest, rows.div_ceil(2));
        order.sort_by_key(|&index| self.sequences[index].left());
        for index in order {
            give(index, rows);
        }
        shares
    }

    /// Drafts trees for all sequences that wait for one.
    fn draft(&mut self, prompt_rows: usize, reading: usize) {
        let decoding = |sequence: &&Sequence<T, P, D, A, O>| {
            matches!(sequence.work(), Some(Work::Draft | Work::Tree { .. }))
        };
        let sequences = self.sequences.iter().filter(decoding).count();
        let load = PassLoad {
            sequences,
            rows: prompt_rows + sequences.saturating_sub(1),
            reading,
        };
        for sequence in &mut self.sequences {
            sequence.attempt("drafting", |session, observer| {
                session.start_tree(load, observer)
            });
        }
        loop {
            let (mut growing, mut drafters) = (Vec::new(), Vec::new());
            for (index, sequence) in self.sequences.iter_mut().enumerate() {
                if let (None, Some(drafter)) = (&sequence.failure, sequence.session.growing()) {
                    growing.push(index);
                    drafters.push(drafter);
                }
            }
            if growing.is_empty() {
                return;
            }
            let proposals = guarded("drafting", || D::grow_together(&mut drafters));
            let proposals = match proposals {
                Ok(proposals) => proposals,
                Err(panicked) => repeated(growing.len(), &panicked),
            };
            let mut proposals = proposals.into_iter();
            for index in growing {
                let proposal = proposals.next();
                let proposal =
                    proposal.unwrap_or_else(|| Err("the drafter returned no tree".into()));
                self.sequences[index].attempt("observing a draft", |session, observer| {
                    session.take_proposal(proposal, observer)
                });
            }
        }
    }

    /// Runs one pass of the target; returns its rows and the number of tokens emitted.
    fn run(&mut self, target: &T, shares: &[usize]) -> (PassRows, usize) {
        let mut rows = PassRows::default();
        let (mut carried, mut segments) = (Vec::new(), Vec::new());
        for (index, sequence) in self.sequences.iter_mut().enumerate() {
            let share = match sequence.work() {
                Some(Work::Prompt { .. }) if shares[index] > 0 => shares[index],
                Some(Work::Tree { nodes }) => {
                    rows.tree += nodes;
                    0
                }
                _ => continue,
            };
            rows.prompt += share;
            rows.context += sequence.session.cache().len();
            if let Some(segment) = sequence.session.segment(share) {
                carried.push(index);
                segments.push(segment);
            }
        }
        rows.sequences = carried.len();
        if carried.is_empty() {
            return (rows, 0);
        }
        let outputs = guarded("the target", || target.forward(&mut segments));
        let outputs = outputs.unwrap_or_else(|panicked| repeated(carried.len(), &panicked));
        let mut outputs = outputs.into_iter();
        let mut emitted = 0;
        for index in carried {
            let output = outputs.next();
            let output = output.unwrap_or_else(|| Err("the pass returned no result".into()));
            self.sequences[index].attempt("taking a pass's result", |session, observer| {
                let step = session.complete(target, output, observer)?;
                emitted += step.map_or(0, |step| step.tokens.len());
                Ok(())
            });
        }
        (rows, emitted)
    }

    fn take_ended(&mut self) -> Vec<Ended<T, P, D, A, O>> {
        let has_ended = |sequence: &mut Sequence<T, P, D, A, O>| {
            sequence.failure.is_some() || sequence.session.finish_reason().is_some()
        };
        let ended = self.sequences.extract_if(.., has_ended);
        let ended = ended.map(|sequence| Ended {
            id: sequence.id,
            outcome: match (sequence.failure, sequence.session.finish_reason()) {
                (None, Some(reason)) => Ok(reason),
                (failure, _) => Err(failure.unwrap_or(DecodeError::SessionFailed)),
            },
            session: sequence.session,
            observer: sequence.observer,
        });
        ended.collect()
    }
}

impl<T, P, D, A, O> Sequence<T, P, D, A, O>
where
    T: TargetModel,
    P: Borrow<T::Prompt>,
    D: Drafter<T>,
    A: AcceptanceRule,
    O: GenerationObserver,
{
    /// Returns the work that the sequence waits for; `None` after a failure.
    fn work(&self) -> Option<Work> {
        match self.failure {
            None => self.session.work().ok(),
            Some(_) => None,
        }
    }

    /// Returns the number of prompt tokens not yet read.
    fn left(&self) -> usize {
        match self.work() {
            Some(Work::Prompt { left }) => left,
            _ => 0,
        }
    }

    /// Runs `work` on the session; an error or a panic ends this sequence.
    fn attempt(
        &mut self,
        during: &'static str,
        work: impl FnOnce(
            &mut Session<T, P, D, A>,
            &mut dyn GenerationObserver,
        ) -> Result<(), DecodeError>,
    ) {
        if self.failure.is_some() {
            return;
        }
        let done = guarded(during, || work(&mut self.session, &mut self.observer));
        self.failure = match done {
            Ok(done) => done.err(),
            Err(panicked) => Some(panicked.into()),
        };
    }
}

/// Repeats the error of a whole pass for each sequence.
fn repeated<R>(n: usize, error: &(impl Clone + Into<BoxError>)) -> Vec<Result<R, BoxError>> {
    (0..n).map(|_| Err(error.clone().into())).collect()
}
