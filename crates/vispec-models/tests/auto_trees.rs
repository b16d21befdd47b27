//! Trees whose size is chosen by measured cost: in every dtype, answers equal those of plain
//! decoding.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod reference;

use std::fs;
use std::sync::Arc;

use reference::{DRAFTERS, copy_of, fixtures, load, load_dirs, question};
use vispec_core::{
    AutoTree, ContextCost, Cost, CostDrift, CostTable, DraftCosts, GenerationConfig, MatchPicks,
    PositionUniforms, Sampler, TargetCosts, TokenId, TreeShape, TreeSize, generate,
};
use vispec_kernels::Bits;
use vispec_models::{
    CalibrationOrigin, CalibrationPlace, DeviceSpec, DraftVocab, DraftVocabFile, DtypeChoice,
    EncodedPrompt, Engine, EngineOptions, KeepQuantized, KvPrecision, LayerIds, Method, ModelError,
    Quantization, calibrate, doubt_costs,
};

fn tokens(
    engine: &Engine,
    prompt: &EncodedPrompt,
    (method, size): (Method, TreeSize),
    sampler: Sampler,
) -> Vec<TokenId> {
    let config = GenerationConfig {
        max_new_tokens: 48,
        stop_tokens: engine.processor().eos_token_ids().iter().copied().collect(),
    };
    let drafter = engine.drafter(method, size).unwrap();
    let rule = MatchPicks::new(sampler, PositionUniforms::new(5));
    let target = engine.target();
    generate(target, drafter, rule, prompt, config, &mut ())
        .unwrap()
        .tokens
}

/// Returns the costs of a machine on which trees are worthwhile, independent of the machine that
/// runs the tests.
fn wide_machine() -> AutoTree {
    let cost = |rows, seconds| Cost { rows, seconds };
    let draft = DraftCosts {
        read: 0.0,
        commit: 0.05,
        expand: vec![cost(8, 0.05)],
    };
    let target = TargetCosts {
        prefill: 0.0,
        verify: vec![cost(1, 1.0), cost(64, 1.2)],
        context: ContextCost::default(),
    };
    let table = CostTable::new(target, Some(draft));
    AutoTree {
        max_loss: 1.0,
        ..AutoTree::new(Arc::new(table.unwrap()))
    }
}

#[test]
fn answers_are_those_of_plain_decoding_in_every_dtype() {
    let fixed = TreeSize::from(TreeShape::default());
    for dtype in ["f32", "bf16", "f16", "int8", "int4", "int8:32"] {
        for (target, draft, method) in DRAFTERS {
            // 80 inputs are not a multiple of 32.
            if dtype.starts_with("int") && target == "llava-next" {
                continue;
            }
            let engine = load(target, draft, dtype.parse().unwrap());
            let prompt = question(&engine, target, "Describe the image briefly.");
            for sampler in [Sampler::Greedy, Sampler::new(1.0, None, None).unwrap()] {
                let plain = tokens(&engine, &prompt, (Method::None, fixed.clone()), sampler);
                for size in [wide_machine().into(), fixed.clone()] {
                    let found = tokens(&engine, &prompt, (method, size), sampler);
                    assert_eq!(found, plain, "{dtype} {target} {method}");
                }
            }
        }
    }
}

#[test]
fn a_draft_with_part_of_the_vocabulary_is_as_exact() {
    let list = tempfile::NamedTempFile::new().unwrap();
    let file = DraftVocabFile {
        vocab_size: 608,
        tokens: (0..608).filter(|token| token % 3 != 0).collect(),
    };
    fs::write(list.path(), serde_json::to_string(&file).unwrap()).unwrap();
    for vocab in [
        DraftVocab::First(100),
        DraftVocab::File(list.path().to_owned()),
    ] {
        for dtype in ["f32", "int8", "int4"] {
            for draft in ["qwen-untied-q2", "qwen-untied-medusa"] {
                let engine = Engine::load(&EngineOptions {
                    target: fixtures().join("models/qwen-untied"),
                    draft: Some(fixtures().join("drafts").join(draft)),
                    draft_vocab: vocab.clone(),
                    draft_layer_ids: LayerIds::Auto,
                    device: DeviceSpec::Flex.open().unwrap(),
                    dtype: dtype.parse().unwrap(),
                    kv: KvPrecision::Auto,
                })
                .unwrap();
                let prompt = question(&engine, "qwen-untied", "Describe the image briefly.");
                let fixed = TreeSize::from(TreeShape::default());
                let greedy = Sampler::Greedy;
                let plain = tokens(&engine, &prompt, (Method::None, fixed.clone()), greedy);
                let method = engine.default_method();
                assert_eq!(tokens(&engine, &prompt, (method, fixed), greedy), plain);
            }
        }
    }
}

#[test]
fn groups_that_do_not_divide_are_refused() {
    for (model, dtype, named) in [
        ("qwen-tied", "int8:48", "48"),
        ("qwen-tied", "int4:7", "7"),
        ("qwen-tied", "int8:0", "0"),
        ("llava-next", "int8", "the 80 inputs"),
    ] {
        let error = Engine::load(&EngineOptions {
            target: fixtures().join("models").join(model),
            draft: None,
            draft_vocab: DraftVocab::Auto,
            draft_layer_ids: LayerIds::Auto,
            device: DeviceSpec::Flex.open().unwrap(),
            dtype: dtype.parse().unwrap(),
            kv: KvPrecision::Auto,
        })
        .unwrap_err();
        assert!(matches!(error, ModelError::Quantize { .. }), "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[test]
fn measured_costs_are_kept_and_checked() {
    let engine = load("qwen-tied", Some("qwen-tied-q4"), DtypeChoice::F32);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/costs.json");
    let place = CalibrationPlace::File(path.clone());
    let origin = |method| calibrate(&engine, method, &place).unwrap().origin;
    assert_eq!(origin(Method::Vispec), CalibrationOrigin::Measured);
    assert_eq!(origin(Method::Vispec), CalibrationOrigin::File);
    let reason = |origin| match origin {
        CalibrationOrigin::Remeasured { reason } => reason,
        other => panic!("{other:?}"),
    };
    // Costs are measured again for another method, a truncated file and another machine.
    let other = reason(origin(Method::PromptLookup));
    // Both method and draft differ; the order of the JSON object decides which is named.
    assert!(
        other.contains("its method is") || other.contains("its draft is"),
        "{other}"
    );
    assert_eq!(origin(Method::PromptLookup), CalibrationOrigin::File);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    assert!(reason(origin(Method::PromptLookup)).contains("EOF"));
    let text = fs::read_to_string(&path).unwrap();
    let elsewhere = text.replace("\"machine\": \"", "\"machine\": \"another ");
    fs::write(&path, elsewhere).unwrap();
    assert!(reason(origin(Method::PromptLookup)).contains("machine"));
    assert_eq!(origin(Method::PromptLookup), CalibrationOrigin::File);
}

#[test]
fn costs_that_turned_out_to_be_wrong_are_measured_again() {
    let engine = load("qwen-tied", Some("qwen-tied-q4"), DtypeChoice::F32);
    let dir = tempfile::tempdir().unwrap();
    let place = CalibrationPlace::InDir(dir.path().to_owned());
    let origin = |method| calibrate(&engine, method, &place).unwrap().origin;
    let doubt = |method| {
        let drift = CostDrift {
            factor: 0.5,
            passes: 64,
        };
        doubt_costs(&engine, method, &place, drift).unwrap();
    };
    // There are no costs to doubt yet.
    doubt(Method::Vispec);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    for method in [Method::Vispec, Method::PromptLookup] {
        assert_eq!(origin(method), CalibrationOrigin::Measured);
    }
    doubt(Method::Vispec);
    match origin(Method::Vispec) {
        CalibrationOrigin::Remeasured { reason } => {
            assert!(reason.contains("64 passes took 0.50 times"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    for method in [Method::Vispec, Method::PromptLookup] {
        assert_eq!(origin(method), CalibrationOrigin::File);
    }
}

#[test]
fn a_directory_keeps_the_costs_of_each_method_apart() {
    let engine = load("qwen-tied", Some("qwen-tied-q4"), DtypeChoice::F32);
    let dir = tempfile::tempdir().unwrap();
    let place = CalibrationPlace::InDir(dir.path().join("new"));
    for expected in [CalibrationOrigin::Measured, CalibrationOrigin::File] {
        for method in [Method::Vispec, Method::PromptLookup] {
            let origin = calibrate(&engine, method, &place).unwrap().origin;
            assert_eq!(origin, expected, "{method}");
        }
    }
}

#[test]
fn costs_of_another_checkpoint_are_not_used() {
    let copy = copy_of("models/qwen-tied");
    let file = tempfile::tempdir().unwrap();
    let place = CalibrationPlace::File(file.path().join("costs.json"));
    let origin = |engine: &Engine| {
        calibrate(engine, Method::PromptLookup, &place)
            .unwrap()
            .origin
    };
    let one = load("qwen-tied", None, DtypeChoice::F32);
    assert_eq!(origin(&one), CalibrationOrigin::Measured);
    let other = load_dirs(copy.path().to_owned(), None, DtypeChoice::F32);
    assert!(matches!(
        origin(&other),
        CalibrationOrigin::Remeasured { .. }
    ));
}

#[test]
fn costs_that_cannot_be_kept_are_still_used() {
    let engine = load("qwen-tied", None, DtypeChoice::F32);
    let in_the_way = tempfile::NamedTempFile::new().unwrap();
    let place = CalibrationPlace::InDir(in_the_way.path().to_owned());
    let calibration = calibrate(&engine, Method::PromptLookup, &place).unwrap();
    assert!(matches!(calibration.unsaved, Some(ModelError::Io { .. })));
    // A write that fails at the end leaves no files behind either.
    let dir = tempfile::tempdir().unwrap();
    let in_the_way = dir.path().join("costs.json");
    std::fs::create_dir_all(in_the_way.join("x")).unwrap();
    let place = CalibrationPlace::File(in_the_way);
    let calibration = calibrate(&engine, Method::PromptLookup, &place).unwrap();
    assert!(matches!(calibration.unsaved, Some(ModelError::Io { .. })));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn kept_quantised_weights_are_read_and_made_anew_when_the_model_changes() {
    let copy = copy_of("models/qwen-tied");
    let kept = copy.path().join("vispec-int8.safetensors");
    let load = |keep| {
        let quantization = Quantization {
            bits: Bits::Eight,
            group: None,
            keep,
        };
        load_dirs(
            copy.path().to_owned(),
            None,
            DtypeChoice::Quantized(quantization),
        )
    };
    let answer = |engine: &Engine| {
        let prompt = question(engine, "qwen-tied", "Describe the image briefly.");
        let plain = (Method::None, TreeShape::default().into());
        tokens(
            engine,
            &prompt,
            plain,
            Sampler::new(1.0, None, None).unwrap(),
        )
    };
    let expected = answer(&load(KeepQuantized::InMemory));
    assert!(!kept.exists(), "weights are kept only on request");
    assert_eq!(answer(&load(KeepQuantized::BesideCheckpoint)), expected);
    let first = fs::read(&kept).unwrap();
    let changed = || fs::metadata(&kept).unwrap().modified().unwrap();
    let before = changed();
    assert_eq!(answer(&load(KeepQuantized::BesideCheckpoint)), expected);
    assert_eq!(changed(), before, "read, not written");

    // A truncated file, and a model that was replaced by another one.
    fs::write(&kept, &first[..first.len() / 2]).unwrap();
    assert_eq!(answer(&load(KeepQuantized::BesideCheckpoint)), expected);
    assert_eq!(fs::read(&kept).unwrap().len(), first.len());
    let weights = copy.path().join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let half = bytes.len() / 2;
    bytes[half..half + 4000].fill(0);
    fs::write(&weights, bytes).unwrap();
    load(KeepQuantized::BesideCheckpoint);
    assert!(
        fs::read(&kept).unwrap() != first,
        "made from the new weights"
    );
}
