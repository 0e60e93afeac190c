//! Checks what the server needs of the machine to start: memory and huge pages for its shared buffers (`CreateAnonymousSegment` in
//! `sysv_shmem.c`), and io_uring. Reports only what is certainly not enough: the server needs more than its buffers, and what is free now
//! may be in use later.

use std::fs;
use std::path::Path;

use super::super::problem::Problem;
use super::Verdicts;
use super::ask::Server;

/// Does these checks.
pub(super) fn check(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    if server.setting("shared_memory_type")? == "mmap" {
        memory(server, verdicts)?;
    }
    if server.replica.major >= 18 && server.setting("io_method")? == "io_uring" {
        io_uring(verdicts)?;
    }
    Ok(())
}

fn memory(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    let number = |name| server.number(name).map(|number| u64::try_from(number).unwrap_or(0));
    let bytes = number("shared_buffers")?.saturating_mul(number("block_size")?);
    let buffers = format!("`shared_buffers` is {} MB ({})", bytes >> 20, server.place("shared_buffers"));
    let Some(info) = Meminfo::read() else { return Ok(()) };
    if server.setting("huge_pages")? != "on" {
        if let Some(most) =
            info.most_of_one_mapping(kernel_number("vm/overcommit_memory")).filter(|most| bytes > *most)
        {
            verdicts.missing(format!(
                "{buffers}, and this machine allows no more than {} MB at once: PostgreSQL does not start. Set `shared_buffers` \
                 lower where the backup is taken, or in a configuration file of this machine that `[replica] config_file` names",
                most >> 20
            ))?;
        }
        return Ok(());
    }
    let size = if server.replica.major >= 14 { number("huge_page_size")? } else { 0 };
    let pages = HugePages::of_size(&info, size);
    let what = format!(
        "`huge_pages` is on ({}), {buffers}, and this machine has huge pages of {} kB: {}, of which {} are free",
        server.place("huge_pages"),
        pages.size >> 10,
        pages.total,
        pages.free
    );
    match pages.hold(bytes) {
        Holds::Yes => {}
        Holds::NotNow => verdicts.report(format!("{what}: PostgreSQL does not start until more are free")),
        Holds::No => verdicts.missing(format!(
            "{what}: PostgreSQL does not start. Raise `vm.nr_hugepages` (sysctl), or set `huge_pages = try` where the backup is taken \
             or in a configuration file of this machine that `[replica] config_file` names"
        ))?,
    }
    Ok(())
}

fn io_uring(verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    let what = "`io_method` is `io_uring`, and `kernel.io_uring_disabled` (sysctl)";
    match kernel_number("kernel/io_uring_disabled") {
        Some(2) => verdicts.missing(format!(
            "{what} is 2: PostgreSQL does not start. Set `io_method = worker`, or the kernel's setting to 0"
        )),
        Some(1) => {
            verdicts.report(format!(
                "{what} is 1: PostgreSQL starts only if its user is in the group of `kernel.io_uring_group`"
            ));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn kernel_number(name: &str) -> Option<u64> {
    number_in(&Path::new("/proc/sys").join(name))
}

fn number_in(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// `/proc/meminfo`.
#[derive(Debug)]
struct Meminfo(String);

impl Meminfo {
    fn read() -> Option<Self> {
        fs::read_to_string("/proc/meminfo").ok().map(Self)
    }

    fn number(&self, name: &str) -> Option<u64> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// Returns the most that the kernel maps at once, in bytes; `None` if it has no bound (Documentation/mm/overcommit-accounting.rst).
    fn most_of_one_mapping(&self, overcommit: Option<u64>) -> Option<u64> {
        let kilobytes = match overcommit? {
            0 => self.number("MemTotal")? + self.number("SwapTotal")?,
            2 => self.number("CommitLimit")?,
            _ => return None,
        };
        Some(kilobytes << 10)
    }
}

/// The machine's huge pages of one size.
#[derive(Debug)]
struct HugePages {
    /// In bytes.
    size: u64,
    total: u64,
    free: u64,
    /// How many more the kernel provides on demand.
    overcommit: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Holds {
    Yes,
    NotNow,
    No,
}

impl HugePages {
    /// Reads the huge pages of this size in kilobytes; 0 is the kernel's default size.
    fn of_size(info: &Meminfo, size: u64) -> Self {
        let size = if size == 0 { info.number("Hugepagesize").unwrap_or(0) } else { size };
        let pages = Path::new("/sys/kernel/mm/hugepages").join(format!("hugepages-{size}kB"));
        let number = |name: &str| number_in(&pages.join(name)).unwrap_or(0);
        Self {
            size: size << 10,
            total: number("nr_hugepages"),
            free: number("free_hugepages"),
            overcommit: number("nr_overcommit_hugepages"),
        }
    }

    fn hold(&self, bytes: u64) -> Holds {
        let hold = |pages: u64| (pages + self.overcommit).saturating_mul(self.size) >= bytes;
        match (hold(self.free), hold(self.total)) {
            (true, _) => Holds::Yes,
            (false, true) => Holds::NotNow,
            (false, false) => Holds::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_hold_the_buffers_now_later_or_never() {
        let pages = |total, free, overcommit| HugePages { size: 2 << 20, total, free, overcommit };
        for (pages, holds) in [
            (pages(0, 0, 0), Holds::No),
            (pages(63, 63, 0), Holds::No),
            (pages(64, 64, 0), Holds::Yes),
            (pages(64, 10, 0), Holds::NotNow),
            (pages(0, 0, 64), Holds::Yes),
        ] {
            assert_eq!(pages.hold(128 << 20), holds, "{pages:?}");
        }
    }

    #[test]
    fn one_mapping_is_bounded_as_the_kernel_says() {
        let info = Meminfo("MemTotal:  1000 kB\nSwapTotal: 24 kB\nCommitLimit: 500 kB\n".to_owned());
        assert_eq!(info.most_of_one_mapping(Some(0)), Some(1024 << 10));
        assert_eq!(info.most_of_one_mapping(Some(1)), None);
        assert_eq!(info.most_of_one_mapping(Some(2)), Some(500 << 10));
        assert_eq!(info.most_of_one_mapping(None), None);
    }
}
