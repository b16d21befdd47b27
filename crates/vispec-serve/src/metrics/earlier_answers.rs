//! What is kept of earlier answers, and what drafts have of it.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use vispec::SuffixStoreUsage;

use super::{gauge, take_over};

/// Taken over from the store when somebody looks.
#[derive(Debug, Default)]
pub(super) struct EarlierAnswerMetrics {
    memory: Gauge,
    tokens: Gauge,
    matches: Counter,
    accepted: Counter,
}

impl EarlierAnswerMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "suffix_store_memory",
            "Memory for what earlier answers said, full or not",
            Unit::Bytes,
            self.memory.clone(),
        );
        registry.register(
            "suffix_store_tokens",
            "Tokens of earlier answers that are kept",
            self.tokens.clone(),
        );
        registry.register(
            "suffix_store_hits",
            "Times that the last tokens of an answer were found in earlier answers",
            self.matches.clone(),
        );
        registry.register(
            "suffix_store_accepted_tokens",
            "Draft tokens accepted that earlier answers had proposed",
            self.accepted.clone(),
        );
    }

    pub(super) fn set(&self, usage: SuffixStoreUsage) {
        self.memory.set(gauge(usage.bytes));
        self.tokens.set(gauge(usage.tokens));
        take_over(&self.matches, usage.matches);
        take_over(&self.accepted, usage.accepted);
    }
}
