//! Measured costs of a target and a draft on this machine, stored in a file between runs.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use vispec_core::{
    CostDrift, CostTable, DraftCosts, TargetCosts, TargetModel, measure_draft_costs,
    measure_target_costs,
};
use vispec_processor::{Positions, PreparedPrompt};

use crate::draft::Draft;
use crate::engine::{Engine, Method};
use crate::error::ModelError;
use crate::precision::KvPrecision;
use crate::target::VlmTarget;

/// Number of tokens in the cache while costs are measured, if the target's context is at least
/// twice as long.
pub const CALIBRATION_CONTEXT: usize = 256;
/// Format version of the file; increased when its meaning changes.
const FORMAT: u32 = 4;

/// Identifies the build that measures costs.
const BUILD: &str = if cfg!(debug_assertions) {
    concat!(env!("CARGO_PKG_VERSION"), " (debug)")
} else {
    env!("CARGO_PKG_VERSION")
};

/// The conditions under which measured costs are valid. Costs are measured again if any of them
/// differs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct CalibrationKey {
    /// Version of the file's format.
    pub format: u32,
    /// Version of this crate, and whether it is a debug build, in which passes take longer.
    pub version: String,
    /// Processor and instruction set.
    pub machine: String,
    /// Number of kernel threads.
    pub threads: usize,
    /// The device.
    pub device: String,
    /// Element type of the weights.
    pub dtype: String,
    /// The target.
    pub target: CheckpointStamp,
    /// How tokens are drafted.
    pub method: String,
    /// The draft, if the method needs one.
    pub draft: Option<CheckpointStamp>,
    /// Size of the draft's vocabulary, if it is restricted.
    pub draft_vocab: Option<usize>,
}

/// Identifies a checkpoint by properties that change when it is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct CheckpointStamp {
    /// Directory of the checkpoint.
    pub dir: PathBuf,
    /// Total size of its files in bytes.
    pub bytes: u64,
    /// Time of the newest file, in seconds since 1970.
    pub modified: u64,
}

impl CheckpointStamp {
    /// Returns the stamp of the checkpoint in `dir`.
    ///
    /// # Errors
    /// Returns [`ModelError::Io`] if the directory cannot be read.
    pub(crate) fn of(dir: &Path) -> Result<Self, ModelError> {
        let io = |source| ModelError::Io {
            path: dir.to_owned(),
            source,
        };
        let mut stamp = Self {
            dir: dir.canonicalize().map_err(io)?,
            bytes: 0,
            modified: 0,
        };
        for entry in fs::read_dir(dir).map_err(io)? {
            // `metadata` follows the symbolic links of the hub's cache.
            let Ok(file) = fs::metadata(entry.map_err(io)?.path()) else {
                continue;
            };
            let changed = file.modified().ok();
            let changed = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            stamp.bytes += file.len();
            stamp.modified = stamp
                .modified
                .max(changed.map_or(0, |since| since.as_secs()));
        }
        Ok(stamp)
    }
}

impl CalibrationKey {
    /// Returns the key for costs that are measured now.
    ///
    /// # Errors
    /// Returns [`ModelError::Io`] if a checkpoint's directory cannot be read.
    pub(crate) fn new(engine: &Engine, method: Method) -> Result<Self, ModelError> {
        let draft = engine.draft_of(method);
        Ok(Self {
            format: FORMAT,
            version: BUILD.to_owned(),
            machine: format!(
                "{}, {}",
                processor_name(),
                vispec_kernels::Isa::detected().name()
            ),
            threads: vispec_kernels::n_threads(),
            device: format!("{:?}", engine.target().device()),
            dtype: match engine.target().kv_precision() {
                KvPrecision::Auto => engine.target().precision().to_string(),
                kv @ KvPrecision::Bf16 => {
                    format!("{} with caches in {kv}", engine.target().precision())
                }
            },
            target: CheckpointStamp::of(engine.target().dir())?,
            method: method.as_str().to_owned(),
            draft_vocab: draft.and_then(Draft::vocab_len),
            draft: match (draft, engine.draft_dir()) {
                (Some(_), Some(dir)) => Some(CheckpointStamp::of(dir)?),
                _ => None,
            },
        })
    }

    /// Returns a file name that differs between keys.
    fn file_name(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        format!("{:016x}.json", hasher.finish())
    }

    /// Describes the first field in which two keys differ.
    fn difference(&self, found: &Self) -> Option<String> {
        let (expected, found) = (serde_json::to_value(self), serde_json::to_value(found));
        let (Ok(expected), Ok(found)) = (expected, found) else {
            return Some("the key cannot be compared".to_owned());
        };
        expected.as_object()?.iter().find_map(|(field, expected)| {
            let found = &found[field];
            (found != expected).then(|| format!("its {field} is {found}, expected {expected}"))
        })
    }
}

/// Returns the model name of the processor if the operating system reports it, and the architecture
/// otherwise.
fn processor_name() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        (field.trim() == "model name").then(|| value.trim().to_owned())
    });
    model.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

#[derive(Serialize, Deserialize)]
struct CalibrationFile {
    key: CalibrationKey,
    target: TargetCosts,
    draft: Option<DraftCosts>,
    /// Why the costs must be measured again, if they turned out to be wrong.
    doubt: Option<String>,
}

/// Origin of a cost table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CalibrationOrigin {
    /// Read from the file of an earlier run.
    File,
    /// Measured now, because there was no file.
    Measured,
    /// Measured now, because the file could not be used.
    Remeasured {
        /// Why the file could not be used.
        reason: String,
    },
}

/// A cost table, its origin, and whether it was saved.
#[derive(Debug)]
pub struct Calibration {
    /// The table.
    pub costs: CostTable,
    /// Origin of the table.
    pub origin: CalibrationOrigin,
    /// Why a measured table could not be written to the file, if so.
    pub unsaved: Option<ModelError>,
}

/// Where measured costs are stored between runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CalibrationPlace {
    /// In this file.
    File(PathBuf),
    /// In this directory, with one file per combination of machine, device, target and draft.
    InDir(PathBuf),
    /// Nowhere: costs are measured in each run.
    Nowhere,
}

impl CalibrationPlace {
    fn file(&self, key: &CalibrationKey) -> Option<PathBuf> {
        match self {
            Self::File(file) => Some(file.clone()),
            Self::InDir(dir) => Some(dir.join(key.file_name())),
            Self::Nowhere => None,
        }
    }
}

/// Returns the costs of `method` with the models of `engine`. They come from the file at `place` if
/// it holds them; otherwise they are measured and written to it.
///
/// # Errors
/// Returns the errors of the models while they are measured. A file that cannot be written is not
/// an error; see [`Calibration::unsaved`].
pub fn calibrate(
    engine: &Engine,
    method: Method,
    place: &CalibrationPlace,
) -> Result<Calibration, ModelError> {
    let key = CalibrationKey::new(engine, method)?;
    let file = place.file(&key);
    let origin = match file.as_deref().map(|path| read(path, &key)) {
        Some(Ok(costs)) => {
            return Ok(Calibration {
                costs,
                origin: CalibrationOrigin::File,
                unsaved: None,
            });
        }
        Some(Err(Some(reason))) => CalibrationOrigin::Remeasured { reason },
        Some(Err(None)) | None => CalibrationOrigin::Measured,
    };
    let costs = measure(engine, method)?;
    let unsaved = file.and_then(|path| write(&path, key, &costs, None).err());
    Ok(Calibration {
        costs,
        origin,
        unsaved,
    })
}

/// Marks the costs in the file at `place` as wrong, so that the next program measures them again.
/// Does nothing if there is no such file, or if it is for other models.
///
/// # Errors
/// Returns [`ModelError::Io`] if the file cannot be written.
pub fn doubt_costs(
    engine: &Engine,
    method: Method,
    place: &CalibrationPlace,
    drift: CostDrift,
) -> Result<(), ModelError> {
    let key = CalibrationKey::new(engine, method)?;
    let Some(path) = place.file(&key) else {
        return Ok(());
    };
    // If the file cannot be read, costs are measured again anyway.
    let Ok(costs) = read(&path, &key) else {
        return Ok(());
    };
    write(&path, key, &costs, Some(drift.to_string()))
}

/// Reads the table in `path`. The error is the reason why it cannot be used, or `None` if there is
/// no file.
fn read(path: &Path, key: &CalibrationKey) -> Result<CostTable, Option<String>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(None),
        Err(error) => return Err(Some(error.to_string())),
    };
    let file: CalibrationFile =
        serde_json::from_str(&text).map_err(|error| Some(error.to_string()))?;
    match key.difference(&file.key).or(file.doubt) {
        Some(reason) => Err(Some(reason)),
        None => CostTable::new(file.target, file.draft).map_err(|error| Some(error.to_string())),
    }
}

/// Writes to a temporary file and renames it, so that a reader never sees an incomplete file.
fn write(
    path: &Path,
    key: CalibrationKey,
    costs: &CostTable,
    doubt: Option<String>,
) -> Result<(), ModelError> {
    let io = |source| ModelError::Io {
        path: path.to_owned(),
        source,
    };
    let file = CalibrationFile {
        key,
        target: costs.target_costs().clone(),
        draft: costs.draft_costs().cloned(),
        doubt,
    };
    let text = serde_json::to_string_pretty(&file).map_err(|error| io(error.into()))?;
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(io)?;
    }
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first failure is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(io)
}

/// Measures the costs after a text prompt.
fn measure(engine: &Engine, method: Method) -> Result<CostTable, ModelError> {
    let target = engine.target();
    let failed = |source| ModelError::Calibration { source };
    let prompt = target.encode(&text(target))?;
    let costs = measure_target_costs(target, &prompt).map_err(failed)?;
    let draft = match engine.draft_of(method) {
        None => None,
        Some(Draft::Neural(_, draft)) => {
            Some(measure_draft_costs(target, &mut draft.session(), &prompt).map_err(failed)?)
        }
        Some(Draft::Medusa(medusa)) => {
            Some(measure_draft_costs(target, &mut medusa.session(), &prompt).map_err(failed)?)
        }
    };
    Ok(CostTable::new(costs, draft)?)
}

/// Returns an arbitrary text prompt.
fn text(target: &VlmTarget) -> PreparedPrompt {
    let len = CALIBRATION_CONTEXT.min(target.context_len() / 2).max(1);
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    let vocab = u32::try_from(target.vocab_size())
        .unwrap_or(u32::MAX)
        .max(1);
    let index: Vec<u32> = (0..len).collect();
    let positions = if target.has_position_axes() {
        Positions::Multimodal {
            temporal: index.clone(),
            height: index.clone(),
            width: index,
        }
    } else {
        Positions::Sequential(index)
    };
    PreparedPrompt {
        token_ids: (0..len).map(|i| i % vocab).collect(),
        image_runs: Vec::new(),
        images: Vec::new(),
        positions,
        rope_delta: 0,
        rendered: String::new(),
    }
}
