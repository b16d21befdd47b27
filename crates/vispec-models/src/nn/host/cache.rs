//! Keys and values in host memory, in f32 or bf16.

use burn::tensor::DType;
use half::bf16;
use vispec_kernels::KeyValues;

use super::head_rows;
use crate::nn::decoder::DecoderConfig;
use crate::nn::grown_capacity;

/// Keys and values of all layers.
#[derive(Debug, Clone)]
pub(in crate::nn) struct HostCache {
    layers: Vec<HostLayerCache>,
}

/// Keys and values of one layer.
#[derive(Debug, Clone)]
pub(super) struct HostLayerCache {
    slabs: Slabs,
    shape: SlabShape,
}

/// Keys and values in the data type that was chosen when the cache was created.
#[derive(Debug, Clone)]
enum Slabs {
    F32(Slab<f32>),
    Bf16(Slab<bf16>),
}

/// Keys and values, each `[kv_heads, capacity, head_dim]`.
#[derive(Debug, Clone)]
struct Slab<T> {
    keys: Vec<T>,
    values: Vec<T>,
}

#[derive(Debug, Clone, Copy)]
struct SlabShape {
    kv_heads: usize,
    head_dim: usize,
    capacity: usize,
}

/// Element type of a slab.
trait Element: Copy + Default {
    /// Converts `value` to the nearest representable value.
    fn of(value: f32) -> Self;
}

impl Element for f32 {
    fn of(value: f32) -> Self {
        value
    }
}

impl Element for bf16 {
    fn of(value: f32) -> Self {
        Self::from_f32(value)
    }
}

impl HostCache {
    /// Creates an empty cache, which allocates memory only when rows are appended. Rows are in f32
    /// unless `dtype` is BF16.
    pub(super) fn new(config: &DecoderConfig, dtype: DType) -> Self {
        let slabs = if dtype == DType::BF16 {
            Slabs::Bf16(Slab::default())
        } else {
            Slabs::F32(Slab::default())
        };
        let shape = SlabShape {
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            capacity: 0,
        };
        let layer = HostLayerCache { slabs, shape };
        Self {
            layers: vec![layer; config.layers],
        }
    }

    pub(super) fn layer(&self, idx: usize) -> &HostLayerCache {
        &self.layers[idx]
    }

    pub(super) fn layer_mut(&mut self, idx: usize) -> &mut HostLayerCache {
        &mut self.layers[idx]
    }

    /// Returns a copy of the first `len` rows, without spare capacity.
    pub(in crate::nn) fn beginning(&self, len: usize) -> Self {
        let layers = self.layers.iter();
        Self {
            layers: layers.map(|layer| layer.copied(len, len)).collect(),
        }
    }

    /// Returns the size of keys and values in bytes.
    pub(in crate::nn) fn n_bytes(&self) -> usize {
        self.layers.iter().map(HostLayerCache::n_bytes).sum()
    }

    /// Moves the rows `from` to consecutive rows starting at `to`. `from` must be ascending and
    /// must not start before `to`, so that no row overwrites one that has yet to be moved.
    pub(in crate::nn) fn move_rows(&mut self, from: &[usize], to: usize) {
        for HostLayerCache { slabs, shape } in &mut self.layers {
            for (place, &row) in (to..).zip(from) {
                match slabs {
                    Slabs::F32(slab) => slab.move_row(*shape, row, place),
                    Slabs::Bf16(slab) => slab.move_row(*shape, row, place),
                }
            }
        }
    }
}

impl HostLayerCache {
    pub(super) fn capacity(&self) -> usize {
        self.shape.capacity
    }

    /// Returns all keys and values, each `[kv_heads, capacity, head_dim]`.
    pub(super) fn all(&self) -> KeyValues<'_> {
        match &self.slabs {
            Slabs::F32(Slab { keys, values }) => KeyValues::F32 { keys, values },
            Slabs::Bf16(Slab { keys, values }) => KeyValues::Bf16 { keys, values },
        }
    }

    /// Writes `keys` and `values` `[rows, kv_heads * head_dim]` after the first `len` rows.
    pub(super) fn append(&mut self, len: usize, keys: &[f32], values: &[f32]) {
        let needed = len + keys.len() / (self.shape.kv_heads * self.shape.head_dim);
        if needed > self.capacity() {
            *self = self.copied(len, grown_capacity(self.capacity(), needed));
        }
        match &mut self.slabs {
            Slabs::F32(slab) => slab.write(self.shape, len, keys, values),
            Slabs::Bf16(slab) => slab.write(self.shape, len, keys, values),
        }
    }

    /// Returns a copy of the first `len` rows with room for `capacity` rows.
    fn copied(&self, len: usize, capacity: usize) -> Self {
        let shape = SlabShape {
            capacity,
            ..self.shape
        };
        let slabs = match &self.slabs {
            Slabs::F32(slab) => Slabs::F32(slab.copied(self.shape, len, shape)),
            Slabs::Bf16(slab) => Slabs::Bf16(slab.copied(self.shape, len, shape)),
        };
        Self { slabs, shape }
    }

    fn n_bytes(&self) -> usize {
        match &self.slabs {
            Slabs::F32(slab) => slab.n_bytes(),
            Slabs::Bf16(slab) => slab.n_bytes(),
        }
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            values: Vec::new(),
        }
    }
}

impl<T: Element> Slab<T> {
    fn write(&mut self, shape: SlabShape, len: usize, keys: &[f32], values: &[f32]) {
        for (all, new) in [(&mut self.keys, keys), (&mut self.values, values)] {
            for (row, new) in new
                .chunks_exact(shape.kv_heads * shape.head_dim)
                .enumerate()
            {
                let row = len + row..len + row + 1;
                for (head, new) in new.chunks_exact(shape.head_dim).enumerate() {
                    let range = head_rows(head, shape.capacity, shape.head_dim, row.clone());
                    for (to, &from) in all[range].iter_mut().zip(new) {
                        *to = T::of(from);
                    }
                }
            }
        }
    }

    fn copied(&self, from: SlabShape, len: usize, to: SlabShape) -> Self {
        let part = |old: &[T]| {
            let mut new = vec![T::default(); to.kv_heads * to.capacity * to.head_dim];
            for head in 0..to.kv_heads {
                let from = head_rows(head, from.capacity, from.head_dim, 0..len);
                let to = head_rows(head, to.capacity, to.head_dim, 0..len);
                new[to].copy_from_slice(&old[from]);
            }
            new
        };
        Self {
            keys: part(&self.keys),
            values: part(&self.values),
        }
    }

    fn move_row(&mut self, shape: SlabShape, from: usize, to: usize) {
        for head in 0..shape.kv_heads {
            let row = |row: usize| head_rows(head, shape.capacity, shape.head_dim, row..row + 1);
            self.keys.copy_within(row(from), row(to).start);
            self.values.copy_within(row(from), row(to).start);
        }
    }

    fn n_bytes(&self) -> usize {
        size_of_val(&*self.keys) + size_of_val(&*self.values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Bias, QkNorm};

    const CONFIG: DecoderConfig = DecoderConfig {
        hidden: 4,
        intermediate: 4,
        layers: 1,
        heads: 2,
        kv_heads: 2,
        head_dim: 2,
        qkv_bias: Bias::No,
        qk_norm: QkNorm::No,
        rms_eps: 1e-6,
        rope_theta: 1e4,
    };

    /// Returns the keys and values of a row of the first layer.
    fn row_of(cache: &HostCache, row: usize) -> (Vec<f32>, Vec<f32>) {
        let layer = cache.layer(0);
        let heads = (0..2).map(|head| head_rows(head, layer.capacity(), 2, row..row + 1));
        let at: Vec<usize> = heads.flatten().collect();
        let wide = |part: &[bf16]| at.iter().map(|&at| part[at].to_f32()).collect();
        let same = |part: &[f32]| at.iter().map(|&at| part[at]).collect();
        match layer.all() {
            KeyValues::F32 { keys, values } => (same(keys), same(values)),
            KeyValues::Bf16 { keys, values } => (wide(keys), wide(values)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rows_survive_growth_and_move() {
        for dtype in [DType::F32, DType::BF16] {
            let mut cache = HostCache::new(&CONFIG, dtype);
            let row = |r: usize| -> Vec<f32> {
                let exact = (0..4_u8).map(|i| r as f32 + f32::from(i) / 8.0);
                exact
                    .map(|value| match dtype {
                        DType::F32 => value,
                        _ => bf16::from_f32(value).to_f32(),
                    })
                    .collect()
            };
            for r in 0..300 {
                let negated: Vec<f32> = row(r).iter().map(|v| -v).collect();
                cache.layer_mut(0).append(r, &row(r), &negated);
            }
            cache.move_rows(&[280, 299], 270);
            let cache = cache.beginning(273);
            assert_eq!(cache.n_bytes(), 2 * 4 * 273 * dtype.size());
            for (place, r) in [
                (0, 0),
                (255, 255),
                (256, 256),
                (270, 280),
                (271, 299),
                (272, 272),
            ] {
                let (keys, values) = row_of(&cache, place);
                assert_eq!(keys, row(r), "row {place}");
                let negated: Vec<f32> = values.iter().map(|v| -v).collect();
                assert_eq!(negated, row(r));
            }
        }
    }
}
