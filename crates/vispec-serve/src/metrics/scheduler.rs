//! Metrics of the model's scheduler.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use vispec::SchedulerFigures;

use super::{Label, gauge, label, take_over};

/// Taken from the scheduler whenever metrics are rendered.
#[derive(Debug, Default)]
pub(super) struct SchedulerMetrics {
    running: Gauge,
    waiting: Gauge,
    usage: Gauge<f64, AtomicU64>,
    memory: Family<Label, Gauge>,
    refused: Counter,
    passes: Counter,
    rows: Family<Label, Counter>,
    gain: Gauge<f64, AtomicU64>,
    cost_corrections: Counter,
}

impl SchedulerMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "num_requests_running",
            "Running answers",
            self.running.clone(),
        );
        registry.register(
            "num_requests_waiting",
            "Waiting requests",
            self.waiting.clone(),
        );
        registry.register(
            "kv_cache_usage_perc",
            "Share of the memory for keys and values that is in use; 1 means full",
            self.usage.clone(),
        );
        registry.register_with_unit(
            "kv_cache_memory",
            "Memory for keys and values: used, reserved by running answers, and budget",
            Unit::Bytes,
            self.memory.clone(),
        );
        registry.register(
            "kv_cache_refused",
            "Requests refused because they could need more memory than the budget",
            self.refused.clone(),
        );
        registry.register("passes", "Passes of the target", self.passes.clone());
        registry.register(
            "pass_rows",
            "Rows of prompts and of trees in the passes of the target",
            self.rows.clone(),
        );
        registry.register(
            "speculation_gain",
            "Estimated time of plain decoding over actual decoding time since the start, from \
             measured costs; 0 if they are not known",
            self.gain.clone(),
        );
        registry.register(
            "cost_corrections",
            "How often the costs that trees are sized by were found to be wrong and corrected",
            self.cost_corrections.clone(),
        );
    }

    pub(super) fn set(&self, figures: SchedulerFigures) {
        self.running.set(gauge(figures.running));
        self.waiting.set(gauge(figures.waiting));
        let budget = figures.kv_budget.max(1) as f64;
        self.usage.set(figures.kv_used as f64 / budget);
        for (kind, bytes) in [
            ("used", figures.kv_used),
            ("reserved", figures.kv_reserved),
            ("budget", figures.kv_budget),
        ] {
            let memory = self.memory.get_or_create(&label("kind", kind));
            memory.set(gauge(bytes));
        }
        take_over(&self.refused, figures.refused_for_memory);
        take_over(&self.passes, figures.passes);
        take_over(&self.cost_corrections, figures.cost_corrections);
        if !figures.decode_time.is_zero() {
            let gain = figures.plain_time.as_secs_f64() / figures.decode_time.as_secs_f64();
            self.gain.set(gain);
        }
        for (kind, rows) in [("prompt", figures.prompt_rows), ("tree", figures.tree_rows)] {
            take_over(&self.rows.get_or_create(&label("kind", kind)), rows);
        }
    }
}
