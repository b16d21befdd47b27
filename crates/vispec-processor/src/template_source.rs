//! Where a checkpoint keeps its chat template.

use std::path::Path;

use serde_json::Value;

use crate::chat_template::ChatTemplate;
use crate::config_file::ConfigFile;
use crate::error::{ProcessorError, Result};
use crate::read_limited::{MAX_TEXT, read_limited};
use crate::special_tokens::SpecialTokens;

const FIELD: &str = "chat_template";
/// Name of the template to use if a file has several.
const DEFAULT_NAME: &str = "default";

impl ChatTemplate {
    /// Finds and compiles the chat template of a checkpoint: `chat_template.jinja`, else
    /// `chat_template.json`, else the field `chat_template` of `tokenizer_config.json`. From a list
    /// of named templates, picks the one named `default`, or the only one.
    ///
    /// # Errors
    /// [`ProcessorError::NoChatTemplate`], [`ProcessorError::TemplateSyntax`], or an error from
    /// reading the files.
    pub(crate) fn from_dir(dir: &Path) -> Result<Self> {
        let special_tokens = SpecialTokens::from_dir(dir)?;
        let path = dir.join("chat_template.jinja");
        match std::fs::read_to_string(&path) {
            Ok(source) => return Self::new("chat_template.jinja", &source, special_tokens),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(ProcessorError::Io { path, source }),
        }
        for name in ["chat_template.json", "tokenizer_config.json"] {
            let Some(file) = ConfigFile::open_if_present(dir, name)? else {
                continue;
            };
            if let Some(source) = template_in(&file)? {
                return Self::new(name, source, special_tokens);
            }
        }
        Err(ProcessorError::NoChatTemplate {
            dir: dir.to_owned(),
        })
    }

    /// Compiles the template in a file with the special tokens of this one.
    pub(crate) fn replaced_by(&self, path: &Path) -> Result<Self> {
        let source = read_limited(path, MAX_TEXT)?;
        let source = String::from_utf8_lossy(&source);
        // Errors show the name to clients, who must not learn the directory.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Self::new(&name, &source, self.special_tokens())
    }
}

fn template_in(file: &ConfigFile) -> Result<Option<&str>> {
    let invalid = || {
        file.invalid(
            FIELD,
            "a template, or a list of {name, template} with one named default",
        )
    };
    match file.value(FIELD) {
        None => Ok(None),
        Some(Value::String(source)) => Ok(Some(source)),
        Some(Value::Array(named)) => {
            let is_default =
                |entry: &&Value| entry.get("name").is_some_and(|name| name == DEFAULT_NAME);
            let entry = match named.as_slice() {
                [only] => Some(only),
                several => several.iter().find(is_default),
            };
            let source = entry
                .and_then(|entry| entry.get("template"))
                .and_then(Value::as_str);
            source.map(Some).ok_or_else(invalid)
        }
        Some(_) => Err(invalid()),
    }
}
