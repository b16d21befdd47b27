//! A custom target model without a tensor library: plain and speculative decoding agree.
#![allow(clippy::print_stdout, reason = "a program prints its result")]

use clap::Parser;
use vispec_core::{BoxError, DecodeError, Drafter, Generation, GenerationConfig, HostLogits};
use vispec_core::{KvCache, MatchPicks, NoDraft, NodeId, PassInput, PromptLookupDrafter};
use vispec_core::{TargetModel, TargetOutput, TokenId, generate};

/// Continues the Fibonacci numbers modulo 7.
struct Fibonacci;
type Output = Result<TargetOutput<HostLogits, ()>, BoxError>; // hidden states: none here

/// A real model caches keys and values; this one caches the tokens themselves.
struct Tokens(Vec<TokenId>);

impl KvCache for Tokens {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn keep_path(&mut self, base: usize, path: &[NodeId]) {
        let row = |node: &NodeId| self.0[base + node.index()];
        let kept: Vec<TokenId> = path.iter().map(row).collect();
        self.0.splice(base.., kept);
    }
    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }
}

impl TargetModel for Fibonacci {
    type Prompt = Vec<TokenId>;
    type Cache = Tokens;
    type Features = ();
    type Logits = HostLogits;
    fn vocab_size(&self) -> usize {
        7
    }
    fn context_len(&self) -> usize {
        64
    }
    fn new_cache(&self) -> Result<Tokens, BoxError> {
        Ok(Tokens(Vec::new()))
    }
    fn read(&self, input: PassInput<'_, Vec<TokenId>>, cache: &mut Tokens) -> Output {
        let next = |before: &[TokenId]| before.iter().rev().take(2).sum::<TokenId>() % 7;
        let mut rows = Vec::new(); // the token after each row
        if let PassInput::Prompt { prompt, end } = input {
            cache.0.extend_from_slice(&prompt[cache.len()..end]);
            rows.push(next(&cache.0)); // only after the last token
        } else if let PassInput::Tree(tree) = input {
            for node in tree.nodes() {
                let path = tree.path(node).into_iter().map(|node| tree.token(node));
                let before: Vec<TokenId> = cache.0.iter().copied().chain(path).collect();
                rows.push(next(&before));
            }
            cache.0.extend_from_slice(tree.tokens()); // one row per node
        }
        let one_hot = |next| (0..7).map(move |token| f32::from(token == next));
        let logits = rows.into_iter().flat_map(one_hot).collect();
        let (logits, features) = (HostLogits::new(logits, 7), ());
        Ok(TargetOutput { logits, features })
    }
    fn gather_features(&self, _features: (), _path: &[NodeId]) -> Result<(), BoxError> {
        Ok(())
    }
}

fn run(drafter: impl Drafter<Fibonacci>) -> Result<Generation, DecodeError> {
    let (rule, config) = (MatchPicks::greedy(), GenerationConfig::default());
    generate(&Fibonacci, drafter, rule, &vec![0, 1], config, &mut ())
}

/// Decode with a custom target model, plainly and speculatively
#[derive(Parser)]
struct Flags {}

fn main() -> Result<(), DecodeError> {
    let Flags {} = examples_answer::command_line::parse(env!("CARGO_BIN_NAME"));
    let (plain, fast) = (run(NoDraft)?, run(PromptLookupDrafter::default())?);
    println!("plain        {:?}", plain.tokens);
    println!("speculative  {:?}", fast.tokens);
    let identical = ["no", "yes"][usize::from(plain.tokens == fast.tokens)];
    println!("tau {:.2}\nidentical: {identical}", fast.stats.tau());
    Ok(())
}
