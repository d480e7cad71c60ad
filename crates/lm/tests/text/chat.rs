use std::collections::HashMap;

use anyo_lm::{
    Tokenizer,
    chat::{ChatOptions, ChatTemplate, DateTime, Message, SpecialTokens},
};
use proptest::prelude::*;
use serde_json::Value;

use crate::common::{json, shared, tokenizer};

fn messages(value: &Value) -> Vec<Message> {
    serde_json::from_value(value.clone()).unwrap()
}

fn tokens() -> SpecialTokens {
    let token = |text: &str| Some(text.to_owned());
    SpecialTokens { bos: token("<s>"), eos: token("</s>"), unk: token("<unk>"), pad: None }
}

#[test]
fn equal_to_transformers() {
    let data = json("chat/cases.json");
    let templates: HashMap<&str, ChatTemplate> = data["templates"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, source)| (name.as_str(), ChatTemplate::new(source.as_str().unwrap(), tokens()).unwrap()))
        .collect();
    let mut failures = Vec::new();
    let cases = data["cases"].as_array().unwrap();
    for case in cases {
        let name = case["template"].as_str().unwrap();
        let options = ChatOptions {
            add_generation_prompt: case["prompt"].as_bool().unwrap(),
            extra: case["extra"].as_object().unwrap().clone(),
            now: None,
        };
        let chat = &data["chats"][case["chat"].as_str().unwrap()];
        let got = templates[name].render(&messages(chat), &options);
        let fine = match (&got, case["text"].as_str(), case["error"].as_str()) {
            (Ok(got), Some(wanted), _) => got == wanted,
            (Err(got), None, Some(wanted)) => got.to_string().contains(wanted) && got.hint().is_some(),
            _ => false,
        };
        if !fine {
            failures.push(format!(
                "{name} {} {}\n  got    {got:?}\n  wanted {:?}{:?}",
                case["chat"], case["prompt"], case["text"], case["error"]
            ));
        }
    }
    assert!(cases.len() > 90);
    assert!(failures.is_empty(), "{} of {}\n{}", failures.len(), cases.len(), failures.join("\n"));
}

#[test]
fn phi35_folder() {
    let Some(folder) = shared("tokenizer-phi35") else { return };
    let tokenizer = Tokenizer::from_folder(&folder).unwrap();
    let template = tokenizer.chat_template(None).unwrap();
    let data = json("chat/cases.json");
    for case in data["phi35"].as_array().unwrap() {
        let options =
            ChatOptions { add_generation_prompt: case["prompt"].as_bool().unwrap(), ..ChatOptions::default() };
        let text = template.render(&messages(&data["chats"][case["chat"].as_str().unwrap()]), &options).unwrap();
        assert_eq!(text, case["text"].as_str().unwrap(), "{}", case["chat"]);
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(&text, false).unwrap(), ids, "{}", case["chat"]);
    }
}

#[test]
fn the_date_is_an_argument() {
    let data = json("chat/cases.json");
    let template = ChatTemplate::new(data["templates"]["llama3"].as_str().unwrap(), tokens()).unwrap();
    let chat = [Message::new("user", "Hi")];
    let fixed = template.render(&chat, &ChatOptions::default()).unwrap();
    assert!(fixed.contains("Today Date: 26 Jul 2024\n"), "{fixed}");
    let now = Some(DateTime { year: 2026, month: 11, day: 5, hour: 1, minute: 2, second: 3 });
    let today = template.render(&chat, &ChatOptions { now, ..ChatOptions::default() }).unwrap();
    assert_eq!(today, fixed.replace("26 Jul 2024", "05 Nov 2026"));
}

#[test]
fn named_templates_and_missing_ones() {
    let bpe = tokenizer("bpe");
    let chat = [Message::new("user", "a"), Message::new("assistant", "b")];
    let text = bpe.chat_template(None).unwrap().render(&chat, &ChatOptions::default()).unwrap();
    assert_eq!(text, "[user]a[assistant]b");
    assert_eq!(bpe.chat_template(Some("tool_use")).unwrap().render(&chat, &ChatOptions::default()).unwrap(), "tools");
    let error = bpe.chat_template(Some("rag")).unwrap_err().to_string();
    assert!(error.contains("`rag`") && error.contains("default, tool_use"), "{error}");
    let error = tokenizer("spm").chat_template(None).unwrap_err();
    assert!(error.to_string().contains("tokenizer_config.json") && error.to_string().contains("no chat template"));
    assert!(error.hint().unwrap().contains("chat_template.jinja"));
}

#[test]
fn bad_templates_and_chats() {
    let new = |source: &str| ChatTemplate::new(source, tokens());
    let error = new("a\n{% if %}").unwrap_err().to_string();
    assert!(error.contains("chat template line 2: syntax error"), "{error}");
    let plain = new("{{ messages[0].content }}").unwrap();
    assert!(plain.render(&[], &ChatOptions::default()).unwrap_err().to_string().contains("no messages"));
    let error =
        new("\n\n{{ messages[0].nope.deeper }}").unwrap().render(&[Message::new("user", "x")], &ChatOptions::default());
    assert!(error.unwrap_err().to_string().contains("line 3"));
    let loops = new("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").unwrap();
    assert!(loops.render(&[Message::new("user", "x")], &ChatOptions::default()).is_err());
    let endless = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}";
    let error = new(endless).unwrap().render(&[Message::new("user", "x")], &ChatOptions::default()).unwrap_err();
    assert!(error.to_string().contains("fuel"), "{error}");
    // text of a user is never read as a template
    assert_eq!(plain.render(&[Message::new("user", "{{ 1 }}<&>")], &ChatOptions::default()).unwrap(), "{{ 1 }}<&>");
}

proptest! {
    #[test]
    fn mangled_templates_never_crash(name in 0usize..7, cuts in prop::collection::vec((0usize..4000, 0usize..12), 1..4)) {
        let data = json("chat/cases.json");
        let mut source = data["templates"].as_object().unwrap().values().nth(name).unwrap().as_str().unwrap().to_owned();
        for (at, n) in cuts {
            let at = at % (source.len() + 1);
            let end = (at + n).min(source.len());
            if source.is_char_boundary(at) && source.is_char_boundary(end) {
                source.replace_range(at..end, "");
            }
        }
        if let Ok(template) = ChatTemplate::new(&source, tokens()) {
            let _ = template.render(&messages(&data["chats"]["system_turns"]), &ChatOptions::default());
        }
    }
}
