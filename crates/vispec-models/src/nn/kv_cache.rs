//! Key and value caches that grow in steps and are written in place.

use burn::tensor::{DType, Device, Int, Tensor, TensorData, s};
use vispec_core::{KvCache, NodeId};

use super::decoder::DecoderConfig;
#[cfg(feature = "flex")]
use super::host::HostCache;

/// Rows by which a cache grows at least.
const GROWTH: usize = 256;

/// Rows to make room for where `needed` do not fit `capacity`. Geometric growth: each row is copied
/// a bounded number of times, however long the answer.
pub(crate) fn grown_capacity(capacity: usize, needed: usize) -> usize {
    needed.max(capacity + capacity / 2).next_multiple_of(GROWTH)
}

/// Most rows that a cache has room for when it has grown to `rows`.
pub(crate) fn capacity_bound(rows: usize) -> usize {
    rows.saturating_add(rows / 2).saturating_add(GROWTH)
}

/// Keys and values of one layer, each `[1, kv_heads, capacity, head_dim]`.
#[derive(Debug, Clone)]
pub(crate) struct LayerCache {
    /// Taken out while it is written, so that the write finds a unique owner and copies nothing.
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

    /// Writes `keys` and `values` `[rows, kv_heads * head_dim]` behind the first `len` rows.
    ///
    /// Gives keys and values `[1, kv_heads, capacity, head_dim]`; rows behind `len + rows` hold
    /// anything.
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

    /// Gives the tensors back that were taken out.
    #[cfg(feature = "cube")]
    pub(super) fn put_back(&mut self, keys: Tensor<4>, values: Tensor<4>) {
        self.tensors = Some((keys, values));
    }

    /// Takes the tensors out, grown to hold `needed` rows, of which `len` are there.
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

    /// A tensor of the present capacity that starts with the first `len` rows of `old`.
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
    /// Where the rows are.
    #[cfg(feature = "cube")]
    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// The cache of one layer.
    pub(crate) fn layer(&mut self, idx: usize) -> &mut LayerCache {
        &mut self.layers[idx]
    }

    /// Moves rows `from`, ascending, to the places from `to` on.
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

/// Where rows are kept.
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

    /// An empty cache on a device. Memory is taken when rows are appended, not before.
    pub(super) fn on_device(config: &DecoderConfig, (device, dtype): (&Device, DType)) -> Self {
        let layer = LayerCache::new(config.kv_heads, config.head_dim, device, dtype);
        Self::new(Storage::Device(DeviceCache {
            layers: vec![layer; config.layers],
            device: device.clone(),
        }))
    }

    /// Rows that are valid in each layer.
    #[must_use]
    pub(crate) fn n_rows(&self) -> usize {
        self.len
    }

    /// A copy of the first `len` rows, where rows are in memory; `None` on devices.
    #[must_use]
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

    /// Memory of the rows; `None` on devices.
    #[must_use]
    pub(crate) fn n_bytes(&self) -> Option<usize> {
        match &self.storage {
            Storage::Device(_) => None,
            #[cfg(feature = "flex")]
            Storage::Host(cache) => Some(cache.n_bytes()),
        }
    }

    /// The rows, which must be on a device.
    pub(super) fn device_mut(&mut self) -> &mut DeviceCache {
        match &mut self.storage {
            Storage::Device(cache) => cache,
            #[cfg(feature = "flex")]
            Storage::Host(_) => panic!("a cache in memory, but the weights are on a device"),
        }
    }

    /// The rows, which must be in memory.
    #[cfg(feature = "flex")]
    pub(super) fn host_mut(&mut self) -> &mut HostCache {
        match &mut self.storage {
            Storage::Host(cache) => cache,
            Storage::Device(_) => panic!("a cache on a device, but the weights are in memory"),
        }
    }

    /// Declares the `n_rows` that every layer has appended valid.
    pub(super) fn advance(&mut self, n_rows: usize) {
        self.len += n_rows;
    }
}

impl KvCache for ModelCache {
    fn len(&self) -> usize {
        self.len
    }

    fn keep_path(&mut self, base: usize, path: &[NodeId]) {
        // A path that starts 0, 1, 2 … is already where it belongs, as far as it goes.
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
