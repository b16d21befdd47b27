//! The line editor of a chat: Tab completes commands, and paths after `/image`.

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Editor, Helper};

use crate::chat_command::ChatCommand;

/// Line editor of a chat.
pub type ChatEditor = Editor<ChatHelper, DefaultHistory>;

/// Completes commands and paths.
#[derive(Default)]
pub struct ChatHelper {
    paths: FilenameCompleter,
}

impl std::fmt::Debug for ChatHelper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatHelper").finish_non_exhaustive()
    }
}

/// Creates an editor for this terminal.
///
/// # Errors
/// If the terminal cannot be used.
pub fn chat_editor() -> rustyline::Result<ChatEditor> {
    let config = Config::builder().completion_type(CompletionType::List);
    let mut editor = Editor::with_config(config.build())?;
    editor.set_helper(Some(ChatHelper::default()));
    Ok(editor)
}

impl Completer for ChatHelper {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        cursor: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = line.get(..cursor).unwrap_or(line);
        if ChatCommand::takes_path(before) {
            return self.paths.complete_path(line, cursor);
        }
        let names = ChatCommand::NAMES.iter().copied();
        let names = names.filter(|name| before.starts_with('/') && name.starts_with(before));
        let pair = |name: &str| Pair {
            display: name.to_owned(),
            replacement: name.to_owned(),
        };
        Ok((0, names.map(pair).collect()))
    }
}

impl Hinter for ChatHelper {
    type Hint = String;
}

impl Highlighter for ChatHelper {}
impl Validator for ChatHelper {}
impl Helper for ChatHelper {}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(line: &str) -> Vec<String> {
        let history = DefaultHistory::new();
        let context = Context::new(&history);
        let found = ChatHelper::default().complete(line, line.len(), &context);
        let (_, pairs) = found.unwrap();
        pairs.into_iter().map(|pair| pair.replacement).collect()
    }

    #[test]
    fn commands_and_paths_are_completed() {
        assert_eq!(completed("/st"), ["/stats"]);
        assert_eq!(completed("/s"), ["/system ", "/stats"]);
        assert!(completed("st").is_empty());
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("picture.png"), b"").unwrap();
        let line = format!("/image {}/pic", dir.path().display());
        let path = format!("{}/picture.png", dir.path().display());
        assert_eq!(completed(&line), [path]);
    }
}
