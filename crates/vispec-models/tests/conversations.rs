//! Conversations that resume from a kept cache give the same answers as from scratch.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod reference;

use reference::{DRAFTERS, Numbers, TARGETS, floats, image_of, load, shape};
use vispec_core::{
    Generation, GenerationConfig, MatchPicks, PositionUniforms, Prompt as _, Sampler,
    TargetLogits as _, TargetModel as _, generate, generate_in,
};
use vispec_models::{ConversationStore, DtypeChoice, EncodedPrompt, Engine, Method};
use vispec_processor::{Content, DecodedImage, Message, Messages, SpecialText};

const ROOMY: usize = 64 << 20;
const ASK: &str = "Describe the image briefly.";

/// A conversation with all of its messages.
struct Chat {
    messages: Messages,
    images: Vec<DecodedImage>,
}

impl Chat {
    fn about(image: DecodedImage, question: &str) -> Self {
        Self {
            messages: Messages::from_prompt(None, question, 1),
            images: vec![image],
        }
    }

    fn say(&mut self, role: &str, text: &str) {
        self.messages.push(Message {
            role: role.to_owned(),
            content: Content::Text(text.to_owned()),
        });
    }
}

fn config(engine: &Engine) -> GenerationConfig {
    GenerationConfig {
        max_new_tokens: 40,
        stop_tokens: Vec::from_iter(engine.processor().eos_token_ids().iter().copied()),
    }
}

fn rule(sampler: Sampler) -> MatchPicks {
    MatchPicks::new(sampler, PositionUniforms::new(5))
}

/// Generates an answer without any kept state.
fn fresh(engine: &Engine, method: Method, sampler: Sampler, chat: &Chat) -> Generation {
    let (prompt, _) = engine.encode(&chat.messages, &chat.images).unwrap();
    let drafter = engine.drafter(method, shape(3, 8, 30)).unwrap();
    let config = config(engine);
    generate(
        engine.target(),
        drafter,
        rule(sampler),
        &prompt,
        config,
        &mut (),
    )
    .unwrap()
}

fn kept(
    engine: &Engine,
    method: Method,
    sampler: Sampler,
    (store, chat): (&ConversationStore, &Chat),
) -> (Generation, EncodedPrompt) {
    let known = engine.encode_known(&chat.messages, (&*chat.images).into(), store, &|| true);
    let (prompt, _) = known.unwrap();
    let cache = store.cache_for(engine.target(), &prompt).unwrap();
    let drafter = engine.drafter(method, shape(3, 8, 30)).unwrap();
    let beginning = (&prompt, cache);
    let config = config(engine);
    let (generation, cache) = generate_in(
        engine.target(),
        drafter,
        rule(sampler),
        beginning,
        config,
        &mut (),
    )
    .unwrap();
    store.keep(&prompt, &generation.tokens, cache);
    (generation, prompt)
}

fn text(engine: &Engine, generation: &Generation) -> String {
    let tokenizer = engine.processor().tokenizer();
    tokenizer
        .decode(&generation.tokens, SpecialText::Skip)
        .unwrap()
}

/// Rows that are read in two passes are bitwise equal to those of one pass, regardless of where the
/// prompt is split.
#[test]
fn a_prompt_read_in_parts_is_the_prompt() {
    let mut numbers = Numbers(4);
    for name in TARGETS {
        for dtype in ["f32", "bf16", "int8"] {
            if dtype == "int8" && name == "llava-next" {
                continue;
            }
            let engine = load(name, None, dtype.parse().unwrap());
            let target = engine.target();
            let mut chat = Chat::about(image_of(&format!("{name}/img-large")), ASK);
            chat.say("assistant", &"A circle and a square. ".repeat(40));
            chat.say("user", "And what else?");
            let store = ConversationStore::new(ROOMY);
            let known =
                engine.encode_known(&chat.messages, (&*chat.images).into(), &store, &|| true);
            let (prompt, _) = known.unwrap();
            let n_tokens = prompt.token_ids().len();
            assert!(n_tokens > 200, "{n_tokens}");
            let mut whole = target.resumable_cache().unwrap();
            let mut output = target.prefill(&prompt, &mut whole).unwrap();
            let expected = (
                output.logits.read_row(0).unwrap().to_vec(),
                floats(&output.features),
            );
            store.keep(&prompt, &[], whole);
            let last_image = prompt.image_runs().last().unwrap().end;
            for _ in 0..6 {
                let len = last_image + numbers.below(n_tokens - last_image);
                let mut cache = store.cache_for(target, &prompt).unwrap();
                vispec_core::KvCache::truncate(&mut cache, len);
                let mut output = target.prefill(&prompt, &mut cache).unwrap();
                assert!(
                    output.logits.read_row(0).unwrap() == expected.0
                        && floats(&output.features) == expected.1,
                    "{name}, {dtype}: {len} of {n_tokens} rows were known"
                );
            }
        }
    }
}

/// With every drafter, the tokens are the same, and even the cycles in which they were accepted.
#[test]
fn turns_go_on_as_from_scratch() {
    for (target, draft, method) in DRAFTERS {
        let engine = load(target, draft, DtypeChoice::F32);
        for sampler in [Sampler::Greedy, Sampler::new(0.8, Some(0.9), None).unwrap()] {
            let store = ConversationStore::new(ROOMY);
            let mut chat = Chat::about(image_of(&format!("{target}/img-large")), ASK);
            let mut before = 0;
            for turn in 0..3 {
                let expected = fresh(&engine, method, sampler, &chat);
                let (found, prompt) = kept(&engine, method, sampler, (&store, &chat));
                let what = format!("{target}, {method}, turn {turn}");
                assert_eq!(found.tokens, expected.tokens, "{what}");
                assert_eq!(
                    found.stats.accepted_per_cycle(),
                    expected.stats.accepted_per_cycle(),
                    "{what}"
                );
                let reused = found.stats.reused_prompt_tokens();
                assert!(reused >= before, "{what}: {reused} of {before} were reused");
                assert!(reused < prompt.token_ids().len());
                before = prompt.token_ids().len();
                chat.say("assistant", &text(&engine, &found));
                chat.say("user", "And the background?");
            }
            assert!(store.usage().count >= 1 && store.usage().bytes <= ROOMY);
        }
    }
}

#[test]
fn conversations_that_take_turns_do_not_mix() {
    let (target, draft) = ("qwen-tied", Some("qwen-tied-q4"));
    let engine = load(target, draft, DtypeChoice::F32);
    let method = engine.default_method();
    let store = ConversationStore::new(ROOMY);
    // Two images that differ only in their pixels: the prompts have the same tokens.
    let image = image_of("qwen-tied/q4-img-large");
    let inverted = image.rgb().iter().map(|value| 255 - value).collect();
    let other = DecodedImage::from_rgb8(image.size(), inverted).unwrap();
    let mut chats = [Chat::about(image, ASK), Chat::about(other, ASK)];
    let mut answers = [Vec::new(), Vec::new()];
    for turn in 0..3 {
        for (chat, answers) in chats.iter_mut().zip(&mut answers) {
            let expected = fresh(&engine, method, Sampler::Greedy, chat);
            let (found, _) = kept(&engine, method, Sampler::Greedy, (&store, chat));
            assert_eq!(found.tokens, expected.tokens, "turn {turn}");
            assert!(turn == 0 || found.stats.reused_prompt_tokens() > 100);
            let said = text(&engine, &found);
            chat.say("assistant", &said);
            chat.say("user", ASK);
            answers.push(said);
        }
    }
    assert_ne!(answers[0], answers[1], "the images make no difference");
}

#[test]
fn the_budget_is_kept_and_the_oldest_goes_first() {
    let engine = load("qwen-tied", None, DtypeChoice::F32);
    let store = ConversationStore::new(ROOMY);
    let ask = |store: &ConversationStore, question: &str| {
        let chat = Chat::about(image_of("qwen-tied/q4-img-large"), question);
        kept(&engine, Method::None, Sampler::Greedy, (store, &chat)).0
    };
    ask(&store, ASK);
    let one = store.usage().bytes;
    assert!(one > 0);
    // Room for two and a half conversations.
    let store = ConversationStore::new(one * 5 / 2);
    for question in [
        "What is this?",
        "Where is the circle?",
        "Which colour is it?",
        ASK,
    ] {
        ask(&store, question);
        assert!(store.usage().bytes <= one * 5 / 2, "{:?}", store.usage());
    }
    assert_eq!(store.usage().count, 2);
    // If a question is asked again, all but its last token are known. For the oldest question, only
    // the image is known.
    let again = ask(&store, ASK).stats;
    assert_eq!(again.reused_prompt_tokens() + 1, again.prompt_tokens());
    let oldest = ask(&store, "What is this?").stats;
    assert!(oldest.reused_prompt_tokens() + 3 < oldest.prompt_tokens());

    let nothing = ConversationStore::new(0);
    let chat = Chat::about(image_of("qwen-tied/q4-img-large"), ASK);
    let known = engine.encode_known(&chat.messages, (&*chat.images).into(), &nothing, &|| true);
    assert!(
        nothing
            .cache_for(engine.target(), &known.unwrap().0)
            .is_none()
    );
}
