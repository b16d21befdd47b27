//! Exit codes: 2 for wrong usage, 1 for other failures.

use std::fmt::Display;
use std::process::ExitCode;

/// Failure of a program.
#[derive(Debug)]
pub enum Failure {
    /// The flags are invalid.
    Usage(String),
    /// Any other error.
    Other(anyhow::Error),
}

impl Failure {
    /// Creates a usage failure, for a flag with an invalid value.
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

/// Runs `main` and prints its failure with all causes to stderr.
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
            // A closed pipe, as left by `head`, is not a failure.
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

/// Returns the messages of the error and its causes. A message that already contains its cause is
/// not repeated.
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
