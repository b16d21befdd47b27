//! What waits for the scheduler: requests, then prepared prompts. Turns go to the client with the
//! fewest answers under way, and of one client, or among equal ones, to who came first.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vispec_core::PassRows;

use super::costs::Gained;
use super::figures::SchedulerFigures;
use super::job::{Job, Ready, Turn};
use super::options::SchedulerOptions;
use crate::answer::{AnswerEnd, AnswerError};
use crate::submission::Ticket;

/// Whether the turn of a prepared prompt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It has.
    Now,
    /// Not yet, and others may go first.
    Later,
    /// Not yet, and nobody may go first.
    Blocked,
}

#[derive(Default)]
struct State {
    /// Everything ends, and nothing is taken any more.
    stopped: bool,
    unprepared: VecDeque<Job>,
    /// Of the job that is being prepared.
    preparing: Option<Arc<Ticket>>,
    ready: VecDeque<Ready>,
    /// Answers that run, by client.
    running: HashMap<u64, usize>,
    figures: SchedulerFigures,
    /// Answers so far and the time they took, for estimates.
    answered: u32,
    busy: Duration,
}

impl State {
    /// Requests of which no answer has begun.
    fn waiting(&self) -> impl Iterator<Item = &Arc<Ticket>> {
        let ready = self.ready.iter().filter(|ready| !ready.has_begun());
        let jobs = self.unprepared.iter().chain(ready.map(|ready| &ready.job));
        jobs.map(|job| &job.ticket).chain(&self.preparing)
    }

    /// Takes out the request whose turn it is to be prepared.
    fn next_job(&mut self) -> Option<Job> {
        let under_way = |client: u64| {
            let ready = self.ready.iter().map(|ready| ready.job.ticket.client());
            let ready = ready.filter(|&ready| ready == client).count();
            ready + self.running.get(&client).copied().unwrap_or(0)
        };
        let jobs = self.unprepared.iter().enumerate();
        let first = jobs.min_by_key(|(index, job)| (under_way(job.ticket.client()), *index));
        let index = first?.0;
        self.unprepared.remove(index)
    }

    /// Takes out the latest request of who has the most in line, if that is more than `client` would
    /// have with one more.
    fn displace(&mut self, client: u64) -> Option<Job> {
        let mut in_line: HashMap<u64, usize> = HashMap::new();
        for job in &self.unprepared {
            *in_line.entry(job.ticket.client()).or_default() += 1;
        }
        let own = in_line.get(&client).copied().unwrap_or(0);
        let (&greedy, _) = in_line
            .iter()
            .filter(|&(_, &count)| count > own + 1)
            .max_by_key(|&(client, count)| (*count, *client))?;
        let of_greedy = |job: &Job| job.ticket.client() == greedy;
        let index = self.unprepared.iter().rposition(of_greedy)?;
        self.unprepared.remove(index)
    }

    /// All that can be told that it ended.
    fn jobs(&self) -> impl Iterator<Item = &Job> {
        let ready = self.ready.iter().map(|ready| &ready.job);
        self.unprepared.iter().chain(ready)
    }
}

/// What waits, shared by those who submit, who prepare and who answer.
pub(crate) struct Queue {
    options: SchedulerOptions,
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    pub(super) fn new(options: SchedulerOptions) -> Self {
        Self {
            options,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    pub(super) fn options(&self) -> &SchedulerOptions {
        &self.options
    }

    /// Puts a job in line, in the place of another client's if that one takes more than its share.
    ///
    /// # Errors
    /// [`AnswerError::Busy`] if there is no place, which is what those hear that are put out, too;
    /// [`AnswerError::ShutDown`] if everything ends.
    pub(super) fn submit(&self, job: Job) -> Result<(), AnswerError> {
        let mut state = self.lock();
        if state.stopped {
            return Err(AnswerError::ShutDown);
        }
        let free = self.max_running().saturating_sub(state.figures.running);
        let places = self.options.max_waiting.saturating_add(free);
        // Those that nobody waits for any more are about to leave.
        let wanted = state.waiting().filter(|ticket| !ticket.is_cancelled());
        let waiting = wanted.count();
        let busy = AnswerError::Busy {
            waiting,
            retry_after: self.estimate(&state),
        };
        let displaced = if waiting < places {
            None
        } else {
            match state.displace(job.ticket.client()) {
                None => return Err(busy),
                displaced => displaced,
            }
        };
        state.unprepared.push_back(job);
        drop(state);
        self.changed.notify_all();
        if let Some(displaced) = displaced {
            displaced.fail(&busy);
        }
        Ok(())
    }

    pub(super) fn max_running(&self) -> usize {
        self.options.max_running.max(1)
    }

    /// Has whoever waits for something look again.
    pub(crate) fn wake(&self) {
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Ends everything.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Has everything that waits end, and all that comes.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.stopped = true;
        let unprepared = std::mem::take(&mut state.unprepared);
        let ready = std::mem::take(&mut state.ready);
        drop(state);
        self.changed.notify_all();
        let jobs = unprepared
            .into_iter()
            .chain(ready.into_iter().map(|ready| ready.job));
        jobs.for_each(|job| job.fail(&AnswerError::ShutDown));
    }

    /// The next job to prepare, when there is one and not too much is prepared; `None` when
    /// everything ends. [`put_prepared`](Self::put_prepared) must follow.
    pub(super) fn next_unprepared(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            let has_room = state.ready.len() < self.options.prepared_ahead.max(1);
            let job = has_room.then(|| state.next_job()).flatten();
            if let Some(job) = job {
                state.preparing = Some(Arc::clone(&job.ticket));
                return Some(job);
            }
            state = self.wait_for_change(state, None);
        }
    }

    /// Takes back what was prepared, if it could be.
    pub(super) fn put_prepared(&self, ready: Option<Ready>) {
        let mut state = self.lock();
        state.preparing = None;
        state.ready.extend(ready);
        drop(state);
        self.changed.notify_all();
    }

    /// Takes out what has ended while it waits.
    pub(super) fn take_ended(&self) -> Vec<(Job, AnswerEnd)> {
        let now = Instant::now();
        let mut state = self.lock();
        if state.jobs().all(|job| job.ending(now).is_none()) {
            return Vec::new();
        }
        let unprepared = std::mem::take(&mut state.unprepared);
        let ready = std::mem::take(&mut state.ready);
        let mut ended = Vec::new();
        for job in unprepared {
            match job.ending(now) {
                Some(end) => ended.push((job, end)),
                None => state.unprepared.push_back(job),
            }
        }
        for ready in ready {
            match ready.job.ending(now) {
                Some(end) => ended.push((ready.job, end)),
                None => state.ready.push_back(ready),
            }
        }
        drop(state);
        self.changed.notify_all();
        ended
    }

    /// The first answer whose turn has come by `admission`.
    pub(super) fn take_turn(&self, admission: impl Fn(&Ready) -> Admission) -> Option<Turn> {
        let mut state = self.lock();
        let mut index = 0;
        loop {
            match admission(state.ready.get(index)?) {
                Admission::Now => break,
                Admission::Later => index += 1,
                Admission::Blocked => return None,
            }
        }
        let ready = &mut state.ready[index];
        let turn = ready.next();
        if ready.job.listeners.is_empty() {
            state.ready.remove(index);
        }
        if let Some(turn) = &turn {
            state.figures.running += 1;
            *state.running.entry(turn.ticket.client()).or_default() += 1;
        }
        drop(state);
        self.changed.notify_all();
        turn
    }

    /// An answer that began has ended after so long.
    pub(super) fn note_ended(&self, ticket: &Ticket, time: Duration) {
        let mut state = self.lock();
        if let Entry::Occupied(mut running) = state.running.entry(ticket.client()) {
            *running.get_mut() -= 1;
            if *running.get() == 0 {
                running.remove();
            }
        }
        state.figures.running = state.figures.running.saturating_sub(1);
        state.answered = state.answered.saturating_add(1);
        state.busy += time;
    }

    /// Waits until something can be done while nothing runs.
    pub(super) fn wait(&self) {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let ended = state.jobs().any(|job| job.ending(now).is_some());
            if state.stopped || !state.ready.is_empty() || ended {
                return;
            }
            let deadlines = state.jobs().filter_map(|job| job.submission.deadline);
            let next = deadlines.min();
            state = self.wait_for_change(state, next);
        }
    }

    fn wait_for_change<'s>(
        &self,
        state: MutexGuard<'s, State>,
        until: Option<Instant>,
    ) -> MutexGuard<'s, State> {
        // Every state is valid.
        match until {
            None => {
                let waited = self.changed.wait(state);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
            Some(until) => {
                let time = until.saturating_duration_since(Instant::now());
                let waited = self.changed.wait_timeout(state, time);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    /// When the queue will have moved on by one, going by the mean of the answers so far.
    fn estimate(&self, state: &State) -> Duration {
        let mean = state.busy.checked_div(state.answered).unwrap_or_default();
        let per_place = mean / u32::try_from(self.max_running()).unwrap_or(1);
        per_place.clamp(Duration::from_secs(1), Duration::from_secs(60))
    }

    /// The memory for keys and values that there is.
    pub(super) fn note_budget(&self, budget: usize) {
        self.lock().figures.kv_budget = budget;
    }

    /// The memory for keys and values that is in use and reserved.
    pub(super) fn note_memory(&self, used: usize, reserved: usize) {
        let figures = &mut self.lock().figures;
        figures.kv_used = used;
        figures.kv_reserved = reserved;
    }

    pub(super) fn count_refused_for_memory(&self) {
        self.lock().figures.refused_for_memory += 1;
    }

    pub(super) fn figures(&self) -> SchedulerFigures {
        let state = self.lock();
        SchedulerFigures {
            waiting: state.waiting().count(),
            ..state.figures
        }
    }

    /// A pass has carried so many rows, and gained so much.
    pub(super) fn note_pass(&self, rows: PassRows, gained: Gained) {
        let figures = &mut self.lock().figures;
        figures.passes += 1;
        figures.prompt_rows += rows.prompt as u64;
        figures.tree_rows += rows.tree as u64;
        figures.plain_time += gained.plain;
        figures.decode_time += gained.spent;
    }

    /// Costs turned out to be wrong.
    pub(super) fn note_corrected_costs(&self) {
        self.lock().figures.cost_corrections += 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and every state is valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
