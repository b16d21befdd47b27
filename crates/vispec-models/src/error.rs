//! The error type of this crate.

use std::path::PathBuf;

/// Everything that can go wrong between a checkpoint directory and a generated token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file could not be opened or read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system reported.
        #[source]
        source: std::io::Error,
    },
    /// A directory holds no weights under any of the published names.
    #[error(
        "{dir}: no weights found, expected model.safetensors, model.safetensors.index.json or \
         pytorch_model.bin"
    )]
    NoWeights {
        /// The directory.
        dir: PathBuf,
    },
    /// A weight file is damaged: truncated, garbage, or with a header that contradicts its size.
    #[error("{path}: damaged weight file: {reason}")]
    DamagedWeights {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// A weight file uses an element type that cannot be loaded.
    #[error("{path}: tensor {tensor} has element type {found}, expected F32, F16 or BF16")]
    WeightDtype {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// Element type in the file.
        found: String,
    },
    /// A tensor of a weight file holds values that make no sense.
    #[error("{path}: tensor {tensor}: {reason}")]
    WeightValue {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The tensors of a checkpoint are not those that its config asks for.
    #[error("{}: weights do not fit the config: {report}", dir.display())]
    Weights {
        /// Directory of the checkpoint.
        dir: PathBuf,
        /// Names of the tensors at fault.
        report: WeightsReport,
    },
    /// A config file is missing.
    #[error("{path}: no such file; {advice}")]
    MissingConfig {
        /// The file that was looked for.
        path: PathBuf,
        /// What to do about it.
        advice: &'static str,
    },
    /// A config file cannot be read as JSON, or lacks a field, or has one of the wrong type.
    #[error("{path}: {source}")]
    ConfigSyntax {
        /// The file.
        path: PathBuf,
        /// Field, line and column.
        #[source]
        source: serde_json::Error,
    },
    /// A config field has a value that no model can have.
    #[error("{path}: field {field} is {found}, expected {expected}")]
    ConfigValue {
        /// The file.
        path: PathBuf,
        /// The field, with dots between levels.
        field: String,
        /// Its value.
        found: String,
        /// What would be valid.
        expected: String,
    },
    /// The architecture is none of those that this crate implements.
    #[error("{path}: architecture {found} is not supported, expected one of {supported}")]
    UnsupportedArchitecture {
        /// The config file.
        path: PathBuf,
        /// What it asks for.
        found: String,
        /// What there is.
        supported: &'static str,
    },
    /// The config of a draft names layers of the target, and does not tell what of them is meant.
    #[error(
        "{path}: field eagle_aux_hidden_state_layer_ids is {found}, which may mean what enters these \
         layers or what leaves them; choose with --draft-layer-ids inputs or outputs"
    )]
    AmbiguousLayerIds {
        /// The config file.
        path: PathBuf,
        /// The numbers.
        found: String,
    },
    /// A draft was trained for another target.
    #[error(
        "the draft in {draft} does not fit the target: its {quantity} is {found}, the target's {expected}"
    )]
    DraftMismatch {
        /// Directory of the draft.
        draft: PathBuf,
        /// What differs.
        quantity: &'static str,
        /// The draft's value.
        found: usize,
        /// The target's value.
        expected: usize,
    },
    /// The draft's checkpoint is of another kind than the caller asked for.
    #[error("the draft is a {found} checkpoint, but the method {expected} was asked for")]
    DraftKind {
        /// Kind of the checkpoint.
        found: &'static str,
        /// Kind that was asked for.
        expected: &'static str,
    },
    /// A method needs a draft, and none was loaded.
    #[error("the method {method} needs a draft checkpoint")]
    DraftMissing {
        /// The method.
        method: &'static str,
    },
    /// A list of tokens for the draft cannot be used.
    #[error("{path}: {reason}")]
    DraftVocab {
        /// The list.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The costs of the models could not be measured.
    #[error("measuring what passes cost: {source}")]
    Calibration {
        /// What went wrong.
        #[source]
        source: vispec_core::DecodeError,
    },
    /// Measured costs make no sense.
    #[error("measuring what passes cost: {0}")]
    Costs(#[from] vispec_core::CostError),
    /// The name of a device cannot be understood.
    #[error("unknown device {found:?}, expected one of {expected}")]
    UnknownDevice {
        /// The name.
        found: String,
        /// Names that exist.
        expected: &'static str,
    },
    /// The device needs a Cargo feature that this program was built without.
    #[error("device {device} needs a build with the feature {feature}: add `--features {feature}`")]
    DeviceFeature {
        /// The device.
        device: String,
        /// The feature.
        feature: &'static str,
    },
    /// The program can use this kind of device, but there is none, or its driver is missing.
    #[error("device {device} is not available: {reason}")]
    DeviceUnavailable {
        /// The device.
        device: String,
        /// What is missing.
        reason: String,
    },
    /// The device computes wrong numbers in an element type that it says it supports.
    #[error(
        "device {device} computes wrong numbers in {dtype} ({found}, expected {expected}), choose \
         another --dtype"
    )]
    WrongArithmetic {
        /// The device.
        device: String,
        /// The element type.
        dtype: String,
        /// What it computed.
        found: f32,
        /// What that should be.
        expected: f32,
    },
    /// The device cannot run the target that was loaded onto it.
    #[error("{dir}: device {device} cannot run it", dir = .dir.display())]
    DeviceCannotRun {
        /// Directory of the checkpoint.
        dir: PathBuf,
        /// The device.
        device: String,
        /// What failed, such as an allocation.
        source: vispec_core::BoxError,
    },
    /// Passes cannot be padded on this device.
    #[error(
        "passes cannot be padded on {device}: on the CPU a row has the same bits in every pass, and \
         other devices without kernels of this crate have no padded passes"
    )]
    NotPadded {
        /// The device.
        device: String,
    },
    /// A tree does not fit a padded pass.
    #[error("a tree of {nodes} nodes does not fit passes padded to {rows} rows, pad to {nodes}")]
    PaddedTree {
        /// Nodes of the tree.
        nodes: usize,
        /// Rows of a pass.
        rows: usize,
    },
    /// The device cannot compute in this element type.
    #[error("device {device} does not support {dtype}, choose another --dtype")]
    UnsupportedDtype {
        /// The device.
        device: String,
        /// The element type.
        dtype: String,
    },
    /// A weight cannot be quantised as asked for.
    #[error("{path}: tensor {tensor} cannot be quantised: {source}")]
    Quantize {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// What does not fit.
        #[source]
        source: vispec_kernels::QuantizeError,
    },
    /// A prompt does not have as many images as places for them.
    #[error("there are {found} images, the prompt has places for {expected}")]
    ImageCount {
        /// Images.
        found: usize,
        /// Runs of image places in the prompt.
        expected: usize,
    },
    /// The number of vectors from the vision tower is not the number of places for them.
    #[error("the vision tower gave {found} vectors, the prompt has {expected} image places")]
    ImageFeatures {
        /// Vectors from the vision tower.
        found: usize,
        /// Image places in the prompt.
        expected: usize,
    },
    /// The vectors of an image are not those that a target reads.
    #[error(
        "an image has vectors for {found} layers besides its embeddings, the target reads them for \
         {expected}"
    )]
    ImageLevels {
        /// Layers that the image has vectors for.
        found: usize,
        /// Layers that the target adds some behind.
        expected: usize,
    },
    /// A prompt's embeddings or positions are not those of its tokens for this target.
    #[error(
        "a prompt has embeddings {embeds:?} and {positions} positions, expected {expected:?}: tokens \
         and width of the target"
    )]
    PromptShape {
        /// Shape of the embeddings.
        embeds: [usize; 2],
        /// Number of rotary positions.
        positions: usize,
        /// Tokens, and width of the target.
        expected: [usize; 2],
    },
    /// A part of a prompt is empty, or reaches behind its end.
    #[error("a prompt of {n_tokens} tokens cannot be read to {end}, {cached} are in the cache")]
    PromptRange {
        /// End of the part.
        end: usize,
        /// Rows in the cache.
        cached: usize,
        /// Tokens of the prompt.
        n_tokens: usize,
    },
    /// A cache holds tokens of a prompt whose hidden states it does not remember.
    #[error(
        "a prompt cannot go on in this cache: it holds {cached} tokens, and the hidden states of \
         {known}"
    )]
    UnknownFeatures {
        /// Rows in the cache.
        cached: usize,
        /// Rows whose hidden states are known.
        known: usize,
    },
    /// A hidden state is asked for that the target does not have.
    #[error(
        "the target has no hidden state {found}: its {layers} layers have states 0 to {layers}"
    )]
    UnknownState {
        /// Number of the state.
        found: usize,
        /// Layers of the target.
        layers: usize,
    },
    /// A cache remembers other hidden states than those that are needed.
    #[error("a cache remembers the hidden states {found}, expected {expected}")]
    OtherFeatures {
        /// States that the cache remembers.
        found: String,
        /// States that are needed.
        expected: String,
    },
    /// A token id lies outside the embedding table.
    #[error("token id {found} lies outside the vocabulary of {vocab_size}")]
    TokenOutOfRange {
        /// The token.
        found: u32,
        /// Rows of the embedding table.
        vocab_size: usize,
    },
    /// Images, chat template, tokenizer or prompt.
    #[error(transparent)]
    Processor(#[from] vispec_processor::ProcessorError),
    /// A hub id could not be resolved to files.
    #[error("{id}: {reason}")]
    Hub {
        /// The id.
        id: String,
        /// What went wrong.
        reason: String,
    },
    /// A read from the device failed.
    #[error("reading {what} from the device: {reason}")]
    DeviceRead {
        /// What was read.
        what: &'static str,
        /// What the backend reported.
        reason: String,
    },
}

impl ModelError {
    /// A read that failed, by what the backend reported: many lines, of which the last cause tells
    /// most.
    pub(crate) fn device_read(what: &'static str, reported: &impl std::fmt::Display) -> Self {
        Self::DeviceRead {
            what,
            reason: last_cause(&reported.to_string()),
        }
    }
}

/// The last cause in a report of several lines; all of it, in one line, if it names none.
fn last_cause(reported: &str) -> String {
    let lines = |text: &str| {
        let lines = text.lines().map(str::trim);
        let told = lines.filter(|line| !line.is_empty() && !line.starts_with("No backtrace"));
        Vec::from_iter(told.map(str::to_owned))
    };
    match reported.rsplit_once("Caused by:") {
        Some((_, cause)) => lines(cause).into_iter().next().unwrap_or_default(),
        None => lines(reported).join("; "),
    }
}

/// Tensors that keep a checkpoint from being loaded, by name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct WeightsReport {
    /// Tensors that the model needs and the checkpoint lacks.
    pub missing: Vec<String>,
    /// Tensors in the checkpoint that the model has no place for.
    pub unexpected: Vec<String>,
    /// Tensors whose shape is not the one that the config implies.
    pub misshapen: Vec<Misshapen>,
}

/// A tensor of the wrong shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misshapen {
    /// Name in the checkpoint.
    pub name: String,
    /// Shape in the checkpoint.
    pub found: Vec<usize>,
    /// Shape that the config implies.
    pub expected: Vec<usize>,
}

impl WeightsReport {
    /// Whether every tensor was found, used, and of the right shape.
    #[must_use]
    pub(crate) fn is_clean(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshapen.is_empty()
    }
}

/// At most this many names of each kind are printed; the rest are counted.
const PRINTED_NAMES: usize = 8;

impl std::fmt::Display for WeightsReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        let mut list = |kind: &str, names: Vec<String>| {
            if names.is_empty() {
                return;
            }
            let shown = names
                .iter()
                .take(PRINTED_NAMES)
                .cloned()
                .collect::<Vec<_>>()
                .join(", ");
            let more = names.len().saturating_sub(PRINTED_NAMES);
            let rest = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            parts.push(format!("{} {kind} ({shown}{rest})", names.len()));
        };
        list("missing", self.missing.clone());
        list("unexpected", self.unexpected.clone());
        list(
            "misshapen",
            self.misshapen
                .iter()
                .map(|m| format!("{} is {:?}, expected {:?}", m.name, m.found, m.expected))
                .collect(),
        );
        write!(f, "{}", parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_cause_is_told_in_one_line() {
        let reported = "An error happened\nCaused by:\n  The bytes were never written\n  skipped\n\
                        Caused by:\n  can't allocate buffer of size: 4\nNo backtrace available\n\
                        Asked at:\nNo backtrace available";
        assert_eq!(last_cause(reported), "can't allocate buffer of size: 4");
        assert_eq!(last_cause("lost\n  the device\n"), "lost; the device");
    }
}
