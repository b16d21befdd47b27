//! Measures passes and cycles of a model.

use std::path::PathBuf;
use std::time::Instant;

use burn::tensor::{DType, Device};
use vispec_core::{
    BoxError, GenerationObserver, KvCache, Prompt, Sampler, TargetLogits, TargetModel, TokenTree,
    Verdict, measure_target_costs,
};
use vispec_models::{DtypeChoice, EncodedPrompt, Engine, Method, ModelError, Precision, ReadBacks};
use vispec_processor::Messages;

use crate::launches::Launches;
use crate::reference::{Decoding, shape};
use crate::report::{Cycle, Decoded, Drafted, ModelReport, Tokens};
use crate::{Passes, chain};

/// A model to measure.
pub(crate) struct Measured {
    pub(crate) target: PathBuf,
    pub(crate) draft: Option<PathBuf>,
    pub(crate) dtype: DtypeChoice,
}

impl Measured {
    /// Returns the last part of the target's path.
    pub(crate) fn name(&self) -> String {
        let name = self.target.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

/// Returns bf16, the type of published models, if the device supports it, otherwise `other`.
pub(crate) fn published_dtype(
    device: &Device,
    other: DtypeChoice,
) -> Result<DtypeChoice, ModelError> {
    match Precision::choose(DtypeChoice::Bf16, DType::BF16, device) {
        Ok(_) => Ok(DtypeChoice::Bf16),
        Err(ModelError::UnsupportedDtype { .. } | ModelError::WrongArithmetic { .. }) => Ok(other),
        Err(error) => Err(error),
    }
}

/// The state of a run just after a tree was verified.
struct Moment {
    nodes: usize,
    at: Instant,
    launched: usize,
    read: ReadBacks,
}

/// Records a [`Moment`] for each verified tree.
struct Cycles {
    launches: Launches,
    moments: Vec<Moment>,
}

impl GenerationObserver for Cycles {
    fn on_verify(&mut self, tree: &TokenTree, _: &Verdict, _: std::time::Duration) {
        self.moments.push(Moment {
            nodes: tree.n_nodes(),
            at: Instant::now(),
            launched: self.launches.so_far(),
            read: ReadBacks::of_this_thread(),
        });
    }
}

impl Cycles {
    fn watch() -> Self {
        Self {
            launches: Launches::watch(),
            moments: Vec::new(),
        }
    }

    /// Returns the mean over the cycles whose trees are as large as the first one: the last trees
    /// are smaller, because the answer has a token limit. The first cycle, in which the draft
    /// reads the prompt, is left out.
    fn mean(&self) -> Option<Cycle> {
        let first = self.moments.first()?;
        let alike = self.moments.iter();
        let alike = alike.take_while(|moment| moment.nodes == first.nodes);
        let last = alike.last()?;
        let n_cycles = self
            .moments
            .iter()
            .position(|moment| moment.at == last.at)?;
        if n_cycles == 0 {
            return None;
        }
        let mean = |sum: f64| sum / n_cycles as f64;
        let seconds = mean((last.at - first.at).as_secs_f64());
        let read = last.read - first.read;
        let launched = last.launched - first.launched;
        Some(Cycle {
            cycles: n_cycles,
            seconds,
            launches: (launched > 0).then_some(mean(launched as f64)),
            read_backs: mean(read.count as f64),
            host_share: 1.0 - mean(read.waited.as_secs_f64()) / seconds,
        })
    }
}

/// Returns the shortest time of ten passes over one token.
fn seconds_of_one(engine: &Engine, prompt: &EncodedPrompt) -> Result<f64, BoxError> {
    let target = engine.target();
    let mut cache = target.new_cache()?;
    target.prefill(prompt, &mut cache)?;
    let mut best = f64::INFINITY;
    for _ in 0..10 {
        let start = Instant::now();
        let mut output = target.verify(&TokenTree::new(0), &mut cache)?;
        output.logits.pick(0, &Sampler::Greedy, 0.0)?;
        best = best.min(start.elapsed().as_secs_f64());
        cache.truncate(prompt.token_ids().len());
    }
    Ok(best)
}

/// Measures `measured`, loaded as `engine`.
pub(crate) fn model(
    measured: &Measured,
    engine: Engine,
    new_tokens: usize,
) -> Result<ModelReport, BoxError> {
    let question = "Describe how a lock and key work, from the beginning, in detail.";
    let messages = Messages::from_prompt(None, question, 0);
    let (prompt, _) = engine.encode(&messages, &[])?;
    let target = engine.target();
    let (precision, weights) = (target.precision(), target.weights_per_pass());
    let costs = measure_target_costs(target, &prompt)?;
    let mut verify = Vec::new();
    for cost in &costs.verify {
        let mut cache = target.new_cache()?;
        target.prefill(&prompt, &mut cache)?;
        let tokens: Vec<u32> = (0..).take(cost.rows).collect();
        let launches = Launches::watch();
        let output = target.verify(&chain(&tokens), &mut cache);
        let launched = launches.so_far();
        output?.logits.pick(0, &Sampler::Greedy, 0.0)?;
        verify.push((cost.rows, cost.seconds, (launched > 0).then_some(launched)));
    }
    let decoding = Decoding::greedy(new_tokens);
    let tree = shape(3, 8, 30);
    // The first run compiles kernels, the second is timed.
    let answer = |method| -> Result<_, BoxError> {
        decoding.try_answer(&engine, &prompt, method, tree, &mut ())?;
        let mut cycles = Cycles::watch();
        let answer = decoding.try_answer(&engine, &prompt, method, tree, &mut cycles)?;
        let decoded = Decoded {
            tokens_per_second: answer.stats.decode_tokens_per_second(),
            cycle: cycles.mean(),
        };
        Ok((answer, decoded))
    };
    let (plain, plain_decoded) = answer(Method::None)?;
    let drafted = match engine.default_method() {
        Method::None => None,
        method => {
            let (drafted, decoded) = answer(method)?;
            Some(Drafted {
                method: method.to_string(),
                nodes: tree.max_nodes(),
                tau: drafted.stats.tau(),
                decoded,
                beside_plain: Tokens::compare(&drafted.tokens, &plain.tokens),
            })
        }
    };
    let padded = match Passes::Padded.of(engine) {
        Ok(engine) => Some(seconds_of_one(&engine, &prompt)?),
        // The CPU does not support padded passes.
        Err(_) => None,
    };
    Ok(ModelReport {
        target: measured.name(),
        dtype: precision.to_string(),
        weight_bytes: weights * precision.storage.size(),
        prefill_seconds_per_token: costs.prefill,
        verify,
        padded_seconds: padded,
        plain: plain_decoded,
        drafted,
    })
}
