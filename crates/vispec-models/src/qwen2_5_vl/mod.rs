//! Qwen2.5-VL: config, names of weights, vision tower. The text model is shared with other
//! families.

mod config;
mod vision;
mod vision_block;
mod vision_config;
mod window;

pub use config::QwenConfig;
pub use vision::QwenVision;
pub use vision_config::QwenVisionConfig;

use crate::weights::RenameRule;

/// From the names that transformers writes since 4.52 to those of the published checkpoints.
pub const RENAME_RULES: &[RenameRule] = &[
    RenameRule {
        from: "model.visual.",
        to: "visual.",
    },
    RenameRule {
        from: "model.language_model.",
        to: "model.",
    },
];

#[cfg(test)]
pub(crate) mod golden;

#[cfg(test)]
mod tests {
    use super::RENAME_RULES;
    use super::golden::assert_newer_names_load;

    #[test]
    fn names_since_transformers_4_52() {
        let newer = |name: &str| match name.strip_prefix("model.") {
            Some(name) => format!("model.language_model.{name}"),
            None if name.starts_with("visual.") => format!("model.{name}"),
            None => name.to_owned(),
        };
        assert_newer_names_load("qwen-untied", RENAME_RULES, newer);
    }
}
