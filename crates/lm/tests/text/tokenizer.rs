use std::{fs, path::Path};

use anyo_lm::Tokenizer;
use proptest::prelude::*;
use serde_json::Value;

use crate::common::{fixture, json, shared, tokenizer};

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn equal_to_transformers() {
    let cases = json("tokenizer/cases.json");
    for name in ["bpe", "spm"] {
        let tokenizer = tokenizer(name);
        let rows = cases[name].as_array().unwrap();
        assert!(rows.len() > 20);
        for row in rows {
            let text = row["text"].as_str().unwrap();
            assert_eq!(tokenizer.encode(text, false).unwrap(), ids(&row["ids"]), "{name} {text:?}");
            let special = tokenizer.encode(text, true).unwrap();
            assert_eq!(special, ids(&row["ids_special"]), "{name} {text:?}");
            assert_eq!(tokenizer.decode(&special, false).unwrap(), row["decoded"].as_str().unwrap());
            assert_eq!(tokenizer.decode(&special, true).unwrap(), row["decoded_skip"].as_str().unwrap());
        }
    }
}

#[test]
fn phi3_vectors() {
    let (Some(folder), Some(vectors)) = (shared("tokenizer-phi35"), shared("tokenizer-vectors")) else { return };
    let tokenizer = Tokenizer::from_folder(&folder).unwrap();
    let texts = fs::read_to_string(vectors.join("ggml-vocab-phi-3.gguf.inp")).unwrap();
    let wanted = fs::read_to_string(vectors.join("ggml-vocab-phi-3.gguf.out")).unwrap();
    let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
    // the last text is empty, and so is its line
    let wanted: Vec<&str> = wanted.split('\n').collect();
    assert_eq!((texts.len(), wanted.len()), (47, 47));
    for (text, line) in texts.iter().zip(wanted) {
        let line: Vec<u32> = line.split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert_eq!(tokenizer.encode(text, false).unwrap(), line, "{text:?}");
        // its template adds nothing
        assert_eq!(tokenizer.encode(text, true).unwrap(), line, "{text:?}");
    }
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.pad_id()), (Some(1), Some(32000), 32000));
    assert_eq!((tokenizer.id("<|end|>"), tokenizer.token(32010).as_deref()), (Some(32007), Some("<|user|>")));
    assert_eq!(
        (tokenizer.vocab_size(), tokenizer.n_ids(), tokenizer.model_max_length()),
        (32011, 32011, Some(131_072))
    );
    tokenizer.check_fits(32064).unwrap();
}

#[test]
fn reads_the_small_files() {
    let bpe = tokenizer("bpe");
    let end = bpe.id("<|im_end|>").unwrap();
    let pad = bpe.id("<|endoftext|>").unwrap();
    assert_eq!((bpe.bos_id(), bpe.eos_id(), bpe.pad_id()), (None, Some(end), pad));
    assert_eq!(bpe.stop_ids(), [end, pad]);
    let defaults = bpe.generation_defaults();
    assert_eq!(
        (defaults.temperature, defaults.top_k, defaults.min_p, defaults.do_sample),
        (Some(0.7), Some(20), None, Some(true))
    );
    assert_eq!(bpe.model_max_length(), Some(1024));
    assert!(bpe.is_special(end) && !bpe.is_special(bpe.id("<item>").unwrap()));
    let spm = tokenizer("spm");
    assert_eq!((spm.bos_id(), spm.stop_ids(), spm.pad_id()), (Some(1), vec![2], 2));
    assert!(spm.is_byte(spm.id("<0xE3>").unwrap()) && !spm.is_byte(1) && !bpe.is_byte(3));
}

#[test]
fn must_fit_the_embedding() {
    let bpe = tokenizer("bpe");
    bpe.check_fits(bpe.n_ids()).unwrap();
    let error = bpe.check_fits(bpe.n_ids() - 1).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("tokenizer.json")
            && text.contains("<item>")
            && text.contains(&format!("{} rows", bpe.n_ids() - 1)),
        "{text}"
    );
    assert!(error.hint().is_some());
}

fn copy_of(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture("tokenizer").join(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

fn refused(folder: &Path) -> String {
    Tokenizer::from_folder(folder).unwrap_err().to_string()
}

#[test]
fn new_added_tokens_get_their_ids() {
    let folder = copy_of("spm");
    let next = tokenizer("spm").n_ids();
    let path = folder.path().join("tokenizer_config.json");
    let with = |id: usize| {
        let added = format!(
            r#"{{"bos_token": {{"content": "<s>"}}, "added_tokens_decoder": {{"{id}": {{"content": "<|new|>", "special": true}}}}}}"#
        );
        fs::write(&path, added).unwrap();
    };
    with(next);
    fs::write(folder.path().join("added_tokens.json"), format!(r#"{{"<|new|>": {next}, "<plain>": {}}}"#, next + 1))
        .unwrap();
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    assert!(tokenizer.encode("a<|new|><plain>", false).unwrap().ends_with(&[next as u32, next as u32 + 1]));
    assert!(tokenizer.is_special(next as u32) && !tokenizer.is_special(next as u32 + 1));
    assert_eq!(tokenizer.n_ids(), next + 2);
    fs::remove_file(folder.path().join("added_tokens.json")).unwrap();
    with(next + 5);
    let text = refused(folder.path());
    assert!(
        text.contains("tokenizer_config.json") && text.contains("<|new|>") && text.contains(&format!("{}", next + 5)),
        "{text}"
    );
}

#[test]
fn malformed_files_are_one_message() {
    let folder = copy_of("spm");
    let write = |name: &str, text: &[u8]| fs::write(folder.path().join(name), text).unwrap();
    for (name, text, wanted) in [
        (
            "tokenizer_config.json",
            "{\"added_tokens_decoder\": {\"x\": {}}}",
            "`added_tokens_decoder.x` must be an object",
        ),
        ("tokenizer_config.json", "{\"bos_token\": 5}", "`bos_token` must be a text or an object"),
        ("tokenizer_config.json", "{\"chat_template\": 5}", "`chat_template` must be"),
        ("tokenizer_config.json", "{\n\"a\": }", "line 2: not JSON"),
        ("special_tokens_map.json", "[]", "wanted a JSON object"),
        (
            "generation_config.json",
            "{\"eos_token_id\": [1, -4]}",
            "`eos_token_id` must be a token id or a list of them, got -4",
        ),
        ("generation_config.json", "{\"do_sample\": \"yes\"}", "`do_sample` must be true or false, got \"yes\""),
        ("generation_config.json", "{\"top_k\": 0.5}", "`top_k` must be a whole number"),
        ("added_tokens.json", "{\"x\": \"y\"}", "`x` must be a token id"),
    ] {
        let good = fs::read(folder.path().join(name)).unwrap_or(b"{}".to_vec());
        write(name, text.as_bytes());
        let got = refused(folder.path());
        assert!(got.contains(name) && got.contains(wanted), "{got}");
        write(name, &good);
    }
    // every tenth truncation of the tokenizer itself
    let whole = fs::read(folder.path().join("tokenizer.json")).unwrap();
    for tenth in 0..10 {
        write("tokenizer.json", &whole[..whole.len() * tenth / 10]);
        let got = refused(folder.path());
        assert!(got.contains("tokenizer.json") && got.contains("not a tokenizer"), "{got}");
    }
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let error = Tokenizer::from_folder(folder.path()).unwrap_err();
    assert!(error.to_string().contains("no such file") && error.hint().unwrap().contains("tokenizer.json"));
}

/// Replaces one value somewhere inside by another kind of value.
fn mutate(value: &mut Value, path: &[usize], with: &Value) {
    let next: Option<(&mut Value, &[usize])> = match (&mut *value, path.split_first()) {
        (Value::Object(map), Some((&i, rest))) if !map.is_empty() => {
            let n = map.len();
            map.values_mut().nth(i % n).map(|v| (v, rest))
        }
        (Value::Array(list), Some((&i, rest))) if !list.is_empty() => {
            let n = list.len();
            list.get_mut(i % n).map(|v| (v, rest))
        }
        _ => None,
    };
    match next {
        Some((inner, rest)) => mutate(inner, rest, with),
        None => *value = with.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn mangled_files_never_crash(spm: bool, path in prop::collection::vec(0usize..1000, 1..5), with in 0usize..8) {
        let name = if spm { "spm" } else { "bpe" };
        let folder = tempfile::tempdir().unwrap();
        let mut file: Value = serde_json::from_slice(&fs::read(fixture("tokenizer").join(name).join("tokenizer.json")).unwrap()).unwrap();
        let with = [
            Value::Null,
            serde_json::json!(-1),
            serde_json::json!(4_294_967_295u32),
            serde_json::json!(1e300),
            serde_json::json!(""),
            serde_json::json!([]),
            serde_json::json!({}),
            serde_json::json!("<s>"),
        ][with].clone();
        mutate(&mut file, &path, &with);
        fs::write(folder.path().join("tokenizer.json"), file.to_string()).unwrap();
        if let Ok(tokenizer) = Tokenizer::from_folder(folder.path())
            && let Ok(ids) = tokenizer.encode("Hello 日本 <s>x</s>", true)
        {
            let _ = tokenizer.decode(&ids, false);
        }
    }
}
