//! Support for `{% generation %}` blocks, with which transformers marks assistant messages and
//! which the template engine does not know.

/// Replaces `{% generation %}` and `{% endgeneration %}` by a `with` block, which also only opens a
/// scope. White-space markers are kept.
pub(crate) fn accept_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let len = match tag.find("%}") {
            Some(end) => end + "%}".len(),
            None => tag.len(),
        };
        let (tag, after) = tag.split_at(len);
        let inner = tag.trim_start_matches("{%").trim_end_matches("%}");
        let name = inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        match name {
            "generation" => out.push_str(&tag.replacen(name, "with", 1)),
            "endgeneration" => out.push_str(&tag.replacen(name, "endwith", 1)),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_kept() {
        let source = "a {%- generation -%} b {% endgeneration %}{% if generation %}{% endif %} {%";
        let expected = "a {%- with -%} b {% endwith %}{% if generation %}{% endif %} {%";
        assert_eq!(accept_generation_tags(source), expected);
    }
}
