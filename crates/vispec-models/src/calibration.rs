//! Measured costs of a target and a draft on this machine, kept in a file between runs.

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

/// Tokens in the cache while costs are measured, if the target's context is twice as long.
pub const CALIBRATION_CONTEXT: usize = 256;
/// Changes with the meaning of the file.
const FORMAT: u32 = 3;

/// Which build costs are measured with.
const BUILD: &str = if cfg!(debug_assertions) {
    concat!(env!("CARGO_PKG_VERSION"), " (debug)")
} else {
    env!("CARGO_PKG_VERSION")
};

/// What measured costs hold for. They are measured again if anything differs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct CalibrationKey {
    /// Version of the file's format.
    pub format: u32,
    /// Version of this crate, and whether it was built for tests: then passes take longer.
    pub version: String,
    /// Processor and instruction set.
    pub machine: String,
    /// Threads of the kernels.
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
    /// Tokens that the draft chooses from.
    pub draft_vocab: Option<usize>,
}

/// A checkpoint, by what changes when it is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct CheckpointStamp {
    /// Its directory.
    pub dir: PathBuf,
    /// Bytes of its files together.
    pub bytes: u64,
    /// Seconds from 1970 to the last change of a file.
    pub modified: u64,
}

impl CheckpointStamp {
    /// The stamp of the checkpoint in `dir`.
    ///
    /// # Errors
    /// [`ModelError::Io`] if the directory cannot be read.
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
            // Links of the hub's cache are followed.
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
    /// What costs that are measured now hold for.
    ///
    /// # Errors
    /// [`ModelError::Io`] if a checkpoint's directory cannot be read.
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

    /// A file name that tells keys apart.
    fn file_name(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        format!("{:016x}.json", hasher.finish())
    }

    /// The first field in which two keys differ.
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

/// Model name of the processor, where the operating system tells.
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
    /// Why the costs are to be measured again, if they were found to be wrong.
    doubt: Option<String>,
}

/// Where a cost table came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CalibrationOrigin {
    /// From the file of an earlier run.
    File,
    /// Measured now, since there was no file.
    Measured,
    /// Measured now, since the file could not be used.
    Remeasured {
        /// What is wrong with the file.
        reason: String,
    },
}

/// A cost table, where it came from, and whether it was kept.
#[derive(Debug)]
pub struct Calibration {
    /// The table.
    pub costs: CostTable,
    /// Where it came from.
    pub origin: CalibrationOrigin,
    /// Why a table that was measured could not be written to the file.
    pub unsaved: Option<ModelError>,
}

/// Where measured costs are kept between runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CalibrationPlace {
    /// In this file.
    File(PathBuf),
    /// In this directory, in a file for each combination of machine, device, target and draft.
    InDir(PathBuf),
    /// They are measured in each run.
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

/// The costs of `method` with what `engine` has loaded: from the file at `place` if it holds them,
/// measured and written to it otherwise.
///
/// # Errors
/// Any error of the models while they are measured. A file that cannot be written is no error here:
/// see [`Calibration::unsaved`].
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

/// Notes in the file at `place` that passes did not take what it says, so that the next program
/// measures again. Nothing happens if there is no such file, or if it is for something else.
///
/// # Errors
/// [`ModelError::Io`] if the file cannot be written.
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
    // A file that cannot be read is measured again anyway.
    let Ok(costs) = read(&path, &key) else {
        return Ok(());
    };
    write(&path, key, &costs, Some(drift.to_string()))
}

/// The table in `path`; the error says why it cannot be used, or is `None` if there is no file.
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

/// Writes under a temporary name and renames, so that a reader never sees half a file.
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

/// Measures behind a prompt of text.
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

/// Some text, as token ids.
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
