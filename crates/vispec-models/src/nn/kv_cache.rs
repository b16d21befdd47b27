//! KV caches that grow in steps and are written in place.

use burn::tensor::{DType, Device, Int, Tensor, TensorData, s};
use vispec_core::{KvCache, NodeId};

use super::decoder::DecoderConfig;
#[cfg(feature = "flex")]
use super::host::HostCache;

/// Minimum number of rows by which a cache grows.
const GROWTH: usize = 256;

/// Returns the new capacity of a cache when `needed` rows do not fit into `capacity`. Growth is
/// geometric, so the average number of copies per row is bounded, regardless of the length of the
/// answer.
pub(crate) fn grown_capacity(capacity: usize, needed: usize) -> usize {
    needed.max(capacity + capacity / 2).next_multiple_of(GROWTH)
}

/// Returns an upper bound of the capacity of a cache that has grown to `rows` rows.
pub(crate) fn capacity_bound(rows: usize) -> usize {
    rows.saturating_add(rows / 2).saturating_add(GROWTH)
}

/// Keys and values of one layer, each `[1, kv_heads, capacity, head_dim]`.
#[derive(Debug, Clone)]
pub(crate) struct LayerCache {
    /// Taken out during a write, so that the tensors have a unique owner and are written without a
    /// copy.
    tensors: Option<(Tensor<4>, Tensor<4>)>,
    kv_heads: usize,
    head_dim: usize,
    capacity: usize,
    device: Device,
    dtype: DType,
}

impl LayerCache {
    fn new(kv_heads: usize, head_dim: usize, device: &Device, dtype: DType) -> Self {
        Self {
            tensors: None,
            kv_heads,
            head_dim,
            capacity: 0,
            device: device.clone(),
            dtype,
        }
    }

    /// Writes `keys` and `values` `[rows, kv_heads * head_dim]` after the first `len` rows.
    ///
    /// Returns keys and values `[1, kv_heads, capacity, head_dim]`; the contents of the rows from
    /// `len + rows` on are unspecified.
    pub(crate) fn append(
        &mut self,
        len: usize,
        keys: Tensor<2>,
        values: Tensor<2>,
    ) -> (Tensor<4>, Tensor<4>) {
        let [rows, _] = keys.dims();
        let (k, v) = self.take_with_room(len, len + rows);
        let (heads, dim) = (self.kv_heads, self.head_dim);
        let split = |x: Tensor<2>| x.reshape([1, rows, heads, dim]).swap_dims(1, 2);
        let range = s![.., .., len..len + rows, ..];
        let written = (
            k.slice_assign(range, split(keys)),
            v.slice_assign(range, split(values)),
        );
        self.tensors = Some(written.clone());
        written
    }

    /// Puts the tensors back that were taken out.
    #[cfg(feature = "cube")]
    pub(super) fn put_back(&mut self, keys: Tensor<4>, values: Tensor<4>) {
        self.tensors = Some((keys, values));
    }

    /// Takes the tensors out, with room for `needed` rows. Growing keeps the first `len` rows.
    pub(super) fn take_with_room(&mut self, len: usize, needed: usize) -> (Tensor<4>, Tensor<4>) {
        match self.tensors.take() {
            Some(tensors) if needed <= self.capacity => tensors,
            old => {
                self.capacity = grown_capacity(self.capacity, needed);
                let (keys, values) = old.unzip();
                (self.grown(keys, len), self.grown(values, len))
            }
        }
    }

    /// Returns a tensor of the current capacity that starts with the first `len` rows of `old`.
    fn grown(&self, old: Option<Tensor<4>>, len: usize) -> Tensor<4> {
        let shape = [1, self.kv_heads, self.capacity, self.head_dim];
        let new = Tensor::<4>::zeros(shape, (&self.device, self.dtype));
        match old {
            Some(old) if len > 0 => {
                let rows = s![.., .., 0..len, ..];
                new.slice_assign(rows, old.slice(rows))
            }
            _ => new,
        }
    }

    fn move_rows(&mut self, from: &Tensor<1, Int>, to: usize) {
        let [n_rows] = from.dims();
        if let Some((keys, values)) = self.tensors.take() {
            #[cfg(feature = "cube")]
            if super::cube::is_here(&keys) {
                self.tensors = Some(super::cube::move_rows((keys, values), from, to));
                return;
            }
            let place = |cache: Tensor<4>| {
                let kept = cache.clone().select(2, from.clone());
                cache.slice_assign(s![.., .., to..to + n_rows, ..], kept)
            };
            self.tensors = Some((place(keys), place(values)));
        }
    }
}

/// Caches of all layers on one device.
#[derive(Debug, Clone)]
pub(crate) struct DeviceCache {
    layers: Vec<LayerCache>,
    device: Device,
}

impl DeviceCache {
    /// Returns the device of the rows.
    #[cfg(feature = "cube")]
    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// Returns the cache of one layer.
    pub(crate) fn layer(&mut self, idx: usize) -> &mut LayerCache {
        &mut self.layers[idx]
    }

    /// Moves the rows `from`, in ascending order, to consecutive rows starting at `to`.
    fn move_rows(&mut self, from: &[usize], to: usize) {
        let rows: Vec<i64> = from
            .iter()
            .map(|&row| i64::try_from(row).unwrap_or(i64::MAX))
            .collect();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [from.len()]), &self.device);
        for layer in &mut self.layers {
            layer.move_rows(&rows, to);
        }
    }
}

/// Storage of the rows.
#[derive(Debug, Clone)]
pub(super) enum Storage {
    Device(DeviceCache),
    #[cfg(feature = "flex")]
    Host(HostCache),
}

/// Caches of all layers of a decoder; all hold the same number of rows.
#[derive(Debug, Clone)]
pub(crate) struct ModelCache {
    storage: Storage,
    len: usize,
}

impl ModelCache {
    pub(super) fn new(storage: Storage) -> Self {
        Self { storage, len: 0 }
    }

    /// Creates an empty cache on a device. Memory is allocated only when rows are appended.
    pub(super) fn on_device(config: &DecoderConfig, (device, dtype): (&Device, DType)) -> Self {
        let layer = LayerCache::new(config.kv_heads, config.head_dim, device, dtype);
        Self::new(Storage::Device(DeviceCache {
            layers: vec![layer; config.layers],
            device: device.clone(),
        }))
    }

    /// Returns the number of valid rows in each layer.
    pub(crate) fn n_rows(&self) -> usize {
        self.len
    }

    /// Returns a copy of the first `len` rows if they are in host memory, or `None` if they are on
    /// a device.
    pub(crate) fn beginning(&self, len: usize) -> Option<Self> {
        match &self.storage {
            Storage::Device(_) => None,
            #[cfg(feature = "flex")]
            Storage::Host(cache) => {
                let len = len.min(self.len);
                let storage = Storage::Host(cache.beginning(len));
                Some(Self { storage, len })
            }
        }
    }

    /// Returns the size of the rows in bytes, or `None` if they are on a device.
    pub(crate) fn n_bytes(&self) -> Option<usize> {
        match &self.storage {
            Storage::Device(_) => None,
            #[cfg(feature = "flex")]
            Storage::Host(cache) => Some(cache.n_bytes()),
        }
    }

    /// Returns the rows, which must be on a device.
    pub(super) fn device_mut(&mut self) -> &mut DeviceCache {
        match &mut self.storage {
            Storage::Device(cache) => cache,
            #[cfg(feature = "flex")]
            Storage::Host(_) => panic!("the cache is in memory, but the weights are on a device"),
        }
    }

    /// Returns the rows, which must be in host memory.
    #[cfg(feature = "flex")]
    pub(super) fn host_mut(&mut self) -> &mut HostCache {
        match &mut self.storage {
            Storage::Host(cache) => cache,
            Storage::Device(_) => panic!("the cache is on a device, but the weights are in memory"),
        }
    }

    /// Marks the `n_rows` rows that every layer has appended as valid.
    pub(super) fn advance(&mut self, n_rows: usize) {
        self.len += n_rows;
    }
}

impl KvCache for ModelCache {
    fn len(&self) -> usize {
        self.len
    }

    fn keep_path(&mut self, base: usize, path: &[NodeId]) {
        // The leading nodes 0, 1, 2 … of a path are already in place.
        let in_place = path
            .iter()
            .enumerate()
            .take_while(|(i, node)| node.index() == *i)
            .count();
        let moved = &path[in_place..];
        if !moved.is_empty() {
            let rows: Vec<usize> = moved.iter().map(|node| base + node.index()).collect();
            match &mut self.storage {
                Storage::Device(cache) => cache.move_rows(&rows, base + in_place),
                #[cfg(feature = "flex")]
                Storage::Host(cache) => cache.move_rows(&rows, base + in_place),
            }
        }
        self.len = base + path.len();
    }

    fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}
