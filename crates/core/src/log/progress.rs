//! A progress bar with loss, items/s and ETA for a person, a plain line now and then for a log.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::console::Console;

/// How often a line is written where no bar can be drawn.
const PLAIN_EVERY: Duration = Duration::from_secs(30);

/// The progress of one loop over `len` items; dropping it clears the bar.
pub struct Progress {
    console: Console,
    bar: Option<ProgressBar>,
    unit: &'static str,
    len: u64,
    state: Mutex<State>,
}

struct State {
    done: u64,
    /// Items done before this process: they count for the position, not for the speed.
    skipped: u64,
    loss: Option<f64>,
    message: String,
    started: Instant,
    told: Instant,
}

impl Progress {
    pub(crate) fn new(console: Console, len: u64, unit: &'static str) -> Self {
        let bar = Console::is_live().then(|| {
            let bar = console.add(ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::stderr_with_hz(10)));
            let template = "{bar:30} {human_pos}/{human_len} {prefix}  {rate:>9}  ETA {eta}  {msg}";
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.with_key("rate", |state: &ProgressState, text: &mut dyn std::fmt::Write| {
                let _ = write!(text, "{:.1}/s", state.per_sec());
            }));
            bar.set_prefix(unit);
            bar
        });
        let now = Instant::now();
        let state = State { done: 0, skipped: 0, loss: None, message: String::new(), started: now, told: now };
        Self { console, bar, unit, len, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `n` items were done before this process started.
    pub fn skip(&self, n: u64) {
        let mut state = self.state();
        state.done += n;
        state.skipped += n;
        if let Some(bar) = &self.bar {
            bar.set_position(state.done);
            bar.reset_eta();
        }
    }

    /// `n` more items are done.
    pub fn inc(&self, n: u64) {
        let mut state = self.state();
        state.done += n;
        match &self.bar {
            Some(bar) => bar.set_position(state.done),
            None if state.told.elapsed() >= PLAIN_EVERY => {
                state.told = Instant::now();
                self.console.passing(&self.line(&state));
            }
            None => {}
        }
    }

    /// The loss to show.
    pub fn loss(&self, loss: f64) {
        self.state().loss = Some(loss);
        self.show();
    }

    /// Other text to show, such as the best validation metric.
    pub fn message(&self, text: &str) {
        text.clone_into(&mut self.state().message);
        self.show();
    }

    fn show(&self) {
        if let Some(bar) = &self.bar {
            bar.set_message(text(&self.state()));
        }
    }

    /// Items per second since the start of this process.
    pub fn rate(&self) -> f64 {
        rate(&self.state())
    }

    /// `320/1000 rows (32 %), 45.2 rows/s, ETA 15 s, loss 0.6312`.
    fn line(&self, state: &State) -> String {
        let rate = rate(state);
        let percent = 100.0 * state.done as f64 / self.len.max(1) as f64;
        let left = self.len.saturating_sub(state.done) as f64 / rate.max(1e-9);
        let text = text(state);
        let comma = if text.is_empty() { "" } else { ", " };
        let unit = self.unit;
        format!("{}/{} {unit} ({percent:.0} %), {rate:.1} {unit}/s, ETA {left:.0} s{comma}{text}", state.done, self.len)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn rate(state: &State) -> f64 {
    (state.done - state.skipped) as f64 / state.started.elapsed().as_secs_f64().max(1e-9)
}

fn text(state: &State) -> String {
    let loss = state.loss.map(|loss| format!("loss {loss:.4}"));
    loss.into_iter().chain((!state.message.is_empty()).then(|| state.message.clone())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_says_everything() {
        let progress = Progress::new(Console::default(), 1000, "rows");
        progress.skip(300);
        progress.loss(0.63118);
        progress.message("valid ndcg@10 0.12");
        let mut state = progress.state();
        state.done += 20;
        state.started = Instant::now() - Duration::from_secs(10);
        let line = progress.line(&state);
        assert!(line.starts_with("320/1000 rows (32 %), 2.0 rows/s, ETA 34"), "{line}");
        assert!(line.ends_with(" s, loss 0.6312, valid ndcg@10 0.12"), "{line}");
    }
}
