//! Embeds a vision-language model in a program. Usage: `embed TARGET DRAFT IMAGE QUESTION`.
#![allow(clippy::print_stdout, reason = "a program prints its result")]

use std::io::Write as _;

use vispec::{DecodedImage, Engine, ImageOptions, LoadOptions, Messages};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [target, draft, image, question] = std::array::from_fn(|at| std::env::args().nth(at + 1))
        .map(|arg| arg.ok_or("expected TARGET DRAFT IMAGE QUESTION"));
    let engine = Engine::load(&target?, Some(&draft?), LoadOptions::default())?;
    let image = DecodedImage::open(image?, &ImageOptions::default())?;
    let messages = Messages::from_prompt(None, &question?, 1);
    let mut answer = engine.generate(messages, vec![image])?;
    for cycle in &mut answer {
        print!("{}", cycle?);
        std::io::stdout().flush()?;
    }
    let stats = answer
        .answered()
        .map(|answered| &answered.stats)
        .ok_or("cut off")?;
    let (tau, tokens_per_cycle) = (stats.tau(), stats.tokens_per_cycle());
    println!("\ntau {tau:.2}, {tokens_per_cycle:.2} tokens per cycle");
    Ok(())
}
