//! Progress as a bar on a terminal: method, phase, bytes, rate, time left.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use replica::EventSink;
use replica::event::Event;

use super::text::{cut, printable};
use super::{Terminal, step_description};

/// The template if the total is known.
const MEASURED: &str = "{prefix:.bold} {wide_msg} {bar:24} {percent:>3}% {binary_bytes:>11}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left";
/// The template if the total is not known.
const UNMEASURED: &str =
    "{prefix:.bold} {spinner} {wide_msg} {binary_bytes} {binary_bytes_per_sec} {elapsed}";
/// The template while no bytes are moved.
const WAITING: &str = "{prefix:.bold} {spinner} {wide_msg} {elapsed}";
/// The time between two steps of the spinner.
const TICK: Duration = Duration::from_millis(120);
/// How many characters of a method's name are shown.
const NAME_LIMIT: usize = 24;
/// How many characters of a phase's name are shown.
const PHASE_LIMIT: usize = 60;

/// Shows the progress of the current attempt as a bar.
pub(super) struct Bar {
    terminal: Terminal,
    current: Mutex<Option<Current>>,
}

struct Current {
    bar: ProgressBar,
    style: &'static str,
}

impl Bar {
    pub(super) fn new(terminal: &Terminal) -> Self {
        terminal.bars().set_draw_target(ProgressDrawTarget::stderr());
        Self { terminal: terminal.clone(), current: Mutex::new(None) }
    }
}

impl EventSink for Bar {
    fn emit(&self, event: Event) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::AttemptStarted { method } => {
                // The spinner starts a thread, and no thread may exist before the process has dropped root. The process drops root before
                // the first event.
                let bar = self.terminal.bars().add(ProgressBar::no_length());
                bar.set_prefix(cut(&printable(&method), NAME_LIMIT).into_owned());
                bar.enable_steady_tick(TICK);
                let mut started = Current { bar: bar.with_finish(ProgressFinish::AndClear), style: "" };
                started.set_template(WAITING);
                *current = Some(started);
            }
            Event::AttemptEnded { .. } | Event::RunEnded { .. } => {
                if let Some(ended) = current.take() {
                    ended.bar.finish_and_clear();
                    self.terminal.bars().remove(&ended.bar);
                }
            }
            event => {
                if let Some(current) = current.as_mut() {
                    current.show(&event);
                }
            }
        }
    }
}

impl Current {
    fn show(&mut self, event: &Event) {
        match event {
            Event::Step { step, .. } => {
                self.bar.set_message(step_description(*step));
                self.set_template(WAITING);
            }
            Event::Phase { name, .. } => {
                self.bar.set_message(cut(&printable(name), PHASE_LIMIT).into_owned())
            }
            Event::Progress { bytes, bytes_expected, .. } => {
                match bytes_expected {
                    Some(expected) => {
                        // A method may move more bytes than it expected.
                        self.bar.set_length((*expected).max(*bytes));
                        self.set_template(MEASURED);
                    }
                    None => {
                        self.bar.unset_length();
                        self.set_template(UNMEASURED);
                    }
                }
                self.bar.set_position(*bytes);
            }
            _ => {}
        }
    }

    fn set_template(&mut self, template: &'static str) {
        if self.style == template {
            return;
        }
        if self.style == WAITING {
            // The rate does not include the time before the first byte.
            self.bar.reset_eta();
        }
        self.style = template;
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
    }
}

#[cfg(test)]
mod tests {
    use indicatif::{InMemoryTerm, TermLike};

    use super::super::terminal::tests::Captured;
    use super::*;

    fn on_a_terminal() -> (Bar, InMemoryTerm) {
        let screen = InMemoryTerm::new(10, 120);
        let terminal = Terminal::to(Captured::default());
        let bar = Bar::new(&terminal);
        terminal.bars().set_draw_target(ProgressDrawTarget::term_like(Box::new(screen.clone())));
        (bar, screen)
    }

    #[test]
    fn every_template_is_valid() {
        for template in [MEASURED, UNMEASURED, WAITING] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn the_bar_shows_method_phase_bytes_and_total_and_disappears_at_the_end() {
        let (bar, screen) = on_a_terminal();
        assert_eq!(screen.width(), 120);
        let method = || "tarball".to_owned();
        bar.emit(Event::AttemptStarted { method: method() });
        bar.emit(Event::Phase { method: method(), name: "base\u{1b}[2J".to_owned() });
        bar.emit(Event::Progress {
            method: method(),
            bytes: 512 << 20,
            bytes_expected: Some(1 << 30),
            files: 0,
            files_expected: None,
        });
        bar.current.lock().unwrap().as_ref().unwrap().bar.force_draw();
        let shown = screen.contents();
        for part in ["tarball", "base\\u{1b}[2J", "50%", "512.00 MiB/1.00 GiB", "left"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        bar.emit(Event::RunEnded { result: replica::RunResult::Created, message: None });
        assert_eq!(screen.contents(), "");
    }
}
