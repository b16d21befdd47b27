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
    /// A weight file is damaged: it is truncated, not in the expected format, or its header
    /// contradicts its size.
    #[error("{path}: damaged weight file: {reason}")]
    DamagedWeights {
        /// The file.
        path: PathBuf,
        /// What is wrong with the file.
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
    /// A tensor of a weight file holds invalid values.
    #[error("{path}: tensor {tensor}: {reason}")]
    WeightValue {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// What is wrong with the values.
        reason: String,
    },
    /// The tensors of a checkpoint do not match its config.
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
        /// The missing file.
        path: PathBuf,
        /// What to do about it.
        advice: &'static str,
    },
    /// A config file is not valid JSON, lacks a field, or has a field of the wrong type.
    #[error("{path}: {source}")]
    ConfigSyntax {
        /// The file.
        path: PathBuf,
        /// Field, line and column.
        #[source]
        source: serde_json::Error,
    },
    /// A config field has an invalid or unsupported value.
    #[error("{path}: field {field} is {found}, expected {expected}")]
    ConfigValue {
        /// The file.
        path: PathBuf,
        /// Path of the field, with dots between levels.
        field: String,
        /// Value of the field.
        found: String,
        /// Description of valid values.
        expected: String,
    },
    /// The architecture is not supported.
    #[error("{path}: architecture {found} is not supported, expected one of {supported}")]
    UnsupportedArchitecture {
        /// The config file.
        path: PathBuf,
        /// Architecture in the config.
        found: String,
        /// Supported architectures.
        supported: &'static str,
    },
    /// The config of a draft lists layers of the target, but not whether their inputs or outputs
    /// are meant.
    #[error(
        "{path}: field eagle_aux_hidden_state_layer_ids is {found}, which may mean the inputs or \
         the outputs of these layers; choose with --draft-layer-ids inputs or outputs"
    )]
    AmbiguousLayerIds {
        /// The config file.
        path: PathBuf,
        /// The layer ids.
        found: String,
    },
    /// A draft was trained for another target.
    #[error(
        "the draft in {draft} does not fit the target: its {quantity} is {found}, the target's {expected}"
    )]
    DraftMismatch {
        /// Directory of the draft.
        draft: PathBuf,
        /// Name of the quantity that differs.
        quantity: &'static str,
        /// The draft's value.
        found: usize,
        /// The target's value.
        expected: usize,
    },
    /// The draft's checkpoint is of another kind than the caller requested.
    #[error("the draft is a {found} checkpoint, but the method {expected} was requested")]
    DraftKind {
        /// Kind of the checkpoint.
        found: &'static str,
        /// Requested kind.
        expected: &'static str,
    },
    /// A method needs a draft, but none was loaded.
    #[error("the method {method} needs a draft checkpoint")]
    DraftMissing {
        /// The method.
        method: &'static str,
    },
    /// A token list for the draft's vocabulary cannot be used.
    #[error("{path}: {reason}")]
    DraftVocab {
        /// File of the list.
        path: PathBuf,
        /// What is wrong with the list.
        reason: String,
    },
    /// The costs of the models could not be measured.
    #[error("measuring the cost of passes: {source}")]
    Calibration {
        /// The cause.
        #[source]
        source: vispec_core::DecodeError,
    },
    /// Measured costs are invalid.
    #[error("measuring the cost of passes: {0}")]
    Costs(#[from] vispec_core::CostError),
    /// The name of a device is unknown.
    #[error("unknown device {found:?}, expected one of {expected}")]
    UnknownDevice {
        /// The name.
        found: String,
        /// Valid names.
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
    /// The program supports this kind of device, but there is none, or its driver is missing.
    #[error("device {device} is not available: {reason}")]
    DeviceUnavailable {
        /// The device.
        device: String,
        /// What is missing.
        reason: String,
    },
    /// The device computes wrong numbers in an element type that it claims to support.
    #[error(
        "device {device} computes wrong numbers in {dtype} ({found}, expected {expected}), choose \
         another --dtype"
    )]
    WrongArithmetic {
        /// The device.
        device: String,
        /// The element type.
        dtype: String,
        /// The computed number.
        found: f32,
        /// The correct number.
        expected: f32,
    },
    /// The device cannot run the target that was loaded onto it.
    #[error("{dir}: device {device} cannot run this model", dir = .dir.display())]
    DeviceCannotRun {
        /// Directory of the checkpoint.
        dir: PathBuf,
        /// The device.
        device: String,
        /// The cause, such as a failed allocation.
        source: vispec_core::BoxError,
    },
    /// Passes cannot be padded on this device.
    #[error(
        "passes cannot be padded on {device}: the CPU needs no padding, because a row has the same \
         bits in every pass, and other devices need the kernels of this crate"
    )]
    NotPadded {
        /// The device.
        device: String,
    },
    /// A tree does not fit a padded pass.
    #[error("a tree of {nodes} nodes does not fit passes padded to {rows} rows, pad to {nodes}")]
    PaddedTree {
        /// Number of nodes of the tree.
        nodes: usize,
        /// Number of rows of a padded pass.
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
    /// A weight cannot be quantised as requested.
    #[error("{path}: tensor {tensor} cannot be quantised: {source}")]
    Quantize {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// Why it cannot be quantised.
        #[source]
        source: vispec_kernels::QuantizeError,
    },
    /// The number of images differs from the number of image placeholders in the prompt.
    #[error("there are {found} images, but the prompt has places for {expected}")]
    ImageCount {
        /// Number of images.
        found: usize,
        /// Number of runs of image placeholders in the prompt.
        expected: usize,
    },
    /// The number of vectors from the vision tower differs from the number of image tokens.
    #[error("the vision tower returned {found} vectors for {expected} image tokens")]
    ImageFeatures {
        /// Number of vectors from the vision tower.
        found: usize,
        /// Number of image tokens in the prompt.
        expected: usize,
    },
    /// The vectors of an image were computed for another target.
    #[error(
        "an image has vectors for {found} layers in addition to its embeddings, but the target \
         reads them for {expected}"
    )]
    ImageLevels {
        /// Number of layers for which the image has vectors.
        found: usize,
        /// Number of layers after which the target adds such vectors.
        expected: usize,
    },
    /// A prompt's embeddings or positions do not match its tokens and this target.
    #[error(
        "a prompt has embeddings {embeds:?} and {positions} positions, expected [tokens, hidden] = \
         {expected:?}"
    )]
    PromptShape {
        /// Shape of the embeddings.
        embeds: [usize; 2],
        /// Number of rotary positions.
        positions: usize,
        /// Number of tokens, and hidden size of the target.
        expected: [usize; 2],
    },
    /// A part of a prompt is empty, or extends past the end of the prompt.
    #[error("cannot read a prompt of {n_tokens} tokens up to {end}: {cached} are in the cache")]
    PromptRange {
        /// End of the part.
        end: usize,
        /// Number of rows in the cache.
        cached: usize,
        /// Number of tokens of the prompt.
        n_tokens: usize,
    },
    /// A cache holds rows of a prompt without their hidden states.
    #[error(
        "a prompt cannot continue in this cache: it holds {cached} tokens, but hidden states \
         of {known} tokens"
    )]
    UnknownFeatures {
        /// Number of rows in the cache.
        cached: usize,
        /// Number of rows whose hidden states are in the cache.
        known: usize,
    },
    /// The target does not have a requested hidden state.
    #[error(
        "the target has no hidden state {found}: its {layers} layers have states 0 to {layers}"
    )]
    UnknownState {
        /// Number of the state.
        found: usize,
        /// Number of layers of the target.
        layers: usize,
    },
    /// A cache stores other hidden states than those that are needed.
    #[error("a cache remembers the hidden states {found}, expected {expected}")]
    OtherFeatures {
        /// States that the cache stores.
        found: String,
        /// States that are needed.
        expected: String,
    },
    /// A token id lies outside the embedding table.
    #[error("token id {found} lies outside the vocabulary of {vocab_size}")]
    TokenOutOfRange {
        /// The token.
        found: u32,
        /// Number of rows of the embedding table.
        vocab_size: usize,
    },
    /// An error of images, chat template, tokenizer or prompt.
    #[error(transparent)]
    Processor(#[from] vispec_processor::ProcessorError),
    /// A hub id could not be resolved to files.
    #[error("{id}: {reason}")]
    Hub {
        /// The id.
        id: String,
        /// The cause.
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
    /// Creates the error for a failed read. Backends report many lines, of which the last cause is
    /// the most informative.
    pub(crate) fn device_read(what: &'static str, reported: &impl std::fmt::Display) -> Self {
        Self::DeviceRead {
            what,
            reason: last_cause(&reported.to_string()),
        }
    }
}

/// Returns the last cause in a report of several lines, or the whole report in one line if it names
/// no cause.
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

/// Names of the tensors that keep a checkpoint from being loaded.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct WeightsReport {
    /// Tensors that the model needs and the checkpoint lacks.
    pub missing: Vec<String>,
    /// Tensors in the checkpoint that the model does not have.
    pub unexpected: Vec<String>,
    /// Tensors whose shape differs from the one that the config implies.
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
    /// Returns whether every tensor was found, used, and of the right shape.
    pub(crate) fn is_clean(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshapen.is_empty()
    }
}

/// Maximum number of names of each kind to print; the rest are counted.
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
