//! Random mixes of requests that arrive and are cancelled while others are being answered.

use std::sync::Arc;

use proptest::prelude::*;
use vispec::{AnswerEnd, Method, Submission, SubmissionHandle, TreeShape};

use crate::asked::{Asked, PROMPTS};
use crate::models::{engine, options, shared};
use crate::told::{Teller, Told};

#[derive(Clone, Debug)]
struct Arrival {
    asked: Asked,
    method: Method,
    /// Number of cycles of the previous request to wait for first.
    after: usize,
    /// Number of cycles after which the client goes away.
    gone_after: Option<usize>,
}

impl Arrival {
    fn submission(&self) -> Submission {
        let method = self.method;
        Submission {
            drafter: Some(Arc::new(move || {
                let models = shared().models();
                models.drafter(method, TreeShape::default()).unwrap()
            })),
            ..self.asked.request().into()
        }
    }
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let asked = (0..PROMPTS, 1..40_usize, 0..12_u8, 0..4_u64);
    let stop = proptest::sample::select(vec![
        vec![],
        vec!["e".to_owned()],
        vec![" a".to_owned(), "th".to_owned()],
    ]);
    let gone = proptest::option::weighted(0.2, 1..6_usize);
    let method = proptest::sample::select(vec![Method::Vispec, Method::PromptLookup, Method::None]);
    let arrival = (asked, stop, method, 0..3_usize, gone);
    let arrival = arrival.prop_map(
        |((prompt, n_tokens, temperature, seed), stop, method, after, gone)| Arrival {
            asked: Asked {
                prompt,
                max_new_tokens: n_tokens,
                temperature,
                seed,
                stop,
            },
            method,
            after,
            gone_after: gone,
        },
    );
    proptest::collection::vec(arrival, 2..9)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn each_gets_the_answer_that_it_gets_alone(arrivals in arrivals()) {
        let engine = shared();
        let mut all: Vec<(Arrival, Told, SubmissionHandle)> = Vec::new();
        for arrival in arrivals {
            if let Some((_, told, _)) = all.last_mut() {
                told.cycles(arrival.after);
            }
            let (teller, told) = Teller::until(arrival.gone_after.unwrap_or(usize::MAX));
            let handle = engine.submit(arrival.submission(), teller).unwrap();
            all.push((arrival, told, handle));
        }
        for (arrival, mut told, _handle) in all {
            let answered = told.end().unwrap();
            let alone = arrival.asked.alone();
            if answered.end == AnswerEnd::Cancelled {
                prop_assert!(arrival.gone_after.is_some());
                prop_assert!(alone.starts_with(&told.text), "{:?}", arrival);
            } else {
                prop_assert_eq!(&told.text, &alone, "{:?}", arrival);
            }
        }
    }
}

#[test]
fn nothing_is_left_of_many_requests() {
    let engine = engine(options(8));
    let asked = |index: usize| Asked {
        seed: index as u64 % 3,
        temperature: 8 * u8::from(index.is_multiple_of(2)),
        ..Asked::greedy([0, 3, 0, 1][index % 4], 3 + index % 5)
    };
    let mut answers = Vec::new();
    for index in 0..256 {
        let (teller, told) = Teller::new();
        answers.push((told, engine.submit(asked(index).request(), teller).unwrap()));
    }
    for (index, (told, _handle)) in answers.iter_mut().enumerate() {
        told.end().unwrap();
        assert_eq!(told.text, asked(index).alone(), "request {index}");
    }
    let figures = engine.scheduler_figures();
    assert_eq!((figures.running, figures.waiting), (0, 0));
    assert_eq!((figures.kv_used, figures.kv_reserved), (0, 0));
}
