//! Sources of checkpoints: a local directory, or an id on the Hugging Face hub.

use std::path::{Path, PathBuf};

use crate::error::ModelError;

/// Resolves a name given by the user to a directory with a checkpoint.
///
/// A path to an existing directory is returned unchanged. Any other name of the form `owner/name`
/// is an id on the hub, which needs the feature `hub`. Files come from the local cache of Hugging
/// Face tools; only files that are missing there are downloaded.
///
/// # Errors
/// Returns [`ModelError::Hub`] if the name is neither, if this build lacks the feature, or if files
/// are missing in the cache and cannot be downloaded.
pub fn resolve_checkpoint(name: &str, progress: DownloadProgress) -> Result<PathBuf, ModelError> {
    let path = Path::new(name);
    if path.is_dir() {
        return Ok(path.to_owned());
    }
    let refuse = |reason: &str| ModelError::Hub {
        id: name.to_owned(),
        reason: reason.to_owned(),
    };
    if path.exists() {
        return Err(refuse("a file, but a checkpoint is a directory"));
    }
    if !is_hub_id(name) {
        return Err(refuse(
            "no such directory, and not a hub id of the form owner/name",
        ));
    }
    from_hub(name, progress)
}

/// Whether downloads show progress bars on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownloadProgress {
    /// Show progress bars.
    Bars,
    /// Download silently.
    Silent,
}

fn is_hub_id(name: &str) -> bool {
    let part = |s: &str| {
        !s.is_empty()
            && !s.starts_with('.')
            && s.chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    name.split_once('/')
        .is_some_and(|(owner, model)| part(owner) && part(model))
}

#[cfg(not(feature = "hub"))]
fn from_hub(id: &str, _progress: DownloadProgress) -> Result<PathBuf, ModelError> {
    Err(ModelError::Hub {
        id: id.to_owned(),
        reason: "no such directory; loading from the hub needs a build with `--features hub`"
            .into(),
    })
}

#[cfg(feature = "hub")]
fn from_hub(id: &str, progress: DownloadProgress) -> Result<PathBuf, ModelError> {
    use hf_hub::api::sync::ApiBuilder;
    use hf_hub::{Cache, Repo};

    let failed = |reason: String| ModelError::Hub {
        id: id.to_owned(),
        reason,
    };
    let cached = |file: &str| Cache::from_env().repo(Repo::model(id.to_owned())).get(file);

    let api = ApiBuilder::from_env()
        .with_progress(progress == DownloadProgress::Bars)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let repo = api.model(id.to_owned());
    let files: Vec<String> = match repo.info() {
        Ok(info) => info
            .siblings
            .into_iter()
            .map(|sibling| sibling.rfilename)
            .collect(),
        // Without a network, a complete snapshot of an earlier run is used.
        Err(error) => {
            return complete_snapshot(cached("config.json"))
                .ok_or_else(|| failed(format!("not in the local cache, and {error}")));
        }
    };
    let has_safetensors = files.iter().any(|file| file.ends_with(".safetensors"));
    let mut dir = None;
    for file in files.iter().filter(|file| is_wanted(file, has_safetensors)) {
        let path = repo
            .get(file)
            .map_err(|error| failed(format!("{file}: {error}")))?;
        if file == "config.json" {
            dir = path.parent().map(Path::to_owned);
        }
    }
    dir.ok_or_else(|| failed("the repository has no config.json".into()))
}

/// Returns whether a file of a repository is needed to load a model: certain files in its root.
#[cfg(feature = "hub")]
fn is_wanted(file: &str, has_safetensors: bool) -> bool {
    if file.contains('/') {
        return false;
    }
    file.ends_with(".json")
        || file.ends_with(".jinja")
        || file.ends_with(".safetensors")
        || (file == "pytorch_model.bin" && !has_safetensors)
}

/// Returns the directory of a cached `config.json`, if it contains all weight files.
#[cfg(feature = "hub")]
fn complete_snapshot(config: Option<PathBuf>) -> Option<PathBuf> {
    let dir = config?.parent()?.to_owned();
    crate::weights::Checkpoint::open(&dir, &[])
        .is_ok()
        .then_some(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_taken_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().to_str().unwrap();
        assert_eq!(
            resolve_checkpoint(name, DownloadProgress::Silent).unwrap(),
            dir.path()
        );
    }

    #[test]
    fn what_is_neither_directory_nor_id_is_refused() {
        for name in [
            "no-such-dir",
            "../x/y",
            "/no/such/dir",
            "a/b/c",
            "",
            "owner/",
            "o w/n",
        ] {
            let error = resolve_checkpoint(name, DownloadProgress::Silent).unwrap_err();
            assert!(
                matches!(&error, ModelError::Hub { id, .. } if id == name),
                "{name}: {error}"
            );
        }
    }

    #[test]
    fn ids_have_an_owner_and_a_name() {
        assert!(is_hub_id("Qwen/Qwen2.5-VL-3B-Instruct"));
        assert!(is_hub_id("JLKang/ViSpec-llava-v1.6-vicuna-7b-hf"));
        assert!(!is_hub_id("Qwen"));
        assert!(!is_hub_id("a/b/c"));
    }
}
