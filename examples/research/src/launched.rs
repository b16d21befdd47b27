//! Detection of processes that a launcher started together.

use vispec_data::capture::Share;

/// One of several processes that were started together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launched {
    /// Rank of the process, from 0.
    pub rank: usize,
    /// Number of processes, at least 2.
    pub count: usize,
}

/// Environment variables in which launchers pass the rank and the number of processes.
const VARIABLES: [[&str; 2]; 3] = [
    // `mpirun` of Open MPI.
    ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"],
    // `mpiexec` of MPICH and its derivatives.
    ["PMI_RANK", "PMI_SIZE"],
    // `srun`. A batch script alone has the first variable, but is not a step with tasks.
    ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS"],
];

impl Launched {
    /// Reads the environment; returns `None` if this process was started alone.
    #[must_use]
    pub fn from_env() -> Option<Self> {
        Self::of(|name| std::env::var(name).ok()?.parse().ok())
    }

    fn of(variable: impl Fn(&str) -> Option<usize>) -> Option<Self> {
        let mut said = VARIABLES.iter().filter_map(|[rank, count]| {
            let (rank, count) = (variable(rank)?, variable(count)?);
            (rank < count).then_some(Self { rank, count })
        });
        said.next().filter(|launched| launched.count > 1)
    }

    /// Returns the share of the work for this process.
    #[must_use]
    pub fn share(self) -> Share {
        let share = format!("{}/{}", self.rank + 1, self.count).parse();
        share.unwrap_or(Share::WHOLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, usize)]) -> Option<Launched> {
        Launched::of(|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| *value)
        })
    }

    #[test]
    fn launchers_are_understood() {
        let expected = Some(Launched { rank: 1, count: 3 });
        for [rank, count] in VARIABLES {
            assert_eq!(of(&[(rank, 1), (count, 3)]), expected);
            assert_eq!(of(&[(rank, 0), (count, 1)]), None);
            assert_eq!(of(&[(rank, 3), (count, 3)]), None);
            assert_eq!(of(&[(rank, 0)]), None);
        }
        let share = expected.map(Launched::share);
        assert_eq!(share, "2/3".parse().ok());
    }

    #[test]
    fn a_batch_script_is_one_process() {
        assert_eq!(of(&[("SLURM_PROCID", 0), ("SLURM_NTASKS", 4)]), None);
        assert_eq!(of(&[]), None);
    }
}
