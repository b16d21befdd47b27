//! Requests that do not fit wait or are refused.

use std::time::Duration;

use vispec::core::Prompt as _;
use vispec::{
    AnswerEnd, AnswerError, AnswerRequest, Engine, KvMemory, SchedulerFigures, SchedulerOptions,
};

use crate::asked::Asked;
use crate::models::{engine, options};
use crate::told::{Teller, Told};

pub fn wait_until(engine: &Engine, wanted: impl Fn(&SchedulerFigures) -> bool) {
    for _ in 0..10_000 {
        if wanted(&engine.scheduler_figures()) {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("{:?}", engine.scheduler_figures());
}

/// Returns an engine with memory for `tokens` tokens, trees included.
fn with_room_for(tokens: usize, max_running: usize) -> Engine {
    let any = engine(options(1));
    let method = any.drafting().method;
    let nodes = vispec::TreeShape::default().max_nodes();
    let bytes = any.models().sequence_bytes(method, tokens + nodes);
    engine(SchedulerOptions {
        kv_memory: KvMemory::Bytes(bytes),
        ..options(max_running)
    })
}

fn prompt_tokens(engine: &Engine, asked: &Asked) -> usize {
    let vispec::AnswerPrompt::Text(text) = asked.request().prompt else {
        panic!("a text was expected")
    };
    let (prompt, _) = engine.models().encode_text(&text, &|| true).unwrap();
    prompt.token_ids().len()
}

#[test]
fn what_can_never_fit_is_refused_with_what_it_needs() {
    let engine = with_room_for(1200, 2);
    let large = Asked::greedy(0, 2000);
    let (teller, mut told) = Teller::new();
    let _handle = engine.submit(large.request(), teller).unwrap();
    let error = told.end().unwrap_err();
    let AnswerError::TooLarge {
        tokens,
        needed,
        budget,
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(tokens, 2000 + prompt_tokens(&engine, &large));
    assert_eq!(budget, engine.scheduler_figures().kv_budget);
    assert!(needed > budget);
    assert_eq!(told.prompt_tokens, None, "it must not have begun");
    assert_eq!(engine.scheduler_figures().refused_for_memory, 1);
    // The context limits what an answer can need.
    let unbounded = Asked::greedy(0, usize::MAX);
    let (teller, mut told) = Teller::new();
    let _handle = engine.submit(unbounded.request(), teller).unwrap();
    assert!(matches!(
        told.end(),
        Err(AnswerError::TooLarge { tokens: 4096, .. })
    ));

    let (teller, mut told) = Teller::new();
    let small = Asked::greedy(0, 9);
    let _handle = engine.submit(small.request(), teller).unwrap();
    told.end().unwrap();
    assert_eq!(told.text, small.alone());
}

#[test]
fn what_fits_later_waits_and_is_not_overtaken() {
    let engine = with_room_for(1200, 8);
    let ask = |asked: &Asked| -> (Told, _) {
        let (teller, told) = Teller::new();
        (told, engine.submit(asked.request(), teller).unwrap())
    };
    let (teller, mut first) = Teller::slow();
    let held = AnswerRequest {
        max_new_tokens: 900,
        ..Asked::hold()
    };
    let first_handle = engine.submit(held, teller).unwrap();
    // Memory is recorded after each pass.
    first.cycles(2);
    // The large one does not fit next to the first; the small one would.
    let (large, small) = (Asked::greedy(1, 500), Asked::greedy(0, 8));
    let (mut large_told, _large) = ask(&large);
    let (mut small_told, _small) = ask(&small);
    wait_until(&engine, |figures| {
        (figures.running, figures.waiting) == (1, 2)
    });
    let figures = engine.scheduler_figures();
    assert!(0 < figures.kv_used && figures.kv_used <= figures.kv_reserved);
    assert!(figures.kv_reserved <= figures.kv_budget);
    first_handle.cancel();
    first.ends(AnswerEnd::Cancelled);
    large_told.cycle();
    small_told.end().unwrap();
    large_told.end().unwrap();
    assert_eq!(small_told.text, small.alone());
    assert_eq!(large_told.text, large.alone());
    assert_eq!(engine.scheduler_figures().kv_reserved, 0);
}

#[test]
fn as_many_wait_as_may() {
    let engine = engine(SchedulerOptions {
        max_waiting: 2,
        ..options(1)
    });
    let ask = |asked: &Asked| {
        let (teller, told) = Teller::new();
        let handle = engine.submit(asked.request(), teller)?;
        Ok::<_, AnswerError>((told, handle))
    };
    let (teller, mut first) = Teller::slow();
    let running = engine.submit(Asked::hold(), teller).unwrap();
    first.cycle();
    let (mut second, waiting) = ask(&Asked::greedy(0, 4)).unwrap();
    let (mut third, _third) = ask(&Asked::greedy(3, 4)).unwrap();
    match ask(&Asked::greedy(0, 4)) {
        Err(AnswerError::Busy {
            waiting: 2,
            retry_after,
        }) => assert!(retry_after >= Duration::from_secs(1)),
        other => panic!("{other:?}"),
    }
    // Cancelling a request makes room at once.
    waiting.cancel();
    let (mut fourth, _fourth) = ask(&Asked::greedy(0, 4)).unwrap();
    let never_ran = second.ends(AnswerEnd::Cancelled);
    assert_eq!(
        (never_ran.completion_tokens, second.prompt_tokens),
        (0, None)
    );
    drop(running);
    first.ends(AnswerEnd::Cancelled);
    third.end().unwrap();
    fourth.end().unwrap();
    assert_eq!(fourth.text, Asked::greedy(0, 4).alone());
}
