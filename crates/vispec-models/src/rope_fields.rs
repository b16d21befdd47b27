//! The rotary embedding in `config.json`, which has three spellings.

use serde::Deserialize;

use crate::config_file::ConfigFile;
use crate::error::ModelError;
use crate::nn::MropeLayout;

/// The rotary fields of a text model.
///
/// In older files, `rope_theta` is a field next to `rope_scaling`. In newer ones, it is a field of
/// `rope_parameters`, which replaces both.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct RopeFields {
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeParameters>,
    rope_parameters: Option<RopeParameters>,
}

#[derive(Debug, Deserialize)]
struct RopeParameters {
    rope_type: Option<String>,
    /// The older name of `rope_type`; published files have either or both.
    #[serde(rename = "type")]
    old_type: Option<String>,
    mrope_section: Option<Vec<usize>>,
    mrope_interleaved: Option<bool>,
    rope_theta: Option<f64>,
}

impl RopeFields {
    fn parameters(&self) -> Option<(&'static str, &RopeParameters)> {
        let new = self
            .rope_parameters
            .as_ref()
            .map(|p| ("rope_parameters", p));
        new.or_else(|| self.rope_scaling.as_ref().map(|p| ("rope_scaling", p)))
    }

    /// Returns the base of the frequencies, if the file has it.
    pub(crate) fn theta(&self) -> Option<f64> {
        self.parameters()
            .and_then(|(_, p)| p.rope_theta)
            .or(self.rope_theta)
    }

    /// Fails if the config asks for scaled frequencies.
    pub(crate) fn require_unscaled(
        &self,
        file: &ConfigFile,
        prefix: &str,
        accepted: &[&str],
    ) -> Result<(), ModelError> {
        let Some((name, parameters)) = self.parameters() else {
            return Ok(());
        };
        for (field, found) in [
            ("rope_type", &parameters.rope_type),
            ("type", &parameters.old_type),
        ] {
            if let Some(found) = found {
                file.one_of(format!("{prefix}{name}.{field}"), found, accepted)?;
            }
        }
        Ok(())
    }

    /// Returns whether the frequencies are divided among three axes.
    pub(crate) fn has_sections(&self) -> bool {
        self.parameters()
            .is_some_and(|(_, p)| p.mrope_section.is_some())
    }

    /// Returns how frequencies are assigned to axes.
    pub(crate) fn mrope_layout(&self) -> MropeLayout {
        match self.parameters() {
            Some((_, p)) if p.mrope_interleaved == Some(true) => MropeLayout::Interleaved,
            _ => MropeLayout::Chunked,
        }
    }

    /// Returns the numbers of frequencies for time, height and width. Their sum is half the size of
    /// a head.
    pub(crate) fn mrope_sections(
        &self,
        file: &ConfigFile,
        prefix: &str,
        head_dim: usize,
    ) -> Result<[usize; 3], ModelError> {
        let (name, sections) = self
            .parameters()
            .and_then(|(name, p)| Some((name, p.mrope_section.as_deref()?)))
            .ok_or_else(|| file.missing("mrope_section"))?;
        let sum = sections
            .iter()
            .try_fold(0usize, |sum, n| sum.checked_add(*n));
        match <[usize; 3]>::try_from(sections) {
            Ok(sections) if sum == Some(head_dim / 2) => Ok(sections),
            _ => Err(file.invalid(
                format!("{prefix}{name}.mrope_section"),
                format!("{sections:?}"),
                format!(
                    "three numbers that add up to {}, half of a head",
                    head_dim / 2
                ),
            )),
        }
    }
}
