//! Runs the measured programs (contestants) one after another, and measures each run.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::server::run;

use super::home::Home;
use crate::say;

/// The cost of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// The wall time of the run.
    pub(crate) wall: Duration,
    /// The processor time in seconds, user and system, for the program and every process that it waited for.
    pub(crate) cpu: f64,
    /// The peak memory in bytes of the process that used the most memory, among the program and its descendants.
    pub(crate) peak: u64,
}

/// A program that is measured.
pub(crate) struct Contestant<'a> {
    /// The name in the table.
    pub(crate) name: String,
    /// Prepares the next run, and is not measured. The last step removes the target of the earlier run.
    pub(crate) prepare: Box<dyn Fn() -> Result<()> + 'a>,
    /// The program and its arguments. The program runs as the server's user.
    pub(crate) program: Vec<OsString>,
    /// The path that must exist after a successful run.
    pub(crate) leaves: Option<PathBuf>,
}

/// The costs of one contestant's runs.
pub(crate) struct Runs {
    /// The name of the contestant.
    pub(crate) name: String,
    /// The cost in each round.
    pub(crate) costs: Vec<Cost>,
}

impl Runs {
    /// Returns the median of the wall times in seconds.
    pub(crate) fn wall(&self) -> f64 {
        median(self.costs.iter().map(|cost| cost.wall.as_secs_f64()))
    }

    /// Returns the shortest and the longest wall time in seconds.
    pub(crate) fn spread(&self) -> (f64, f64) {
        let walls = || self.costs.iter().map(|cost| cost.wall.as_secs_f64());
        (walls().fold(f64::INFINITY, f64::min), walls().fold(0.0, f64::max))
    }

    /// Returns the median of the processor times in seconds.
    pub(crate) fn cpu(&self) -> f64 {
        median(self.costs.iter().map(|cost| cost.cpu))
    }

    /// Returns the highest memory peak of all rounds in bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.costs.iter().map(|cost| cost.peak).max().unwrap_or(0)
    }
}

/// Returns the median; the mean of the two middle values if their number is even.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    (sorted[last / 2] + sorted[last.div_ceil(2)]) / 2.0
}

/// Runs every contestant once per round. Every second round has the opposite order, so that other load on the machine affects all
/// contestants alike. Dirty pages are written out before each run. The first round is not counted, because the first access to a page in
/// a virtual machine's memory causes a page fault in its host. For the same reason a contestant's preparation must free memory in its
/// last step: a virtual machine returns memory to its host after the memory was free for a while.
///
/// # Errors
/// Fails with a contestant's output if the contestant fails.
pub(crate) fn race(home: &Home, rounds: u32, contestants: &[Contestant<'_>]) -> Result<Vec<Runs>> {
    let mut runs: Vec<Runs> =
        contestants.iter().map(|one| Runs { name: one.name.clone(), costs: Vec::new() }).collect();
    for round in 0..=rounds {
        let mut order: Vec<usize> = (0..contestants.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let one = &contestants[at];
            // Syncs before and after the preparation, because a removal in the preparation makes pages dirty too.
            run(&mut Command::new("sync"))?;
            (one.prepare)()?;
            run(&mut Command::new("sync"))?;
            let cost = measure(home, &one.program).with_context(|| format!("round of {}", one.name))?;
            if let Some(path) = &one.leaves {
                ensure!(path.exists(), "{} left no {}", one.name, path.display());
            }
            let counts = round > 0;
            say(&format!(
                "{}{}: {:.2} s, {:.2} s of processor, {} MiB",
                if counts { "" } else { "not counted, " },
                one.name,
                cost.wall.as_secs_f64(),
                cost.cpu,
                cost.peak >> 20
            ));
            if counts {
                runs[at].costs.push(cost);
            }
        }
    }
    Ok(runs)
}

/// Runs one program under GNU time, which reports what wait4(2) returns.
fn measure(home: &Home, program: &[OsString]) -> Result<Cost> {
    let counted = home.path("time");
    home.user().write(&counted, "")?;
    let mut command = home.user().command("/usr/bin/time");
    command.args(["--quiet", "--format=%U %S %M", "--output"]).arg(&counted).args(program);
    let begun = Instant::now();
    run(&mut command)?;
    let wall = begun.elapsed();
    let text = std::fs::read_to_string(&counted)?;
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    let [user, system, kibibytes] = numbers[..] else {
        anyhow::bail!("GNU time wrote `{}`", text.trim());
    };
    Ok(Cost { wall, cpu: user + system, peak: kibibytes as u64 * 1024 })
}

#[cfg(test)]
mod unit {
    use super::median;

    #[test]
    fn the_median_of_an_even_number_of_values_is_the_mean_of_the_middle_two() {
        assert!((median([3.0, 1.0, 9.0].into_iter()) - 3.0).abs() < 1e-9);
        assert!((median([4.0, 1.0, 2.0, 9.0].into_iter()) - 3.0).abs() < 1e-9);
        assert!(median(std::iter::empty()).is_nan());
    }
}
