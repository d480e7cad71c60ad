//! `run-lm chat`.

use std::{
    io::{BufRead as _, IsTerminal as _},
    ops::ControlFlow,
};

use anyo_core::{Error, Result};
use anyo_lm::{
    Pass,
    chat::{ChatOptions, Message},
    generate::{Prompt, generate},
};

use super::{ChatConfig, generate::with_stops, note, print};

pub(super) fn run(config: ChatConfig) -> Result<()> {
    let loaded = config.load()?;
    let template = loaded.tokenizer.chat_template(None)?;
    let sampling = with_stops(&config.sampling, &loaded.tokenizer);
    let mut messages: Vec<Message> = config.system.iter().map(|text| Message::new("system", text)).collect();
    let stdin = std::io::stdin();
    let asks = stdin.is_terminal();
    if asks {
        note("an empty line ends the chat");
    }
    let mut lines = stdin.lock().lines();
    loop {
        if asks {
            print("> ");
        }
        let Some(line) = lines.next() else { return Ok(()) };
        let line = line.map_err(Error::io("stdin", "read the next turn"))?;
        if line.trim().is_empty() {
            return Ok(());
        }
        messages.push(Message::new("user", line));
        let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
        let prompt = Prompt::chat(&loaded.tokenizer, &template.render(&messages, &options)?)?;
        let answer =
            generate(&loaded.model, &loaded.tokenizer, &[prompt], &sampling, &Pass::default(), &mut |_, piece| {
                print(piece);
                ControlFlow::Continue(())
            })?;
        print("\n");
        messages.extend(answer.into_iter().map(|answer| Message::new("assistant", answer.text)));
    }
}
