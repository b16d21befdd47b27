//! Keys and values in plain memory.

use super::{Buffers, head_rows};
use crate::nn::kv_cache::grown_capacity;

/// Keys and values of all layers, and the buffers of passes that use them.
#[derive(Debug, Clone)]
pub(in crate::nn) struct HostCache {
    pub(super) layers: Vec<HostLayerCache>,
    pub(super) buffers: Buffers,
}

/// Keys and values of one layer, each `[kv_heads, capacity, head_dim]`.
#[derive(Debug, Clone)]
pub(super) struct HostLayerCache {
    keys: Vec<f32>,
    values: Vec<f32>,
    kv_heads: usize,
    head_dim: usize,
    capacity: usize,
}

impl HostCache {
    /// Takes no memory before rows are appended.
    pub(super) fn new(n_layers: usize, kv_heads: usize, head_dim: usize) -> Self {
        let layer = HostLayerCache {
            keys: Vec::new(),
            values: Vec::new(),
            kv_heads,
            head_dim,
            capacity: 0,
        };
        Self {
            layers: vec![layer; n_layers],
            buffers: Buffers::default(),
        }
    }

    /// A copy of the first `len` rows, with as much room as they take and no buffers.
    pub(in crate::nn) fn beginning(&self, len: usize) -> Self {
        let layers = self.layers.iter();
        Self {
            layers: layers.map(|layer| layer.copied(len, len)).collect(),
            buffers: Buffers::default(),
        }
    }

    /// Drops the buffers of passes, which the next pass makes again.
    pub(in crate::nn) fn drop_buffers(&mut self) {
        self.buffers = Buffers::default();
    }

    /// Memory of keys and values.
    pub(in crate::nn) fn n_bytes(&self) -> usize {
        let floats = |layer: &HostLayerCache| layer.keys.len() + layer.values.len();
        self.layers.iter().map(floats).sum::<usize>() * size_of::<f32>()
    }

    /// Moves rows `from` to the places from `to` on. No row is moved down onto one that is still to
    /// be moved: `from` ascends and lies behind `to`.
    pub(in crate::nn) fn move_rows(&mut self, from: &[usize], to: usize) {
        for layer in &mut self.layers {
            for (place, &row) in from.iter().enumerate() {
                layer.move_row(row, to + place);
            }
        }
    }
}

impl HostLayerCache {
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// All keys and values, each `[kv_heads, capacity, head_dim]`.
    pub(super) fn all(&self) -> (&[f32], &[f32]) {
        (&self.keys, &self.values)
    }

    /// Writes `keys` and `values` `[rows, kv_heads * head_dim]` behind the first `len` rows.
    pub(super) fn append(&mut self, len: usize, keys: &[f32], values: &[f32]) {
        let width = self.kv_heads * self.head_dim;
        self.make_room(len, len + keys.len() / width);
        let places = keys.chunks_exact(width).zip(values.chunks_exact(width));
        for (row, (keys, values)) in places.enumerate() {
            let heads = keys.chunks_exact(self.head_dim);
            for (head, (keys, values)) in heads.zip(values.chunks_exact(self.head_dim)).enumerate()
            {
                let place = len + row..len + row + 1;
                let range = head_rows(head, self.capacity, self.head_dim, place);
                self.keys[range.clone()].copy_from_slice(keys);
                self.values[range].copy_from_slice(values);
            }
        }
    }

    fn make_room(&mut self, len: usize, needed: usize) {
        if needed > self.capacity {
            *self = self.copied(len, grown_capacity(self.capacity, needed));
        }
    }

    /// The first `len` rows with room for `capacity`.
    fn copied(&self, len: usize, capacity: usize) -> Self {
        let part = |old: &[f32]| {
            let mut new = vec![0.0; self.kv_heads * capacity * self.head_dim];
            for head in 0..self.kv_heads {
                let from = head_rows(head, self.capacity, self.head_dim, 0..len);
                let to = head_rows(head, capacity, self.head_dim, 0..len);
                new[to].copy_from_slice(&old[from]);
            }
            new
        };
        Self {
            keys: part(&self.keys),
            values: part(&self.values),
            capacity,
            ..*self
        }
    }

    fn move_row(&mut self, from: usize, to: usize) {
        for head in 0..self.kv_heads {
            let source = head_rows(head, self.capacity, self.head_dim, from..from + 1);
            let place = head_rows(head, self.capacity, self.head_dim, to..to + 1).start;
            self.keys.copy_within(source.clone(), place);
            self.values.copy_within(source, place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_growth_and_move() {
        let mut cache = HostCache::new(1, 2, 2);
        let row =
            |r: usize| -> Vec<f32> { (0..4_u8).map(|i| r as f32 + f32::from(i) / 8.0).collect() };
        for r in 0..300 {
            let negated: Vec<f32> = row(r).iter().map(|v| -v).collect();
            cache.layers[0].append(r, &row(r), &negated);
        }
        cache.move_rows(&[280, 299], 270);
        let layer = &cache.beginning(273).layers[0];
        for (place, r) in [
            (0, 0),
            (255, 255),
            (256, 256),
            (270, 280),
            (271, 299),
            (272, 272),
        ] {
            let (keys, values) = layer.all();
            let of_row = |all: &[f32]| {
                let heads = (0..2).map(|head| head_rows(head, 273, 2, place..place + 1));
                Vec::from_iter(heads.flat_map(|range| all[range].to_vec()))
            };
            assert_eq!(of_row(keys), row(r), "row {place}");
            let negated: Vec<f32> = of_row(values).iter().map(|v| -v).collect();
            assert_eq!(negated, row(r));
        }
    }
}
