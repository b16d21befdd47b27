//! Measurement of the times of passes.
//!
//! This is the only place where the crate's decisions depend on a clock, once before a run. The
//! table can be saved and reused.

use std::time::{Duration, Instant};

use super::{ContextCost, Cost, DraftCosts, TargetCosts};
use crate::{
    Ask, Beam, DecodeError, DraftModel, KvCache, NodeId, Prompt, Sampler, TargetLogits,
    TargetModel, TargetOutput, TokenTree,
};

/// Numbers of nodes of the measured verify passes.
const NODES: [usize; 13] = [1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64];
/// Numbers of rows of the measured draft levels.
const ROWS: [usize; 4] = [1, 2, 4, 8];
/// Tokens of a single commit that measures the draft's time of reading.
const READ_ROWS: usize = 32;
/// Maximum number of rounds of single passes; each round measures all sizes in turn.
const ROUNDS: usize = 9;
/// Maximum number of rounds of repeated passes.
const STEADY_ROUNDS: usize = 3;
/// No new round starts after this time.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// A pass is repeated until this many in a row were no faster than the fastest.
const STALE: usize = 4;
/// A pass is not repeated after this time.
const REPEAT_TIME: Duration = Duration::from_millis(150);
/// A tree never pays if its pass takes this many times as long as a pass over the root: the draft
/// would have to guess that many tokens ahead.
const MAX_COST_RATIO: f64 = 8.0;

/// Returns the time of each pass size: the shortest of at most `rounds` rounds, since other work on
/// the machine only ever adds time, and comes in bursts. So all sizes are measured in turn, and the
/// time of a pass is capped by that of the next larger one.
fn shortest(
    sizes: &[usize],
    rounds: usize,
    mut time: impl FnMut(usize) -> Result<Duration, DecodeError>,
) -> Result<Vec<Cost>, DecodeError> {
    let started = Instant::now();
    let mut costs: Vec<Cost> = Vec::new();
    for &rows in sizes {
        let seconds = time(rows)?.as_secs_f64();
        costs.push(Cost { rows, seconds });
        if seconds > MAX_COST_RATIO * costs[0].seconds {
            break;
        }
    }
    for _ in 1..rounds {
        if started.elapsed() > PATIENCE {
            break;
        }
        for cost in &mut costs {
            cost.seconds = cost.seconds.min(time(cost.rows)?.as_secs_f64());
        }
    }
    let mut least = f64::INFINITY;
    for cost in costs.iter_mut().rev() {
        least = least.min(cost.seconds).max(1e-9);
        cost.seconds = least;
    }
    Ok(costs)
}

/// Repeats a pass until it gets no faster, and returns its shortest time.
///
/// Weights that fit into the last cache get there within a dozen small passes, and leave it with one
/// large pass. On a processor with 260 MiB of cache, a pass over one row took 6.5 ms after a pass
/// over 64 rows, and 4.1 ms after 20 of its own size, as in plain decoding.
fn steady(
    mut pass: impl FnMut() -> Result<Duration, DecodeError>,
) -> Result<Duration, DecodeError> {
    let started = Instant::now();
    let mut shortest = pass()?;
    let mut stale = 0;
    while stale < STALE && started.elapsed() < REPEAT_TIME {
        let time = pass()?;
        stale = if time < shortest { 0 } else { stale + 1 };
        shortest = shortest.min(time);
    }
    Ok(shortest)
}

/// Measures the prefill of `prompt`, and verify passes of 1 to 64 nodes after it. Stops at sizes
/// where larger trees cannot pay.
///
/// # Errors
/// Any error of the target.
pub fn measure_target_costs<T: TargetModel>(
    target: &T,
    prompt: &T::Prompt,
) -> Result<TargetCosts, DecodeError> {
    let mut cache = target.new_cache().map_err(DecodeError::Target)?;
    // The first prefill touches all weights; the second one is timed.
    target
        .prefill(prompt, &mut cache)
        .map_err(DecodeError::Target)?;
    cache.truncate(0);
    let start = Instant::now();
    let output = target.prefill(prompt, &mut cache);
    let TargetOutput { mut logits, .. } = output.map_err(DecodeError::Target)?;
    wait(&mut logits)?;
    let prefill = per_token(start.elapsed(), prompt);
    let base = cache.len();
    let room = (target.context_len() - base).min(target.vocab_size());
    let sizes = NODES.partition_point(|&nodes| nodes <= room);
    let mut pass = |nodes, base| {
        cache.truncate(base);
        let tree = bush(nodes);
        let start = Instant::now();
        let output = target.verify(&tree, &mut cache);
        let TargetOutput { mut logits, .. } = output.map_err(DecodeError::Target)?;
        wait(&mut logits)?;
        Ok(start.elapsed())
    };
    let verify = shortest(&NODES[..sizes], STEADY_ROUNDS, |nodes| {
        steady(|| pass(nodes, base))
    })?;
    // Measured last, because it shortens the cache.
    let shallow = shortest(&[1], STEADY_ROUNDS, |nodes| steady(|| pass(nodes, 1)))?;
    let more = verify[0].seconds - shallow[0].seconds;
    Ok(TargetCosts {
        prefill,
        context: ContextCost {
            tokens: base,
            per_token: more.max(0.0) / base as f64,
        },
        verify,
    })
}

/// Waits for devices that compute in the background.
fn wait(logits: &mut impl TargetLogits) -> Result<(), DecodeError> {
    let picked = logits.pick(0, &Sampler::Greedy, 0.0);
    picked
        .map(drop)
        .map_err(|error| DecodeError::from_logits(error, 0))
}

fn per_token(time: Duration, prompt: &impl Prompt) -> f64 {
    time.as_secs_f64() / prompt.token_ids().len().max(1) as f64
}

/// Returns a root with `nodes - 1` children.
fn bush(nodes: usize) -> TokenTree {
    let mut tree = TokenTree::with_capacity(0, nodes);
    for token in (1..).take(nodes - 1) {
        tree.push(NodeId::ROOT, token)
            .expect("the root is there and the token is new");
    }
    tree
}

/// Measures the passes of a draft after `prompt`.
///
/// # Errors
/// Any error of the target or the draft.
pub fn measure_draft_costs<T: TargetModel, M: DraftModel<T>>(
    target: &T,
    model: &mut M,
    prompt: &T::Prompt,
) -> Result<DraftCosts, DecodeError> {
    let mut cache = target.new_cache().map_err(DecodeError::Target)?;
    let output = target.prefill(prompt, &mut cache);
    let TargetOutput { features, .. } = output.map_err(DecodeError::Target)?;
    let most = Ask::best(ROWS[ROWS.len() - 1]);
    model
        .begin(prompt, features, 0, most)
        .map_err(DecodeError::Draft)?;
    let base = cache.len();
    let room = (target.context_len() - base).min(target.vocab_size());
    let mut decode = |rows| {
        let output = target.verify(&bush(rows), &mut cache);
        cache.truncate(base);
        let TargetOutput {
            mut logits,
            features,
        } = output.map_err(DecodeError::Target)?;
        // The draft's time must not include waiting for the target.
        wait(&mut logits)?;
        Ok::<_, DecodeError>(features)
    };
    let lengths = [1, READ_ROWS.min(room).max(2)];
    let commit = shortest(&lengths, ROUNDS, |rows| {
        let (accepted, features) = (vec![0; rows - 1], decode(rows)?);
        let start = Instant::now();
        model
            .commit(&accepted, features, 0, most)
            .map_err(DecodeError::Draft)?;
        Ok(start.elapsed())
    })?;
    let [one, many] = [commit[0].seconds, commit[commit.len() - 1].seconds];
    let read = (many - one) / (lengths[1] - 1) as f64;
    let expand = shortest(&ROWS, ROUNDS, |rows| {
        let beam = Beam {
            level: 0,
            tokens: vec![0; rows],
            parent_rows: vec![0; rows],
            paths: (0..rows).map(|row| vec![row]).collect(),
        };
        let first = model.commit(&[], decode(1)?, 0, most);
        let first = first.map_err(DecodeError::Draft)?;
        let start = Instant::now();
        model
            .expand(&beam, &first.hidden, most)
            .map_err(DecodeError::Draft)?;
        Ok(start.elapsed())
    })?;
    Ok(DraftCosts {
        read,
        commit: one,
        expand,
    })
}
