//! Requests, and their answers by plain decoding without a scheduler.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

use vispec::core::{GenerationConfig, MatchPicks, NoDraft, PositionUniforms, generate};
use vispec::{AnswerPrompt, AnswerRequest, Engine, ImageInput, Messages, Sampler, SpecialText};

use crate::models::{images, shared};

/// Number of different prompts.
pub const PROMPTS: usize = 5;

/// Maximum number of tokens of an answer that a test holds open.
pub const HOLD: usize = 4000;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    pub prompt: usize,
    pub max_new_tokens: usize,
    /// Temperature in tenths; 0 is greedy.
    pub temperature: u8,
    pub seed: u64,
    pub stop: Vec<String>,
}

impl Asked {
    pub fn greedy(prompt: usize, max_new_tokens: usize) -> Self {
        Self {
            prompt,
            max_new_tokens,
            temperature: 0,
            seed: 0,
            stop: Vec::new(),
        }
    }

    /// Returns a request whose answer ends only at the limit.
    pub fn hold() -> AnswerRequest {
        let eos = shared().models().processor().eos_token_ids();
        let mut request = Self::greedy(0, HOLD).request();
        request.adjustments.logit_bias = eos.iter().map(|&token| (token, -100.0)).collect();
        request
    }

    fn sampler(&self) -> Sampler {
        Sampler::new(f32::from(self.temperature) / 10.0, None, None).unwrap()
    }

    fn answer_prompt(&self) -> AnswerPrompt {
        let [large, small] = images();
        let chat = |question: &str, images: &[_]| AnswerPrompt::Chat {
            messages: Messages::from_prompt(None, question, images.len()),
            images: images.iter().cloned().map(ImageInput::Decoded).collect(),
            videos: Vec::new(),
        };
        match self.prompt {
            0 => AnswerPrompt::Text("The picture".to_owned()),
            1 => AnswerPrompt::Text("a quiet street ".repeat(60)),
            2 => chat("Describe the image briefly.", std::slice::from_ref(large)),
            3 => chat("What is in this picture?", std::slice::from_ref(small)),
            _ => chat("Compare them.", &[large.clone(), small.clone()]),
        }
    }

    pub fn request(&self) -> AnswerRequest {
        AnswerRequest {
            max_new_tokens: self.max_new_tokens,
            sampler: self.sampler(),
            seed: self.seed,
            stop: self.stop.clone(),
            ..AnswerRequest::new(self.answer_prompt())
        }
    }

    /// Returns text and tokens without draft, scheduler and stop strings.
    fn decoded(&self) -> (String, Vec<u32>) {
        type Known = Mutex<HashMap<Asked, (String, Vec<u32>)>>;
        static KNOWN: OnceLock<Known> = OnceLock::new();
        let key = Self {
            stop: Vec::new(),
            ..self.clone()
        };
        let known = KNOWN.get_or_init(Mutex::default);
        let mut known = known.lock().unwrap();
        let entry = known.entry(key).or_insert_with(|| self.decode(shared()));
        entry.clone()
    }

    fn decode(&self, engine: &Engine) -> (String, Vec<u32>) {
        let models = engine.models();
        let (prompt, _) = match self.answer_prompt() {
            AnswerPrompt::Text(text) => models.encode_text(&text, &|| true).unwrap(),
            AnswerPrompt::Chat {
                messages, images, ..
            } => {
                let images = images.into_iter().map(|image| match image {
                    ImageInput::Decoded(image) => image,
                    ImageInput::File(_) => unreachable!("images are decoded"),
                });
                models.encode(&messages, &Vec::from_iter(images)).unwrap()
            }
        };
        let config = GenerationConfig {
            max_new_tokens: self.max_new_tokens,
            stop_tokens: models.processor().eos_token_ids().iter().copied().collect(),
        };
        let rule = MatchPicks::new(self.sampler(), PositionUniforms::new(self.seed));
        let answer = generate(models.target(), NoDraft, rule, &prompt, config, &mut ()).unwrap();
        let tokenizer = models.processor().tokenizer();
        let text = tokenizer.decode(&answer.tokens, SpecialText::Skip).unwrap();
        (text, answer.tokens)
    }

    /// Returns the text that the request gets alone, cut before the stop string that is completed
    /// first.
    pub fn alone(&self) -> String {
        let (mut text, _) = self.decoded();
        let found = self.stop.iter().filter_map(|stop| {
            let start = text.find(stop.as_str())?;
            Some((start + stop.len(), start))
        });
        if let Some((_, start)) = found.min() {
            text.truncate(start);
        }
        text
    }
}
