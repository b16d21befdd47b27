//! Options for loading models and for running an engine.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use vispec_core::TreeSize;
use vispec_models::{
    CalibrationPlace, DeviceSpec, DownloadProgress, DraftReading, DtypeChoice, KvPrecision,
    LayerIds, Method,
};
use vispec_processor::ImageOptions;

use crate::scheduler::SchedulerOptions;

/// How large draft trees are.
#[derive(Debug, Clone, PartialEq)]
pub enum TreeChoice {
    /// The size that maximises speed according to the cost of passes on this machine. The costs are
    /// measured while the models are loaded, which takes a few passes, unless the calibration place
    /// already has them.
    Measured(CalibrationPlace),
    /// This size.
    Sized(TreeSize),
}

/// How to load models.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadOptions {
    /// Where to compute.
    pub device: DeviceSpec,
    /// Element type of the weights.
    pub dtype: DtypeChoice,
    /// Element type of keys and values.
    pub kv: KvPrecision,
    /// Number of rows to which passes of the target are padded on a GPU, so that speculation does
    /// not change the answer in any dtype.
    pub padded_passes: Option<NonZeroUsize>,
    /// How tokens are drafted, if not by the default method for the draft.
    pub method: Option<Method>,
    /// How the layer ids in the config of an EAGLE-3 draft are interpreted.
    pub draft_layer_ids: LayerIds,
    /// How an EAGLE-3 draft reads prompts.
    pub draft_reading: DraftReading,
    /// How large draft trees are.
    pub tree: TreeChoice,
    /// Jinja chat template that replaces the template of the checkpoint.
    pub chat_template: Option<PathBuf>,
    /// Whether downloads show progress bars on stderr.
    pub progress: DownloadProgress,
    /// Settings that do not depend on the models.
    pub settings: EngineSettings,
}

impl Default for LoadOptions {
    /// The CPU, the element type on disk, trees sized by costs that are measured while loading, no
    /// progress bars.
    fn default() -> Self {
        Self {
            device: DeviceSpec::Flex,
            dtype: DtypeChoice::Auto,
            kv: KvPrecision::Auto,
            padded_passes: None,
            method: None,
            draft_layer_ids: LayerIds::Auto,
            draft_reading: DraftReading::default(),
            tree: TreeChoice::Measured(CalibrationPlace::Nowhere),
            chat_template: None,
            progress: DownloadProgress::Silent,
            settings: EngineSettings::default(),
        }
    }
}

/// How loaded models draft.
#[derive(Debug, Clone, PartialEq)]
pub struct DraftingSettings {
    /// How tokens are drafted.
    pub method: Method,
    /// How large draft trees are.
    pub tree: TreeSize,
    /// Where the costs that determine tree sizes are stored. If they turn out to be wrong, the next
    /// program measures them again.
    pub calibration: CalibrationPlace,
}

/// Memory limits and scheduler options of an engine.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineSettings {
    /// Options for decoding image files.
    pub image_options: ImageOptions,
    /// Maximum number of bytes for conversations that may continue; 0 keeps nothing.
    pub conversation_memory: usize,
    /// Maximum number of bytes for encoded images, so that repeated files are neither decoded nor
    /// encoded again; 0 keeps nothing.
    pub image_memory: usize,
    /// Maximum number of bytes for the tokens of earlier answers, in which drafters with lookup
    /// search for continuations of the last tokens; 0 keeps nothing.
    pub suffix_memory: usize,
    /// Limits on running and waiting requests.
    pub scheduler: SchedulerOptions,
}

impl Default for EngineSettings {
    /// 1 GiB for conversations, 256 MiB for images, 64 MiB (4 million tokens) for earlier answers,
    /// eight answers at a time.
    fn default() -> Self {
        Self {
            image_options: ImageOptions::default(),
            conversation_memory: 1 << 30,
            image_memory: 256 << 20,
            suffix_memory: 64 << 20,
            scheduler: SchedulerOptions::default(),
        }
    }
}
