//! Damaged, inconsistent and wrong weight files of targets and drafts.

use serde_json::json;

use crate::files::{Copy, Safetensors};
use crate::program::{Outcome, Program, draft, model};

const WEIGHTS: &str = "model.safetensors";

/// The model that loads the damaged file.
#[derive(Clone, Copy)]
enum Role {
    Target,
    Draft,
}

impl Role {
    fn copy(self) -> Copy {
        match self {
            Self::Target => Copy::of(&model("qwen-tied")),
            Self::Draft => Copy::of(&draft("qwen-tied-q2")),
        }
    }

    fn run(self, copy: &Copy) -> Outcome {
        let program = match self {
            Self::Target => Program::generate_in(copy.dir()).draft("qwen-tied-q2"),
            Self::Draft => Program::generate("qwen-tied").path("--draft", copy.dir()),
        };
        // Otherwise stdout would hold text streamed before the failure.
        program.prompt("hi").arg("--json").run()
    }
}

#[track_caller]
fn check(what: &str, names: &[&str], damage: impl Fn(Vec<u8>) -> Vec<u8>) {
    for role in [Role::Target, Role::Draft] {
        let copy = role.copy();
        copy.edit(WEIGHTS, &damage);
        let file = copy.file(WEIGHTS);
        let outcome = role.run(&copy);
        outcome.assert_refused(what, 1, names);
        let dir = copy.dir().to_str().unwrap();
        let named = outcome.stderr.contains(file.to_str().unwrap()) || outcome.stderr.contains(dir);
        assert!(named, "{what}: no path in {}", outcome.stderr);
    }
}

#[test]
fn files_that_are_no_safetensors() {
    let damaged: &[&str] = &["damaged"];
    check("empty", damaged, |_| Vec::new());
    check("three bytes", damaged, |bytes| bytes[..3].to_vec());
    check("only a length", damaged, |bytes| bytes[..8].to_vec());
    check("text", damaged, |_| b"not a weight file at all".repeat(100));
    check("garbage", damaged, |bytes| {
        let noise = |idx: usize| u8::try_from(idx * idx * 31 % 251).unwrap();
        (0..bytes.len()).map(noise).collect()
    });
    check("cut in the header", damaged, |bytes| bytes[..100].to_vec());
    check("cut in the data", damaged, |bytes| {
        bytes[..bytes.len() / 2].to_vec()
    });
    check("cut by a byte", damaged, |bytes| {
        bytes[..bytes.len() - 1].to_vec()
    });
    check("a byte too long", damaged, |mut bytes| {
        bytes.push(0);
        bytes
    });
    for length in [u64::MAX, 1 << 62, 1 << 40, 99_000_000, 0, 1] {
        check(&format!("header of {length}"), damaged, |mut bytes| {
            bytes[..8].copy_from_slice(&length.to_le_bytes());
            bytes
        });
    }
    check("header that is not JSON", damaged, |mut bytes| {
        bytes[8] = b'[';
        bytes
    });
}

#[test]
fn headers_that_lie() {
    let lie = |what: &str, change: &dyn Fn(&mut Safetensors, &str)| {
        check(what, &["damaged"], |bytes| {
            let mut file = Safetensors::parse(&bytes);
            let last = file.last();
            change(&mut file, &last);
            file.bytes()
        });
    };
    let end = |file: &Safetensors, name: &str| file.range(name).end;
    lie("offsets behind the file", &|file, last| {
        let beyond = end(file, last) + (1 << 40);
        file.header[last]["data_offsets"][1] = json!(beyond);
    });
    lie("all offsets behind the file", &|file, last| {
        let len = file.range(last).len();
        file.header[last]["data_offsets"] = json!([1u64 << 50, (1u64 << 50) + len as u64]);
    });
    lie("offsets that overflow", &|file, last| {
        file.header[last]["data_offsets"] = json!([0, u64::MAX]);
    });
    lie("offsets the wrong way round", &|file, last| {
        let range = file.range(last);
        file.header[last]["data_offsets"] = json!([range.end, range.start]);
    });
    lie("negative offsets", &|file, last| {
        file.header[last]["data_offsets"] = json!([-8, 8]);
    });
    lie("overlapping offsets", &|file, last| {
        let range = file.range(last);
        file.header[last]["data_offsets"] = json!([0, range.len()]);
    });
    lie("a shape larger than its data", &|file, last| {
        file.header[last]["shape"] = json!([1u64 << 30, 1u64 << 20]);
    });
    lie("a shape that overflows", &|file, last| {
        file.header[last]["shape"] = json!([1u64 << 40, 1u64 << 40, 16]);
    });
    lie("a shape that is no shape", &|file, last| {
        file.header[last]["shape"] = json!("large");
    });
    lie("an unknown element type", &|file, last| {
        file.header[last]["dtype"] = json!("F7");
    });
    lie("a tensor without offsets", &|file, last| {
        let tensor = file.header[last].as_object_mut().unwrap();
        tensor.remove("data_offsets");
    });
}

#[test]
fn tensors_that_are_missing_unexpected_or_misshapen_are_named() {
    let change = |what: &str, names: &[&str], change: &dyn Fn(&mut Safetensors, &str)| {
        for role in [Role::Target, Role::Draft] {
            let copy = role.copy();
            let mut last = String::new();
            copy.edit(WEIGHTS, |bytes| {
                let mut file = Safetensors::parse(&bytes);
                last = file.last();
                change(&mut file, &last);
                file.bytes()
            });
            let outcome = role.run(&copy);
            outcome.assert_refused(what, 1, names);
            assert!(
                outcome.stderr.contains(&last),
                "{what}: no {last}: {}",
                outcome.stderr
            );
        }
    };
    change("missing", &["1 missing"], &|file, last| {
        let range = file.range(last);
        file.data.truncate(range.start);
        file.header.remove(last);
    });
    change(
        "renamed",
        &["1 missing", "1 unexpected", "surprise.weight"],
        &|file, last| {
            let tensor = file.header.remove(last).unwrap();
            file.header.insert("surprise.weight".into(), tensor);
        },
    );
    change(
        "unexpected",
        &["1 unexpected", "surprise.weight"],
        &|file, last| {
            let start = file.data.len();
            file.data.extend([0; 8]);
            let extra = json!({"dtype": "F32", "shape": [2], "data_offsets": [start, start + 8]});
            file.header.insert("surprise.weight".into(), extra);
            // Makes the message contain the name of the last tensor.
            file.header[last]["shape"] = json!([file.range(last).len() / 4, 1, 1]);
        },
    );
    change(
        "misshapen",
        &["1 misshapen", "expected ["],
        &|file, last| {
            file.header[last]["shape"] = json!([1, file.range(last).len() / 4]);
        },
    );
    change(
        "a number instead of a tensor",
        &["1 misshapen"],
        &|file, last| {
            let range = file.range(last);
            file.data.truncate(range.start + 4);
            file.header[last]["shape"] = json!([]);
            file.header[last]["data_offsets"] = json!([range.start, range.start + 4]);
        },
    );
    change("integers", &["I64"], &|file, last| {
        let range = file.range(last);
        let n_bytes = range.len();
        file.data.extend(vec![0; n_bytes]);
        file.header[last]["dtype"] = json!("I64");
        file.header[last]["data_offsets"] = json!([range.start, range.end + n_bytes]);
    });
    change("doubles", &["F64"], &|file, last| {
        let range = file.range(last);
        let n_bytes = range.len();
        file.data.extend(vec![0; n_bytes]);
        file.header[last]["dtype"] = json!("F64");
        file.header[last]["data_offsets"] = json!([range.start, range.end + n_bytes]);
    });
}

/// A draft whose vision adaptor has no queries at all.
#[test]
fn a_draft_without_queries_is_refused() {
    let copy = Role::Draft.copy();
    copy.edit(WEIGHTS, |bytes| {
        let mut file = Safetensors::parse(&bytes);
        let range = file.range("imadpt.q");
        let shape = file.header["imadpt.q"]["shape"].clone();
        file.header["imadpt.q"]["shape"] = json!([0, shape[1], shape[2]]);
        file.header["imadpt.q"]["data_offsets"] = json!([range.start, range.start]);
        file.data.drain(range.clone());
        for (_, tensor) in file
            .header
            .iter_mut()
            .filter(|(name, _)| *name != "__metadata__")
        {
            let offsets = &mut tensor["data_offsets"];
            let [start, end] = [0, 1].map(|idx| offsets[idx].as_u64().unwrap());
            if start >= range.end as u64 {
                let n_bytes = range.len() as u64;
                *offsets = json!([start - n_bytes, end - n_bytes]);
            }
        }
        file.bytes()
    });
    Role::Draft
        .run(&copy)
        .assert_refused("no queries", 1, &["imadpt.q"]);
}

/// NaN weights in either model are an error, not an answer.
#[test]
fn weights_that_are_not_finite_are_found_out() {
    for role in [Role::Target, Role::Draft] {
        for value in [f32::NAN, f32::INFINITY] {
            let tensor = match role {
                Role::Target => "model.norm.weight",
                Role::Draft => "layers.0.post_attention_layernorm.weight",
            };
            let copy = role.copy();
            copy.edit(WEIGHTS, |bytes| {
                let mut file = Safetensors::parse(&bytes);
                let range = file.range(tensor);
                for element in file.data[range].chunks_exact_mut(4) {
                    element.copy_from_slice(&value.to_le_bytes());
                }
                file.bytes()
            });
            let names: &[&str] = match role {
                Role::Target => &["target", "not finite"],
                Role::Draft => &["drafter", "NaN"],
            };
            role.run(&copy).assert_refused(&value.to_string(), 1, names);
        }
    }
}

#[test]
fn directories_without_weights() {
    for role in [Role::Target, Role::Draft] {
        let copy = role.copy();
        copy.remove(WEIGHTS);
        let names = [
            "no weights found",
            "model.safetensors",
            copy.dir().to_str().unwrap(),
        ];
        role.run(&copy).assert_refused("no weights", 1, &names);
        copy.write("pytorch_model.bin", b"not an archive");
        role.run(&copy)
            .assert_refused("no archive", 1, &["pytorch_model.bin"]);
        copy.remove("pytorch_model.bin");
        copy.write("model.safetensors.index.json", b"{\"weight_map\": 3}");
        role.run(&copy)
            .assert_refused("no index", 1, &["model.safetensors.index.json"]);
        let escape = br#"{"weight_map": {"a": "../../secret.safetensors"}}"#;
        copy.write("model.safetensors.index.json", escape);
        role.run(&copy)
            .assert_refused("outside", 1, &["weight_map", "../../secret"]);
        let lost = br#"{"weight_map": {"a": "lost.safetensors"}}"#;
        copy.write("model.safetensors.index.json", lost);
        role.run(&copy)
            .assert_refused("a lost shard", 1, &["lost.safetensors"]);
    }
}
