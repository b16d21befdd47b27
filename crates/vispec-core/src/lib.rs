//! Exact speculative decoding with token trees, without a tensor library.
//!
//! A large model (the *target*) that emits one token per forward pass leaves most of the hardware
//! idle. In speculative decoding, a fast *drafter* guesses a tree of continuations and the target
//! checks the whole tree in one pass. The longest path on which every guess matches the target's
//! own choice is kept. The answer equals that of plain decoding; only the number of passes changes.
//!
//! # One cycle
//!
//! ```text
//!                 root: last emitted token, not yet in the target's cache
//!                  |
//!   Drafter -----> TokenTree -----> TargetModel::verify -----> AcceptanceRule::accept
//!      ^             the              one pass over all           walks down while the
//!      |             guesses          nodes under a mask          target's pick is a child
//!      |                                                                |
//!      |    features of the path       KvCache::keep_path               v
//!      +------------------------------ keeps its rows <------- Verdict { path, bonus }
//!                                                                       |
//!                       emitted: accepted tokens, then the bonus token <+
//! ```
//!
//! The bonus token is the target's own next token after the accepted path and the root of the next
//! tree, so a cycle emits at least one token even if every guess is wrong.
//! A [`Session`] holds all state of a generation and runs one cycle per [`step`](Session::step);
//! [`generate`] loops until the generation ends. Plain decoding is the same loop with [`NoDraft`].
//!
//! # What you supply
//!
//! * A target: [`TargetModel`], with its [`KvCache`], its [`Prompt`] and its [`TargetLogits`]
//!   ([`HostLogits`] if they are in host memory).
//! * A drafter: [`Drafter`] if it proposes trees itself, as [`PromptLookupDrafter`] does, or
//!   [`DraftModel`] if it is a network that scores continuations; then [`DynamicTreeDrafter`]
//!   grows EAGLE-2 trees with it.
//!
//! # What stays exact
//!
//! [`MatchPicks`] picks the target's token at each node of the accepted path, greedily or by
//! sampling. When it samples, the random number of a pick is a function of the seed and of the
//! absolute position of the token ([`PositionUniforms`]). A drafter that knows this number can
//! predict which token will be sampled ([`KnownPicks`]), but cannot change it. So the tokens are a
//! function of target, prompt, [`Sampler`] and seed: **a drafter affects the speed, never the
//! tokens**. (This assumes that the target computes the same logits for a tree as for single
//! tokens. In half precision they can differ in the last bit, which can change the choice in a
//! near-tie.) [`RecursiveRejection`] is the rule of the reference implementation; its tokens have
//! the same distribution.
//!
//! # Example
//!
//! ```
//! use vispec_core::testing::TableModel; // feature `test-util`
//! use vispec_core::{GenerationConfig, MatchPicks, NoDraft, PromptLookupDrafter, generate};
//!
//! // A toy target that counts to nine and starts again.
//! let target = TableModel::from_fn(10, |context| {
//!     let next = context.last().map_or(0, |&last| (last as usize + 1) % 10);
//!     (0..10).map(|token| if token == next { 5.0 } else { 0.0 }).collect()
//! });
//! let prompt = vec![7];
//! let config = GenerationConfig { max_new_tokens: 40, stop_tokens: vec![] };
//!
//! let rule = MatchPicks::greedy();
//! let plain = generate(&target, NoDraft, rule.clone(), &prompt, config.clone(), &mut ())?;
//! let drafter = PromptLookupDrafter::default();
//! let speculative = generate(&target, drafter, rule, &prompt, config, &mut ())?;
//!
//! assert_eq!(plain.tokens, speculative.tokens);
//! assert!(plain.stats.tau() < 1e-12); // accepted draft tokens per cycle
//! assert!(speculative.stats.tau() > 1.0);
//! assert!(2 * speculative.stats.n_cycles() < plain.stats.n_cycles());
//! # Ok::<(), vispec_core::DecodeError>(())
//! ```
//!
//! # Features
//!
//! * `serde`: (de)serialisation of statistics, settings and results.
//! * `test-util`: the `testing` module, toy targets and drafters.

mod accept;
mod budget;
mod cache;
mod decode;
mod draft;
mod error;
mod logits;
mod observe;
mod panics;
mod sample;
mod speculation;
mod stats;
mod target;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
mod token;
mod tree;

pub use accept::{
    AcceptanceRule, AdjustedPicks, Chance, Constraint, ForcedTokens, MatchPicks, PickLog,
    PickedLogProbs, RecursiveRejection, Verdict,
};
pub use budget::{
    AutoTree, ContextCost, Cost, CostDrift, CostError, CostTable, CostWatch, DraftCosts, PassLoad,
    SpeculationSummary, TargetCosts, TimedPass, WatchedPasses, measure_draft_costs,
    measure_target_costs, plain_time,
};
pub use cache::KvCache;
pub use decode::{
    Batch, Ended, FinishReason, Generation, GenerationConfig, Pass, PassRows, PassTimes,
    SequenceId, Session, Step, Work, generate, generate_in,
};
pub use draft::{
    Ask, Beam, DraftError, DraftModel, DraftPass, DraftPassOf, DraftStep, Drafter,
    DynamicTreeDrafter, Expansion, GrownLevel, Idle, NoDraft, PromptLookupConfig,
    PromptLookupDrafter, Proposal, SuffixStore, SuffixStoreUsage, TopK, TreeSize,
};
pub use error::{ConfigError, DecodeError};
pub use logits::{HostLogits, LogitsError, TargetLogits};
pub use observe::GenerationObserver;
pub use panics::{Panicked, guarded};
pub use sample::{
    KnownPick, KnownPicks, LogitAdjustments, PositionUniforms, Sampler, UniformStream, Withheld,
};
pub use speculation::{Speculation, SpeculationReason};
pub use stats::GenerationStats;
pub use target::{OutputOf, PassInput, Prompt, Segment, TargetModel, TargetOutput};
pub use token::{BoxError, TokenId};
pub use tree::{NodeId, ShapeError, TokenTree, TreeError, TreeMask, TreeShape};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
