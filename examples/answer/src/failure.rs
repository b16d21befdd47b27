//! Exit codes: 2 for wrong usage, 1 for everything else that fails.

use std::fmt::Display;
use std::process::ExitCode;

/// Why a program stops early.
#[derive(Debug)]
pub enum Failure {
    /// The flags make no sense.
    Usage(String),
    /// The flags are fine, but something they name is not.
    Other(anyhow::Error),
}

impl Failure {
    /// A flag whose value cannot be used.
    pub fn usage(error: impl Display) -> Self {
        Self::Usage(error.to_string())
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Usage(message) => f.write_str(message),
            Self::Other(error) => f.write_str(&with_causes(error)),
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// Runs `main` and reports its failure on stderr, causes included.
#[expect(
    clippy::print_stderr,
    reason = "the one place where binaries report failures"
)]
pub fn exit_code(main: impl FnOnce() -> Result<(), Failure>) -> ExitCode {
    match main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
        Err(Failure::Other(error)) => {
            // A reader that went away, such as `head`, is no failure of ours.
            if let Some(io) = error.downcast_ref::<std::io::Error>()
                && io.kind() == std::io::ErrorKind::BrokenPipe
            {
                return ExitCode::SUCCESS;
            }
            eprintln!("error: {}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// The message and those of its causes, each said once: many messages quote their cause.
#[must_use]
pub fn with_causes(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |message, cause| {
        let cause = cause.to_string();
        if message.is_empty() {
            cause
        } else if message.contains(&cause) {
            message
        } else {
            format!("{message}: {cause}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_said_once() {
        let error = anyhow::anyhow!("no such file")
            .context("x.png: no such file")
            .context("reading images");
        assert_eq!(with_causes(&error), "reading images: x.png: no such file");
    }
}
