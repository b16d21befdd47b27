//! A failure ends only its own answer.

use std::ops::ControlFlow;
use std::sync::Arc;

use vispec::models::AnyDrafter;
use vispec::{AnswerCycle, AnswerError, AnswerListener, Answered, Submission};
use vispec_core::testing::{Fault, FaultyDrafter};

use crate::asked::Asked;
use crate::bounds::wait_until;
use crate::models::{engine, options};
use crate::told::Teller;

/// Where a listener panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Start,
    Cycle,
    End,
    Drop,
}

/// A listener that panics.
struct Panics(At);

impl Panics {
    fn at(&self, place: At) {
        assert!(self.0 != place, "listener panics on purpose: {place:?}");
    }
}

impl AnswerListener for Panics {
    fn on_start(&mut self, _: usize) -> ControlFlow<()> {
        self.at(At::Start);
        ControlFlow::Continue(())
    }

    fn on_cycle(&mut self, _: AnswerCycle) -> ControlFlow<()> {
        self.at(At::Cycle);
        ControlFlow::Continue(())
    }

    fn on_end(&mut self, _: Result<Answered, AnswerError>) {
        self.at(At::End);
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        self.at(At::Drop);
    }
}

#[test]
fn a_listener_that_panics_ends_its_own_answer() {
    let engine = engine(options(4));
    let asked = Asked::greedy(2, 60);
    let (teller, mut told) = Teller::new();
    let _handle = engine.submit(asked.request(), teller).unwrap();
    for place in [At::Start, At::Cycle, At::End, At::Drop] {
        let listener = Box::new(Panics(place));
        let request = Asked::greedy(0, 6).request();
        engine.submit(request, listener).unwrap().detach();
    }
    told.end().unwrap();
    assert_eq!(told.text, asked.alone());
    wait_until(&engine, |figures| figures.running + figures.waiting == 0);
    assert_eq!(engine.scheduler_figures().kv_reserved, 0);
    let mut again = engine.start(Asked::greedy(3, 5).request()).unwrap();
    assert_eq!(again.text().unwrap(), Asked::greedy(3, 5).alone());
}

#[test]
fn a_broken_drafter_ends_its_own_answer() {
    let engine = engine(options(8));
    let asked = Asked::greedy(2, 60);
    let (teller, mut told) = Teller::new();
    let _handle = engine.submit(asked.request(), teller).unwrap();
    let faults = [
        Fault::Panic,
        Fault::Error,
        Fault::WrongRoot,
        Fault::NoSuchToken,
        Fault::PanicWhileGrowing,
    ];
    let broken = faults.map(|fault| {
        let (teller, told) = Teller::new();
        let submission = Submission {
            drafter: Some(Arc::new(move || {
                AnyDrafter::Custom(Box::new(FaultyDrafter::new(fault)))
            })),
            ..Asked::greedy(0, 50).request().into()
        };
        engine.submit(submission, teller).unwrap().detach();
        (fault, told)
    });
    for (fault, mut told) in broken {
        let outcome = told.end();
        assert!(
            matches!(outcome, Err(AnswerError::Failed(_))),
            "{fault:?}: {outcome:?}"
        );
        // The text before the fault is the beginning of the answer.
        assert!(Asked::greedy(0, 50).alone().starts_with(&told.text));
    }
    told.end().unwrap();
    assert_eq!(told.text, asked.alone());
    let figures = engine.scheduler_figures();
    assert_eq!((figures.running, figures.kv_reserved), (0, 0));
}

#[test]
fn a_drafter_that_cannot_be_made_ends_its_own_answer() {
    let engine = engine(options(2));
    let (teller, mut told) = Teller::new();
    let submission = Submission {
        drafter: Some(Arc::new(|| panic!("no drafter, on purpose"))),
        ..Asked::greedy(0, 5).request().into()
    };
    engine.submit(submission, teller).unwrap().detach();
    assert!(matches!(told.end(), Err(AnswerError::Failed(_))));
    let mut answer = engine.start(Asked::greedy(0, 5).request()).unwrap();
    assert_eq!(answer.text().unwrap(), Asked::greedy(0, 5).alone());
}
