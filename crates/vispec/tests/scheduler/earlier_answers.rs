//! Earlier answers speed up later ones and change none of them.

use vispec::models::DraftKind;
use vispec::{Engine, EngineSettings, LoadOptions, Method};

use crate::asked::Asked;
use crate::models::{load, load_options, options, settings};
use crate::told::Teller;

fn engine(method: Method, suffix_memory: usize) -> Engine {
    load(LoadOptions {
        method: Some(method),
        settings: EngineSettings {
            suffix_memory,
            ..settings(options(3))
        },
        ..load_options()
    })
}

/// Submits all requests at once and returns the acceptance length of each.
fn taus(engine: &Engine, asked: &[Asked]) -> Vec<f64> {
    let answers = asked.iter().map(|asked| {
        let (teller, told) = Teller::new();
        (told, engine.submit(asked.request(), teller).unwrap())
    });
    let answers = Vec::from_iter(answers).into_iter().zip(asked);
    let taus = answers.map(|((mut told, _handle), asked)| {
        let answered = told.end().unwrap();
        assert_eq!(told.text, asked.alone(), "{asked:?}");
        answered.stats.tau()
    });
    taus.collect()
}

/// Returns requests with images, with text, and with sampling.
fn questions() -> [Asked; 3] {
    let sampled = Asked {
        temperature: 10,
        seed: 3,
        ..Asked::greedy(0, 48)
    };
    [Asked::greedy(2, 48), Asked::greedy(3, 48), sampled]
}

#[test]
fn the_same_question_is_answered_with_more_accepted_tokens() {
    for method in [Method::PromptLookup, Method::Joined(DraftKind::Vispec)] {
        let engine = engine(method, 1 << 20);
        for asked in questions() {
            let first = taus(&engine, std::slice::from_ref(&asked))[0];
            let second = taus(&engine, std::slice::from_ref(&asked))[0];
            assert!(second > first + 2.0, "{method} {asked:?}: {first} {second}");
        }
        let usage = engine.earlier_answers();
        assert!(usage.bytes <= 1 << 20 && usage.tokens > 60, "{usage:?}");
        assert!(usage.matches > 0 && usage.accepted > 60, "{usage:?}");
    }
}

#[test]
fn answers_side_by_side_share_what_was_said() {
    let engine = engine(Method::Joined(DraftKind::Vispec), 1 << 20);
    let asked = questions();
    let first = taus(&engine, &asked);
    let second = taus(&engine, &[asked.clone(), asked].concat());
    for (index, second) in second.into_iter().enumerate() {
        let first = first[index % 3];
        assert!(second > first + 2.0, "{index}: {first} {second}");
    }
}

#[test]
fn nothing_is_kept_unless_wanted_and_of_use() {
    for (method, memory) in [(Method::PromptLookup, 0), (Method::Vispec, 1 << 20)] {
        let engine = engine(method, memory);
        let [asked, ..] = questions();
        let [first, second] = [0, 1].map(|_| taus(&engine, std::slice::from_ref(&asked))[0]);
        assert!((first - second).abs() < 1e-12);
        assert_eq!(engine.earlier_answers().bytes, 0);
    }
}
