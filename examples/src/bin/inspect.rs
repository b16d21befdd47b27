//! Prints the draft tree of one cycle: tokens, probabilities, and what the target accepted.

use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use vispec_core::{GenerationObserver, NodeId, TokenId, TokenTree, Verdict};
use vispec_examples::failure::{Failure, exit_code};
use vispec_examples::flags::{DecodeFlags, ModelFlags, PromptFlags};
use vispec_examples::run::{Settings, answer};
use vispec_models::Engine;
use vispec_processor::SpecialText;

/// Print one cycle's draft tree and what was accepted of it
#[derive(Parser, Debug)]
#[command(version)]
struct Flags {
    #[command(flatten)]
    models: ModelFlags,
    #[command(flatten)]
    prompt: PromptFlags,
    #[command(flatten)]
    decode: DecodeFlags,
    /// Which cycle, counted from 0
    #[arg(long, default_value_t = 0)]
    cycle: usize,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    exit_code(|| run(&flags))
}

fn run(flags: &Flags) -> Result<(), Failure> {
    flags.decode.check()?;
    flags.models.check()?;
    let (messages, images) = flags.prompt.read()?;
    let engine = flags.models.load()?;
    let (prompt, _) = engine.encode(&messages, &images)?;
    let method = flags
        .models
        .method
        .unwrap_or_else(|| engine.default_method());
    let (size, _) = flags.decode.tree.measured_size(&engine, method)?;
    let settings = Settings::new(&flags.decode, &engine, size)?;
    let mut watch = OneCycle {
        wanted: flags.cycle,
        cycle: 0,
        seen: None,
    };
    let run = answer(&engine, &prompt, method, &settings, &mut watch)?;
    let Some((tree, verdict)) = watch.seen else {
        let cycles = run.generation.stats.n_cycles();
        return Err(anyhow::anyhow!("the answer ended after {cycles} cycles").into());
    };
    let printer = TreePrinter {
        engine: &engine,
        tree: &tree,
        verdict: &verdict,
    };
    writeln!(
        io::stdout(),
        "cycle {} of {method}: {} nodes",
        flags.cycle,
        tree.n_nodes()
    )?;
    writeln!(
        io::stdout(),
        "accepted nodes are marked *, probabilities are the draft's\n"
    )?;
    printer.print(NodeId::ROOT, 0)?;
    let accepted = verdict.path.len() - 1;
    writeln!(
        io::stdout(),
        "\naccepted {accepted}, then the target chose {}",
        printer.text(verdict.bonus)?
    )?;
    Ok(())
}

/// Keeps the tree of one cycle and stops after it.
struct OneCycle {
    wanted: usize,
    cycle: usize,
    seen: Option<(TokenTree, Verdict)>,
}

impl GenerationObserver for OneCycle {
    fn on_verify(&mut self, tree: &TokenTree, verdict: &Verdict, _elapsed: Duration) {
        if self.cycle == self.wanted {
            self.seen = Some((tree.clone(), verdict.clone()));
        }
        self.cycle += 1;
    }

    fn on_tokens(&mut self, _tokens: &[TokenId]) -> ControlFlow<()> {
        if self.seen.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

struct TreePrinter<'a> {
    engine: &'a Engine,
    tree: &'a TokenTree,
    verdict: &'a Verdict,
}

impl TreePrinter<'_> {
    fn text(&self, token: TokenId) -> Result<String, Failure> {
        let text = self
            .engine
            .processor()
            .tokenizer()
            .decode(&[token], SpecialText::Keep)?;
        Ok(format!("{text:?}"))
    }

    fn print(&self, node: NodeId, depth: usize) -> Result<(), Failure> {
        let mark = if self.verdict.path.contains(&node) {
            '*'
        } else {
            ' '
        };
        let text = self.text(self.tree.token(node))?;
        let probability = match self.tree.log_prob(node) {
            Some(log_prob) => format!("  {:.3}", log_prob.exp()),
            None => String::new(),
        };
        writeln!(
            io::stdout(),
            "{mark} {}{text}{probability}",
            "    ".repeat(depth)
        )?;
        for child in self.tree.children(node) {
            self.print(child, depth + 1)?;
        }
        Ok(())
    }
}
