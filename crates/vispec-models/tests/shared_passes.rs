//! Passes of a target that several sequences share: the results of each sequence are bitwise equal
//! to those of separate passes, regardless of the other sequences and of how its prompt is split.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod reference;

use burn::tensor::Tensor;
use reference::{
    Decoding, Numbers, TARGETS, VISPEC, floats, image_of, load, load_with_kv, shape, shared::Bits,
};
use vispec_core::{
    BoxError, KvCache, NodeId, PassInput, Prompt, Segment, TargetLogits, TargetModel, TargetOutput,
    TokenId, TokenTree,
};
use vispec_models::features::FeatureSpec;
use vispec_models::{
    DeviceLogits, DtypeChoice, EncodedPrompt, Engine, ImageFeatures, KvPrecision, Method,
    ModelError, VlmCache, VlmTarget,
};
use vispec_processor::{DecodedImage, Messages};

/// The inputs of a sequence, pass by pass.
struct Script {
    prompt: EncodedPrompt,
    steps: Vec<Step>,
}

enum Step {
    /// The prompt up to this token.
    Prompt(usize),
    /// A tree, and the node at the end of the path that is kept.
    Tree(TokenTree, NodeId),
}

/// Result of a pass for a sequence.
type Given = (Bits, Bits);

impl Script {
    /// Creates a script that reads a prompt in `parts` parts, then trees and single tokens.
    fn new(target: &VlmTarget, prompt: EncodedPrompt, parts: usize, numbers: &mut Numbers) -> Self {
        let n_tokens = prompt.token_ids().len();
        let mut ends: Vec<usize> = (1..parts).map(|_| 1 + numbers.below(n_tokens)).collect();
        ends.push(n_tokens);
        ends.sort_unstable();
        ends.dedup();
        let mut steps: Vec<Step> = ends.into_iter().map(Step::Prompt).collect();
        for n_nodes in [1, 9, 1, 1, 24, 3] {
            let mut tree = TokenTree::new(token(target, numbers));
            while tree.n_nodes() < n_nodes {
                let parent = NodeId::from_index(numbers.below(tree.n_nodes()));
                // A sibling may already have the same token.
                let _ = tree.push(parent, token(target, numbers));
            }
            let kept = NodeId::from_index(numbers.below(n_nodes));
            steps.push(Step::Tree(tree, kept));
        }
        Self { prompt, steps }
    }

    fn input(&self, step: usize) -> PassInput<'_, EncodedPrompt> {
        match &self.steps[step] {
            Step::Prompt(end) => PassInput::Prompt {
                prompt: &self.prompt,
                end: *end,
            },
            Step::Tree(tree, _) => PassInput::Tree(tree),
        }
    }

    /// Takes the result of a step. The features of unfinished prompts are ignored.
    fn taken(
        &self,
        step: usize,
        output: TargetOutput<DeviceLogits, Tensor<2>>,
        cache: &mut VlmCache,
    ) -> Given {
        let mut logits = output.logits;
        let mut rows = Vec::new();
        for row in 0..logits.n_rows() {
            rows.extend_from_slice(logits.read_row(row).unwrap());
        }
        let features = match &self.steps[step] {
            Step::Prompt(end) if *end < self.prompt.token_ids().len() => Vec::new(),
            Step::Prompt(end) => {
                let features = floats(&output.features);
                assert_eq!(output.features.dims()[0], *end);
                features
            }
            Step::Tree(tree, kept) => {
                let base = cache.len() - tree.n_nodes();
                cache.keep_path(base, &tree.path(*kept));
                floats(&output.features)
            }
        };
        (Bits::of(&rows), Bits::of(&features))
    }

    fn alone(&self, target: &VlmTarget, mut cache: VlmCache) -> Vec<Given> {
        let one = |step| {
            let output = target.read(self.input(step), &mut cache).unwrap();
            self.taken(step, output, &mut cache)
        };
        (0..self.steps.len()).map(one).collect()
    }
}

fn token(target: &VlmTarget, numbers: &mut Numbers) -> TokenId {
    TokenId::try_from(numbers.below(target.vocab_size())).unwrap()
}

/// Runs all scripts to their ends, in shared passes of randomly chosen sequences.
fn together(
    target: &VlmTarget,
    scripts: &[Script],
    mut caches: Vec<VlmCache>,
    numbers: &mut Numbers,
) -> Vec<Vec<Given>> {
    let mut given: Vec<Vec<Given>> = scripts.iter().map(|_| Vec::new()).collect();
    let mut shared = 0;
    loop {
        let unfinished = |index: &usize| given[*index].len() < scripts[*index].steps.len();
        let mut chosen: Vec<usize> = (0..scripts.len()).filter(unfinished).collect();
        if chosen.is_empty() {
            break;
        }
        let all = chosen.len();
        chosen.retain(|_| all < 2 || numbers.below(3) > 0);
        shared += usize::from(chosen.len() > 1);
        let mut segments: Vec<Segment<'_, VlmTarget>> = caches
            .iter_mut()
            .enumerate()
            .filter(|(index, _)| chosen.contains(index))
            .map(|(index, cache)| Segment {
                input: scripts[index].input(given[index].len()),
                cache,
                picks: None,
            })
            .collect();
        let outputs = target.forward(&mut segments);
        for (index, output) in chosen.into_iter().zip(outputs) {
            let step = given[index].len();
            given[index].push(scripts[index].taken(step, output.unwrap(), &mut caches[index]));
        }
    }
    assert!(shared > 3, "{shared} passes were shared");
    given
}

fn prompts(engine: &Engine, model: &str) -> Vec<EncodedPrompt> {
    let image = image_of(&format!("{model}/img-short"));
    let inverted = image.rgb().iter().map(|value| 255 - value).collect();
    let other = DecodedImage::from_rgb8(image.size(), inverted).unwrap();
    let ask = |question: &str, images: &[&DecodedImage]| {
        let messages = Messages::from_prompt(None, question, images.len());
        let images: Vec<_> = images.iter().copied().cloned().collect();
        engine.encode(&messages, &images).unwrap().0
    };
    vec![
        ask("Describe the image briefly.", &[&image]),
        ask("What is two plus three?", &[]),
        ask("Describe the image briefly.", &[&other]),
        ask("Which of these is larger, and why?", &[&image, &other]),
        ask(&"A circle and a square. ".repeat(30), &[]),
    ]
}

fn scripts(engine: &Engine, model: &str, numbers: &mut Numbers) -> Vec<Script> {
    let prompts = prompts(engine, model).into_iter().enumerate();
    prompts
        .map(|(index, prompt)| Script::new(engine.target(), prompt, 1 + index * 2, numbers))
        .collect()
}

fn new_caches(target: &VlmTarget, n: usize) -> Vec<VlmCache> {
    (0..n).map(|_| target.new_cache().unwrap()).collect()
}

#[test]
fn a_sequence_is_given_what_it_is_given_alone() {
    let mut numbers = Numbers(11);
    let kinds = [
        ("f32", KvPrecision::Auto),
        ("bf16", KvPrecision::Auto),
        ("f16", KvPrecision::Auto),
        ("int8", KvPrecision::Auto),
        ("int4", KvPrecision::Auto),
        ("f32", KvPrecision::Bf16),
        ("bf16", KvPrecision::Bf16),
        ("int8", KvPrecision::Bf16),
    ];
    for model in TARGETS {
        for (dtype, kv) in kinds {
            // 80 inputs are not a multiple of 32.
            if dtype.starts_with("int") && model == "llava-next" {
                continue;
            }
            let engine = load_with_kv(model, None, dtype.parse().unwrap(), kv);
            let target = engine.target();
            let scripts = scripts(&engine, model, &mut numbers);
            let alone = |script: &Script| script.alone(target, target.new_cache().unwrap());
            let alone: Vec<_> = scripts.iter().map(alone).collect();
            for round in 0..2 {
                let caches = new_caches(target, scripts.len());
                let found = together(target, &scripts, caches, &mut numbers);
                for (index, (found, alone)) in found.iter().zip(&alone).enumerate() {
                    for (step, (found, alone)) in found.iter().zip(alone).enumerate() {
                        assert!(
                            found == alone,
                            "{model}, {dtype}, {kv:?}, round {round}: sequence {index}, step {step}"
                        );
                    }
                }
            }
        }
    }
}

/// For any parts, the last logits of a prompt and the features of all of its rows equal those of
/// reading it in one pass, also with a cache that records all features.
#[test]
fn a_prompt_in_parts_is_the_prompt() {
    let mut numbers = Numbers(12);
    for model in TARGETS {
        for kv in [KvPrecision::Auto, KvPrecision::Bf16] {
            let engine = load_with_kv(model, None, DtypeChoice::Bf16, kv);
            let target = engine.target();
            for prompt in prompts(&engine, model) {
                let whole = Script {
                    steps: vec![Step::Prompt(prompt.token_ids().len())],
                    prompt: prompt.clone(),
                };
                let whole = whole.alone(target, target.new_cache().unwrap());
                for parts in [2, 3, 7] {
                    let mut script = Script::new(target, prompt.clone(), parts, &mut numbers);
                    script.steps.retain(|step| matches!(step, Step::Prompt(_)));
                    let recording = target.recording_cache(&FeatureSpec::last()).unwrap();
                    for cache in [target.new_cache().unwrap(), recording] {
                        let found = script.alone(target, cache);
                        assert!(
                            found.last() == whole.last(),
                            "{model}, {kv:?}: {parts} parts"
                        );
                    }
                }
            }
        }
    }
}

/// The comparisons above can fail: the smallest change of one sequence affects all of its later
/// results, and no other sequence.
#[test]
fn a_change_shows_in_its_own_sequence_and_in_no_other() {
    for model in TARGETS {
        let engine = load(model, None, DtypeChoice::F32);
        let target = engine.target();
        let run = |changed: Option<usize>| {
            let mut numbers = Numbers(13);
            let mut scripts = scripts(&engine, model, &mut numbers);
            if let Some(changed) = changed {
                let prompt = &scripts[changed].prompt;
                let embeds = prompt.embeds();
                let mut values = floats(embeds);
                values[3] = values[3].next_up();
                let data = burn::tensor::TensorData::new(values, embeds.dims());
                scripts[changed].prompt = EncodedPrompt::new(
                    prompt.token_ids().to_vec(),
                    Tensor::from_data(data, &embeds.device()),
                    prompt.image_runs().to_vec(),
                    (prompt.positions().clone(), prompt.rope_delta()),
                );
            }
            let caches = new_caches(target, scripts.len());
            together(target, &scripts, caches, &mut numbers)
        };
        let before = run(None);
        for changed in [0, 3] {
            let after = run(Some(changed));
            for (index, (before, after)) in before.iter().zip(&after).enumerate() {
                assert_eq!(before != after, index == changed, "{model}: {index}");
            }
            let ends = [&before, &after].map(|given| given[changed].last());
            assert!(ends[0] != ends[1], "{model}");
        }
    }
}

/// A segment that cannot be read fails without affecting others and leaves its cache unchanged.
#[test]
fn a_broken_segment_fails_alone() {
    for model in TARGETS {
        let engine = load(model, None, DtypeChoice::F32);
        let target = engine.target();
        let mut numbers = Numbers(14);
        let scripts = scripts(&engine, model, &mut numbers);
        let tree_at = |script: &Script| {
            let is_tree = |step: &Step| matches!(step, Step::Tree(..));
            script.steps.iter().position(is_tree).unwrap()
        };
        // All sequences have read their prompts.
        let mut caches = new_caches(target, scripts.len());
        for (script, cache) in scripts.iter().zip(&mut caches) {
            for step in 0..tree_at(script) {
                target.read(script.input(step), cache).unwrap();
            }
        }
        let lens: Vec<usize> = caches.iter().map(KvCache::len).collect();
        let unknown = TokenId::try_from(target.vocab_size()).unwrap();
        let bad_token = TokenTree::new(unknown);
        let prompt = &scripts[1].prompt;
        let n_tokens = prompt.token_ids().len();
        let short = EncodedPrompt::new(
            prompt.token_ids().to_vec(),
            prompt.embeds().clone().narrow(0, 0, n_tokens - 1),
            Vec::new(),
            (prompt.positions().clone(), prompt.rope_delta()),
        );
        let mut empty = target.new_cache().unwrap();
        let [first, second, third, fourth, fifth] = &mut caches[..] else {
            panic!("five sequences")
        };
        let segment = |input, cache| Segment {
            input,
            cache,
            picks: None,
        };
        let end = n_tokens;
        let mut segments = [
            segment(scripts[0].input(tree_at(&scripts[0])), first),
            segment(PassInput::Tree(&bad_token), second),
            segment(scripts[2].input(tree_at(&scripts[2])), third),
            segment(PassInput::Prompt { prompt, end }, fourth),
            segment(scripts[4].input(tree_at(&scripts[4])), fifth),
            segment(
                PassInput::Prompt {
                    prompt: &short,
                    end,
                },
                &mut empty,
            ),
        ];
        let outputs = target.forward(&mut segments);
        let errors: Vec<Option<String>> = outputs.iter().map(of_model).collect();
        assert_eq!(errors[0], None);
        assert!(errors[1].as_ref().unwrap().contains("TokenOutOfRange"));
        assert!(
            errors[3].as_ref().unwrap().contains("PromptRange"),
            "{errors:?}"
        );
        assert!(errors[5].as_ref().unwrap().contains("PromptShape"));
        assert_eq!(empty.len(), 0);
        for index in [1, 3] {
            assert_eq!(caches[index].len(), lens[index], "{model}: {index}");
        }
        // The other sequences get the same results as in separate passes, and the failed ones can
        // continue.
        for (index, (output, script)) in outputs.into_iter().zip(&scripts).enumerate() {
            let first_tree = tree_at(script);
            let expected = script.alone(target, target.new_cache().unwrap());
            let cache = &mut caches[index];
            let output = match output {
                Ok(output) => output,
                Err(_) => target.read(script.input(first_tree), cache).unwrap(),
            };
            let mut found = vec![script.taken(first_tree, output, cache)];
            for step in first_tree + 1..script.steps.len() {
                let output = target.read(script.input(step), cache).unwrap();
                found.push(script.taken(step, output, cache));
            }
            assert!(found == expected[first_tree..], "{model}: {index}");
        }
    }
}

/// Returns the debug representation of a model's error.
fn of_model<T>(result: &Result<T, BoxError>) -> Option<String> {
    let error = result.as_ref().err()?;
    let error = error.downcast_ref::<ModelError>();
    Some(format!("{:?}", error.expect("an error of the model")))
}

#[test]
fn a_prompt_goes_on_only_where_its_hidden_states_are_known() {
    let engine = load("qwen-tied", None, DtypeChoice::F32);
    let target = engine.target();
    let prompt = prompts(&engine, "qwen-tied").remove(0);
    let n_tokens = prompt.token_ids().len();
    let part = |end| PassInput::Prompt {
        prompt: &prompt,
        end,
    };
    let mut cache = target.new_cache().unwrap();
    target.read(part(4), &mut cache).unwrap();
    let tree = TokenTree::new(5);
    target.verify(&tree, &mut cache).unwrap();
    let error = target.read(part(n_tokens), &mut cache).unwrap_err();
    let error = *error.downcast::<ModelError>().unwrap();
    let ModelError::UnknownFeatures { cached, known } = error else {
        panic!("{error}")
    };
    assert_eq!((cached, known, cache.len()), (5, 4, 5));
    // Truncated to the rows whose features are known, the cache can be used again.
    cache.truncate(4);
    let mut output = target.read(part(n_tokens), &mut cache).unwrap();
    let mut expected = target
        .prefill(&prompt, &mut target.new_cache().unwrap())
        .unwrap();
    assert_eq!(floats(&output.features), floats(&expected.features));
    let row = output.logits.read_row(0).unwrap();
    assert_eq!(row, expected.logits.read_row(0).unwrap());
    for end in [0, 4, n_tokens, n_tokens + 1] {
        let error = target.read(part(end), &mut cache).unwrap_err();
        let error = error.downcast::<ModelError>().unwrap();
        assert!(matches!(*error, ModelError::PromptRange { .. }), "{error}");
    }
}

/// If the number of images differs from the number of placeholders, merging is an error.
#[test]
fn images_must_be_as_many_as_their_places() {
    for model in TARGETS {
        let engine = load(model, None, DtypeChoice::F32);
        let target = engine.target();
        let image = image_of(&format!("{model}/img-short"));
        let messages = Messages::from_prompt(None, "What are these?", 2);
        let prepared = engine
            .processor()
            .prepare(&messages, &[image.clone(), image]);
        let prepared = prepared.unwrap();
        let features = |n: usize| -> Vec<ImageFeatures> {
            let images = prepared.images.iter().cycle().take(n);
            images
                .map(|image| target.encode_image(image).unwrap())
                .collect()
        };
        assert!(target.merge(&prepared, features(2)).is_ok());
        for n in [0, 1, 3] {
            let error = target.merge(&prepared, features(n)).unwrap_err();
            let ModelError::ImageCount { found, expected } = error else {
                panic!("{error}")
            };
            assert_eq!((found, expected), (n, 2), "{model}");
        }
    }
}

#[test]
fn half_caches_take_half_the_memory_and_change_no_answer_by_drafting() {
    for (model, draft) in VISPEC {
        let load = |kv| load_with_kv(model, Some(draft), DtypeChoice::F32, kv);
        let (wide, half) = (load(KvPrecision::Auto), load(KvPrecision::Bf16));
        let bytes = |engine: &Engine| engine.target().cache_bytes_per_row();
        assert_eq!(bytes(&wide), 2 * bytes(&half));
        let engine = half;
        for prompt in prompts(&engine, model) {
            let decoding = Decoding::greedy(24);
            let answer = |method| decoding.answer(&engine, &prompt, method, shape(3, 8, 30));
            let plain = answer(Method::None);
            assert_eq!(
                answer(engine.default_method()).tokens,
                plain.tokens,
                "{model}"
            );
        }
    }
}
