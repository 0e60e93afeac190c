//! Compares Patroni's own `Bootstrap.create_replica` with this project's loop in random cases: which methods ran, in which order, with
//! which parameters, which files were removed when, and how the run ended. Only the differences that the table of rules lists are allowed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    clippy::print_stdout,
    reason = "the counts of the differences are for the reader of the test's output"
)]

mod case;
mod judge;
mod native;
mod trace;
mod understudy;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use case::Case;
use judge::Difference;
use native::StubPrograms;
use replica::Source;
use replica::create_replica::BASEBACKUP;
use replica::source::{Conninfo, SourceConfig};
use tempfile::TempDir;
use tests::patroni::Driver;
use tests::program::fast_or_full;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use understudy::Basebackup;

/// Returns the number of cases.
fn cases() -> u64 {
    fast_or_full(4000, 40_000).into()
}
/// The number of cases with the real basebackup. Each try of the real basebackup is a process with a guard.
const CASES_OF_BASEBACKUP: u64 = 300;
/// The number of Patroni drivers that work at the same time.
const WORKERS: u64 = 2;
/// The seed of the random cases, so that they are the same every time.
const SEED: u64 = 0x00DE_2517;

/// The number of cases without a difference, and the number of cases with each difference.
#[derive(Default)]
struct Tally {
    equal: u64,
    different: BTreeMap<Difference, u64>,
}

/// A Patroni driver and a scratch directory for this project's loop, in memory if the machine has /dev/shm.
struct Bench {
    scratch: TempDir,
    stubs: StubPrograms,
    patroni: Driver,
    runtime: Runtime,
}

impl Bench {
    fn new() -> Self {
        let in_memory = Path::new("/dev/shm");
        let parent = if in_memory.is_dir() { in_memory.to_owned() } else { std::env::temp_dir() };
        let scratch = tempfile::tempdir_in(parent).unwrap();
        let stubs = StubPrograms::new(scratch.path().join("bin"), understudy::CLUSTER);
        let patroni = Driver::start(scratch.path(), stubs.bin_dir()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { scratch, stubs, patroni, runtime }
    }

    fn try_case(&mut self, number: u64, case: &Case, how: Basebackup, tally: &mut Tally) {
        let ours = self.runtime.block_on(understudy::run(case, self.scratch.path(), &self.stubs, how));
        let differences = judge::judge(case, &ours, &mut self.patroni)
            .unwrap_or_else(|error| panic!("case {number}: {error:#}\n{case:#?}"));
        tally.equal += u64::from(differences.is_empty());
        for difference in differences {
            *tally.different.entry(difference).or_default() += 1;
        }
    }
}

/// Tries the cases with these numbers that `fits` accepts, until `enough` cases were tried.
fn try_cases(numbers: &Range<u64>, enough: u64, how: Basebackup, fits: fn(&Case) -> bool) -> Tally {
    let work = |worker: u64| {
        let (mut bench, mut tally) = (Bench::new(), Tally::default());
        let cases = numbers
            .clone()
            .filter(|number| number % WORKERS == worker)
            .map(|number| (number, case::generate(&mut fastrand::Rng::with_seed(SEED + number))))
            .filter(|(_, case)| fits(case))
            .take(usize::try_from(enough / WORKERS).unwrap());
        for (number, case) in cases {
            bench.try_case(number, &case, how, &mut tally);
        }
        tally
    };
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(move || work(worker))).collect();
        for worker in workers {
            let part = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            tally.equal += part.equal;
            for (difference, count) in part.different {
                *tally.different.entry(difference).or_default() += count;
            }
        }
    });
    println!("{enough} cases, {how:?} basebackup: {} equal in everything", tally.equal);
    for difference in Difference::ALL {
        println!("{:>6} {difference:?}", tally.different.get(&difference).copied().unwrap_or_default());
    }
    tally
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_loop_decides_as_patroni_except_for_the_listed_differences() {
    let tally = try_cases(&(0..cases()), cases(), Basebackup::Scripted, |_| true);
    assert!(tally.equal > cases() / 10, "too few cases without any difference prove anything");
    for difference in Difference::ALL {
        assert!(tally.different.contains_key(&difference), "no case shows {difference:?}");
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_real_basebackup_tries_and_wipes_as_patroni_except_for_the_listed_differences() {
    let runs_it = |case: &Case| {
        let listed = case.remote.as_ref().unwrap_or(&case.local);
        case.source && (case.from_leader || listed.iter().any(|(_, name)| name == BASEBACKUP))
    };
    let tally = try_cases(&(cases()..u64::MAX), CASES_OF_BASEBACKUP, Basebackup::Real, runs_it);
    assert!(tally.equal > CASES_OF_BASEBACKUP / 10, "too few cases without any difference prove anything");
    assert!(tally.different.contains_key(&Difference::CancelledBasebackupRemoved));
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_03_the_passfile_of_a_run_has_the_same_content_as_patronis() {
    let mut bench = Bench::new();
    let listed = |chance: &mut fastrand::Rng| Case {
        local: vec![(0, "method_a".to_owned())],
        remote: None,
        source: true,
        from_leader: false,
        cancel_before: false,
        ..case::generate(chance)
    };
    let answer: trace::Answer = bench.patroni.run(&listed(&mut fastrand::Rng::with_seed(SEED))).unwrap();
    let theirs = answer.calls().next().unwrap().passfile.clone().unwrap();

    let conninfo = r"dbname=postgres user=replicator host=10.0.0.1 port=5432 password=a:b\\c";
    let config =
        SourceConfig { conninfo: Conninfo::parse(conninfo).unwrap(), password: None, passfile: None };
    let (private, cancel) = (bench.scratch.path().join("run"), CancellationToken::new());
    // The stubs include no psql, so the source is not queried.
    let source = Source::connect(&config, bench.stubs.bin_dir(), &private, &cancel);
    let source = bench.runtime.block_on(source).unwrap();
    assert_eq!(std::fs::read_to_string(source.passfile().unwrap()).unwrap(), theirs);
    assert_eq!(source.connstring, understudy::CONNSTRING);
}
