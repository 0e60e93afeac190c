//! The report for a person.

use replica::{Bytes, CapabilityKind};

use super::Report;
use super::sums::{Amounts, CapabilitySums, Entry, Largest, MethodSums};
use crate::render::text::{columns, time};

/// Returns the lines of the report. They may contain characters that must not be printed.
pub(super) fn lines(report: &Report) -> Vec<String> {
    let Report { version, configuration, began, ended, result, methods, incomplete } = report;
    let known = |text: &Option<String>| text.as_deref().unwrap_or("unknown").to_owned();
    let fact = |name: &str, value: String| vec![name.to_owned(), value];
    let mut lines = columns(&[
        fact("configuration", known(configuration)),
        fact("version", known(version)),
        fact("began", known(began)),
        fact("ended", known(ended)),
        fact("result", result.map_or("unknown", |result| result.word()).to_owned()),
    ]);
    if !incomplete.is_empty() {
        lines.extend([String::new(), "incomplete".to_owned()]);
        lines.extend(incomplete.iter().map(|what| format!("  {what}")));
    }
    if methods.is_empty() {
        lines.extend([String::new(), "no method asked anything of the host".to_owned()]);
    }
    for MethodSums { method, capabilities } in methods {
        lines.extend([String::new(), method.clone()]);
        lines.extend(capabilities.iter().flat_map(of_capability));
    }
    lines
}

fn of_capability(sums: &CapabilitySums) -> Vec<String> {
    let CapabilitySums { capability, allowed, failed, denied, objects, denials } = sums;
    let name = capability.map_or("no capability needed", CapabilityKind::word);
    let failed: Vec<_> = failed.iter().map(|(answer, calls)| format!("{calls} {answer}")).collect();
    let failed = if failed.is_empty() { String::new() } else { format!(" ({})", failed.join(", ")) };
    let Amounts { calls, bytes_read, bytes_written, duration } = *allowed;
    let amounts = match calls {
        0 => String::new(),
        _ => format!("; read {}, wrote {}, in {}", Bytes(bytes_read), Bytes(bytes_written), time(duration)),
    };
    let mut lines =
        vec![format!("  {name}: {} allowed{failed}, {denied} denied{amounts}", count(calls, "call"))];
    lines.extend(list("allowed", objects, |Amounts { calls, bytes_read, bytes_written, duration }| {
        vec![
            count(calls, "call"),
            format!("read {}", Bytes(bytes_read)),
            format!("wrote {}", Bytes(bytes_written)),
            time(duration),
        ]
    }));
    lines.extend(list("denied", denials, |amounts| vec![count(amounts.calls, "call")]));
    lines
}

/// Returns a list of entries as lines: the amounts in columns, then what was asked for.
fn list(title: &str, largest: &Largest, cells: impl Fn(Amounts) -> Vec<String>) -> Vec<String> {
    let row = |Entry { asked, amounts }: &Entry| {
        let mut row = cells(*amounts);
        row[0].insert_str(0, "      ");
        row.push(format!("{} {}", asked.function, asked.object).trim_end().to_owned());
        row
    };
    let rows: Vec<_> = largest.entries.iter().map(row).collect();
    let mut lines = columns(&rows);
    match largest.left_out {
        0 => {}
        more => lines.push(format!("      and {more} more")),
    }
    if !lines.is_empty() {
        lines.insert(0, format!("    {title}"));
    }
    lines
}

/// Formats a count with its noun: `1 call`, `2 calls`.
fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
