//! Deadlines and the end of the engine.

use std::time::{Duration, Instant};

use vispec::{AnswerEnd, AnswerError, AnswerRequest, Submission};

use crate::asked::{Asked, HOLD};
use crate::models::{engine, options};
use crate::told::Teller;

fn due(request: AnswerRequest, within: Duration) -> Submission {
    Submission {
        deadline: Some(Instant::now() + within),
        ..request.into()
    }
}

#[test]
fn at_its_deadline_an_answer_ends_with_what_it_has() {
    let engine = engine(options(1));
    let (teller, mut told) = Teller::slow();
    let submission = due(Asked::hold(), Duration::from_secs(1));
    let _running = engine.submit(submission, teller).unwrap();
    told.cycle();
    // This one waits behind it and reaches its deadline before it begins.
    let (teller, mut late) = Teller::new();
    let submission = due(Asked::hold(), Duration::from_millis(1));
    let _late = engine.submit(submission, teller).unwrap();
    let answered = late.ends(AnswerEnd::Deadline);
    assert_eq!((answered.completion_tokens, late.prompt_tokens), (0, None));
    let answered = told.ends(AnswerEnd::Deadline);
    assert!(answered.completion_tokens > 0 && !told.text.is_empty());
    assert!(answered.completion_tokens < HOLD);
    // An answer that finishes in time is not affected.
    let (teller, mut told) = Teller::new();
    let submission = due(Asked::greedy(0, 5).request(), Duration::from_secs(600));
    let _handle = engine.submit(submission, teller).unwrap();
    told.end().unwrap();
    assert_eq!(told.text, Asked::greedy(0, 5).alone());
}

#[test]
fn a_stopped_engine_ends_what_it_has_and_takes_nothing() {
    let engine = engine(options(1));
    let (teller, mut running) = Teller::slow();
    let _running = engine.submit(Asked::hold(), teller).unwrap();
    running.cycle();
    let (teller, mut waiting) = Teller::new();
    let _waiting = engine.submit(Asked::hold(), teller).unwrap();
    engine.stop();
    for told in [&mut running, &mut waiting] {
        let outcome = told.end();
        assert!(matches!(outcome, Err(AnswerError::ShutDown)), "{outcome:?}");
    }
    let (teller, _) = Teller::new();
    let refused = engine.submit(Asked::hold(), teller);
    assert!(matches!(refused, Err(AnswerError::ShutDown)));
    let figures = engine.scheduler_figures();
    assert_eq!((figures.running, figures.kv_reserved), (0, 0));
}

#[test]
fn with_the_last_handle_everything_ends() {
    let engine = engine(options(1));
    let (teller, mut running) = Teller::slow();
    engine.submit(Asked::hold(), teller).unwrap().detach();
    running.cycle();
    let mut answer = {
        // An answer keeps the engine alive.
        let answer = engine.start(Asked::greedy(3, 6).request()).unwrap();
        running.cycle();
        drop(engine);
        answer
    };
    running.cycle();
    answer.cancel_handle().cancel();
    assert!(answer.next().is_none());
    drop(answer);
    assert!(matches!(running.end(), Err(AnswerError::ShutDown)));
}

#[test]
fn a_prompt_is_read_in_parts_beside_those_who_write() {
    let engine = engine(options(4));
    let (teller, mut hold) = Teller::slow();
    let handle = engine.submit(Asked::hold(), teller).unwrap();
    hold.cycle();
    let (teller, mut told) = Teller::new();
    let asked = Asked::greedy(1, 20);
    let _handle = engine.submit(asked.request(), teller).unwrap();
    let answered = told.end().unwrap();
    assert_eq!(told.text, asked.alone());
    drop(handle);
    let held = hold.ends(AnswerEnd::Cancelled);

    let (started, first) = (told.started.unwrap(), told.times[0]);
    let between = hold
        .times
        .iter()
        .filter(|&&time| started < time && time < first);
    let prompt = answered.stats.prompt_tokens();
    assert!(prompt > 150, "{prompt}");
    // A pass reads at most 32 tokens of the prompt, and the last pass yields the first token.
    let parts = prompt.div_ceil(32);
    assert!(between.count() >= parts - 1);

    let figures = engine.scheduler_figures();
    let read = [&answered, &held].map(|answered| {
        let stats = &answered.stats;
        stats.prompt_tokens() - stats.reused_prompt_tokens()
    });
    assert_eq!(figures.prompt_rows, read.iter().sum::<usize>() as u64);
    let nodes = [&answered, &held].map(|answered| answered.stats.nodes_per_cycle().to_vec());
    let nodes: u32 = nodes.iter().flatten().sum();
    assert_eq!(figures.tree_rows, u64::from(nodes));
    let cycles = (answered.stats.n_cycles() + held.stats.n_cycles()) as u64;
    assert!(parts as u64 + 1 < figures.passes && figures.passes < cycles + parts as u64 + 2);
}
