//! Built-in questions about the pictures of a folder.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use examples_answer::failure::Failure;

/// Questions about pictures; their answers differ in kind and in length.
const QUESTIONS: [&str; 16] = [
    "Describe this picture in detail.",
    "What is the most striking thing here, and why?",
    "List everything that you can see, from left to right.",
    "What might have happened just before this moment?",
    "Write a short story that begins with this picture.",
    "Which colours are there, and where?",
    "What would you ask somebody who took this picture?",
    "Describe the picture to somebody who cannot see it.",
    "What is in the background?",
    "Give the picture a title and explain it.",
    "How many different objects are there? Name them.",
    "What mood does this picture have, and what makes it so?",
    "Where could this be, and what suggests that?",
    "What is written or drawn here, if anything?",
    "Explain this picture to a child.",
    "What is unusual about this picture?",
];

/// Extensions of image files.
const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "webp", "bmp", "gif"];

/// Returns chat rows that cycle through the pictures: `wanted` rows, or one per picture. No
/// question is repeated for a picture.
///
/// # Errors
/// Usage if there are fewer combinations than `wanted`; an error if the folder cannot be read or
/// has no pictures.
pub(super) fn rows(folder: &Path, wanted: Option<usize>) -> Result<Vec<Value>, Failure> {
    let pictures = pictures(folder)?;
    let most = pictures.len() * QUESTIONS.len();
    let wanted = wanted.unwrap_or(pictures.len());
    if wanted > most {
        return Err(Failure::Usage(format!(
            "--questions is {wanted}, expected at most {most}: {} pictures with {} questions each",
            pictures.len(),
            QUESTIONS.len()
        )));
    }
    let rows = (0..wanted).map(|index| {
        let (round, picture) = (index / pictures.len(), index % pictures.len());
        let question = QUESTIONS[(picture + round) % QUESTIONS.len()];
        let content = json!([{"type": "image"}, {"type": "text", "text": question}]);
        json!({
            "id": format!("question {index}"),
            "messages": [{"role": "user", "content": content}],
            "images": [pictures[picture]],
        })
    });
    Ok(rows.collect())
}

/// Returns the names of the pictures in a folder, in order, without subfolders.
fn pictures(folder: &Path) -> Result<Vec<String>> {
    let at = || folder.display().to_string();
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(at)? {
        let path = entry.with_context(at)?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        let ending = ending.map(str::to_ascii_lowercase).unwrap_or_default();
        if !path.is_file() || !EXTENSIONS.contains(&ending.as_str()) {
            continue;
        }
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.with_context(|| format!("{}: the name is not UTF-8", path.display()))?;
        names.push(name.to_owned());
    }
    names.sort();
    if names.is_empty() {
        bail!("{}: no pictures ({})", at(), EXTENSIONS.join(", "));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_picture_is_asked_the_same_twice() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.PNG", "a.jpg", "c.gif", "notes.txt"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let most = rows(folder.path(), Some(48)).unwrap();
        let different: HashSet<String> = most
            .iter()
            .map(|row| format!("{}{}", row["messages"], row["images"]))
            .collect();
        assert_eq!(different.len(), 48);
        let few = rows(folder.path(), None).unwrap();
        let named: Vec<&Value> = few.iter().map(|row| &row["images"][0]).collect();
        assert_eq!(named, ["a.jpg", "b.PNG", "c.gif"]);
        assert_eq!(few[..], most[..3]);
        let error = rows(folder.path(), Some(49)).unwrap_err();
        let Failure::Usage(message) = error else {
            panic!("{error:?}")
        };
        assert!(message.contains("at most 48"), "{message}");
    }

    #[test]
    fn a_folder_without_pictures_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = pictures(folder.path()).unwrap_err().to_string();
        assert!(error.contains("no pictures"), "{error}");
    }
}
