//! A ViSpec draft for a Qwen3-VL target, whose heads are together wider than its hidden state.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use vispec_core::{
    Generation, GenerationConfig, MatchPicks, PositionUniforms, Sampler, TreeShape, generate,
};
use vispec_models::{
    DraftKind, DraftVocab, DtypeChoice, EncodedPrompt, Engine, EngineOptions, KvPrecision,
    LayerIds, Method, TargetText,
};
use vispec_processor::{DecodedImage, ImageOptions, Messages};
use vispec_train::data::DraftVocabulary;
use vispec_train::ranks::Ranks;
use vispec_train::run::{Ended, RunPaths, Trainer};
use vispec_train::{DraftSettings, Start, TrainError};

use crate::samples::{SHORT, Seen, config, fixtures, place, samples};

fn engine(target: &Path, draft: &Path) -> Engine {
    Engine::load(&EngineOptions {
        target: target.to_owned(),
        draft: Some(draft.to_owned()),
        draft_vocab: DraftVocab::Auto,
        draft_layer_ids: LayerIds::Auto,
        device: Device::flex(),
        dtype: DtypeChoice::F32,
        kv: KvPrecision::Auto,
    })
    .unwrap()
}

fn answer(engine: &Engine, prompt: &EncodedPrompt, method: Method, sampler: Sampler) -> Generation {
    let shape = TreeShape::from_upstream(3, 8, 30).unwrap();
    let config = GenerationConfig {
        max_new_tokens: 24,
        stop_tokens: Vec::new(),
    };
    generate(
        engine.target(),
        engine.drafter(method, shape).unwrap(),
        MatchPicks::new(sampler, PositionUniforms::new(2)),
        prompt,
        config,
        &mut (),
    )
    .unwrap()
}

#[test]
fn a_draft_is_trained_and_changes_no_token() {
    let dir = fixtures().join("models/qwen3-tied");
    let target = TargetText::load(&dir, &Device::flex(), DtypeChoice::F32).unwrap();
    let out = tempfile::tempdir().unwrap();
    let paths = RunPaths {
        out: out.path().join("run"),
    };
    let config = config("vispec-stage2.toml", &SHORT);
    let data = samples(&target, 6);
    let start = |_: Option<&DraftVocabulary>| {
        Start::fresh(&config.draft, &place(&target, &dir), config.seed)
    };
    let mut trainer = Trainer::open(
        config.clone(),
        &target,
        &data,
        paths.clone(),
        Ranks::alone(),
        start,
    )
    .unwrap();
    let mut seen = Seen::default();
    let ended = trainer.run(&AtomicBool::new(false), &mut seen).unwrap();
    assert_eq!(ended, Ended::Finished);

    let engine = engine(&dir, &paths.out.join("last"));
    assert_eq!(engine.draft().unwrap().kind(), DraftKind::Vispec);
    let cases = fixtures().join("qwen3-vl/cases/qwen3-tied/two-images");
    let open = |name: &str| DecodedImage::open(cases.join(name), &ImageOptions::default());
    let images = ["image_0.png", "image_1.png"].map(|name| open(name).unwrap());
    let messages = Messages::from_prompt(None, "What is in these pictures?", 2);
    let (prompt, _) = engine.encode(&messages, &images).unwrap();
    for sampler in [Sampler::Greedy, Sampler::new(1.0, None, None).unwrap()] {
        let plain = answer(&engine, &prompt, Method::None, sampler);
        for method in [Method::Vispec, Method::Vispec.with_lookup()] {
            let found = answer(&engine, &prompt, method, sampler);
            assert_eq!(found.tokens, plain.tokens, "{method}, {sampler:?}");
        }
    }
}

#[test]
fn heads_that_do_not_fit_are_refused() {
    let dir = fixtures().join("models/qwen3-untied");
    let target = TargetText::load(&dir, &Device::flex(), DtypeChoice::F32).unwrap();
    let draft: DraftSettings = config("vispec-stage2.toml", &[]).draft;
    let error = Start::fresh(&draft, &place(&target, &dir), 0).unwrap_err();
    assert!(
        matches!(
            error,
            TrainError::HeadSize {
                hidden: 64,
                head_dim: 24
            }
        ),
        "{error}"
    );
}
