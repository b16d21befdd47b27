//! Writing captures; a kill at any moment loses at most the sample being computed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::error::{CaptureError, Result, io_error};
use super::header::CaptureHeader;
use super::manifest::{LeftOut, Manifest, ShardEntry, ShardSample};
use super::positions::PositionRange;
use super::record::SampleRecord;
use super::sample::SampleVectors;
use super::tensor_file::{StoredTensor, TensorFile, TensorHead, write_tensors};
use super::token_sample::{TokenSample, read_tokens, token_tensors};
use super::vectors::vector_tensors;
use super::whole_file::{remove_temporaries, write_whole};

/// Folder of samples whose shard is unfinished.
const PENDING: &str = "pending";
/// Extension of sample files.
const EXTENSION: &str = "safetensors";

/// Writes the samples of a range of positions, in any order.
#[derive(Debug)]
pub struct CaptureWriter {
    dir: PathBuf,
    manifest: Manifest,
    /// Positions of pending samples.
    pending: BTreeSet<usize>,
    /// Positions without a sample in unfinished shards.
    left_out: BTreeMap<usize, LeftOut>,
    time: Duration,
    /// Held as long as the writer lives; the operating system releases it however the process ends.
    _lock: File,
}

impl CaptureWriter {
    /// Starts a capture in `dir`, or resumes the existing one.
    ///
    /// # Errors
    /// [`CaptureError::Mismatch`] if the existing capture has other samples,
    /// [`CaptureError::Locked`] if another process is writing it, [`CaptureError::ShardLength`] if
    /// a finished shard was cut short, and the errors of reading and writing files.
    pub fn open(dir: &Path, header: CaptureHeader, covers: PositionRange) -> Result<Self> {
        let started = Instant::now();
        let pending_dir = dir.join(PENDING);
        fs::create_dir_all(&pending_dir).map_err(io_error(&pending_dir))?;
        let lock = lock(dir)?;
        remove_temporaries(dir)?;
        remove_temporaries(&pending_dir)?;
        let manifest = match Manifest::read_if_present(dir)? {
            Some(manifest) => {
                manifest.check_header(dir, &header)?;
                if manifest.covers != covers {
                    return Err(CaptureError::Mismatch {
                        path: Manifest::path(dir),
                        field: "covers".to_owned(),
                        found: manifest.covers.to_string(),
                        expected: covers.to_string(),
                    });
                }
                manifest
            }
            None => {
                let manifest = Manifest::new(header, covers);
                manifest.write(dir)?;
                manifest
            }
        };
        for shard in &manifest.shards {
            check_length(dir, shard)?;
        }
        let mut writer = Self {
            dir: dir.to_owned(),
            pending: BTreeSet::new(),
            left_out: BTreeMap::new(),
            manifest,
            time: Duration::ZERO,
            _lock: lock,
        };
        writer.find_pending()?;
        writer.pack_all()?;
        writer.time = started.elapsed();
        Ok(writer)
    }

    /// Returns the manifest of finished shards.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the time spent on file operations.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.time
    }

    /// Returns the positions that remain to be captured, in order.
    #[must_use]
    pub fn missing(&self) -> Vec<usize> {
        let size = self.manifest.header.shard_positions;
        let open = self.manifest.covers.pieces(size);
        let open = open.filter(|piece| !self.is_finished(piece));
        open.flat_map(|piece| piece.start..piece.end)
            .filter(|position| !self.is_known(*position))
            .collect()
    }

    /// Stores a sample with the vectors that the storage kind keeps.
    ///
    /// # Errors
    /// [`CaptureError::Position`], [`CaptureError::SampleShape`], [`CaptureError::NotFinite`] and
    /// [`CaptureError::Io`].
    pub fn put(
        &mut self,
        position: usize,
        sample: &TokenSample,
        vectors: &SampleVectors,
    ) -> Result<()> {
        let mut tensors = vector_tensors(sample, vectors, &self.manifest.header)?;
        tensors.extend(token_tensors(sample)?);
        self.store(position, &sample.record, tensors)
    }

    /// Stores a sample without vectors, for online captures.
    ///
    /// # Errors
    /// Same as [`Self::put`].
    pub fn put_tokens(&mut self, position: usize, sample: &TokenSample) -> Result<()> {
        self.store(position, &sample.record, token_tensors(sample)?)
    }

    /// Records that a position gives no sample.
    ///
    /// # Errors
    /// [`CaptureError::Position`] and [`CaptureError::Io`].
    pub fn leave_out(&mut self, left_out: LeftOut) -> Result<()> {
        let position = left_out.position;
        let piece = self.piece_of(position)?;
        self.left_out.insert(position, left_out);
        self.timed(|writer| writer.pack_if_complete(piece))
    }

    /// Finishes the capture.
    ///
    /// # Errors
    /// [`CaptureError::Unfinished`] if positions are missing.
    pub fn finish(mut self) -> Result<Manifest> {
        let missing = self.manifest.n_missing();
        if missing > 0 {
            return Err(CaptureError::Unfinished {
                dir: self.dir,
                missing,
                expected: self.manifest.covers.len(),
            });
        }
        self.timed(|writer| {
            let pending = writer.dir.join(PENDING);
            fs::remove_dir(&pending).map_err(io_error(&pending))
        })?;
        Ok(self.manifest)
    }

    fn timed<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let started = Instant::now();
        let result = work(self);
        self.time += started.elapsed();
        result
    }

    fn is_finished(&self, piece: &PositionRange) -> bool {
        let mut shards = self.manifest.shards.iter();
        shards.any(|shard| shard.positions == *piece)
    }

    fn is_known(&self, position: usize) -> bool {
        self.pending.contains(&position) || self.left_out.contains_key(&position)
    }

    fn piece_of(&self, position: usize) -> Result<PositionRange> {
        let range = self.manifest.covers;
        if !range.contains(position) {
            return Err(CaptureError::Position { position, range });
        }
        let size = self.manifest.header.shard_positions.max(1);
        let start = position - (position - range.start) % size;
        Ok(PositionRange {
            start,
            end: range.end.min(start + size),
        })
    }

    fn pending_path(&self, position: usize) -> PathBuf {
        let name = format!("{position:08}.{EXTENSION}");
        self.dir.join(PENDING).join(name)
    }

    fn store(
        &mut self,
        position: usize,
        record: &SampleRecord,
        mut tensors: Vec<StoredTensor>,
    ) -> Result<()> {
        let piece = self.piece_of(position)?;
        tensors.sort_by_key(|tensor| tensor.head.rank());
        self.timed(|writer| {
            let path = writer.pending_path(position);
            let heads: Vec<TensorHead> = tensors.iter().map(|t| t.head.clone()).collect();
            write_whole(&path, |file| {
                let failed = io_error(&path);
                write_tensors(file, record, &heads, &failed, |index, file| {
                    file.write_all(&tensors[index].bytes).map_err(&failed)
                })
            })?;
            writer.pending.insert(position);
            writer.pack_if_complete(piece)
        })
    }

    /// Scans the samples that an earlier run left. A sample of a finished shard may still be
    /// pending if the run was killed before it removed the file.
    fn find_pending(&mut self) -> Result<()> {
        let dir = self.dir.join(PENDING);
        for entry in fs::read_dir(&dir).map_err(io_error(&dir))? {
            let path = entry.map_err(io_error(&dir))?.path();
            let position = path
                .file_stem()
                .and_then(|stem| stem.to_str()?.parse().ok());
            let piece = position.and_then(|position| self.piece_of(position).ok());
            let is_open = piece.is_some_and(|piece| !self.is_finished(&piece));
            match position {
                // A power failure can leave a renamed file incomplete.
                Some(position) if is_open && TensorFile::open(&path).is_ok() => {
                    self.pending.insert(position);
                }
                _ => fs::remove_file(&path).map_err(io_error(&path))?,
            }
        }
        Ok(())
    }

    fn pack_all(&mut self) -> Result<()> {
        let size = self.manifest.header.shard_positions;
        let pieces: Vec<PositionRange> = self.manifest.covers.pieces(size).collect();
        for piece in pieces {
            if !self.is_finished(&piece) {
                self.pack_if_complete(piece)?;
            }
        }
        Ok(())
    }

    fn pack_if_complete(&mut self, piece: PositionRange) -> Result<()> {
        if !(piece.start..piece.end).all(|position| self.is_known(position)) {
            return Ok(());
        }
        let shard = self.pack(piece)?;
        self.manifest.add(shard);
        self.manifest.write(&self.dir)?;
        for position in piece.start..piece.end {
            self.left_out.remove(&position);
            if self.pending.remove(&position) {
                let path = self.pending_path(position);
                fs::remove_file(&path).map_err(io_error(&path))?;
            }
        }
        Ok(())
    }

    /// Packs pending samples into a shard, one tensor at a time.
    fn pack(&self, piece: PositionRange) -> Result<ShardEntry> {
        let positions = self.pending.range(piece.start..piece.end);
        let mut files = Vec::new();
        for &position in positions {
            files.push((position, TensorFile::open(&self.pending_path(position))?));
        }
        let mut samples = Vec::new();
        let mut records = BTreeMap::new();
        let mut parts = Vec::new();
        for (index, (position, file)) in files.iter_mut().enumerate() {
            let record: SampleRecord = file.about()?;
            for head in file.heads() {
                let name = format!("{}{}", sample_prefix(*position), head.name);
                let inner = head.name.clone();
                parts.push((TensorHead { name, ..head }, index, inner));
            }
            let tokens = read_tokens(file, "", record.clone())?;
            samples.push(ShardSample::new(*position, &tokens));
            records.insert(*position, record);
        }
        parts.sort_by_key(|(head, index, _)| (head.rank(), *index));
        let heads: Vec<TensorHead> = parts.iter().map(|(head, ..)| head.clone()).collect();
        let file = format!("shard-{:08}.{EXTENSION}", piece.start);
        let path = self.dir.join(&file);
        let (bytes, sha256) = write_whole(&path, |out| {
            let failed = io_error(&path);
            let mut out = Hashed::new(out);
            write_tensors(&mut out, &records, &heads, &failed, |index, out| {
                let (_, file, inner) = &parts[index];
                let bytes = files[*file].1.read_bytes(inner)?;
                out.write_all(&bytes).map_err(&failed)
            })?;
            Ok(out.finish())
        })?;
        let left_out = self.left_out.range(piece.start..piece.end);
        Ok(ShardEntry {
            file,
            positions: piece,
            bytes,
            sha256,
            samples,
            left_out: left_out.map(|(_, left_out)| left_out.clone()).collect(),
        })
    }
}

/// Returns the prefix of a sample's tensor names in a shard.
pub(super) fn sample_prefix(position: usize) -> String {
    format!("{position:08}.")
}

/// Returns an error if the length of a shard differs from the manifest.
pub(super) fn check_length(dir: &Path, shard: &ShardEntry) -> Result<()> {
    let path = dir.join(&shard.file);
    let found = fs::metadata(&path).map_err(io_error(&path))?.len();
    if found == shard.bytes {
        return Ok(());
    }
    Err(CaptureError::ShardLength {
        path,
        found,
        expected: shard.bytes,
    })
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let file = File::create(&path).map_err(io_error(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(CaptureError::Locked { path }),
        Err(TryLockError::Error(error)) => Err(io_error(&path)(error)),
    }
}

/// A writer that counts and hashes the bytes that pass through.
struct Hashed<W> {
    out: W,
    hash: Sha256,
    bytes: u64,
}

impl<W> Hashed<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    fn finish(self) -> (u64, String) {
        (self.bytes, format!("{:x}", self.hash.finalize()))
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
