//! Correctness of a draft's guesses for each token of an answer: recorded, and synthetic with
//! several profiles.

/// A draft's guess of a token, and whether it was right.
#[derive(Clone, Copy, Debug)]
pub struct Guess {
    /// Rank of the correct token among the draft's guesses, if it is among the first two.
    pub rank: Option<usize>,
    /// Probability of the draft's first guess.
    pub confidence: f32,
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub name: String,
    pub prompt_tokens: usize,
    /// One guess per token.
    pub guesses: Vec<Guess>,
}

/// Recordings hold no probabilities, so the draft is assumed to be equally confident in all
/// guesses.
const UNKNOWN_CONFIDENCE: f32 = 0.5;

/// Returns the recorded answers by model.
pub fn recorded() -> Vec<(&'static str, Vec<Answer>)> {
    let lines = include_str!("recorded.txt").lines();
    let answers = lines.filter(|line| !line.starts_with('#')).map(|line| {
        let fields = Vec::from_iter(line.split(' '));
        let guess = |right| Guess {
            rank: (right == '1').then_some(0),
            confidence: UNKNOWN_CONFIDENCE,
        };
        Answer {
            name: fields[0].to_owned(),
            prompt_tokens: fields[1].parse().unwrap(),
            guesses: fields[2].chars().map(guess).collect(),
        }
    });
    let mut greedy = Vec::from_iter(answers);
    let mut take = |starts: &[&str]| {
        let of_model = |answer: &Answer| starts.iter().any(|start| answer.name.starts_with(start));
        let (taken, left) = greedy.drain(..).partition(of_model);
        greedy = left;
        taken
    };
    let sampled = take(&["smollm2-T1"]);
    let small = take(&["smollm2"]);
    let tiny = take(&["scenes", "qwen", "llava"]);
    assert!(greedy.is_empty(), "{greedy:?}");
    vec![
        ("recorded SmolLM2", small),
        ("recorded SmolLM2 T1", sampled),
        ("recorded tiny pairs", tiny),
    ]
}

/// A deterministic stream of numbers in [0, 1).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / f64::from(1_u32 << 31)
    }
}

/// Accuracy and confidence of a draft at a token.
struct Opinion {
    accuracy: f64,
    /// Overconfidence; 1 is calibrated.
    pride: f64,
}

fn answer(
    name: &str,
    (seed, tokens, prompt_tokens): (u64, usize, usize),
    opinion: impl Fn(f64) -> Opinion,
) -> Answer {
    let mut random = Random(seed);
    let guesses = (0..tokens).map(|token| {
        let Opinion { accuracy, pride } = opinion(token as f64 / tokens as f64);
        // Some tokens are easy to guess and some are not.
        let accuracy = accuracy * (0.4 + 1.2 * random.next());
        let accuracy = accuracy.min(0.97);
        let rank = match random.next() {
            chance if chance < accuracy => Some(0),
            chance if chance < accuracy + 0.3 * (1.0 - accuracy) * pride.min(1.0) => Some(1),
            _ => None,
        };
        Guess {
            rank,
            confidence: (accuracy * pride).clamp(0.01, 0.99) as f32,
        }
    });
    Answer {
        name: name.to_owned(),
        prompt_tokens,
        guesses: guesses.collect(),
    }
}

/// Returns several answers of one profile, short and long, after short and long prompts.
fn answers(
    name: &'static str,
    opinion: impl Fn(f64) -> Opinion + Copy,
) -> (&'static str, Vec<Answer>) {
    let sizes = [(64, 20), (128, 20), (128, 600), (512, 20), (512, 600)];
    let answers = sizes
        .into_iter()
        .enumerate()
        .flat_map(|(index, (tokens, prompt))| {
            (0..3_u64)
                .map(move |seed| answer(name, (100 * index as u64 + seed, tokens, prompt), opinion))
        });
    (name, answers.collect())
}

pub fn synthetic() -> Vec<(&'static str, Vec<Answer>)> {
    let calibrated = |accuracy| Opinion {
        accuracy,
        pride: 1.0,
    };
    vec![
        answers("strong", move |_| calibrated(0.8)),
        answers("middling", move |_| calibrated(0.6)),
        answers("weak", move |_| calibrated(0.3)),
        // Lists and quotations between unpredictable sentences.
        answers("bursts", move |at| {
            calibrated(if (at * 8.0).fract() < 0.3 { 0.9 } else { 0.1 })
        }),
        answers("gets worse", move |at| calibrated(0.9 - 0.85 * at)),
        answers("gets better", move |at| calibrated(0.05 + 0.85 * at)),
        answers("too sure", |_| Opinion {
            accuracy: 0.4,
            pride: 2.0,
        }),
    ]
}

/// Returns answers with a draft that is never right: confident, unsure, and in between.
pub fn useless() -> Vec<Answer> {
    let sizes = [(32, 20), (32, 2_000), (128, 20), (128, 2_000), (1_024, 20)];
    let answers = sizes.into_iter().flat_map(|(tokens, prompt_tokens)| {
        [0.05, 0.5, 0.95].map(|confidence| Answer {
            name: format!("useless, {confidence} sure, {tokens} tokens"),
            prompt_tokens,
            guesses: vec![
                Guess {
                    rank: None,
                    confidence,
                };
                tokens
            ],
        })
    });
    answers.collect()
}
