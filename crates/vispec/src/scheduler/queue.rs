//! The queue of the scheduler: requests, then prepared prompts. Clients that ask at the same time
//! have equal shares of the places and take turns. Requests of one client are served in order.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vispec_core::PassRows;

use super::costs::Gained;
use super::figures::SchedulerFigures;
use super::job::{Job, Ready, Turn};
use super::options::SchedulerOptions;
use super::prepare::Lane;
use super::turns::Turns;
use crate::answer::{AnswerEnd, AnswerError};
use crate::submission::Ticket;

/// Decision whether a prepared prompt may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It may run now.
    Now,
    /// It may not run yet, but others may go first.
    Later,
    /// It may not run yet, and no other may go first.
    Blocked,
}

/// Interval at which the clients' shares are checked again.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

#[derive(Default)]
struct State {
    /// Everything ends, and no more requests are accepted.
    stopped: bool,
    unprepared: VecDeque<Job>,
    /// Tickets of the jobs that are being prepared.
    preparing: Vec<Arc<Ticket>>,
    ready: VecDeque<Ready>,
    turns: Turns,
    figures: SchedulerFigures,
    /// Number of finished answers and their total time, for estimates.
    answered: u32,
    busy: Duration,
}

impl State {
    /// Returns the tickets of requests for which no answer has begun.
    fn waiting(&self) -> impl Iterator<Item = &Arc<Ticket>> {
        let ready = self.ready.iter().filter(|ready| !ready.has_begun());
        let jobs = self.unprepared.iter().chain(ready.map(|ready| &ready.job));
        jobs.map(|job| &job.ticket).chain(&self.preparing)
    }

    /// Returns the share of `places` of each client that has requests here or had some recently.
    fn share(&mut self, places: usize) -> usize {
        let now = Instant::now();
        let ready = self.ready.iter().map(|ready| &ready.job);
        for job in self.unprepared.iter().chain(ready) {
            self.turns.note_seen(job.ticket.client(), now);
        }
        self.turns.share(places, now)
    }

    /// Removes the request to prepare next on a lane. Only clients with less than their share in
    /// progress are considered.
    fn next_job(&mut self, lane: Lane, places: usize) -> Option<Job> {
        // Running, prepared or being prepared.
        let share = self.share(places);
        let ready = self.ready.iter().map(|ready| &ready.job.ticket);
        let mut ahead: HashMap<u64, usize> = HashMap::new();
        for ticket in ready.chain(&self.preparing) {
            *ahead.entry(ticket.client()).or_default() += 1;
        }
        let under_way = |client: u64| {
            let ahead = ahead.get(&client).copied().unwrap_or(0);
            ahead + self.turns.running(client)
        };
        let jobs = self.unprepared.iter().enumerate();
        let first = jobs
            .filter(|(_, job)| lane.takes(job))
            .map(|(index, job)| (index, job.ticket.client()))
            .filter(|&(_, client)| under_way(client) < share)
            .min_by_key(|&(index, client)| {
                (under_way(client), self.turns.last_turn(client), index)
            });
        let (index, client) = first?;
        self.turns.note_turn(client, Instant::now());
        self.unprepared.remove(index)
    }

    /// Removes the newest request of the client with the most waiting requests, if it has more than
    /// `client` would have with one more.
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

    /// Returns all jobs in the queue, prepared or not.
    fn jobs(&self) -> impl Iterator<Item = &Job> {
        let ready = self.ready.iter().map(|ready| &ready.job);
        self.unprepared.iter().chain(ready)
    }
}

/// Waiting requests, shared by the threads that submit, prepare and answer.
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

    /// Queues a job. If the queue is full, it may displace a job of a client that has more than its
    /// share.
    ///
    /// # Errors
    /// Returns [`AnswerError::Busy`] if there is no place, which is also the error of displaced
    /// jobs; [`AnswerError::ShutDown`] if the queue is stopped.
    pub(super) fn submit(&self, job: Job) -> Result<(), AnswerError> {
        let mut state = self.lock();
        if state.stopped {
            return Err(AnswerError::ShutDown);
        }
        let free = self.max_running().saturating_sub(state.figures.running);
        let places = self.options.max_waiting.saturating_add(free);
        // Cancelled requests are about to leave the queue.
        let wanted = state.waiting().filter(|ticket| !ticket.is_cancelled());
        let waiting = wanted.count();
        let client = job.ticket.client();
        state.turns.note_seen(client, Instant::now());
        let busy = AnswerError::Busy {
            waiting,
            retry_after: self.estimate(&state),
        };
        let displaced = if waiting < places {
            None
        } else {
            match state.displace(client) {
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

    /// Wakes all waiting threads to check the queue again.
    pub(crate) fn wake(&self) {
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Stops the queue.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Stops the queue and fails everything that waits.
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

    /// Waits for the next job to prepare on a lane, which comes once there is room for prepared
    /// prompts. Returns `None` when the queue is stopped. A call of
    /// [`put_prepared`](Self::put_prepared) must follow.
    pub(super) fn next_unprepared(&self, lane: Lane) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            let ahead = self.options.prepared_ahead.max(1);
            let places = self.max_running().saturating_add(ahead);
            let has_room = state.ready.len() < ahead;
            let job = has_room.then(|| state.next_job(lane, places));
            if let Some(job) = job.flatten() {
                state.preparing.push(Arc::clone(&job.ticket));
                return Some(job);
            }
            // Shares grow with time.
            let waits = !state.unprepared.is_empty();
            let until = waits.then(|| Instant::now() + LOOK_AGAIN);
            state = self.wait_for_change(state, until);
        }
    }

    /// Takes the result of preparing a job; `None` if preparation failed or the job ended.
    pub(super) fn put_prepared(&self, ticket: &Arc<Ticket>, ready: Option<Ready>) {
        let mut state = self.lock();
        state
            .preparing
            .retain(|preparing| !Arc::ptr_eq(preparing, ticket));
        state.ready.extend(ready);
        drop(state);
        self.changed.notify_all();
    }

    /// Removes the jobs that have ended while waiting.
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

    /// Removes the first answer that `admission` lets run.
    pub(super) fn take_turn(&self, admission: impl Fn(&Ready) -> Admission) -> Option<Turn> {
        let mut state = self.lock();
        let share = state.share(self.max_running());
        let mut index = 0;
        loop {
            let ready = state.ready.get(index)?;
            let running = state.turns.running(ready.job.ticket.client());
            let admission = if running < share {
                admission(ready)
            } else {
                Admission::Later
            };
            match admission {
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
            let client = turn.ticket.client();
            state.turns.note_began(client, Instant::now());
        }
        drop(state);
        self.changed.notify_all();
        turn
    }

    /// Records that a running answer has ended after `time`.
    pub(super) fn note_ended(&self, ticket: &Ticket, time: Duration) {
        let mut state = self.lock();
        state.turns.note_ended(ticket.client(), Instant::now());
        state.figures.running = state.figures.running.saturating_sub(1);
        state.answered = state.answered.saturating_add(1);
        state.busy += time;
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until there is something to do. Called while nothing runs.
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

    /// Estimates when the queue will have advanced by one, from the mean time of the answers so
    /// far.
    fn estimate(&self, state: &State) -> Duration {
        let mean = state.busy.checked_div(state.answered).unwrap_or_default();
        let per_place = mean / u32::try_from(self.max_running()).unwrap_or(1);
        per_place.clamp(Duration::from_secs(1), Duration::from_secs(60))
    }

    /// Records the memory available for keys and values.
    pub(super) fn note_budget(&self, budget: usize) {
        self.lock().figures.kv_budget = budget;
    }

    /// Records the memory for keys and values that is used and reserved.
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

    /// Records the rows of a pass and the time it gained.
    pub(super) fn note_pass(&self, rows: PassRows, gained: Gained) {
        let figures = &mut self.lock().figures;
        figures.passes += 1;
        figures.prompt_rows += rows.prompt as u64;
        figures.tree_rows += rows.tree as u64;
        figures.plain_time += gained.plain;
        figures.decode_time += gained.spent;
    }

    /// Records that costs turned out to be wrong.
    pub(super) fn note_corrected_costs(&self) {
        self.lock().figures.cost_corrections += 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while holding the lock, and every state is valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
