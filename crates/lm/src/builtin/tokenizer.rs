//! A byte-level BPE tokenizer trained on a text, with the special tokens and the chat template of the built-in model.

use anyo_core::{Error, Result};
use serde_json::{Value, json};
use tokenizers::{
    AddedToken, Tokenizer,
    decoders::byte_level::ByteLevel as Decoder,
    models::{
        TrainerWrapper,
        bpe::{BPE, BpeTrainer},
    },
    pre_tokenizers::byte_level::ByteLevel,
    processors::template::TemplateProcessing,
};

/// Special tokens; their ids are their places here.
pub const SPECIAL: [&str; 6] = ["<|bos|>", "<|eos|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>"];
/// Id of `<|bos|>`.
pub const BOS: i64 = 0;
/// Id of `<|eos|>`.
pub const EOS: i64 = 1;
/// Id of `<|pad|>`.
pub const PAD: i64 = 2;

/// Special tokens and one token for each byte.
pub const SMALLEST_VOCAB: usize = SPECIAL.len() + 256;

/// `<|bos|>`, then for each message its role's token, its text and `<|eos|>`.
const CHAT_TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + \
                             message['content'] + eos_token }}{% endfor %}{% if add_generation_prompt %}\
                             {{ '<|assistant|>' }}{% endif %}";

/// Trains a tokenizer of at most `vocab_size` tokens; a short text gives fewer. The same texts give the same tokenizer.
///
/// Encoding with special tokens puts `<|bos|>` in front.
///
/// # Errors
/// When `vocab_size` is below [`SMALLEST_VOCAB`], or the texts are empty.
pub fn train_tokenizer<'a>(texts: impl IntoIterator<Item = &'a str>, vocab_size: usize) -> Result<Tokenizer> {
    if vocab_size < SMALLEST_VOCAB {
        return Err(Error::invalid(format!(
            "vocab_size must be at least {SMALLEST_VOCAB} (all bytes and {} special tokens), got {vocab_size}",
            SPECIAL.len()
        )));
    }
    let texts: Vec<&str> = texts.into_iter().filter(|text| !text.is_empty()).collect();
    if texts.is_empty() {
        return Err(Error::invalid("there is no text to train a tokenizer on"));
    }
    let trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(SPECIAL.iter().map(|&token| AddedToken::from(token, true)).collect())
        .build();
    let failed =
        |e: Box<dyn std::error::Error + Send + Sync>| Error::invalid(format!("the tokenizer's training failed: {e}"));
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer
        .with_pre_tokenizer(Some(ByteLevel::new(false, false, true)))
        .with_decoder(Some(Decoder::default()))
        .train(&mut TrainerWrapper::BpeTrainer(trainer), texts.into_iter())
        .map_err(failed)?;
    let bos = TemplateProcessing::builder()
        .try_single(format!("{} $A", SPECIAL[0]))
        .and_then(|builder| builder.try_pair(format!("{} $A {} $B:1", SPECIAL[0], SPECIAL[0])))
        .map_err(Error::invalid)?
        .special_tokens(vec![(SPECIAL[0], BOS as u32)])
        .build()
        .map_err(|e| Error::invalid(format!("the tokenizer's template: {e}")))?;
    tokenizer.with_post_processor(Some(bos));
    for (id, token) in SPECIAL.iter().enumerate() {
        if tokenizer.token_to_id(token) != Some(id as u32) {
            return Err(Error::invalid(format!("special token `{token}` did not get id {id}")));
        }
    }
    Ok(tokenizer)
}

/// Content of `tokenizer_config.json`.
pub(super) fn tokenizer_config(max_len: usize) -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[0],
        "eos_token": SPECIAL[1],
        "pad_token": SPECIAL[2],
        "additional_special_tokens": SPECIAL[3..],
        "model_max_length": max_len,
        "padding_side": "left",
        "clean_up_tokenization_spaces": false,
        "chat_template": CHAT_TEMPLATE,
    })
}

/// Token ids of the texts one after another, each between `<|bos|>` and `<|eos|>`.
///
/// # Errors
/// When the tokenizer fails.
pub fn token_stream<'a>(tokenizer: &Tokenizer, texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<i64>> {
    let mut ids = Vec::new();
    for text in texts {
        let found = tokenizer.encode_fast(text, false).map_err(|e| Error::invalid(format!("cannot tokenize: {e}")))?;
        ids.push(BOS);
        ids.extend(found.get_ids().iter().map(|&id| i64::from(id)));
        ids.push(EOS);
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "the cat sat on the mat, the cat ate the rat. 猫は猫である。猫は眠い。";

    #[test]
    fn bytes_come_back_and_frequent_words_are_one_token() {
        let tokenizer = train_tokenizer([TEXT; 4], 300).unwrap();
        // The text has no more pairs that occur twice.
        assert!((290..=300).contains(&tokenizer.get_vocab_size(true)));
        assert!(tokenizer.token_to_id("Ġthe").is_some());
        for text in [TEXT, "日本語 😀 \u{0} tab\t", " leading and trailing "] {
            let ids = tokenizer.encode(text, true).unwrap().get_ids().to_vec();
            assert_eq!(ids[0], BOS as u32);
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
        }
        assert_eq!(tokenizer.encode("<|user|>the", false).unwrap().get_ids()[0], 3);
    }

    #[test]
    fn training_is_the_same_every_time() {
        let text = |t: &Tokenizer| t.to_string(false).unwrap();
        assert_eq!(text(&train_tokenizer([TEXT], 290).unwrap()), text(&train_tokenizer([TEXT], 290).unwrap()));
    }

    #[test]
    fn the_stream_marks_every_text() {
        let tokenizer = train_tokenizer([TEXT], 262).unwrap();
        assert_eq!(token_stream(&tokenizer, ["", "a"]).unwrap()[..3], [BOS, EOS, BOS]);
        assert_eq!(token_stream(&tokenizer, ["ab"]).unwrap().len(), 4);
    }

    #[test]
    fn too_small_a_vocabulary_and_no_text_are_errors() {
        assert!(train_tokenizer([TEXT], 100).unwrap_err().to_string().contains("at least 262"));
        assert!(train_tokenizer([""], 300).unwrap_err().to_string().contains("no text"));
    }
}
