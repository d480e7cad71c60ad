//! What was dropped, shortened or changed on the way from rows to prompts, for a run's log.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use serde::Serialize;

use crate::titles::TitleReport;

/// Counters that grow while prompts are made.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) choice: AtomicU64,
    pub(crate) open: AtomicU64,
    pub(crate) empty_history: AtomicU64,
    pub(crate) windowed: AtomicU64,
    pub(crate) outside_window: AtomicU64,
    pub(crate) shortened: AtomicU64,
    pub(crate) left_out: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: usize) {
        counter.fetch_add(n as u64, Relaxed);
    }

    pub(crate) fn read(&self) -> PromptCounts {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        PromptCounts {
            choice: get(&self.choice),
            open: get(&self.open),
            empty_history: get(&self.empty_history),
            windowed: get(&self.windowed),
            outside_window: get(&self.outside_window),
            shortened: get(&self.shortened),
            left_out: get(&self.left_out),
        }
    }
}

/// Prompts made so far. A row that is asked several times counts each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct PromptCounts {
    /// Prompts with candidates.
    pub choice: u64,
    /// Prompts without.
    pub open: u64,
    /// Prompts whose history has no item.
    pub empty_history: u64,
    /// Prompts whose history is longer than the window.
    pub windowed: u64,
    /// History items outside the window.
    pub outside_window: u64,
    /// Prompts that lost further items because the context is too short.
    pub shortened: u64,
    /// These items.
    pub left_out: u64,
}

/// Everything counted, in sentences for a person ([`fmt::Display`]) and as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PromptSummary {
    /// The catalogue's titles.
    pub titles: TitleReport,
    /// The prompts.
    pub prompts: PromptCounts,
    /// Tokens that prompt and answer may have together.
    pub context: usize,
    /// Tokens kept free for the longest answer.
    pub answer_reserve: usize,
}

impl fmt::Display for PromptSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = &self.prompts;
        writeln!(f, "{}", self.titles)?;
        write!(
            f,
            "prompts: {} with candidates, {} without; {} with an empty history; {} longer than the window ({} items \
             outside); {} shortened to fit {} tokens with {} for the answer ({} oldest items left out)",
            p.choice,
            p.open,
            p.empty_history,
            p.windowed,
            p.outside_window,
            p.shortened,
            self.context,
            self.answer_reserve,
            p.left_out
        )
    }
}
