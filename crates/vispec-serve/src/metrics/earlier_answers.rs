//! Metrics of earlier answers that are kept for drafting.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use vispec::SuffixStoreUsage;

use super::{gauge, take_over};

/// Taken from the store whenever metrics are rendered.
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
            "Memory reserved for earlier answers, full or not",
            Unit::Bytes,
            self.memory.clone(),
        );
        registry.register(
            "suffix_store_tokens",
            "Stored tokens of earlier answers",
            self.tokens.clone(),
        );
        registry.register(
            "suffix_store_hits",
            "How often the last tokens of an answer were found in earlier answers",
            self.matches.clone(),
        );
        registry.register(
            "suffix_store_accepted_tokens",
            "Accepted draft tokens that earlier answers had proposed",
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
