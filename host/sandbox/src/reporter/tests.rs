//! Tests the bounds on what a run reports.

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use replica::CapabilityKind;
use replica::process::Stream;

fn reporter() -> (Reporter, UnboundedReceiver<Event>) {
    let (events, reported) = unbounded_channel();
    (Reporter::new("m", events), reported)
}

fn drain(mut reported: UnboundedReceiver<Event>) -> Vec<Event> {
    std::iter::from_fn(|| reported.try_recv().ok()).collect()
}

#[test]
fn a_flood_of_log_lines_ends_in_one_warning() {
    let (reporter, reported) = reporter();
    for number in 0..LogBudget::default().lines + 50 {
        let origin = if number % 2 == 0 { "plugin" } else { "stdout" };
        reporter.component_line(Level::Info, origin, "x", Vec::new());
    }
    let reported = drain(reported);
    assert_eq!(reported.len() as u64, LogBudget::default().lines + 1);
    assert!(
        matches!(reported.last(), Some(Event::Log { origin, level: Level::Warn, .. }) if origin == "host")
    );
}

#[test]
fn long_log_lines_are_cut_and_their_sum_is_bounded() {
    let (reporter, reported) = reporter();
    let line = "x".repeat(1 << 20);
    for _ in 0..3000 {
        reporter.log(Level::Info, &line, Vec::new());
    }
    let reported = drain(reported);
    assert!(reported.len() as u64 <= LogBudget::default().bytes.0 / LINE_CHARACTERS as u64 + 1);
    for event in reported {
        let Event::Log { message, .. } = event else { panic!("{event:?}") };
        assert!(message.chars().count() <= LINE_CHARACTERS + 1);
    }
}

#[test]
fn a_secret_is_removed_from_every_text_before_it_is_cut() {
    let (reporter, reported) = reporter();
    let redactor = Redactor::new();
    redactor.add(&foundation::secret::Secret::new("sw0rdfish-of-the-sea")).unwrap();
    let reporter = reporter.redacting(redactor);
    let across = |limit: usize| format!("{} sw0rdfish-of-the-sea", "x".repeat(limit - 8));
    let field = (across(FIELD_NAME), across(FIELD_VALUE));
    reporter.log(Level::Info, &across(LINE_CHARACTERS), vec![field]);
    reporter.component_line(Level::Info, "stdout", &across(LINE_CHARACTERS), Vec::new());
    reporter.host(Level::Info, &across(LINE_CHARACTERS));
    reporter.phase(&across(PHASE_CHARACTERS));
    let what = across(DENIAL_CHARACTERS);
    reporter.denied(Denial { capability: CapabilityKind::Read, what, remedy: None });
    let [store, about, cause] = [(); 3].map(|()| across(RETRY_CHARACTERS));
    reporter.retrying(Notice { store, about, attempt: 1, cause, next_try_in: None });
    for number in [LINE_CHARACTERS, LINE_CHARACTERS + 1] {
        let bytes = across(number).into_bytes();
        let line = Line { stream: Stream::Output, text: String::new(), bytes, is_whole: true };
        reporter.program("tool", &line);
    }
    let reported = drain(reported);
    assert_eq!(reported.len(), 8);
    for event in reported {
        assert!(!format!("{event:?}").contains("sw0"), "{event:?}");
    }
}

#[test]
fn the_log_budget_includes_what_earlier_calls_of_the_attempt_logged() {
    let (reporter, reported) = reporter();
    let budget = LogBudget { bytes: Bytes(10), lines: 5 };
    let reporter = reporter.within(budget, Logged { lines: 3, bytes: 1 });
    reporter.log(Level::Info, "four", vec![("a".to_owned(), "b".to_owned())]);
    assert_eq!(reporter.logged(), Logged { lines: 4, bytes: 7 });
    reporter.log(Level::Info, "five", Vec::new());
    reporter.log(Level::Info, "5", Vec::new());
    let reported = drain(reported);
    let Some(Event::Log { message, origin, .. }) = reported.last() else { panic!("{reported:?}") };
    assert_eq!((reported.len(), origin.as_str()), (2, "host"));
    assert!(message.contains("5 lines or 10 B (`log` in its grants)"), "{message}");
}

#[test]
fn the_same_denial_is_reported_once_and_the_number_of_denials_is_bounded() {
    let (reporter, reported) = reporter();
    for number in 0..2 * DENIALS {
        let denial = Denial { capability: CapabilityKind::Read, what: format!("/{number}"), remedy: None };
        reporter.denied(denial.clone());
        reporter.denied(denial);
    }
    assert_eq!(drain(reported).len(), DENIALS + 1);
    assert_eq!(reporter.denials().len(), DENIALS);
    assert_eq!(reporter.denied_calls(), 4 * DENIALS as u64);
}

#[test]
fn the_first_retry_of_a_store_is_reported_at_once_and_later_ones_are_throttled() {
    let (reporter, reported) = reporter();
    for number in 0..10_000 {
        for store in ["s3://one", "s3://two"] {
            reporter.retrying(Notice {
                store: store.to_owned(),
                about: number.to_string(),
                attempt: 1,
                cause: "x".repeat(2 * RETRY_CHARACTERS),
                next_try_in: None,
            });
        }
    }
    let reported = drain(reported);
    assert!((2..100).contains(&reported.len()), "{}", reported.len());
    for event in &reported {
        let Event::Retrying { cause, .. } = event else { panic!("{event:?}") };
        assert!(cause.chars().count() <= RETRY_CHARACTERS + 1);
    }
}

#[test]
fn progress_is_summed_and_throttled_and_its_last_state_is_reported() {
    let (reporter, reported) = reporter();
    for _ in 0..100_000 {
        reporter.done(3, 1);
    }
    reporter.flush();
    reporter.flush();
    let reported = drain(reported);
    assert!(reported.len() < 1000, "{}", reported.len());
    assert!(matches!(reported.last(), Some(Event::Progress { bytes: 300_000, files: 100_000, .. })));
}

#[test]
fn phases_are_bounded_and_a_repeated_one_is_reported_once() {
    let (reporter, reported) = reporter();
    reporter.phase("same");
    reporter.phase("same");
    for number in 0..2 * PHASES {
        reporter.phase(&number.to_string());
    }
    let reported = drain(reported);
    assert_eq!(reported.len(), PHASES as usize + 1);
    assert!(matches!(reported.last(), Some(Event::Log { level: Level::Warn, .. })));
}
