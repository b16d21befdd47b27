//! The tiny models of the repository.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use vispec::{
    DecodedImage, DtypeChoice, Engine, EngineSettings, ImageOptions, KvMemory, LoadOptions,
    SchedulerOptions, TreeChoice, TreeShape,
};

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures")
        .join(path)
}

/// Loads an engine for one test.
pub fn engine(scheduler: SchedulerOptions) -> Engine {
    load(LoadOptions {
        settings: settings(scheduler),
        ..load_options()
    })
}

pub fn settings(scheduler: SchedulerOptions) -> EngineSettings {
    EngineSettings {
        conversation_memory: 16 << 20,
        scheduler,
        ..EngineSettings::default()
    }
}

pub fn load_options() -> LoadOptions {
    LoadOptions {
        dtype: DtypeChoice::F32,
        tree: TreeChoice::Sized(TreeShape::default().into()),
        settings: settings(SchedulerOptions::default()),
        ..LoadOptions::default()
    }
}

pub fn load(options: LoadOptions) -> Engine {
    let target = fixture("models/qwen-tied").display().to_string();
    let draft = fixture("drafts/qwen-tied-q4").display().to_string();
    Engine::load(&target, Some(&draft), options).unwrap()
}

pub fn options(max_running: usize) -> SchedulerOptions {
    SchedulerOptions {
        max_running,
        kv_memory: KvMemory::Bytes(1 << 30),
        ..SchedulerOptions::default()
    }
}

/// Returns an engine that tests share.
pub fn shared() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| engine(options(3)))
}

pub fn images() -> &'static [DecodedImage; 2] {
    static IMAGES: OnceLock<[DecodedImage; 2]> = OnceLock::new();
    IMAGES.get_or_init(|| {
        ["q4-img-large", "q4-img-short"].map(|case| {
            let path = fixture("cases/qwen-tied").join(case).join("image_0.png");
            DecodedImage::open(path, &ImageOptions::default()).unwrap()
        })
    })
}
