//! A custom drafter that guesses that the answer continues like a text known beforehand, such as
//! the caption of a similar image. Usage: `custom_drafter TARGET IMAGE QUESTION GUESS`.
#![allow(clippy::print_stdout, reason = "a program prints its result")]

use vispec::core::{BoxError, Drafter, NodeId, Proposal, TargetModel, TokenId, TokenTree};
use vispec::core::{GenerationConfig, MatchPicks, NoDraft, generate};
use vispec::{
    DecodedImage, Engine, ImageOptions, LoadOptions, Messages, Method, SequenceTokens, SpecialText,
};

/// Number of tokens of the guess that are drafted per cycle.
const CHAIN: usize = 6;

/// Guesses the tokens that followed the last token in a known text.
struct KnownText(Vec<TokenId>);

impl KnownText {
    /// Returns a chain of the tokens after the first occurrence of `next` in the text.
    fn guess(&self, next: TokenId) -> Result<TokenTree, BoxError> {
        let mut tree = TokenTree::new(next);
        let mut node = NodeId::ROOT;
        let behind = self.0.iter().skip_while(|&&token| token != next).skip(1);
        for &token in behind.take(CHAIN) {
            node = tree.push(node, token)?;
        }
        Ok(tree)
    }
}

impl<T: TargetModel> Drafter<T> for KnownText {
    fn name(&self) -> &str {
        "known text"
    }

    fn begin(
        &mut self,
        _: &T::Prompt,
        _: T::Features,
        next: TokenId,
    ) -> Result<Proposal, BoxError> {
        Ok(self.guess(next)?.into())
    }

    fn advance(
        &mut self,
        _: &[TokenId],
        _: T::Features,
        next: TokenId,
    ) -> Result<Proposal, BoxError> {
        Ok(self.guess(next)?.into())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [target, image, question, guess] = std::array::from_fn(|at| std::env::args().nth(at + 1))
        .map(|arg| arg.ok_or("expected TARGET IMAGE QUESTION GUESS"));
    let options = LoadOptions {
        method: Some(Method::None),
        ..LoadOptions::default()
    };
    let engine = Engine::load(&target?, None, options)?;
    let models = engine.models();
    let tokenizer = models.processor().tokenizer();
    let image = DecodedImage::open(image?, &ImageOptions::default())?;
    let messages = Messages::from_prompt(None, &question?, 1);
    let (prompt, _) = models.encode(&messages, &[image])?;
    let config = GenerationConfig {
        max_new_tokens: 128,
        stop_tokens: models.processor().eos_token_ids().iter().copied().collect(),
    };
    let (target, rule) = (models.target(), MatchPicks::greedy());
    let plain = generate(
        target,
        NoDraft,
        rule.clone(),
        &prompt,
        config.clone(),
        &mut (),
    )?;
    let drafter = KnownText(tokenizer.encode(&guess?, SequenceTokens::Omit)?);
    let drafted = generate(target, drafter, rule, &prompt, config, &mut ())?;
    println!("{}", tokenizer.decode(&drafted.tokens, SpecialText::Skip)?);
    println!("identical: {}", plain.tokens == drafted.tokens);
    let (tau, tokens_per_cycle) = (drafted.stats.tau(), drafted.stats.tokens_per_cycle());
    println!("tau {tau:.2}, {tokens_per_cycle:.2} tokens per cycle");
    Ok(())
}
