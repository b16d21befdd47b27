//! Draft trees as text.

use std::io::Write;

use vispec_core::{NodeId, TokenId, TokenTree, Verdict};
use vispec_processor::{SpecialText, Tokenizer};

use crate::failure::Failure;

/// Prints a tree with the draft's probabilities and the accepted nodes.
///
/// # Errors
/// Any error of the tokenizer or of `out`.
pub fn print_tree(
    out: &mut impl Write,
    tokenizer: &Tokenizer,
    tree: &TokenTree,
    verdict: &Verdict,
) -> Result<(), Failure> {
    writeln!(
        out,
        "accepted nodes are marked *, probabilities are the draft's\n"
    )?;
    let text = |token: TokenId| tokenizer.decode(&[token], SpecialText::Keep);
    let mut open = vec![(NodeId::ROOT, 0)];
    while let Some((node, depth)) = open.pop() {
        let mark = if verdict.path.contains(&node) {
            '*'
        } else {
            ' '
        };
        let probability = match tree.log_prob(node) {
            Some(log_prob) => format!("  {:.3}", log_prob.exp()),
            None => String::new(),
        };
        let indent = "    ".repeat(depth);
        let token = text(tree.token(node))?;
        writeln!(out, "{mark} {indent}{token:?}{probability}")?;
        let mut children = Vec::from_iter(tree.children(node));
        children.reverse();
        open.extend(children.into_iter().map(|child| (child, depth + 1)));
    }
    let accepted = verdict.path.len() - 1;
    let bonus = text(verdict.bonus)?;
    writeln!(
        out,
        "\naccepted {accepted}, then the target chose {bonus:?}"
    )?;
    Ok(())
}
