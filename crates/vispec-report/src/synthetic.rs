//! Synthetic records, for tests, benches and replacements of `evaluate` (feature `synthetic`).

use jiff::Timestamp;

use crate::random::SplitMix64;
use crate::record::{
    ArmRecord, CellSettings, Divergence, FinishReason, Method, PhaseTimes, PromptRecord,
    SCHEMA_VERSION, TotalToken, TreeSettings,
};

/// Time in ms of a pass of the synthetic target over one row, and the increase per further row.
const VERIFY_MS: (f64, f64) = (20.0, 0.15);
const DRAFT_STEP_MS: f64 = 1.2;
const VOCABULARY: u32 = 32_000;

/// Returns realistic settings of a cell.
#[must_use]
pub fn settings(method: Method, task: &str, prompts: u64) -> CellSettings {
    CellSettings {
        target: "models/qwen-untied".to_owned(),
        draft: method
            .has_network()
            .then(|| format!("drafts/qwen-untied-{method}")),
        method,
        dtype: "f32".to_owned(),
        device: "flex".to_owned(),
        task: task.to_owned(),
        prompts,
        temperature: 0.0,
        seed: 0,
        tree: method.has_network().then_some(TreeSettings {
            depth: 3,
            top_k: 8,
            total_token: TotalToken::Nodes(30),
        }),
        draft_vocab: None,
        max_new_tokens: 64,
    }
}

/// Returns the record of one prompt, which depends only on settings and index.
#[must_use]
pub fn record(settings: &CellSettings, index: u64) -> PromptRecord {
    let task: u64 = settings.task.bytes().map(u64::from).sum();
    let seed = index.wrapping_mul(0x1234_5678_9abc_def1) ^ settings.seed ^ (task << 40);
    let mut random = SplitMix64::new(seed);
    let new_tokens = settings.max_new_tokens / 2 + random.below(settings.max_new_tokens / 2 + 1);
    let token_ids: Vec<u32> = (0..new_tokens).map(|_| random.below(VOCABULARY)).collect();
    let image_tokens = 16 << random.below(6);
    let mut speculative_ids = token_ids.clone();
    // One answer in 500 differs, so that reports have something to show.
    if random.below(500) == 0 {
        let position = random.below(new_tokens) as usize;
        speculative_ids[position] += VOCABULARY;
    }
    let before = PhaseTimes {
        preprocess: 2.0 + random.unit(),
        vision: 5.0 + f64::from(image_tokens) * 0.1,
        prefill: 30.0 + f64::from(image_tokens) * 0.2,
        ..PhaseTimes::default()
    };
    let first_divergence =
        Divergence::between(&token_ids, &speculative_ids).map(|divergence| Divergence {
            logit_gap: Some(1e-6),
            ..divergence
        });
    let plain_cycles = vec![(0, 1); new_tokens as usize - 1];
    let cycles = cycles(settings, image_tokens, new_tokens, &mut random);
    PromptRecord {
        schema_version: SCHEMA_VERSION,
        prompt_id: format!("{}-{index:06}", settings.task),
        index,
        prompt_tokens: image_tokens + 40,
        image_tokens,
        seed: settings.seed,
        finished_at: Timestamp::UNIX_EPOCH,
        peak_rss_bytes: Some(3 << 30),
        plain: arm(token_ids, &plain_cycles, 0, before, &mut random),
        speculative: arm(
            speculative_ids,
            &cycles,
            settings.tree.map_or(0, |tree| tree.levels()),
            before,
            &mut random,
        ),
        first_divergence,
    }
}

/// Returns accepted tokens and nodes of each cycle, for all tokens of the answer.
fn cycles(
    settings: &CellSettings,
    image_tokens: u32,
    new_tokens: u32,
    random: &mut SplitMix64,
) -> Vec<(u32, u32)> {
    let (skill, fade) = match settings.method {
        Method::None => (0.0, 0.0),
        Method::PromptLookup => (0.25, 0.0),
        Method::Medusa | Method::MedusaLookup => (0.45, 0.02),
        Method::Eagle2 | Method::Eagle2Lookup => (0.80, 0.04),
        Method::Eagle3 | Method::Eagle3Lookup => (0.85, 0.04),
        Method::Vispec | Method::VispecLookup => (0.80, 0.01),
    };
    let rate =
        skill - fade * f64::from(image_tokens).log2() - 0.1 * f64::from(settings.temperature);
    let (levels, nodes) = match settings.tree {
        Some(tree) => (tree.levels(), Some(tree.total_token)),
        None => (4, None),
    };
    let mut left = new_tokens - 1;
    let mut cycles = Vec::new();
    while left > 0 {
        let nodes = match nodes {
            Some(TotalToken::Nodes(nodes)) => nodes,
            Some(TotalToken::Auto) => 8 + random.below(24),
            None if settings.method == Method::None => 1,
            None => 5,
        };
        let most = levels.min(left).min(nodes - 1);
        let mut accepted = 0;
        while accepted < most && random.unit() < rate {
            accepted += 1;
        }
        cycles.push((accepted, nodes));
        left = left.saturating_sub(accepted + 1);
    }
    cycles
}

fn arm(
    token_ids: Vec<u32>,
    cycles: &[(u32, u32)],
    draft_steps: u32,
    before: PhaseTimes,
    random: &mut SplitMix64,
) -> ArmRecord {
    let noise = 0.95 + 0.1 * random.unit();
    let verify: f64 = cycles
        .iter()
        .map(|&(_, nodes)| VERIFY_MS.0 + VERIFY_MS.1 * f64::from(nodes))
        .sum::<f64>()
        * noise;
    let draft = cycles.len() as f64 * f64::from(draft_steps) * DRAFT_STEP_MS * noise;
    let other = cycles.len() as f64 * 0.3;
    ArmRecord {
        token_ids,
        finish_reason: FinishReason::Length,
        accepted_per_cycle: cycles.iter().map(|&(accepted, _)| accepted).collect(),
        nodes_per_cycle: cycles.iter().map(|&(_, nodes)| nodes).collect(),
        times_ms: PhaseTimes {
            draft,
            verify,
            other,
            decode: draft + verify + other,
            ..before
        },
    }
}
