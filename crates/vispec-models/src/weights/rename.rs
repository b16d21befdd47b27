//! Old and new names of tensors in published checkpoints.
//!
//! The canonical names are those of transformers 4.51. Later releases write the same tensors with
//! other prefixes; rename rules map these to the canonical names.

/// Replaces a prefix of a tensor name. Only the first matching rule is applied, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenameRule {
    /// Prefix in newer files.
    pub from: &'static str,
    /// Canonical prefix.
    pub to: &'static str,
}

/// Applies the first rule whose prefix matches.
pub(crate) fn canonical(name: &str, rules: &[RenameRule]) -> String {
    for rule in rules {
        if let Some(rest) = name.strip_prefix(rule.from) {
            return format!("{}{rest}", rule.to);
        }
    }
    name.to_owned()
}

/// Returns whether a tensor is a buffer that some releases write to disk although it follows from
/// the config.
pub(crate) fn is_derived(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq") || name.ends_with("embeddings.position_ids")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &[RenameRule] = &[
        RenameRule {
            from: "model.visual.",
            to: "visual.",
        },
        RenameRule {
            from: "model.language_model.",
            to: "model.",
        },
    ];

    #[test]
    fn new_names_become_canonical_and_canonical_names_stay() {
        assert_eq!(
            canonical("model.visual.merger.ln_q.weight", RULES),
            "visual.merger.ln_q.weight"
        );
        assert_eq!(
            canonical("model.language_model.norm.weight", RULES),
            "model.norm.weight"
        );
        assert_eq!(canonical("model.norm.weight", RULES), "model.norm.weight");
        assert_eq!(canonical("lm_head.weight", RULES), "lm_head.weight");
    }
}
