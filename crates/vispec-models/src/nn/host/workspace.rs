//! Buffers of passes, which later passes reuse.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::nn::decoder::{DecoderConfig, QkNorm};

/// Buffers of passes with more rows than this are freed. Such a pass takes far longer than
/// allocating its buffers, and keeping them would take much memory.
const KEPT_ROWS: usize = 256;

/// Buffers that no pass is using. There are as many as there were concurrent passes, usually one.
/// Their contents do not affect results, since each pass writes a buffer before it reads it.
#[derive(Debug, Clone, Default)]
pub(super) struct Workspace {
    free: Arc<Mutex<Vec<Buffers>>>,
}

/// Activations of one pass.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub(super) normed: Vec<f32>,
    pub(super) query: Vec<f32>,
    pub(super) keys: Vec<f32>,
    pub(super) values: Vec<f32>,
    /// Same size as `keys`, in models that normalise keys.
    pub(super) normed_keys: Vec<f32>,
    pub(super) attended: Vec<f32>,
    pub(super) gate: Vec<f32>,
    pub(super) up: Vec<f32>,
    pub(super) product: Vec<f32>,
    pub(super) added: Vec<f32>,
}

impl Workspace {
    /// Returns buffers for a pass of `rows` rows.
    pub(super) fn take(&self, rows: usize, config: &DecoderConfig) -> Buffers {
        let mut buffers = self.free().pop().unwrap_or_default();
        buffers.resize(rows, config);
        buffers
    }

    /// Takes back the buffers of a pass of `rows` rows.
    pub(super) fn give_back(&self, buffers: Buffers, rows: usize) {
        if rows <= KEPT_ROWS {
            self.free().push(buffers);
        }
    }

    fn free(&self) -> MutexGuard<'_, Vec<Buffers>> {
        // Every state is valid.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffers {
    fn resize(&mut self, rows: usize, config: &DecoderConfig) {
        let DecoderConfig {
            hidden,
            intermediate,
            heads,
            kv_heads,
            head_dim,
            ..
        } = *config;
        self.normed.resize(rows * hidden, 0.0);
        self.query.resize(rows * heads * head_dim, 0.0);
        self.keys.resize(rows * kv_heads * head_dim, 0.0);
        self.values.resize(rows * kv_heads * head_dim, 0.0);
        if config.qk_norm == QkNorm::PerHead {
            self.normed_keys.resize(rows * kv_heads * head_dim, 0.0);
        }
        self.attended.resize(rows * heads * head_dim, 0.0);
        self.gate.resize(rows * intermediate, 0.0);
        self.up.resize(rows * intermediate, 0.0);
        self.product.resize(rows * intermediate, 0.0);
        self.added.resize(rows * hidden, 0.0);
    }
}
