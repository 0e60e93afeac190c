//! Writes BENCHMARKS.md, which has a section for each measurement and a part that people write. A new result replaces the section of
//! its measurement.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use tests::program::project;

use super::measure::Runs;
use super::{TargetMedium, What};

/// The initial content of the page.
const FIRST: &str = "\
# Benchmarks

This page compares the cost of creating a replica with that of the usual tools for the same work on the same backup in the same run.
`cargo xtask bench` repeats all measurements. `cargo xtask bench tarball sizes` repeats only these two parts. `--quick` counts one round
with little data and only prints the results.

<!-- by hand: what did not help -->
## What did not help

Nothing was tried yet.
<!-- end by hand -->
";

/// The mark at the beginning of the part that people write. New sections are inserted before the mark.
const BY_HAND: &str = "<!-- by hand: what did not help -->";

fn path() -> PathBuf {
    project().join("BENCHMARKS.md")
}

/// Returns the name of a section. A measurement that is made only on disk has a separate section.
pub(crate) fn name(what: What, target: Option<TargetMedium>) -> String {
    let on_disk = if target == Some(TargetMedium::Disk) { " on disk" } else { "" };
    format!("{}{on_disk}", what.name())
}

/// Writes a section into the page. Replaces the section with the same name, or inserts the section at its position in the order of
/// [`What::ALL`]. Removes the section `replaces`, which has results from an earlier run.
pub(crate) fn write(name: &str, section: &str, replaces: Option<&str>) -> Result<()> {
    let page = match std::fs::read_to_string(path()) {
        Ok(page) => page,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => FIRST.to_owned(),
        Err(error) => return Err(error).context("BENCHMARKS.md cannot be read"),
    };
    let page = with_section(&page, name, section)?;
    let page = replaces.map_or(Ok(page.clone()), |other| without_section(&page, other))?;
    std::fs::write(path(), page).context("BENCHMARKS.md cannot be written")
}

/// Returns the byte range that the section with this name has in the page.
fn range_of(page: &str, name: &str) -> Result<Option<Range<usize>>> {
    let (begin, end) = (format!("<!-- measured: {name} -->"), format!("<!-- end of {name} -->"));
    let Some(from) = page.find(&begin) else { return Ok(None) };
    let length = page[from..].find(&end).with_context(|| format!("BENCHMARKS.md has no `{end}`"))?;
    Ok(Some(from..from + length + end.len()))
}

/// Returns the page without the section with this name.
fn without_section(page: &str, name: &str) -> Result<String> {
    let Some(range) = range_of(page, name)? else { return Ok(page.to_owned()) };
    Ok(format!("{}{}", &page[..range.start], page[range.end..].trim_start_matches('\n')))
}

/// Returns the page with this section added or replaced. All other text stays unchanged.
fn with_section(page: &str, name: &str, section: &str) -> Result<String> {
    let section = format!("<!-- measured: {name} -->\n{}\n<!-- end of {name} -->", section.trim());
    if let Some(range) = range_of(page, name)? {
        return Ok(format!("{}{section}{}", &page[..range.start], &page[range.end..]));
    }
    // Sections are in the order of the list, regardless of the order in which they are measured.
    let later = What::ALL
        .iter()
        .flat_map(|what| [None, Some(TargetMedium::Disk)].map(|target| self::name(*what, target)))
        .skip_while(|other| other != name)
        .skip(1)
        .find_map(|other| page.find(&format!("<!-- measured: {other} -->")));
    let at =
        later.or_else(|| page.find(BY_HAND)).with_context(|| format!("BENCHMARKS.md has no `{BY_HAND}`"))?;
    Ok(format!("{}{section}\n\n{}", &page[..at], &page[at..]))
}

/// Adds a row for each contestant to the table. Ratios are relative to `against`, an index of `runs`.
pub(crate) fn rows(table: &mut String, first: &str, runs: &[Runs], against: usize) {
    for (at, one) in runs.iter().enumerate() {
        let (shortest, longest) = one.spread();
        let ratio = |of: fn(&Runs) -> f64| {
            if at == against { "1".to_owned() } else { format!("{:.2}", of(one) / of(&runs[against])) }
        };
        let _ = writeln!(
            table,
            "| {first} | {} | {:.2} | {shortest:.2} to {longest:.2} | {} | {:.2} | {} | {} |",
            one.name,
            one.wall(),
            ratio(Runs::wall),
            one.cpu(),
            ratio(Runs::cpu),
            mebibytes(one.peak()),
        );
    }
}

/// Returns the head of the table that [`rows`] fills.
pub(crate) fn head(first: &str) -> String {
    format!(
        "| {first} | | wall, s | shortest to longest | ratio | processor, s | ratio | peak, MiB |\n|---|---|--:|---|--:|--:|--:|--:|\n"
    )
}

/// Formats a number of bytes in MiB, for a table.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.0}", bytes as f64 / f64::from(1 << 20))
}

/// Returns a sentence that says whether a ratio is as small as wanted. `what` names the ratio.
pub(crate) fn wanted(what: &str, is: f64, at_most: f64) -> String {
    let met = if is <= at_most { "met" } else { "**not met**" };
    format!("{what} is {is:.2}, and at most {at_most} is wanted: {met}.\n")
}

/// Returns a sentence that says whether the peak of the program's memory, in bytes, is as small as wanted.
pub(crate) fn peak(is: u64, at_most: u64) -> String {
    let met = if is <= at_most { "met" } else { "**not met**" };
    format!(
        "- The peak of understudy's memory is {} MiB, and at most {} MiB is wanted: {met}.\n",
        mebibytes(is),
        mebibytes(at_most)
    )
}

/// Returns a paragraph with the date, the machine and the versions.
pub(crate) fn machine(rounds: u32) -> Result<String> {
    let first_line = |program: &str, argument: &str| -> Result<String> {
        let output = Command::new(program)
            .arg(argument)
            .output()
            .with_context(|| format!("{program} does not run"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let text =
            if text.trim().is_empty() { String::from_utf8_lossy(&output.stderr).into_owned() } else { text };
        Ok(text
            .lines()
            .find(|line| !line.trim().is_empty())
            .unwrap_or_default()
            .trim()
            .trim_matches('*')
            .trim()
            .to_owned())
    };
    let processors = std::fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown", |(_, model)| model.trim());
    let count = std::thread::available_parallelism()?;
    let memory = std::fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let kibibytes: u64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
        .unwrap_or(0);
    let load = std::fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    let load = load.split_whitespace().nth(1).unwrap_or("?").to_owned();
    let mut versions = vec![first_line(&format!("{}/postgres", crate::setup::BIN_DIR), "--version")?];
    for program in ["tar", "zstd", "gzip", "lz4", "rsync", "rustc"] {
        versions.push(first_line(program, "--version")?);
    }
    versions.push(first_line("pgbackrest", "version")?);
    Ok(format!(
        "{date}; {model}, {count} processors, {memory} GiB; Linux {kernel}; {versions}. Times are medians of {rounds} rounds, and a peak is the highest of \
         these rounds; a first round is not counted. The machine's load of the last five minutes was {load} at the end; what else runs \
         on it, and the processor's frequency, are not controlled, so the compared programs run in turn, and the ratios say more than \
         the times.\n",
        date = first_line("date", "--iso-8601")?,
        memory = (kibibytes + (1 << 19)) >> 20,
        kernel = first_line("uname", "-r")?,
        versions = versions.join(", "),
    ))
}

#[cfg(test)]
mod unit {
    use super::{FIRST, with_section, without_section};

    #[test]
    fn a_section_is_replaced_and_the_part_that_people_write_stays() {
        let page = with_section(FIRST, "sizes", "old").unwrap();
        let page = page.replace("Nothing was tried yet.", "Fibres.");
        let page = with_section(&page, "tarball", "first").unwrap();
        let page = with_section(&page, "sizes", "new").unwrap();
        let page = with_section(&page, "tarball on disk", "second").unwrap();
        assert!(page.contains("Fibres.") && page.contains("new") && !page.contains("old"), "{page}");
        let places = ["first", "second", "new", "Fibres."].map(|text| page.find(text));
        assert!(places.is_sorted(), "{page}");
        assert_eq!(page.matches("<!-- measured: sizes -->").count(), 1);
        let less = without_section(&page, "tarball on disk").unwrap();
        assert!(!less.contains("second") && less.contains("first") && less.contains("new"), "{less}");
        assert_eq!(without_section(&less, "tarball on disk").unwrap(), less);
    }
}
