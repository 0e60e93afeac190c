//! Checks what the server needs of the machine to start: shared memory and huge pages (`CreateAnonymousSegment` in `sysv_shmem.c`), and
//! io_uring. Reports only what is certainly not enough, because what is free now may be in use later.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use super::super::problem::Problem;
use super::Verdicts;
use super::ask::Server;
use super::shared_memory::{self, SharedMemory};

/// The largest page size of any kernel, in bytes. It is assumed if the page size of this kernel is not known, so that the limit on shared
/// memory is overestimated and never underestimated.
const LARGEST_PAGE: u64 = 64 << 10;

/// Returns the kernel's page size in bytes, the unit of `kernel.shmall`. This is the page size of the first mapping of this program, which
/// does not use huge pages (proc(5), `smaps`).
fn page_size() -> u64 {
    let mut beginning = [0; 4096];
    let read = File::open("/proc/self/smaps").and_then(|mut file| file.read(&mut beginning)).unwrap_or(0);
    let text = String::from_utf8_lossy(&beginning[..read]).into_owned();
    let kib = text.lines().find_map(|line| line.strip_prefix("KernelPageSize:")?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok()).map_or(LARGEST_PAGE, |kib| kib << 10)
}

/// Checks shared memory, huge pages and io_uring.
pub(super) fn check(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    memory(server, verdicts)?;
    if server.replica.major >= 18 && server.setting("io_method")? == "io_uring" {
        io_uring(verdicts)?;
    }
    Ok(())
}

fn memory(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    let computed = shared_memory::ask(server, verdicts)?;
    let (bytes, what) = needed(server, computed)?;
    let sysv = server.setting("shared_memory_type")? == "sysv";
    let Some(info) = Meminfo::read() else { return Ok(()) };
    if server.setting("huge_pages")? == "on" {
        return match sysv {
            true => verdicts.missing(format!(
                "`huge_pages` is on ({}), and `shared_memory_type` is `sysv` ({}): PostgreSQL does not start with both. Set \
                 `huge_pages = try` {}",
                server.place("huge_pages"),
                server.place("shared_memory_type"),
                server.remedy("huge_pages")
            )),
            false => huge_pages(server, &info, computed, bytes, &what, verdicts),
        };
    }
    let overcommit = kernel_number("vm/overcommit_memory");
    let most = [info.largest_mapping(overcommit), sysv.then(largest_segment).flatten()];
    if let Some(most) = most.into_iter().flatten().min().filter(|most| bytes > *most) {
        verdicts.missing(format!(
            "{what}, and this machine allows no more than {} MB at once: PostgreSQL does not start. Lower these settings {}",
            most >> 20,
            server.remedy("shared_buffers")
        ))?;
    }
    Ok(())
}

/// Returns the least shared memory that the server needs, in bytes, and a description of it.
fn needed(server: &Server<'_>, computed: Option<SharedMemory>) -> Result<(u64, String), Problem> {
    let number = |name| server.number(name).map(|number| u64::try_from(number).unwrap_or(0));
    let buffers = number("shared_buffers")?.saturating_mul(number("block_size")?);
    let mut what = format!("`shared_buffers` is {} MB ({})", buffers >> 20, server.place("shared_buffers"));
    let mut bytes = buffers;
    if server.replica.major >= 14 {
        const DYNAMIC: &str = "min_dynamic_shared_memory";
        let megabytes = number(DYNAMIC)?;
        if megabytes > 0 {
            bytes = bytes.saturating_add(megabytes.saturating_mul(1 << 20));
            what.push_str(&format!(", `{DYNAMIC}` is {megabytes} MB ({})", server.place(DYNAMIC)));
        }
    }
    if let Some(all) = computed.map(|computed| computed.bytes).filter(|all| *all > bytes) {
        what.push_str(&format!(
            ", and together with `max_connections` ({}), `max_locks_per_transaction` ({}) and other settings the server needs {} MB",
            number("max_connections")?,
            number("max_locks_per_transaction")?,
            all >> 20
        ));
        bytes = all;
    }
    Ok((bytes, what))
}

fn huge_pages(
    server: &Server<'_>,
    info: &Meminfo,
    computed: Option<SharedMemory>,
    bytes: u64,
    what: &str,
    verdicts: &mut Verdicts<'_>,
) -> Result<(), Problem> {
    let size = match server.replica.major {
        14.. => u64::try_from(server.number("huge_page_size")?).unwrap_or(0),
        _ => 0,
    };
    let pages = HugePages::of_size(info, size);
    let needed = computed.and_then(|computed| computed.huge_pages);
    let bytes = needed.map_or(bytes, |needed| needed.saturating_mul(pages.size));
    let what = format!(
        "`huge_pages` is on ({}), {what}, and this machine has huge pages of {} kB: {}, of which {} are free",
        server.place("huge_pages"),
        pages.size >> 10,
        pages.total,
        pages.free
    );
    match pages.hold(bytes) {
        Holds::Yes => Ok(()),
        Holds::NotNow => {
            verdicts.report(format!("{what}: PostgreSQL does not start until more are free"));
            Ok(())
        }
        Holds::No => verdicts.missing(format!(
            "{what}: PostgreSQL does not start. Raise `vm.nr_hugepages` (sysctl), or set `huge_pages = try` {}",
            server.remedy("huge_pages")
        )),
    }
}

/// Returns the largest size of a System V shared memory segment, in bytes (proc(5)); `None` if the kernel does not say.
fn largest_segment() -> Option<u64> {
    let all = kernel_number("kernel/shmall").map(|pages| pages.saturating_mul(page_size()));
    [kernel_number("kernel/shmmax"), all].into_iter().flatten().min()
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

/// The text of `/proc/meminfo`.
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

    /// Returns the size of the largest mapping that the kernel allows, in bytes; `None` if there is no limit
    /// (Documentation/mm/overcommit-accounting.rst).
    fn largest_mapping(&self, overcommit: Option<u64>) -> Option<u64> {
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
    /// The size of a page in bytes.
    size: u64,
    total: u64,
    free: u64,
    /// How many more pages the kernel provides on demand.
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
        assert_eq!(info.largest_mapping(Some(0)), Some(1024 << 10));
        assert_eq!(info.largest_mapping(Some(1)), None);
        assert_eq!(info.largest_mapping(Some(2)), Some(500 << 10));
        assert_eq!(info.largest_mapping(None), None);
    }
}
