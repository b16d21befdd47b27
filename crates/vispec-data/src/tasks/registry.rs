//! The registry of tasks by name.

use super::definition::TaskDefinition;
use crate::error::{DataError, Result};

/// Definitions compiled into the program.
const BUILTIN: &[(&str, &str)] = &[
    ("sqa", include_str!("definitions/sqa.toml")),
    ("mmvet", include_str!("definitions/mmvet.toml")),
    ("textvqa", include_str!("definitions/textvqa.toml")),
    ("mme", include_str!("definitions/mme.toml")),
    (
        "coco_caption",
        include_str!("definitions/coco_caption.toml"),
    ),
    ("vizwiz", include_str!("definitions/vizwiz.toml")),
    ("gqa", include_str!("definitions/gqa.toml")),
    ("seed_bench", include_str!("definitions/seed_bench.toml")),
    ("vqav2", include_str!("definitions/vqav2.toml")),
    ("hr_bench_4k", include_str!("definitions/hr_bench_4k.toml")),
    ("hr_bench_8k", include_str!("definitions/hr_bench_8k.toml")),
    ("synthdog", include_str!("definitions/synthdog.toml")),
    ("mmbench", include_str!("definitions/mmbench.toml")),
    ("mmspec", include_str!("definitions/mmspec.toml")),
    ("mt_bench", include_str!("definitions/mt_bench.toml")),
    ("msvd_qa", include_str!("definitions/msvd_qa.toml")),
    ("mvbench", include_str!("definitions/mvbench.toml")),
    (
        "scenes_short",
        include_str!("definitions/scenes_short.toml"),
    ),
    ("scenes_long", include_str!("definitions/scenes_long.toml")),
];

/// Maximum edit distance of suggested names.
const CLOSE: usize = 2;

/// Tasks in a fixed order: those of the paper, then the others, then drawn scenes.
#[derive(Debug, Clone)]
pub struct TaskRegistry {
    tasks: Vec<TaskDefinition>,
}

impl TaskRegistry {
    /// Returns the built-in tasks.
    ///
    /// # Panics
    /// Never: a test reads all definitions.
    #[must_use]
    pub fn builtin() -> Self {
        let read = |(name, text): &(&str, &str)| {
            TaskDefinition::from_toml(name, text).expect("the definitions are part of the program")
        };
        Self {
            tasks: BUILTIN.iter().map(read).collect(),
        }
    }

    /// Adds a task, for example a user-defined one.
    ///
    /// # Errors
    /// [`DataError::TaskExists`] if the name is taken.
    pub fn add(&mut self, task: TaskDefinition) -> Result<()> {
        if self.tasks.iter().any(|known| known.name() == task.name()) {
            let name = task.name().to_owned();
            return Err(DataError::TaskExists { name });
        }
        self.tasks.push(task);
        Ok(())
    }

    /// Iterates over all tasks.
    pub fn iter(&self) -> impl Iterator<Item = &TaskDefinition> {
        self.tasks.iter()
    }

    /// Iterates over the names of all tasks.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tasks.iter().map(TaskDefinition::name)
    }

    /// Returns the task with a name.
    ///
    /// # Errors
    /// [`DataError::UnknownTask`], with similar names.
    pub fn get(&self, name: &str) -> Result<&TaskDefinition> {
        let found = self.tasks.iter().find(|task| task.name() == name);
        found.ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> DataError {
        let wanted = name.to_lowercase().replace('-', "_");
        let mut close: Vec<(usize, &str)> = self
            .names()
            .map(|known| (distance(&wanted, known), known))
            .filter(|(distance, known)| {
                *distance <= CLOSE || (wanted.len() >= 3 && known.contains(&wanted))
            })
            .collect();
        close.sort_unstable();
        DataError::UnknownTask {
            name: name.to_owned(),
            close: close
                .into_iter()
                .map(|(_, known)| known.to_owned())
                .collect(),
            known: self.names().map(str::to_owned).collect(),
        }
    }
}

/// Computes the Levenshtein distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (idx, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = idx + 1;
        for (column, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builtin_names_are_those_of_the_files() {
        let registry = TaskRegistry::builtin();
        let names: Vec<&str> = registry.names().collect();
        let files: Vec<&str> = BUILTIN.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, files);
    }

    #[test]
    fn wrong_names_get_advice() {
        let registry = TaskRegistry::builtin();
        let message = |name| registry.get(name).unwrap_err().to_string();
        assert_eq!(message("gqq"), "no task \"gqq\"; did you mean gqa or sqa?");
        assert!(message("hr-bench").contains("hr_bench_4k or hr_bench_8k"));
        assert!(message("unheard of").contains("known tasks: sqa, mmvet"));
    }

    #[test]
    fn distances_count_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("gqa", "gqa"), 0);
    }
}
