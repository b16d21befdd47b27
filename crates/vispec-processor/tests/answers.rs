//! Conversations with their answers: marks the tokens that a target would have written.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use vispec_processor::{
    AnsweredPrompt, DecodedImage, ImageOptions, Messages, Processor, ProcessorError, SpecialText,
};

const MODELS: [&str; 4] = ["qwen-tied", "qwen-untied", "llava-15", "llava-next"];

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn processor(model: &str) -> Processor {
    Processor::from_dir(fixtures().join("models").join(model)).unwrap()
}

fn image(model: &str) -> DecodedImage {
    let path = fixtures().join(format!("cases/{model}/img-short/image_0.png"));
    DecodedImage::open(path, &ImageOptions::default()).unwrap()
}

fn conversation() -> Messages {
    let json = br#"[
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe it."}]},
        {"role": "assistant", "content": "A large red circle."},
        {"role": "user", "content": "What is two plus three?"},
        {"role": "assistant", "content": "five"}]"#;
    Messages::from_json(json).unwrap()
}

/// Decodes the runs of answer tokens.
fn answers(processor: &Processor, answered: &AnsweredPrompt) -> Vec<String> {
    let mut runs: Vec<Vec<u32>> = Vec::new();
    let mut inside = false;
    for (&id, &is_answer) in answered.prompt.token_ids.iter().zip(&answered.answers) {
        if is_answer && !inside {
            runs.push(Vec::new());
        }
        if is_answer {
            runs.last_mut().unwrap().push(id);
        }
        inside = is_answer;
    }
    let decode = |run: &Vec<u32>| {
        processor
            .tokenizer()
            .decode(run, SpecialText::Keep)
            .unwrap()
    };
    runs.iter().map(decode).collect()
}

#[test]
fn answers_are_marked_with_the_token_that_ends_them() {
    for model in MODELS {
        let processor = processor(model);
        let answered = processor
            .prepare_answered(&conversation(), &[image(model)], usize::MAX)
            .unwrap();
        let expected = if model.starts_with("qwen") {
            ["A large red circle.<|im_end|>", "five<|im_end|>"]
        } else {
            [" A large red circle.</s>", " five</s>"]
        };
        assert_eq!(answers(&processor, &answered), expected, "{model}");
        assert_eq!(answered.n_cut, 0);
        assert_eq!(answered.prompt.image_runs.len(), 1);
        let run = answered.prompt.image_runs[0].clone();
        let image_token = processor.image_token_id();
        let ids = &answered.prompt.token_ids;
        assert!(ids[run.clone()].iter().all(|&id| id == image_token));
        assert!(answered.answers[run].iter().all(|is_answer| !is_answer));
    }
}

#[test]
fn the_text_before_an_answer_is_the_prompt_for_it() {
    // True for Qwen's chat template; LLaVA was trained on a template that differs from its chat
    // template.
    let processor = processor("qwen-tied");
    let image = [image("qwen-tied")];
    let answered = processor
        .prepare_answered(&conversation(), &image, usize::MAX)
        .unwrap();
    let first = answered
        .answers
        .iter()
        .position(|&is_answer| is_answer)
        .unwrap();
    let question = Messages::new(conversation().as_slice()[..1].to_vec()).unwrap();
    let prompt = processor.prepare(&question, &image).unwrap();
    assert_eq!(answered.prompt.token_ids[..first], prompt.token_ids);
}

#[test]
fn long_conversations_are_cut() {
    for model in MODELS {
        let processor = processor(model);
        let messages = conversation();
        let images = [image(model)];
        let prepare = |limit| processor.prepare_answered(&messages, &images, limit);
        let whole = prepare(usize::MAX).unwrap();
        let n_tokens = whole.prompt.token_ids.len();
        let end = whole.prompt.image_runs[0].end;
        for limit in end..n_tokens {
            let cut = prepare(limit).unwrap();
            assert_eq!(cut.n_cut, n_tokens - limit);
            assert_eq!(cut.answers, whole.answers[..limit]);
            assert_eq!(cut.prompt.token_ids, whole.prompt.token_ids[..limit]);
            assert_eq!(cut.prompt.positions.len(), limit);
        }
        let error = prepare(end - 1).unwrap_err();
        assert!(
            matches!(error, ProcessorError::PromptTooLong { .. }),
            "{error}"
        );
    }
}

#[test]
fn prepared_tokens_give_the_same_input_again() {
    for model in MODELS {
        let processor = processor(model);
        let images = [image(model)];
        let prompt = processor
            .prepare_answered(&conversation(), &images, usize::MAX)
            .unwrap()
            .prompt;
        let mut again = processor
            .prepare_tokens(&prompt.token_ids, &images)
            .unwrap();
        again.rendered.clone_from(&prompt.rendered);
        assert_eq!(again, prompt, "{model}");
        for images in [vec![], vec![image(model), image(model)]] {
            let error = processor
                .prepare_tokens(&prompt.token_ids, &images)
                .unwrap_err();
            assert!(
                matches!(error, ProcessorError::PlaceholderCount { .. }),
                "{error}"
            );
        }
    }
}

#[test]
fn limits_of_pixels_change_the_tokens_of_an_image() {
    let count = |processor: &Processor| {
        let size = image("qwen-tied").size();
        processor.image_processor().n_tokens(size).unwrap()
    };
    let small = processor("qwen-tied")
        .with_pixels(Some(784), Some(784))
        .unwrap();
    let large = processor("qwen-tied")
        .with_pixels(Some(50_176), Some(100_352))
        .unwrap();
    assert_eq!(count(&small), 1);
    assert!((64..=128).contains(&count(&large)), "{}", count(&large));
    for (min, max) in [(0, 1), (2, 1)] {
        let error = processor("qwen-tied")
            .with_pixels(Some(min), Some(max))
            .unwrap_err();
        assert!(
            matches!(error, ProcessorError::PixelLimits { .. }),
            "{error}"
        );
    }
}
