//! A listener that forwards its events, and the receiving end.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use vispec::{AnswerCycle, AnswerEnd, AnswerError, AnswerListener, Answered};

/// Timeout that is long enough for anything here.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub enum Event {
    Started(usize, Instant),
    Cycle(AnswerCycle, Instant),
    Ended(Result<Answered, AnswerError>),
}

/// Forwards its events; ends its answer after a number of cycles.
pub struct Teller {
    events: Sender<Event>,
    cycles_left: usize,
    /// Extra time that each cycle takes.
    pause: Duration,
}

/// The receiving end of a [`Teller`].
#[derive(Debug)]
pub struct Told {
    events: Receiver<Event>,
    /// The text so far.
    pub text: String,
    pub prompt_tokens: Option<usize>,
    pub started: Option<Instant>,
    /// Times of the cycles.
    pub times: Vec<Instant>,
    outcome: Option<Result<Answered, AnswerError>>,
}

impl Teller {
    pub fn new() -> (Box<Self>, Told) {
        Self::until(usize::MAX)
    }

    /// Takes extra time for each cycle, so that its answer is still in progress when a test looks.
    pub fn slow() -> (Box<Self>, Told) {
        let (mut teller, told) = Self::new();
        teller.pause = Duration::from_millis(2);
        (teller, told)
    }

    /// Ends its answer after `cycles_left` cycles.
    pub fn until(cycles_left: usize) -> (Box<Self>, Told) {
        let (sender, events) = channel();
        let teller = Self {
            events: sender,
            cycles_left,
            pause: Duration::ZERO,
        };
        let told = Told {
            events,
            text: String::new(),
            prompt_tokens: None,
            started: None,
            times: Vec::new(),
            outcome: None,
        };
        (Box::new(teller), told)
    }
}

impl AnswerListener for Teller {
    fn on_start(&mut self, prompt_tokens: usize) -> ControlFlow<()> {
        let _ = self
            .events
            .send(Event::Started(prompt_tokens, Instant::now()));
        ControlFlow::Continue(())
    }

    fn on_cycle(&mut self, cycle: AnswerCycle) -> ControlFlow<()> {
        let _ = self.events.send(Event::Cycle(cycle, Instant::now()));
        std::thread::sleep(self.pause);
        self.cycles_left = self.cycles_left.saturating_sub(1);
        if self.cycles_left == 0 {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn on_end(&mut self, outcome: Result<Answered, AnswerError>) {
        let _ = self.events.send(Event::Ended(outcome));
    }
}

impl Told {
    /// Waits for an event; returns whether it is a cycle.
    fn hear(&mut self) -> bool {
        match self.events.recv_timeout(PATIENCE).unwrap() {
            Event::Started(tokens, time) => {
                self.started = Some(time);
                assert_eq!(self.prompt_tokens.replace(tokens), None, "started twice");
                false
            }
            Event::Cycle(cycle, time) => {
                self.times.push(time);
                self.text.push_str(&cycle.text());
                true
            }
            Event::Ended(outcome) => {
                self.outcome = Some(outcome);
                false
            }
        }
    }

    /// Waits for `n_cycles` cycles, or for the end.
    pub fn cycles(&mut self, mut n_cycles: usize) {
        while n_cycles > 0 && self.outcome.is_none() {
            n_cycles -= usize::from(self.hear());
        }
    }

    /// Waits for a cycle of an answer that must not end before.
    pub fn cycle(&mut self) {
        self.cycles(1);
        assert!(self.outcome.is_none(), "{:?}", self.outcome);
    }

    /// Waits for the end.
    pub fn end(&mut self) -> Result<Answered, AnswerError> {
        self.cycles(usize::MAX);
        // The listener is dropped, so no more events can come.
        assert!(self.events.recv_timeout(PATIENCE).is_err());
        self.outcome.take().unwrap()
    }

    /// Waits for the end, which must be of this kind.
    pub fn ends(&mut self, end: AnswerEnd) -> Answered {
        let answered = self.end().unwrap();
        assert_eq!(answered.end, end);
        answered
    }
}
