//! Metrics of kept images, their use, and videos.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use vispec::KeptImages;

use super::{gauge, take_over};

/// Taken from the model whenever metrics are rendered, except for videos.
#[derive(Debug, Default)]
pub(super) struct ImageMetrics {
    count: Gauge,
    memory: Gauge,
    queries: Counter,
    hits: Counter,
    videos: Counter,
}

impl ImageMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("kept_images", "Kept images", self.count.clone());
        registry.register_with_unit(
            "kept_images_memory",
            "Memory of kept images",
            Unit::Bytes,
            self.memory.clone(),
        );
        registry.register(
            "mm_cache_queries",
            "Lookups of image files among the kept images",
            self.queries.clone(),
        );
        registry.register(
            "mm_cache_hits",
            "Image files that were found and neither decoded nor encoded again",
            self.hits.clone(),
        );
        registry.register(
            "request_videos",
            "Videos in requests that went to the model",
            self.videos.clone(),
        );
    }

    /// Counts the videos of a request.
    pub(super) fn note_videos(&self, n: usize) {
        self.videos.inc_by(n as u64);
    }

    pub(super) fn set(&self, kept: KeptImages) {
        self.count.set(gauge(kept.count));
        self.memory.set(gauge(kept.bytes));
        take_over(&self.queries, kept.queries);
        take_over(&self.hits, kept.hits);
    }
}
