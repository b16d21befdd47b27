//! Makes the final draft from the output of the training.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use half::bf16;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use vispec_report::write_whole;

/// Copies a draft and converts its floats to bf16; returns the size of its weights in bytes.
pub(super) fn publish(trained: &Path, draft: &Path) -> Result<usize> {
    fs::create_dir_all(draft).with_context(|| draft.display().to_string())?;
    for entry in fs::read_dir(trained).with_context(|| trained.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        let at = || path.display().to_string();
        if name == "config.json" {
            let text = fs::read_to_string(&path).with_context(at)?;
            let mut config: Value = serde_json::from_str(&text).with_context(at)?;
            if let Some(dtype) = config.get_mut("torch_dtype") {
                *dtype = "bfloat16".into();
            }
            write_whole(&draft.join(name), format!("{config:#}\n").as_bytes())?;
        } else if path.extension().is_some_and(|ending| ending == "json") {
            write_whole(&draft.join(name), &fs::read(&path).with_context(at)?)?;
        }
    }
    let path = trained.join("model.safetensors");
    let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
    let rounded = in_bf16(&bytes).with_context(|| path.display().to_string())?;
    write_whole(&draft.join("model.safetensors"), &rounded)?;
    Ok(rounded.len())
}

fn in_bf16(file: &[u8]) -> Result<Vec<u8>> {
    let tensors = SafeTensors::deserialize(file)?;
    let floats = tensors
        .iter()
        .filter(|(_, view)| view.dtype() == Dtype::F32);
    let rounded: HashMap<&str, Vec<u8>> = floats
        .map(|(name, view)| (name, rounded(view.data())))
        .collect();
    let stored = tensors.iter().map(|(name, view)| {
        let stored = match rounded.get(name) {
            Some(bytes) => TensorView::new(Dtype::BF16, view.shape().to_vec(), bytes)?,
            None => view,
        };
        Ok((name, stored))
    });
    let stored: Vec<(&str, TensorView<'_>)> = stored.collect::<Result<_>>()?;
    let format = [("format".to_owned(), "pt".to_owned())];
    Ok(safetensors::serialize(stored, Some(format.into()))?)
}

fn rounded(floats: &[u8]) -> Vec<u8> {
    let (words, _) = floats.as_chunks::<4>();
    let values = words
        .iter()
        .map(|word| bf16::from_f32(f32::from_le_bytes(*word)));
    values.flat_map(bf16::to_le_bytes).collect()
}

/// Returns a readable summary of the best epoch of a training.
pub(super) fn judgement(metrics: &Path) -> Result<Vec<String>> {
    let at = || metrics.display().to_string();
    let text = fs::read_to_string(metrics).with_context(at)?;
    let mut best = None;
    for line in text.lines() {
        let record: Value = serde_json::from_str(line).with_context(at)?;
        if record["record"] == "epoch" && record["best"] == true {
            best = Some(record);
        }
    }
    ensure!(best.is_some(), "{}: no epoch ended", at());
    let best = best.unwrap_or_default();
    let held_out = &best["held_out"];
    let Some(tau) = held_out["tree_tau"].as_f64() else {
        return Ok(vec![
            "no samples were held out, so the draft was not evaluated".to_owned(),
        ]);
    };
    let first = held_out["losses"]["top"][0].as_f64().unwrap_or_default();
    Ok(vec![format!(
        "on held-out answers: the first guess is right for {:.0} % of tokens, trees of the \
         config accept {tau:.2} tokens per cycle (simulated)",
        100.0 * first
    )])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_become_bf16_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (trained, draft) = (dir.path().join("best"), dir.path().join("draft"));
        fs::create_dir_all(&trained).unwrap();
        let floats: Vec<u8> = [1.0_f32, -2.5, 1.0 / 3.0]
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let ids: Vec<u8> = [7_i64, -1].iter().flat_map(|id| id.to_le_bytes()).collect();
        let tensors = [
            (
                "fc.weight",
                TensorView::new(Dtype::F32, vec![3], &floats).unwrap(),
            ),
            ("d2t", TensorView::new(Dtype::I64, vec![2], &ids).unwrap()),
        ];
        let file = safetensors::serialize(tensors, None).unwrap();
        fs::write(trained.join("model.safetensors"), file).unwrap();
        let config = r#"{"torch_dtype": "float32", "vocab_size": 9}"#;
        fs::write(trained.join("config.json"), config).unwrap();

        let size = publish(&trained, &draft).unwrap();
        let bytes = fs::read(draft.join("model.safetensors")).unwrap();
        assert_eq!(bytes.len(), size);
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let fc = tensors.tensor("fc.weight").unwrap();
        assert_eq!((fc.dtype(), fc.shape()), (Dtype::BF16, &[3][..]));
        let third = bf16::from_f32(1.0 / 3.0).to_le_bytes();
        assert_eq!(fc.data()[..4], [0x80, 0x3f, 0x20, 0xc0]);
        assert_eq!(fc.data()[4..], third);
        let d2t = tensors.tensor("d2t").unwrap();
        assert_eq!((d2t.dtype(), d2t.data()), (Dtype::I64, &ids[..]));
        let config = fs::read_to_string(draft.join("config.json")).unwrap();
        assert!(
            config.contains("bfloat16") && config.contains('9'),
            "{config}"
        );
    }

    #[test]
    fn the_best_epoch_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let epoch = |tau: f64, best: bool| {
            format!(
                r#"{{"record":"epoch","best":{best},"held_out":{{"tree_tau":{tau},"losses":{{"top":[0.5,0.6,0.7]}}}}}}"#
            )
        };
        let text = format!(
            "{{\"record\":\"step\"}}\n{}\n{}\n",
            epoch(1.25, true),
            epoch(1.0, false)
        );
        fs::write(&path, text).unwrap();
        let lines = judgement(&path).unwrap();
        assert!(
            lines[0].contains("1.25") && lines[0].contains("50 %"),
            "{lines:?}"
        );
        fs::write(&path, "").unwrap();
        assert!(
            judgement(&path)
                .unwrap_err()
                .to_string()
                .contains("no epoch")
        );
    }
}
