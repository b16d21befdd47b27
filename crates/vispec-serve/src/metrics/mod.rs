//! Metrics of the server, in the Prometheus text format.

mod earlier_answers;
mod images;
mod scheduler;

use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use vispec::core::Idle;
use vispec::{
    AnswerEnd, AnswerError, Answered, KeptConversations, KeptImages, SchedulerFigures,
    SpeculationReason, SuffixStoreUsage,
};

use self::earlier_answers::EarlierAnswerMetrics;
use self::images::ImageMetrics;
use self::scheduler::SchedulerMetrics;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Answered, with an end-of-sequence token or a stop string.
    Stop,
    /// Answered up to a limit.
    Length,
    /// The client disconnected.
    Cancelled,
    /// The request or its prompt cannot be answered.
    Refused,
    /// The queue was full.
    Busy,
    /// The server was shutting down.
    ShutDown,
    /// The model failed.
    Failed,
}

impl Outcome {
    /// The outcome of an answer.
    pub(crate) fn of(ended: &Result<Answered, AnswerError>) -> Self {
        match ended {
            Ok(answered) => match answered.end {
                AnswerEnd::Stop => Self::Stop,
                AnswerEnd::Length | AnswerEnd::Deadline => Self::Length,
                AnswerEnd::Cancelled => Self::Cancelled,
            },
            Err(
                AnswerError::Refused { .. }
                | AnswerError::TooLarge { .. }
                | AnswerError::SpeculationUnavailable { .. }
                | AnswerError::GrammarTooComplex(_),
            ) => Self::Refused,
            Err(AnswerError::Busy { .. }) => Self::Busy,
            Err(AnswerError::ShutDown) => Self::ShutDown,
            Err(AnswerError::Failed(_)) => Self::Failed,
        }
    }

    /// Returns whether the answer came to its end.
    pub(crate) fn is_answer(self) -> bool {
        matches!(self, Self::Stop | Self::Length)
    }

    const ALL: [Self; 7] = [
        Self::Stop,
        Self::Length,
        Self::Cancelled,
        Self::Refused,
        Self::Busy,
        Self::ShutDown,
        Self::Failed,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::ShutDown => "shut_down",
            Self::Failed => "failed",
        }
    }
}

/// One label.
type Label = [(&'static str, String); 1];
/// A counter of seconds.
type Seconds = Counter<f64, std::sync::atomic::AtomicU64>;

/// All metrics at `/metrics`.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Label, Counter>,
    prompt_tokens: Counter,
    reused_prompt_tokens: Counter,
    completion_tokens: Counter,
    cycles: Counter,
    nodes: Counter,
    accepted: Counter,
    accepted_by_position: Family<Label, Counter>,
    idle_cycles: Family<Label, Counter>,
    speculation_reasons: Family<Label, Counter>,
    phases: Family<Label, Seconds>,
    time_to_first_token: Histogram,
    inter_token_latency: Histogram,
    queue_time: Histogram,
    scheduler: SchedulerMetrics,
    earlier_answers: EarlierAnswerMetrics,
    images: ImageMetrics,
    tau: Gauge<f64, std::sync::atomic::AtomicU64>,
    resident_memory: Gauge,
    kept_conversations: Gauge,
    kept_memory: Gauge,
    request_memory: Gauge,
}

impl Metrics {
    /// Creates all metrics, at zero.
    pub(crate) fn new() -> Self {
        let seconds = [
            0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0,
        ];
        let mut metrics = Self {
            registry: Registry::with_prefix("vispec"),
            requests: Family::default(),
            prompt_tokens: Counter::default(),
            reused_prompt_tokens: Counter::default(),
            completion_tokens: Counter::default(),
            cycles: Counter::default(),
            nodes: Counter::default(),
            accepted: Counter::default(),
            accepted_by_position: Family::default(),
            idle_cycles: Family::default(),
            speculation_reasons: Family::default(),
            phases: Family::default(),
            time_to_first_token: Histogram::new(seconds),
            inter_token_latency: Histogram::new(seconds),
            queue_time: Histogram::new(seconds),
            scheduler: SchedulerMetrics::default(),
            earlier_answers: EarlierAnswerMetrics::default(),
            images: ImageMetrics::default(),
            tau: Gauge::default(),
            resident_memory: Gauge::default(),
            kept_conversations: Gauge::default(),
            kept_memory: Gauge::default(),
            request_memory: Gauge::default(),
        };
        // With zeros from the start, counters without events differ from missing counters.
        for outcome in Outcome::ALL {
            drop(
                metrics
                    .requests
                    .get_or_create(&label("outcome", outcome.as_str())),
            );
        }
        for reason in Idle::ALL {
            drop(
                metrics
                    .idle_cycles
                    .get_or_create(&label("reason", reason.as_str())),
            );
        }
        for reason in SpeculationReason::ALL {
            let label = label("reason", reason.as_str());
            drop(metrics.speculation_reasons.get_or_create(&label));
        }
        metrics.register_counts();
        metrics.register_times();
        metrics.register_memory();
        metrics.scheduler.register(&mut metrics.registry);
        metrics.earlier_answers.register(&mut metrics.registry);
        metrics.images.register(&mut metrics.registry);
        metrics
    }

    fn register_counts(&mut self) {
        let registry = &mut self.registry;
        let mut counter = |name, help, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        counter(
            "prompt_tokens",
            "Tokens of answered prompts, including image placeholders",
            &self.prompt_tokens,
        );
        counter(
            "prefix_cache_hits",
            "Tokens of answered prompts that an earlier answer had already read",
            &self.reused_prompt_tokens,
        );
        counter(
            "generation_tokens",
            "Tokens of answers",
            &self.completion_tokens,
        );
        counter("cycles", "Cycles, one verify pass each", &self.cycles);
        counter(
            "verified_nodes",
            "Verified nodes, including roots",
            &self.nodes,
        );
        counter(
            "spec_decode_num_accepted_tokens",
            "Accepted draft tokens",
            &self.accepted,
        );
        let mut family = |name, help, family: &Family<Label, Counter>| {
            registry.register(name, help, family.clone());
        };
        family(
            "requests",
            "Requests for answers by outcome",
            &self.requests,
        );
        family(
            "spec_decode_num_accepted_tokens_per_pos",
            "Accepted draft tokens at each position of a cycle, from 0",
            &self.accepted_by_position,
        );
        family(
            "idle_cycles",
            "Cycles that verified only the root, by reason",
            &self.idle_cycles,
        );
        family(
            "speculation_reasons",
            "Answers whose drafting was switched off or changed, by reason",
            &self.speculation_reasons,
        );
    }

    fn register_times(&mut self) {
        let registry = &mut self.registry;
        registry.register_with_unit(
            "phase",
            "Time of answers by phase",
            Unit::Seconds,
            self.phases.clone(),
        );
        registry.register_with_unit(
            "time_to_first_token",
            "Time from the request to its first token, including waiting",
            Unit::Seconds,
            self.time_to_first_token.clone(),
        );
        registry.register_with_unit(
            "inter_token_latency",
            "Time between two cycles of an answer, each of which yields one or more tokens",
            Unit::Seconds,
            self.inter_token_latency.clone(),
        );
        registry.register_with_unit(
            "request_queue_time",
            "Time from the request to its turn",
            Unit::Seconds,
            self.queue_time.clone(),
        );
        registry.register(
            "tau",
            "Mean accepted draft tokens per cycle since the start",
            self.tau.clone(),
        );
    }

    fn register_memory(&mut self) {
        let registry = &mut self.registry;
        registry.register_with_unit(
            "resident_memory",
            "Resident set of the process; 0 if the system does not report it",
            Unit::Bytes,
            self.resident_memory.clone(),
        );
        registry.register(
            "kept_conversations",
            "Kept conversations",
            self.kept_conversations.clone(),
        );
        registry.register_with_unit(
            "kept_conversations_memory",
            "Memory of kept conversations",
            Unit::Bytes,
            self.kept_memory.clone(),
        );
        registry.register_with_unit(
            "request_memory",
            "Memory that requests hold of their shared budget",
            Unit::Bytes,
            self.request_memory.clone(),
        );
    }

    /// Counts a request that has ended.
    pub(crate) fn count(&self, outcome: Outcome) {
        self.requests
            .get_or_create(&label("outcome", outcome.as_str()))
            .inc();
    }

    /// Counts an answer that has ended, as wanted or not.
    pub(crate) fn answered(&self, answered: &Answered) {
        let stats = &answered.stats;
        self.prompt_tokens.inc_by(stats.prompt_tokens() as u64);
        self.reused_prompt_tokens
            .inc_by(stats.reused_prompt_tokens() as u64);
        self.completion_tokens
            .inc_by(answered.completion_tokens as u64);
        self.cycles.inc_by(stats.n_cycles() as u64);
        let sum = |counts: &[u32]| counts.iter().map(|&count| u64::from(count)).sum();
        self.nodes.inc_by(sum(stats.nodes_per_cycle()));
        self.accepted.inc_by(sum(stats.accepted_per_cycle()));
        let mut at_least = 0;
        for (depth, cycles) in stats.accepted_histogram().into_iter().enumerate().rev() {
            at_least += cycles;
            if depth > 0 {
                self.accepted_by_position
                    .get_or_create(&label("position", depth - 1))
                    .inc_by(at_least);
            }
        }
        for reason in Idle::ALL {
            let cycles = stats.idle_cycles(reason);
            self.idle_cycles
                .get_or_create(&label("reason", reason.as_str()))
                .inc_by(cycles);
        }
        for reason in &answered.speculation {
            self.speculation_reasons
                .get_or_create(&label("reason", reason.as_str()))
                .inc();
        }
        for (phase, time) in [
            ("preprocess", answered.preprocess),
            ("vision", answered.vision),
            ("prefill", stats.prefill_time()),
            ("draft", stats.draft_time()),
            ("verify", stats.verify_time()),
            ("other", stats.other_time()),
        ] {
            self.phases
                .get_or_create(&label("phase", phase))
                .inc_by(time.as_secs_f64());
        }
    }

    /// Counts the videos of a request that goes to the model.
    pub(crate) fn shown(&self, n_videos: usize) {
        self.images.note_videos(n_videos);
    }

    /// Records the time from a request to the first token of an answer.
    pub(crate) fn first_token(&self, time: Duration) {
        self.time_to_first_token.observe(time.as_secs_f64());
    }

    /// Records the time between the tokens of two cycles of an answer.
    pub(crate) fn next_tokens(&self, time: Duration) {
        self.inter_token_latency.observe(time.as_secs_f64());
    }

    /// Records the time that a request has waited for its turn.
    pub(crate) fn waited(&self, time: Duration) {
        self.queue_time.observe(time.as_secs_f64());
    }

    /// Returns all metrics in the text format, including the figures of the model; `held` is the
    /// number of bytes that requests hold.
    ///
    /// # Errors
    /// Never for the metrics here; the encoder's signature requires it.
    pub(crate) fn render(
        &self,
        scheduler: SchedulerFigures,
        (kept, images, earlier): (KeptConversations, KeptImages, SuffixStoreUsage),
        held: usize,
    ) -> Result<String, std::fmt::Error> {
        self.scheduler.set(scheduler);
        self.earlier_answers.set(earlier);
        self.images.set(images);
        let cycles = self.cycles.get();
        if cycles > 0 {
            self.tau.set(self.accepted.get() as f64 / cycles as f64);
        }
        self.kept_conversations.set(gauge(kept.count));
        self.kept_memory.set(gauge(kept.bytes));
        self.request_memory.set(gauge(held));
        self.resident_memory.set(resident_bytes().unwrap_or(0));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Sets a counter to a count that is kept elsewhere.
fn take_over(counter: &Counter, count: u64) {
    counter.inner().store(count, Ordering::Relaxed);
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn label(name: &'static str, value: impl ToString) -> Label {
    [(name, value.to_string())]
}

/// Resident set of this process, if the operating system reports it.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
