//! JSON config files, read field by field, with errors that name file and field.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{ProcessorError, Result};
use crate::read_limited::{MAX_TEXT, read_limited};

/// Maximum area or length in a config.
const MAX_SIZE: usize = 1 << 30;
/// Maximum side of an image or patch in a config, so that areas cannot overflow.
const MAX_SIDE: usize = 1 << 13;

/// The parsed content of one config file, or of one object in it. Fields that are not read are
/// ignored.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    path: PathBuf,
    root: Value,
    /// Prefix of field names in errors: the object's own name and a dot.
    prefix: String,
}

impl ConfigFile {
    /// Reads `config.json` of the checkpoint in `dir`.
    pub(crate) fn open_model_config(dir: &Path) -> Result<Self> {
        Self::open(
            dir,
            "config.json",
            "a checkpoint is a directory with this file",
        )
    }

    /// Reads `dir/name`; `advice` goes into the error if the file does not exist.
    pub(crate) fn open(dir: &Path, name: &str, advice: &'static str) -> Result<Self> {
        match Self::open_if_present(dir, name)? {
            Some(file) => Ok(file),
            None => Err(ProcessorError::MissingFile {
                path: dir.join(name),
                advice,
            }),
        }
    }

    /// Reads `dir/name` if it exists.
    pub(crate) fn open_if_present(dir: &Path, name: &str) -> Result<Option<Self>> {
        let path = dir.join(name);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = read_limited(&path, MAX_TEXT)?;
        match serde_json::from_slice(&bytes) {
            Ok(root) => Ok(Some(Self {
                path,
                root,
                prefix: String::new(),
            })),
            Err(source) => Err(ProcessorError::ConfigSyntax { path, source }),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the object in a field as a separate config; errors still use full field names.
    pub(crate) fn section(&self, field: &str) -> Result<Option<Self>> {
        match self.value(field) {
            None => Ok(None),
            Some(object @ Value::Object(_)) => Ok(Some(Self {
                path: self.path.clone(),
                root: object.clone(),
                prefix: format!("{}{field}.", self.prefix),
            })),
            Some(_) => Err(self.invalid(field, "an object")),
        }
    }

    /// Returns the value of a field, with dots between levels. JSON `null` counts as absent, as in
    /// transformers.
    pub(crate) fn value(&self, field: &str) -> Option<&Value> {
        let mut value = &self.root;
        for key in field.split('.') {
            value = value.get(key)?;
        }
        (!value.is_null()).then_some(value)
    }

    /// Reads an optional field.
    pub(crate) fn optional<T: DeserializeOwned>(
        &self,
        field: &str,
        expected: &str,
    ) -> Result<Option<T>> {
        let Some(value) = self.value(field) else {
            return Ok(None);
        };
        match T::deserialize(value) {
            Ok(parsed) => Ok(Some(parsed)),
            Err(_) => Err(self.invalid(field, expected)),
        }
    }

    /// Reads a required field.
    pub(crate) fn required<T: DeserializeOwned>(&self, field: &str, expected: &str) -> Result<T> {
        self.optional(field, expected)?
            .ok_or_else(|| self.missing(field))
    }

    /// Reads a required positive number.
    pub(crate) fn required_size(&self, field: &str) -> Result<usize> {
        self.optional_size(field)?
            .ok_or_else(|| self.missing(field))
    }

    /// Reads an optional positive number.
    pub(crate) fn optional_size(&self, field: &str) -> Result<Option<usize>> {
        self.optional_up_to(field, MAX_SIZE)
    }

    /// Reads the required side of an image or patch.
    pub(crate) fn required_side(&self, field: &str) -> Result<usize> {
        self.optional_side(field)?
            .ok_or_else(|| self.missing(field))
    }

    /// Reads the optional side of an image or patch.
    pub(crate) fn optional_side(&self, field: &str) -> Result<Option<usize>> {
        self.optional_up_to(field, MAX_SIDE)
    }

    fn optional_up_to(&self, field: &str, max: usize) -> Result<Option<usize>> {
        let expected = || format!("a number from 1 to {max}");
        match self.optional::<usize>(field, &expected())? {
            Some(number) if !(1..=max).contains(&number) => Err(self.invalid(field, &expected())),
            number => Ok(number),
        }
    }

    /// Fails unless a switch is absent or on, because the steps that it controls are always
    /// performed.
    pub(crate) fn require_true(&self, field: &str) -> Result<()> {
        match self.optional::<bool>(field, "true")? {
            None | Some(true) => Ok(()),
            Some(false) => Err(self.invalid(field, "true")),
        }
    }

    /// Fails unless a field is absent or one of `accepted`.
    pub(crate) fn require_one_of(&self, field: &str, accepted: &[&str]) -> Result<()> {
        let expected = || format!("one of {}", accepted.join(", "));
        match self.optional::<String>(field, &expected())? {
            Some(found) if !accepted.contains(&found.as_str()) => {
                Err(self.invalid(field, &expected()))
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(crate) fn missing(&self, field: &str) -> ProcessorError {
        ProcessorError::MissingField {
            path: self.path.clone(),
            field: format!("{}{field}", self.prefix),
        }
    }

    pub(crate) fn invalid(&self, field: &str, expected: &str) -> ProcessorError {
        const LONGEST: usize = 200;
        let mut found = self
            .value(field)
            .map_or_else(|| "absent".to_owned(), Value::to_string);
        if found.chars().count() > LONGEST {
            found = found.chars().take(LONGEST).chain("...".chars()).collect();
        }
        ProcessorError::ConfigValue {
            path: self.path.clone(),
            field: format!("{}{field}", self.prefix),
            found,
            expected: expected.to_owned(),
        }
    }
}
