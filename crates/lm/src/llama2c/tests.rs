use std::{fs, path::PathBuf};

use proptest::prelude::*;
use tch::no_grad;

use super::*;
use crate::{
    causal::{Causal, LmInput},
    pass::Pass,
};

/// The real weights, where they are.
fn data() -> Option<PathBuf> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/lm-stories260k"));
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: no folder {}", folder.display());
    None
}

fn reference(folder: &Path) -> serde_json::Value {
    serde_json::from_str(&fs::read_to_string(folder.join("reference_greedy.json")).unwrap()).unwrap()
}

fn ids(model: &CausalLm, n: usize) -> (Vec<i64>, Tensor) {
    let mut cache = model.new_cache(1);
    let (mut ids, mut first) = (vec![1i64], None);
    while ids.len() < n {
        let last = Tensor::from_slice(&ids[ids.len() - 1..]).view([1, 1]);
        let input = LmInput { ids: last, ..LmInput::default() };
        let logits = no_grad(|| {
            let hidden = model.hidden(&input, Some(&mut cache), &Pass::default()).unwrap();
            model.logits(&hidden).unwrap().view(-1)
        });
        ids.push(logits.argmax(0, false).int64_value(&[]));
        let _ = first.get_or_insert(logits);
    }
    (ids, first.unwrap())
}

#[test]
fn the_real_model_tells_the_reference_story() {
    let Some(folder) = data() else { return };
    let model = load(&folder.join("stories260K.bin"), Device::Cpu, Kind::Float).unwrap();
    let reference = reference(&folder);
    let want: Vec<i64> = serde_json::from_value(reference["greedy_ids_from_bos"].clone()).unwrap();
    let (got, logits) = ids(&model, want.len());
    let logits_want: Vec<f64> = serde_json::from_value(reference["logits_after_bos"].clone()).unwrap();
    let worst = (0..512).map(|i| (logits.double_value(&[i as i64]) - logits_want[i]).abs()).fold(0.0, f64::max);
    println!("largest difference of the logits after BOS: {worst:e}");
    assert!(logits_want.len() == 512 && worst < 1e-4, "{worst}");
    assert_eq!(got, want);
}

#[test]
fn the_converted_folder_is_the_same_model_with_a_tokenizer() {
    let Some(folder) = data() else { return };
    let out = tempfile::tempdir().unwrap();
    let bin = folder.join("stories260K.bin");
    convert(&bin, Some(&folder.join("tok512.bin")), out.path()).unwrap();
    let options = crate::LoadOptions { device: Device::Cpu, dtype: Kind::Float };
    let model = CausalLm::load(out.path(), &options).unwrap();
    let reference = reference(&folder);
    let want: Vec<i64> = serde_json::from_value(reference["greedy_ids_from_bos"].clone()).unwrap();
    assert_eq!(ids(&model, want.len()).0, want);
    assert_eq!(model.config(), &LmConfig::from_folder(out.path()).unwrap());

    let tokenizer = tokenizers::Tokenizer::from_file(out.path().join("tokenizer.json")).unwrap();
    let tokens: Vec<u32> = want.iter().map(|&id| id as u32).collect();
    // The reference writes byte pieces by name and keeps the space in front.
    let text = reference["greedy_text"].as_str().unwrap().trim_start().replace("<0x0A>", "\n");
    assert_eq!(tokenizer.decode(&tokens, true).unwrap(), text);
    // The model was trained on this segmentation, so most of the story comes back as the same ids.
    let first = text.split('\n').next().unwrap();
    let encoded = tokenizer.encode(first, true).unwrap();
    assert_eq!(encoded.get_ids(), &tokens[..encoded.len()]);
    let strange = tokenizer.encode("日 é", false).unwrap();
    assert_eq!(tokenizer.decode(strange.get_ids(), true).unwrap(), "日 é");
}

/// A file with this header and as many zeros as it asks for.
fn file(header: [i32; 7], floats: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = header.iter().flat_map(|n| n.to_le_bytes()).collect();
    bytes.resize(HEADER + 4 * floats, 0);
    bytes
}

// dim 4, hidden 3, 2 layers, 2 heads, 1 key head, 5 tokens, 6 positions: embedding 20, norms 2·8, q and o 2·32,
// k and v 2·16, feed-forward 2·36, norm 4, tables 2·6.
const SMALL: [i32; 7] = [4, 3, 2, 2, 1, 5, 6];
const FLOATS: usize = 20 + 16 + 64 + 32 + 72 + 4 + 12;

#[test]
fn headers_are_checked() {
    let read = |bytes: &[u8]| parse_header(Path::new("m.bin"), bytes);
    let header = read(&file(SMALL, FLOATS)).unwrap();
    assert!(header.tied && header.vocab_size == 5);
    let mut own_head = SMALL;
    own_head[5] = -5;
    let header = read(&file(own_head, FLOATS + 20)).unwrap();
    assert!(!header.tied && header.vocab_size == 5);
    assert_eq!(header.find("lm_head.weight"), Some((FLOATS, 20)));
    assert_eq!(header.find("model.layers.1.input_layernorm.weight"), Some((24, 4)));
    assert_eq!(header.find("model.layers.2.input_layernorm.weight"), None);
    let with = |at: usize, value: i32| {
        let mut header = SMALL;
        header[at] = value;
        read(&file(header, FLOATS)).unwrap_err().to_string()
    };
    for (text, part) in [
        (with(0, -4), "dim must be above 0, got -4"),
        (with(2, 0), "n_layers must be above 0, got 0"),
        (with(2, i32::MAX), "truncated or not such a file"),
        (with(5, i32::MIN), "truncated or not such a file"),
        (with(5, 0), "vocab_size must not be 0"),
        (with(5, 4), "too long"),
        (with(3, 3), "do not fit together"),
        (with(4, 3), "do not fit together"),
        (with(0, i32::from_le_bytes(*b"24ka")), "newer llama2.c format"),
        (read(&file(SMALL, FLOATS - 1)).unwrap_err().to_string(), "truncated"),
        (read(&[1; 20]).unwrap_err().to_string(), "not even the header"),
    ] {
        assert!(text.starts_with("m.bin: ") && text.contains(part), "{part} in {text}");
    }
    let empty = tempfile::NamedTempFile::new().unwrap();
    assert!(load(empty.path(), Device::Cpu, Kind::Float).unwrap_err().to_string().contains("0 bytes"));
}

#[test]
fn tokenizer_files_are_checked() {
    let piece = |score: f32, length: i32, text: &[u8]| {
        [&score.to_le_bytes()[..], &length.to_le_bytes(), text].concat()
    };
    let head = 3i32.to_le_bytes().to_vec();
    let read = |parts: &[Vec<u8>], n: usize| {
        parse_tokenizer(Path::new("t.bin"), &[&head[..], &parts.concat()].concat(), n)
    };
    assert_eq!(read(&[piece(-1.0, 2, b"ab")], 1).unwrap(), [("ab".to_owned(), -1.0)]);
    for (parts, n, part) in [
        (vec![piece(0.0, 2, b"ab")], 2, "has 1 pieces"),
        (vec![piece(0.0, 2, b"ab"), piece(0.0, 1, b"a")], 1, "more pieces"),
        (vec![piece(0.0, 3, b"ab")], 1, "truncated in piece 0"),
        (vec![piece(0.0, -1, b"")], 1, "length -1"),
        (vec![piece(0.0, i32::MAX, b"ab")], 1, "the longest should be 3"),
        (vec![piece(f32::NAN, 1, b"a")], 1, "score NaN"),
        (vec![piece(0.0, 1, b"\xff")], 1, "not UTF-8"),
        (vec![vec![0; 3]], 1, "in a score"),
    ] {
        let text = read(&parts, n).unwrap_err().to_string();
        assert!(text.contains(part), "{part} in {text}");
    }
}

proptest! {
    #[test]
    fn any_header_is_an_error_or_fits_the_file(
        header in prop::array::uniform7(prop_oneof![any::<i32>(), -3i32..20]), floats in 0usize..400,
    ) {
        let bytes = file(header, floats);
        if let Ok(header) = parse_header(Path::new("m"), &bytes) {
            for (name, shape) in header.config().tensors() {
                let (start, n) = header.find(&name).unwrap();
                prop_assert_eq!(n as i64, shape.iter().product::<i64>());
                prop_assert!(start + n <= floats);
            }
        }
    }

    #[test]
    fn any_tokenizer_bytes_never_crash(bytes in prop::collection::vec(any::<u8>(), 0..200), n in 0usize..20) {
        let _ = parse_tokenizer(Path::new("t"), &bytes, n);
    }
}
