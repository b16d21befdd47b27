//! Reading samples by index.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::embeddings::{ImageFeatures, TokenEmbeddings};
use super::error::{CaptureError, Result, io_error};
use super::header::{CaptureHeader, StorageKind};
use super::manifest::{Manifest, ShardEntry};
use super::record::SampleRecord;
use super::sample::CapturedSample;
use super::tensor_file::TensorFile;
use super::token_sample::{TokenSample, read_tokens};
use super::vectors::StoredVectors;
use super::writer::{check_length, sample_prefix};

/// The samples of a capture. It holds only the manifest in memory; samples are read on request.
pub struct CaptureReader {
    dir: PathBuf,
    manifest: Manifest,
    /// Shard and position of each sample.
    places: Vec<(usize, usize)>,
    embeddings: Option<Box<dyn TokenEmbeddings>>,
    images: Option<Box<dyn ImageFeatures>>,
}

impl CaptureReader {
    /// Opens a finished capture, and checks that its shards exist and have the expected length.
    /// [`Self::verify`] also checks their content.
    ///
    /// # Errors
    /// [`CaptureError::NoCapture`], [`CaptureError::Version`], [`CaptureError::Damaged`],
    /// [`CaptureError::Unfinished`], [`CaptureError::ShardLength`] or [`CaptureError::Io`].
    pub fn open(dir: &Path) -> Result<Self> {
        let manifest = Manifest::read(dir)?;
        let missing = manifest.n_missing();
        if missing > 0 {
            return Err(CaptureError::Unfinished {
                dir: dir.to_owned(),
                missing,
                expected: manifest.covers.len(),
            });
        }
        let mut places = Vec::with_capacity(manifest.n_samples());
        for (index, shard) in manifest.shards.iter().enumerate() {
            check_length(dir, shard)?;
            places.extend(shard.samples.iter().map(|sample| (index, sample.position)));
        }
        Ok(Self {
            dir: dir.to_owned(),
            manifest,
            places,
            embeddings: None,
            images: None,
        })
    }

    /// Like [`Self::open`], but accepts only captures of the target with this
    /// [`fingerprint`](super::fingerprint).
    ///
    /// # Errors
    /// Same as [`Self::open`], and [`CaptureError::Mismatch`] if the capture is of another target.
    pub fn open_for(dir: &Path, fingerprint: &str) -> Result<Self> {
        let reader = Self::open(dir)?;
        let target = &reader.manifest.header.target;
        if target.fingerprint == fingerprint {
            return Ok(reader);
        }
        Err(CaptureError::Mismatch {
            path: Manifest::path(dir),
            field: format!("fingerprint of the target ({})", target.name),
            found: target.fingerprint.clone(),
            expected: fingerprint.to_owned(),
        })
    }

    /// Sets the embedding table, which compact and packed captures need for their text.
    #[must_use]
    pub fn with_embeddings(mut self, table: Box<dyn TokenEmbeddings>) -> Self {
        self.embeddings = Some(table);
        self
    }

    /// Sets the source of image features, which packed captures need.
    #[must_use]
    pub fn with_image_features(mut self, images: Box<dyn ImageFeatures>) -> Self {
        self.images = Some(images);
        self
    }

    /// Returns the header of the capture.
    #[must_use]
    pub fn header(&self) -> &CaptureHeader {
        &self.manifest.header
    }

    /// Returns the manifest of the capture.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Returns `true` if there are no samples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Returns a hash of the content of all shards, which identifies the capture.
    #[must_use]
    pub fn identity(&self) -> String {
        let mut hash = Sha256::new();
        for shard in &self.manifest.shards {
            hash.update(&shard.sha256);
        }
        format!("{:x}", hash.finalize())
    }

    /// Reads all shards and compares their hashes; calls `progress` for each intact shard.
    ///
    /// # Errors
    /// [`CaptureError::ShardHash`] or [`CaptureError::Io`].
    pub fn verify(&self, mut progress: impl FnMut(&ShardEntry)) -> Result<()> {
        for shard in &self.manifest.shards {
            check_hash(&self.dir, shard)?;
            progress(shard);
        }
        Ok(())
    }

    /// Reads sample `index` without its vectors.
    ///
    /// # Errors
    /// [`CaptureError::NoSample`], [`CaptureError::Damaged`] or [`CaptureError::Io`].
    pub fn tokens(&self, index: usize) -> Result<TokenSample> {
        Ok(self.open_sample(index)?.0)
    }

    /// Reads sample `index`.
    ///
    /// # Errors
    /// Same as [`Self::tokens`]; [`CaptureError::NeedsMore`] if the capture is online, if it is
    /// compact or packed and has no embeddings, or if it is packed and has no source of image
    /// features; [`CaptureError::ImageFeatures`] if the image features cannot be computed.
    pub fn sample(&self, index: usize) -> Result<CapturedSample> {
        let (tokens, mut file, prefix) = self.open_sample(index)?;
        let vectors = StoredVectors {
            file: &mut file,
            prefix: &prefix,
            hidden: self.header().target.hidden,
            states: self.header().states.len(),
            dtype: self.header().dtype,
        };
        match self.header().storage {
            StorageKind::Full => vectors.full(tokens),
            StorageKind::Compact => vectors.compact(tokens, self.table()?),
            StorageKind::Packed => {
                let images = self.images.as_deref();
                if images.is_none() && tokens.image_mask.contains(&true) {
                    return Err(self.needs("the target's vision tower has to be run on the images"));
                }
                vectors.packed(tokens, self.table()?, images)
            }
            StorageKind::Online => Err(self.needs("the target has to be run to complete them")),
        }
    }

    fn table(&self) -> Result<&dyn TokenEmbeddings> {
        let missing = || self.needs("the embeddings of the target's tokens are needed");
        self.embeddings.as_deref().ok_or_else(missing)
    }

    fn needs(&self, advice: &'static str) -> CaptureError {
        CaptureError::NeedsMore {
            dir: self.dir.clone(),
            found: self.header().storage.as_str(),
            advice,
        }
    }

    fn open_sample(&self, index: usize) -> Result<(TokenSample, TensorFile, String)> {
        let Some(&(shard, position)) = self.places.get(index) else {
            return Err(CaptureError::NoSample {
                dir: self.dir.clone(),
                index,
                len: self.places.len(),
            });
        };
        let path = self.dir.join(&self.manifest.shards[shard].file);
        let mut file = TensorFile::open(&path)?;
        let mut records: BTreeMap<usize, SampleRecord> = file.about()?;
        let record = records.remove(&position);
        let record =
            record.ok_or_else(|| file.damaged(format!("no sample of position {position}")))?;
        let prefix = sample_prefix(position);
        let tokens = read_tokens(&mut file, &prefix, record)?;
        Ok((tokens, file, prefix))
    }
}

impl fmt::Debug for CaptureReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureReader")
            .field("dir", &self.dir)
            .field("samples", &self.places.len())
            .field("storage", &self.manifest.header.storage)
            .finish_non_exhaustive()
    }
}

/// Returns an error if the content of a shard differs from the manifest.
pub(super) fn check_hash(dir: &Path, shard: &ShardEntry) -> Result<()> {
    check_length(dir, shard)?;
    let path = dir.join(&shard.file);
    let mut file = File::open(&path).map_err(io_error(&path))?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut hash).map_err(io_error(&path))?;
    let found = format!("{:x}", hash.finalize());
    if found == shard.sha256 {
        return Ok(());
    }
    Err(CaptureError::ShardHash {
        path,
        found,
        expected: shard.sha256.clone(),
    })
}
