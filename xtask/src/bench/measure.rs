//! Runs what is compared, one after another, and says what each run cost.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::server::run;

use super::home::Home;
use crate::say;

/// What one run cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// From its start to its end.
    pub(crate) wall: Duration,
    /// Seconds of processor, user's and system's, of it and of every process that it waited for.
    pub(crate) cpu: f64,
    /// The most memory in bytes that one process of its tree held at once.
    pub(crate) peak: u64,
}

/// One way to do the work.
pub(crate) struct Contestant<'a> {
    /// What the table calls it.
    pub(crate) name: String,
    /// What its next run starts from; not measured. A target of an earlier run is removed last.
    pub(crate) prepare: Box<dyn Fn() -> Result<()> + 'a>,
    /// The program with its arguments, run as the server's user.
    pub(crate) program: Vec<OsString>,
    /// What must be there when it has ended well.
    pub(crate) leaves: Option<PathBuf>,
}

/// What the runs of one contestant cost.
pub(crate) struct Runs {
    /// As in [`Contestant`].
    pub(crate) name: String,
    /// One a round.
    pub(crate) costs: Vec<Cost>,
}

impl Runs {
    /// The median of the wall times in seconds.
    pub(crate) fn wall(&self) -> f64 {
        median(self.costs.iter().map(|cost| cost.wall.as_secs_f64()))
    }

    /// The shortest and the longest wall time in seconds.
    pub(crate) fn spread(&self) -> (f64, f64) {
        let walls = || self.costs.iter().map(|cost| cost.wall.as_secs_f64());
        (walls().fold(f64::INFINITY, f64::min), walls().fold(0.0, f64::max))
    }

    /// The median of the seconds of processor.
    pub(crate) fn cpu(&self) -> f64 {
        median(self.costs.iter().map(|cost| cost.cpu))
    }

    /// The highest peak of all rounds in bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.costs.iter().map(|cost| cost.peak).max().unwrap_or(0)
    }
}

/// The one in the middle, or the mean of the two there.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    (sorted[last / 2] + sorted[last.div_ceil(2)]) / 2.0
}

/// Runs every contestant once a round, every second round in the opposite order, so that what the machine does besides meets
/// all of them alike. Before each run what is dirty is written out. A round before the first is not counted: memory that a
/// virtual machine touches for the first time costs its host a fault a page, whoever comes first to it. For the same reason
/// what a contestant prepares must end with what frees memory: what is free for a while is given back to the host.
///
/// # Errors
/// Where one of them fails, with what it printed.
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
            // Twice, so that little is left to do after a removal.
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

/// Runs one program under GNU time, which counts as wait4(2) does.
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
    fn the_median_is_the_middle_of_an_odd_number_and_the_mean_of_the_middle_of_an_even_one() {
        assert!((median([3.0, 1.0, 9.0].into_iter()) - 3.0).abs() < 1e-9);
        assert!((median([4.0, 1.0, 2.0, 9.0].into_iter()) - 3.0).abs() < 1e-9);
        assert!(median(std::iter::empty()).is_nan());
    }
}
