//! Commands of the chat.

use std::path::PathBuf;

use crate::chat_images::path_of_file_url;
use crate::video_folder::VideoFolder;

/// A parsed line.
#[derive(Debug, Clone, PartialEq)]
pub enum ChatCommand {
    /// An empty line.
    Nothing,
    /// Ask a question.
    Say(String),
    /// Show an image with the next question.
    Image(PathBuf),
    /// Show a video with the next question.
    Video(VideoFolder),
    /// Start a new conversation with this system message, or without one.
    System(Option<String>),
    /// Print counts and times of the last answer.
    Stats,
    /// Print the draft tree of the last answer with the longest accepted path.
    Tree,
    /// Forget the conversation, but keep the system message.
    Reset,
    /// Exit the program.
    Quit,
    /// List the commands.
    Help,
}

/// Error of a line that starts like a command but is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No command has this name.
    #[error("unknown command {0}, see /help")]
    Unknown(String),
    /// The command needs an argument.
    #[error("{0} needs {1}")]
    Argument(&'static str, &'static str),
}

impl ChatCommand {
    /// Output of `/help`.
    pub const HELP: &str = "\
/image FILE   show an image with the next question
/video DIR    show a video with the next question: a folder of frames, 2 per second, or DIR@FPS
/system TEXT  start a new conversation with a system message; without TEXT, without one
/stats        print counts and times of the last answer
/tree         print the tree of the last answer with the longest accepted path
/reset        forget the conversation, but keep the system message
/quit         exit; so does Ctrl-D
Ctrl-C stops an answer. To ask a question that starts with a slash, type two slashes.";

    /// All commands; those with an argument include the space before it.
    pub const NAMES: [&str; 8] = [
        "/image ", "/video ", "/system ", "/stats", "/tree", "/reset", "/quit", "/help",
    ];

    /// Returns `true` if the next part of the line is a path.
    #[must_use]
    pub fn takes_path(line: &str) -> bool {
        let line = line.trim_start();
        line.starts_with("/image ") || line.starts_with("/video ")
    }

    /// Parses a line.
    ///
    /// # Errors
    /// [`CommandError`] for lines that start with a slash but are not a valid command.
    pub fn parse(line: &str) -> Result<Self, CommandError> {
        let line = line.trim();
        if let Some(question) = line.strip_prefix("//") {
            return Ok(Self::Say(format!("/{question}")));
        }
        if !line.starts_with('/') {
            return Ok(match line {
                "" => Self::Nothing,
                line => Self::Say(line.to_owned()),
            });
        }
        let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let argument = argument.trim();
        match name {
            "/image" if argument.is_empty() => Err(CommandError::Argument("/image", "a file")),
            "/image" => Ok(Self::Image(path(argument))),
            "/video" if argument.is_empty() => Err(CommandError::Argument("/video", "a folder")),
            "/video" => Ok(Self::Video(VideoFolder::new(path(argument)))),
            "/system" => Ok(Self::System(
                (!argument.is_empty()).then(|| argument.to_owned()),
            )),
            "/stats" => Ok(Self::Stats),
            "/tree" => Ok(Self::Tree),
            "/reset" => Ok(Self::Reset),
            "/quit" => Ok(Self::Quit),
            "/help" => Ok(Self::Help),
            other => Err(CommandError::Unknown(other.to_owned())),
        }
    }
}

/// Reads a path as pasted from terminals and file managers: in quotes, as a file URL, or with
/// backslashes before spaces and other special characters of shells.
fn path(text: &str) -> PathBuf {
    for quote in ['\'', '"'] {
        let inner = text.strip_prefix(quote);
        if let Some(inner) = inner.and_then(|inner| inner.strip_suffix(quote)) {
            return inner.into();
        }
    }
    if let Some(path) = path_of_file_url(text) {
        return path;
    }
    // On Windows, backslashes are part of the path.
    if cfg!(windows) {
        return text.into();
    }
    let mut path = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => path.extend(characters.next()),
            character => path.push(character),
        }
    }
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_questions_or_commands() {
        let parse = |line| ChatCommand::parse(line).unwrap();
        assert_eq!(parse("  \n"), ChatCommand::Nothing);
        assert_eq!(parse(" Hi there "), ChatCommand::Say("Hi there".to_owned()));
        assert_eq!(parse("//etc"), ChatCommand::Say("/etc".to_owned()));
        let image = ChatCommand::Image("a b.png".into());
        assert_eq!(parse("/image  a b.png"), image);
        for pasted in ["'a b.png'", "\"a b.png\"", "a\\ b.png", "file://a%20b.png"] {
            let line = format!("/image {pasted}");
            assert_eq!(ChatCommand::parse(&line).unwrap(), image, "{pasted}");
        }
        assert_eq!(
            parse("/image 100%.png"),
            ChatCommand::Image("100%.png".into())
        );
        let Ok(video) = "a b@5".parse();
        assert_eq!(parse("/video 'a b@5'"), ChatCommand::Video(video));
        assert_eq!(parse("/system"), ChatCommand::System(None));
        let system = ChatCommand::System(Some("Be short.".to_owned()));
        assert_eq!(parse("/system Be short."), system);
        assert_eq!(parse("/quit"), ChatCommand::Quit);
    }

    #[test]
    fn mistakes_are_named() {
        let error = |line| ChatCommand::parse(line).unwrap_err().to_string();
        assert_eq!(error("/imag x"), "unknown command /imag, see /help");
        assert_eq!(error("/image"), "/image needs a file");
        assert_eq!(error("/video"), "/video needs a folder");
    }
}
