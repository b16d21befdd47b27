//! The stages of a request: submitted, prepared, and split into single answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vispec_core::{GenerationStats, Speculation};
use vispec_grammar::Grammar;
use vispec_models::{EncodeTimes, EncodedPrompt};

use super::prepare::Prepared;
use crate::answer::{AnswerEnd, AnswerError, Answered};
use crate::relay::{BoxedListener, tell_end};
use crate::request::AnswerRequest;
use crate::submission::{DrafterSource, Submission, Ticket};

/// A request for one or several answers.
pub(super) struct Job {
    pub(super) submission: Submission,
    /// Listeners of the answers that have not begun, in order.
    pub(super) listeners: VecDeque<BoxedListener>,
    pub(super) ticket: Arc<Ticket>,
}

impl Job {
    /// Returns why the job need not be answered any more, if it need not.
    pub(super) fn ending(&self, now: Instant) -> Option<AnswerEnd> {
        ending(&self.ticket, self.submission.deadline, now)
    }

    /// Reports to all listeners that their answers ended before they began.
    pub(super) fn end(self, end: AnswerEnd) {
        for listener in self.listeners {
            tell_end(listener, Ok(never_begun(end)));
        }
    }

    /// Reports to all listeners that there will be no answer.
    pub(super) fn fail(self, error: &AnswerError) {
        for listener in self.listeners {
            tell_end(listener, Err(error.clone()));
        }
    }
}

/// Returns why an answer should end, if it should.
pub(super) fn ending(
    ticket: &Ticket,
    deadline: Option<Instant>,
    now: Instant,
) -> Option<AnswerEnd> {
    if ticket.is_cancelled() {
        return Some(AnswerEnd::Cancelled);
    }
    let late = deadline.is_some_and(|deadline| deadline <= now);
    late.then_some(AnswerEnd::Deadline)
}

/// Returns the summary of an answer without tokens.
pub(super) fn never_begun(end: AnswerEnd) -> Answered {
    Answered {
        end,
        completion_tokens: 0,
        stats: GenerationStats::default(),
        speculation: Vec::new(),
        preprocess: Duration::ZERO,
        vision: Duration::ZERO,
    }
}

/// A job whose prompt is prepared. The prompt of its request has been dropped.
pub(super) struct Ready {
    pub(super) job: Job,
    prompt: Arc<EncodedPrompt>,
    /// Time spent on preparation; reported with the first answer.
    times: EncodeTimes,
    grammar: Option<Grammar>,
    /// Number of bytes that each answer may need.
    bytes: usize,
    /// Number of answers that have begun.
    begun: u32,
}

impl Ready {
    pub(super) fn new(job: Job, prepared: Prepared) -> Self {
        Self {
            job,
            prompt: Arc::new(prepared.prompt),
            times: prepared.times,
            grammar: prepared.grammar,
            bytes: prepared.bytes,
            begun: 0,
        }
    }

    pub(super) fn prompt(&self) -> &EncodedPrompt {
        &self.prompt
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns whether an answer to this prompt has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.begun > 0
    }

    /// Returns the next answer; `None` if all have begun.
    pub(super) fn next(&mut self) -> Option<Turn> {
        let listener = self.job.listeners.pop_front()?;
        let submission = &self.job.submission;
        let mut request = submission.request.clone();
        request.seed = request.seed.wrapping_add(self.begun.into());
        self.begun += 1;
        Some(Turn {
            request,
            listener,
            prompt: Arc::clone(&self.prompt),
            times: std::mem::take(&mut self.times),
            grammar: self.grammar.clone(),
            bytes: self.bytes,
            speculation: submission.speculation,
            drafter: submission.drafter.clone(),
            deadline: submission.deadline,
            ticket: Arc::clone(&self.job.ticket),
        })
    }
}

/// One answer whose turn has come.
pub(super) struct Turn {
    /// The request with the seed of this answer, without its prompt and its grammar source.
    pub(super) request: AnswerRequest,
    pub(super) listener: BoxedListener,
    pub(super) prompt: Arc<EncodedPrompt>,
    pub(super) times: EncodeTimes,
    pub(super) grammar: Option<Grammar>,
    pub(super) bytes: usize,
    pub(super) speculation: Speculation,
    pub(super) drafter: Option<DrafterSource>,
    pub(super) deadline: Option<Instant>,
    pub(super) ticket: Arc<Ticket>,
}
