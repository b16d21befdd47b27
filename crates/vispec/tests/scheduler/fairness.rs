//! One client with many requests does not keep others waiting for all of them.

use vispec::{AnswerError, AnswerRequest, Engine, SchedulerOptions, Submission, SubmissionHandle};

use crate::asked::Asked;
use crate::bounds::wait_until;
use crate::models::{engine, options};
use crate::told::{Teller, Told};

fn ask(engine: &Engine, client: u64, request: AnswerRequest) -> (Told, SubmissionHandle) {
    let (teller, told) = Teller::new();
    let submission = Submission {
        client,
        ..request.into()
    };
    (told, engine.submit(submission, teller).unwrap())
}

/// Returns an engine for one answer at a time, whose place a request of client 1 holds.
fn held(max_waiting: usize) -> (Engine, SubmissionHandle) {
    let engine = engine(SchedulerOptions {
        max_waiting,
        prepared_ahead: 1,
        ..options(1)
    });
    let (mut first, handle) = ask(&engine, 1, Asked::hold());
    first.cycle();
    (engine, handle)
}

#[test]
fn turns_go_to_who_has_the_fewest_answers_under_way() {
    let (engine, holding) = held(8);
    let small = || Asked::greedy(0, 4).request();
    let mut ones = [(); 3].map(|()| ask(&engine, 1, small()));
    wait_until(&engine, |figures| figures.waiting == 3);
    // One prompt of client 1 may already be prepared; it comes first, and the others last.
    let mut twos = [(); 2].map(|()| ask(&engine, 2, small()));
    holding.cancel();
    let mut began = |told: &mut (Told, _)| {
        told.0.end().unwrap();
        told.0.started.unwrap()
    };
    let ones = ones.each_mut().map(&mut began);
    let twos = twos.each_mut().map(&mut began);
    assert!(ones[0] < ones[1] && ones[1] < ones[2]);
    assert!(twos[0] < twos[1]);
    assert!(twos[0] < ones[1], "{ones:?} {twos:?}");
    assert!(twos[1] < ones[2], "{ones:?} {twos:?}");
}

#[test]
fn who_takes_all_places_gives_one_up() {
    let (engine, holding) = held(4);
    let small = || Asked::greedy(0, 4).request();
    let mut ones = Vec::from_iter((0..4).map(|_| ask(&engine, 1, small())));
    wait_until(&engine, |figures| figures.waiting == 4);
    let (mut two, _two) = ask(&engine, 2, small());
    // The newest request of client 1 is refused with `Busy`.
    let (mut latest, _latest) = ones.pop().unwrap();
    assert!(matches!(latest.end(), Err(AnswerError::Busy { .. })));
    // No client gives up a place to a client with as many requests.
    let (teller, _told) = Teller::new();
    let again = Submission {
        client: 1,
        ..small().into()
    };
    let refused = engine.submit(again, teller);
    assert!(matches!(refused, Err(AnswerError::Busy { .. })));
    holding.cancel();
    two.end().unwrap();
    for (mut told, _handle) in ones {
        told.end().unwrap();
    }
}
