use anyo_lm::{Tokenizer, generate::TextStream};
use proptest::prelude::*;

use crate::common::{json, shared, tokenizer};

/// All pieces, the last one being what `finish` gave.
fn pieces(tokenizer: &Tokenizer, ids: &[u32], skip: bool) -> Vec<String> {
    let mut stream = TextStream::new(tokenizer, skip);
    let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    pieces.push(stream.finish().unwrap());
    pieces
}

#[test]
fn whole_characters_only() {
    for name in ["bpe", "spm"] {
        let tokenizer = tokenizer(name);
        for row in json("tokenizer/cases.json")[name].as_array().unwrap() {
            let text = row["text"].as_str().unwrap();
            if text.contains('\u{fffd}') {
                continue;
            }
            let ids = tokenizer.encode(text, false).unwrap();
            let pieces = pieces(&tokenizer, &ids, true);
            assert_eq!(pieces.concat(), tokenizer.decode(&ids, true).unwrap(), "{name} {text:?}");
            assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')), "{name} {pieces:?}");
        }
    }
}

#[test]
fn characters_of_many_tokens() {
    let bpe = tokenizer("bpe");
    // a character that the vocabulary has only as single bytes
    let ids = bpe.encode("龘", false).unwrap();
    assert_eq!(ids.len(), 3);
    assert_eq!(pieces(&bpe, &ids, true), ["", "", "龘", ""]);
    // cut short: what a full decode says
    assert_eq!(pieces(&bpe, &ids[..2], true), ["", "", "\u{fffd}"]);
    let spm = tokenizer("spm");
    let ids = spm.encode("龘a", false).unwrap();
    assert_eq!(pieces(&spm, &ids, true), ["", "", "", "", "龘a", ""]);
    // a space before a word is kept after the first token, where the decoder drops it
    let ids = spm.encode("the cat the cat", false).unwrap();
    let got = pieces(&spm, &ids, true);
    assert_eq!(got.concat(), "the cat the cat");
    assert!(got.iter().filter(|piece| !piece.is_empty()).count() > 2, "{got:?}");
}

fn check(tokenizer: &Tokenizer, ids: &[u32], skip: bool) -> Result<(), TestCaseError> {
    prop_assert_eq!(pieces(tokenizer, ids, skip).concat(), tokenizer.decode(ids, skip).unwrap());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn pieces_join_to_the_full_decode(ids in prop::collection::vec(0u32..720, 0..60), skip: bool) {
        thread_local! {
            static BOTH: [Tokenizer; 2] = [tokenizer("bpe"), tokenizer("spm")];
        }
        BOTH.with(|both| both.iter().try_for_each(|tokenizer| check(tokenizer, &ids, skip)))?;
        // mostly bytes and bits of characters
        let bytes: Vec<u32> = ids.iter().map(|&id| if id % 5 == 0 { id } else { id % 260 }).collect();
        BOTH.with(|both| both.iter().try_for_each(|tokenizer| check(tokenizer, &bytes, skip)))?;
    }
}

#[test]
fn pieces_join_for_phi35() {
    let Some(folder) = shared("tokenizer-phi35") else { return };
    let tokenizer = Tokenizer::from_folder(&folder).unwrap();
    let mut state = 1u64;
    for round in 0..200u64 {
        let ids: Vec<u32> = (0..40)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let range = if (state >> 60) < 6 { 260 } else { 32_020 };
                ((state >> 33) % range) as u32
            })
            .collect();
        let skip = round % 2 == 0;
        assert_eq!(pieces(&tokenizer, &ids, skip).concat(), tokenizer.decode(&ids, skip).unwrap(), "{ids:?}");
    }
}
