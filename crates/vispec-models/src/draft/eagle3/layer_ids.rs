//! Selection of the target's hidden states that an EAGLE-3 draft reads.
//!
//! Configs list layer numbers. Depending on the software that wrote the config, a number means the
//! input or the output of the layer.

use std::fmt;
use std::str::FromStr;

use crate::config_file::ConfigFile;
use crate::error::ModelError;
use crate::features::FeatureSpec;

/// Meaning of the layer numbers in the config of an EAGLE-3 draft.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LayerIds {
    /// The meaning in the config's dialect; an error if it is ambiguous.
    #[default]
    Auto,
    /// The inputs of these layers, as in vLLM and `speculators`.
    Inputs,
    /// The outputs of these layers, as in SGLang and SpecForge.
    Outputs,
}

impl LayerIds {
    /// Returns the name that users type.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Inputs => "inputs",
            Self::Outputs => "outputs",
        }
    }
}

impl fmt::Display for LayerIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for LayerIds {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let mut known = [Self::Auto, Self::Inputs, Self::Outputs].into_iter();
        let found = known.find(|meaning| meaning.as_str() == name);
        found.ok_or_else(|| {
            format!("unknown meaning of layer ids {name:?}, expected auto, inputs or outputs")
        })
    }
}

/// Field of the list that SGLang reads: layer outputs.
const NESTED: &str = "eagle_config.eagle_aux_hidden_state_layer_ids";
/// Field of the list that vLLM and `speculators` read: layer inputs.
const TOP: &str = "eagle_aux_hidden_state_layer_ids";

/// The lists in a config.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LayerLists {
    pub(super) nested: Option<Vec<usize>>,
    pub(super) top: Option<Vec<usize>>,
    /// Whether a list at the top level means layer inputs. In SGLang's own dialect, such a list is
    /// a copy whose meaning is unknown.
    pub(super) top_is_known: bool,
}

impl LayerLists {
    /// Returns the states to read from a target with `layers` layers.
    pub(super) fn states(
        &self,
        file: &ConfigFile,
        layers: usize,
        meaning: LayerIds,
    ) -> Result<FeatureSpec, ModelError> {
        let (field, ids, outputs) = match (meaning, &self.nested, &self.top) {
            (_, None, None) => return default_states(file, layers),
            (LayerIds::Inputs, _, Some(top)) => (TOP, top, false),
            (LayerIds::Inputs, Some(nested), None) => (NESTED, nested, false),
            (LayerIds::Outputs, Some(nested), _) => (NESTED, nested, true),
            (LayerIds::Outputs, None, Some(top)) => (TOP, top, true),
            (LayerIds::Auto, Some(nested), None) => (NESTED, nested, true),
            (LayerIds::Auto, Some(nested), Some(top)) if is_moved(nested, top) => {
                (NESTED, nested, true)
            }
            (LayerIds::Auto, None, Some(top))
                if self.top_is_known && *top != outputs_by_default(layers) =>
            {
                (TOP, top, false)
            }
            (LayerIds::Auto, _, Some(top)) => {
                return Err(ModelError::AmbiguousLayerIds {
                    path: file.path().to_owned(),
                    found: format!("{top:?}"),
                });
            }
        };
        let states = ids.iter().map(|&id| id.checked_add(usize::from(outputs)));
        let states = states.map(|state| state.filter(|&state| state <= layers));
        match states.collect::<Option<Vec<usize>>>() {
            Some(states) if !states.is_empty() && states.len() <= layers => {
                Ok(FeatureSpec::residual(&states))
            }
            _ => {
                let last = if outputs {
                    layers.saturating_sub(1)
                } else {
                    layers
                };
                let expected = format!(
                    "up to {layers} numbers from 0 to {last}, since the target has {layers} layers"
                );
                Err(file.invalid(field, shown(ids), expected))
            }
        }
    }
}

/// Lists with more numbers than this are not printed in full.
const SHOWN: usize = 16;

fn shown(ids: &[usize]) -> String {
    match ids.get(SHOWN) {
        None => format!("{ids:?}"),
        Some(_) => format!("a list of {} numbers", ids.len()),
    }
}

/// Returns whether `top`, read as layer inputs, names the same states as `nested`, read as layer
/// outputs.
fn is_moved(nested: &[usize], top: &[usize]) -> bool {
    let moved = nested.iter().map(|id| id.checked_add(1));
    moved.eq(top.iter().map(|&id| Some(id)))
}

/// Returns the list that SpecForge writes for a target with `layers` layers, as layer outputs. A
/// config of another dialect with the same list was most likely copied from SpecForge.
fn outputs_by_default(layers: usize) -> Vec<usize> {
    match layers.checked_sub(4) {
        Some(last) => vec![1, (layers / 2).saturating_sub(1), last],
        None => Vec::new(),
    }
}

/// Returns the states for drafts whose configs contain no list.
fn default_states(file: &ConfigFile, layers: usize) -> Result<FeatureSpec, ModelError> {
    let Some(last) = layers.checked_sub(3) else {
        let expected = format!("a list for a target of {layers} layers");
        return Err(file.invalid(TOP, "missing", expected));
    };
    let mut states = [2.min(layers), layers / 2, last];
    states.sort_unstable();
    Ok(FeatureSpec::residual(&states))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, ConfigFile) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), "{}").unwrap();
        let file = ConfigFile::open(dir.path()).unwrap();
        (dir, file)
    }

    fn lists(nested: Option<&[usize]>, top: Option<&[usize]>, top_is_known: bool) -> LayerLists {
        LayerLists {
            nested: nested.map(<[usize]>::to_vec),
            top: top.map(<[usize]>::to_vec),
            top_is_known,
        }
    }

    fn states(lists: &LayerLists, layers: usize, meaning: LayerIds) -> Result<String, String> {
        let (_dir, file) = file();
        let states = lists.states(&file, layers, meaning);
        let states = states.map(|states| states.to_string());
        states.map_err(|error| error.to_string())
    }

    #[test]
    fn each_dialect_has_its_own_meaning() {
        let auto = |lists| states(&lists, 36, LayerIds::Auto);
        assert_eq!(
            auto(lists(Some(&[1, 17, 32]), None, false)).unwrap(),
            "2, 18, 33"
        );
        assert_eq!(
            auto(lists(None, Some(&[2, 18, 33]), true)).unwrap(),
            "2, 18, 33"
        );
        assert_eq!(auto(lists(None, None, false)).unwrap(), "2, 18, 33");
        let both = lists(Some(&[0, 1, 2]), Some(&[1, 2, 3]), false);
        assert_eq!(auto(both).unwrap(), "1, 2, 3");
        // As in the authors' code: in ascending order, without duplicates.
        let none = lists(None, None, true);
        assert_eq!(states(&none, 4, LayerIds::Auto).unwrap(), "1, 2");
        assert!(
            states(&none, 2, LayerIds::Auto)
                .unwrap_err()
                .contains("2 layers")
        );
    }

    #[test]
    fn what_cannot_be_told_is_asked_for() {
        for ambiguous in [
            // The same list in both fields.
            lists(Some(&[1, 17, 32]), Some(&[1, 17, 32]), true),
            // SGLang's own dialect, but vLLM's field.
            lists(None, Some(&[2, 18, 33]), false),
            // vLLM's dialect, but the list that SpecForge writes.
            lists(None, Some(&[1, 17, 32]), true),
        ] {
            let error = states(&ambiguous, 36, LayerIds::Auto).unwrap_err();
            assert!(error.contains("--draft-layer-ids"), "{error}");
            assert!(
                error.contains("config.json") && error.contains(TOP),
                "{error}"
            );
            let chosen = |meaning| states(&ambiguous, 36, meaning).unwrap();
            assert_ne!(chosen(LayerIds::Inputs), chosen(LayerIds::Outputs));
        }
        let top = lists(None, Some(&[1, 17, 32]), true);
        assert_eq!(states(&top, 36, LayerIds::Outputs).unwrap(), "2, 18, 33");
        assert_eq!(states(&top, 36, LayerIds::Inputs).unwrap(), "1, 17, 32");
    }

    #[test]
    fn layers_that_are_not_there_are_named() {
        for (list, field) in [
            (lists(Some(&[0, 4]), None, false), NESTED),
            (lists(None, Some(&[0, 5]), true), TOP),
            (lists(None, Some(&[]), true), TOP),
            (lists(None, Some(&[usize::MAX]), true), TOP),
            (lists(Some(&[usize::MAX]), None, true), NESTED),
            (lists(None, Some(&[1; 4000]), true), TOP),
        ] {
            let error = states(&list, 4, LayerIds::Auto).unwrap_err();
            assert!(
                error.contains(field) && error.contains("4 layers"),
                "{error}"
            );
            assert!(error.len() < 300, "{error}");
        }
        assert_eq!(
            states(&lists(None, Some(&[0, 4]), true), 4, LayerIds::Auto).unwrap(),
            "0, 4"
        );
    }
}
