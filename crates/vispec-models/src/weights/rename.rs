//! Names of tensors in published checkpoints, old and new.
//!
//! The names of transformers 4.51 are the canonical ones here. Later releases write the same
//! tensors below other prefixes; the rules in this file turn those into the canonical names.

/// Replaces a prefix of a tensor name. The first rule that fits is applied, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenameRule {
    /// Prefix as newer files have it.
    pub from: &'static str,
    /// The canonical prefix.
    pub to: &'static str,
}

/// Applies the first rule whose prefix fits.
pub(crate) fn canonical(name: &str, rules: &[RenameRule]) -> String {
    for rule in rules {
        if let Some(rest) = name.strip_prefix(rule.from) {
            return format!("{}{rest}", rule.to);
        }
    }
    name.to_owned()
}

/// Buffers that some releases wrote to disk although they follow from the config.
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
