//! Programs that share their work among the processes of an MPI launcher.

use std::process::ExitCode;

use sha2::{Digest as _, Sha256};
use vispec_train::TrainError;
use vispec_train::ranks::Ranks;

use crate::launched::Launched;
use examples_answer::failure::{self, Failure};

/// A run that the user interrupted, on all ranks.
#[derive(Debug, thiserror::Error)]
pub enum Interrupted {
    /// Before the first step.
    #[error("interrupted; run the same command again to resume")]
    Preparing,
    /// Between steps.
    #[error("interrupted after step {step}; run the same command again to resume")]
    Training {
        /// Total number of steps done.
        step: usize,
    },
}

/// Runs `main` on this rank. The first rank reports failures that all ranks know of; a failure that
/// the others do not know of ends them.
pub fn exit_code(main: impl FnOnce(Ranks) -> Result<(), Failure>) -> ExitCode {
    let ranks = match join() {
        Ok(ranks) => ranks,
        Err(failure) => return failure::exit_code(|| Err(failure)),
    };
    let done = same_build(&ranks).and_then(|()| main(ranks.clone()));
    let is_known = done.as_ref().is_err_and(is_known_to_all);
    if is_known && !ranks.is_first() {
        return ExitCode::FAILURE;
    }
    let is_alone = done.is_err() && !is_known;
    let code = failure::exit_code(|| done);
    if is_alone {
        ranks.abandon();
    }
    code
}

fn is_known_to_all(failure: &Failure) -> bool {
    let Failure::Other(error) = failure else {
        return false;
    };
    error.is::<Interrupted>()
        || matches!(
            error.downcast_ref::<TrainError>(),
            Some(TrainError::Ranks { .. })
        )
}

#[cfg(not(feature = "mpi"))]
fn join() -> Result<Ranks, Failure> {
    match Launched::from_env() {
        None => Ok(Ranks::alone()),
        Some(Launched { rank, count }) => Err(Failure::Usage(format!(
            "this is process {rank} of {count} that were started together, but the program was built \
             without MPI; build it with: cargo build --release --features mpi \
             (on Debian after: apt-get install libopenmpi-dev openmpi-bin libclang-dev)"
        ))),
    }
}

#[cfg(feature = "mpi")]
fn join() -> Result<Ranks, Failure> {
    let Some(Launched { count, .. }) = Launched::from_env() else {
        return Ok(Ranks::alone());
    };
    Ok(Ranks::new(vispec_train::ranks::MpiProcess::join(count)?))
}

/// Returns an error unless all ranks run the same build of the program.
fn same_build(ranks: &Ranks) -> Result<(), Failure> {
    let build = || {
        let path = std::env::current_exe().unwrap_or_default();
        let program = std::fs::read(&path).map_err(|source| TrainError::Io { path, source })?;
        let hash = format!("{:x}", Sha256::digest(program));
        let version = env!("CARGO_PKG_VERSION");
        Ok(format!("{version}, sha256 {}", &hash[..16]))
    };
    ranks.require_equal(build, |first, own| {
        format!("is another build of the program ({own}) than rank 0 ({first})")
    })?;
    Ok(())
}
