//! Several answers to one request.

use vispec::AnswerEnd;

use crate::asked::Asked;
use crate::bounds::wait_until;
use crate::models::{engine, options};
use crate::told::Teller;

#[test]
fn they_share_the_prompt_and_count_up_seeds() {
    let engine = engine(options(3));
    let asked = Asked {
        temperature: 9,
        seed: 5,
        ..Asked::greedy(4, 12)
    };
    // More answers than there are places.
    let (tellers, told): (Vec<_>, Vec<_>) = (0..5)
        .map(|_| {
            let (teller, told) = Teller::new();
            (teller as Box<dyn vispec::AnswerListener + Send>, told)
        })
        .unzip();
    let _handle = engine.submit_choices(asked.request(), tellers).unwrap();
    let mut texts = Vec::new();
    for (choice, mut told) in told.into_iter().enumerate() {
        let answered = told.end().unwrap();
        let alone = Asked {
            seed: asked.seed + choice as u64,
            ..asked.clone()
        };
        assert_eq!(told.text, alone.alone(), "choice {choice}");
        let prompt = answered.stats.prompt_tokens();
        let reused = answered.stats.reused_prompt_tokens();
        assert_eq!(reused, if choice == 0 { 0 } else { prompt - 1 });
        assert_eq!(answered.vision.is_zero(), choice > 0);
        texts.push(told.text);
    }
    texts.dedup();
    assert!(texts.len() > 1, "sampled answers differ: {texts:?}");
}

#[test]
fn one_that_nobody_wants_leaves_the_others() {
    let engine = engine(options(2));
    let asked = Asked::greedy(3, 30);
    let (gone, mut gone_told) = Teller::until(1);
    let (stays, mut stays_told) = Teller::new();
    let handle = engine.submit_choices(asked.request(), vec![gone, stays]);
    let _handle = handle.unwrap();
    gone_told.ends(AnswerEnd::Cancelled);
    stays_told.end().unwrap();
    assert_eq!(stays_told.text, asked.alone());
}

#[test]
fn the_handle_ends_all_of_them() {
    let engine = engine(options(2));
    let (first, mut first_told) = Teller::slow();
    let (second, mut second_told) = Teller::new();
    let (third, mut third_told) = Teller::new();
    let handle = engine.submit_choices(Asked::hold(), vec![first, second, third]);
    first_told.cycle();
    second_told.cycle();
    drop(handle);
    for told in [&mut first_told, &mut second_told, &mut third_told] {
        told.ends(AnswerEnd::Cancelled);
    }
    wait_until(&engine, |figures| figures.running + figures.waiting == 0);
}
