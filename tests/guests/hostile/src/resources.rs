//! Behaviours that use up resources.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write;

use understudy::{AtPath, Failure, Request, log, progress};
use wasip2::filesystem::types::{DescriptorFlags, OpenFlags, PathFlags};

use crate::files::preopened;
use crate::{escaped, refused};

/// Allocates memory until it fails.
pub(crate) fn memory(_: &Request) -> Result<(), Failure> {
    let mut all = Vec::new();
    loop {
        all.push(black_box(vec![1u8; 16 << 20]));
    }
}

/// Asks the host for the metadata of the data directory again and again, so the component is never idle.
pub(crate) fn ask(request: &Request) -> Result<(), Failure> {
    let path = request.datadir()?;
    loop {
        black_box(fs::metadata(path).at(path)?);
    }
}

/// Overflows the stack.
pub(crate) fn recursion(_: &Request) -> Result<(), Failure> {
    fn deeper(depth: u64) -> u64 {
        let here = black_box([depth; 64]);
        if depth == u64::MAX { 0 } else { deeper(depth + 1).wrapping_add(black_box(here)[0]) }
    }
    Err(Failure::failed(format!("the stack has no end: {}", deeper(0))))
}

/// Opens files in the data directory, and never closes any of them.
pub(crate) fn handles(request: &Request) -> Result<(), Failure> {
    let path = request.datadir()?.join("handle");
    fs::write(&path, "x").at(&path)?;
    let mut open = Vec::new();
    for count in 0..request.require::<u64>("count")? {
        match File::open(&path) {
            Ok(file) => open.push(file),
            Err(error) => return Err(refused(&format!("{count} open files"), error)),
        }
    }
    Err(Failure::failed(format!("has {} open files", open.len())))
}

/// Reads the directory `path` again and again, and never closes a listing.
pub(crate) fn listings(request: &Request) -> Result<(), Failure> {
    let path: String = request.require("path")?;
    let directory = preopened(path.as_ref())?;
    let mut open = Vec::new();
    for count in 0..request.require::<u64>("count")? {
        match directory.read_directory() {
            Ok(listing) => open.push(listing),
            Err(error) => return Err(refused(&format!("{count} open listings"), format!("{error:?}"))),
        }
    }
    Err(escaped(&format!("has {} open listings", open.len())))
}

/// Creates directories that are nested `count` levels deep, each through the handle of its parent.
pub(crate) fn deep(request: &Request) -> Result<(), Failure> {
    let name = "d".repeat(250);
    let mut here = preopened(request.datadir()?)?;
    for depth in 0..request.require::<u64>("count")? {
        let deeper = here.create_directory_at(&name).and_then(|()| {
            here.open_at(PathFlags::empty(), &name, OpenFlags::DIRECTORY, DescriptorFlags::MUTATE_DIRECTORY)
        });
        match deeper {
            Ok(deeper) => here = deeper,
            Err(error) => return Err(refused(&format!("{depth} directories deep"), format!("{error:?}"))),
        }
    }
    Err(escaped("it has no bottom"))
}

/// Holds more and more resources of the host that are neither files nor listings: pollables.
pub(crate) fn pollables(request: &Request) -> Result<(), Failure> {
    let count = request.require::<u64>("count")?;
    let held: Vec<_> = (0..count).map(|_| wasip2::clocks::monotonic_clock::subscribe_duration(1)).collect();
    Err(escaped(&format!("holds {} things to wait for", held.len())))
}

/// Requests `count` random bytes at once.
pub(crate) fn random(request: &Request) -> Result<(), Failure> {
    let bytes = wasip2::random::random::get_random_bytes(request.require("count")?);
    Err(escaped(&format!("has {} random bytes", bytes.len())))
}

/// Passes `count` bytes in one call.
pub(crate) fn long_call(request: &Request) -> Result<(), Failure> {
    let count = request.require::<u64>("count")?;
    progress::phase(&"x".repeat(count as usize));
    Err(escaped(&format!("said {count} bytes in one call")))
}

pub(crate) fn log_flood(request: &Request) -> Result<(), Failure> {
    let count = request.require::<u64>("count")?;
    for line in 0..count {
        log::warn!("line {line} of the flood");
    }
    Err(Failure::failed(format!("logged {count} lines")))
}

pub(crate) fn stdout_flood(request: &Request) -> Result<(), Failure> {
    let count = request.require::<u64>("count")?;
    let mut out = std::io::stdout().lock();
    for line in 0..count {
        writeln!(out, "line {line} of the flood")?;
    }
    Err(Failure::failed(format!("printed {count} lines")))
}

/// Prints `count` KiB without a newline.
pub(crate) fn stderr_endless_line(request: &Request) -> Result<(), Failure> {
    let count = request.require::<u64>("count")?;
    let mut out = std::io::stderr().lock();
    for _ in 0..count {
        out.write_all(&[b'x'; 1024])?;
    }
    Err(Failure::failed(format!("printed a line of {count} KiB")))
}

pub(crate) fn progress_flood(request: &Request) -> Result<(), Failure> {
    let count = request.require::<u64>("count")?;
    for _ in 0..count {
        progress::phase(&"phase ".repeat(1000));
        progress::expect(Some(u64::MAX), Some(u64::MAX));
        progress::done(u64::MAX, u64::MAX);
    }
    Err(Failure::failed(format!("reported progress {count} times")))
}

/// Passes text that would clear a terminal, change its title and forge a second line to every function that takes text.
pub(crate) fn terminal(_: &Request) -> Result<(), Failure> {
    let text = "\u{1b}[2J\u{1b}]0;owned\u{7}\rforged\nERROR forged\u{9b}31m\u{202e}";
    log::warn!("{text}");
    progress::phase(text);
    std::io::stdout().write_all(text.as_bytes())?;
    std::io::stderr().write_all(text.as_bytes())?;
    Err(Failure::failed(text))
}

/// Writes one file until the host or the disk refuses.
pub(crate) fn fill_disk(request: &Request) -> Result<(), Failure> {
    let path = request.datadir()?.join("filler");
    let mut file = File::create(&path).at(&path)?;
    let block = vec![0x55u8; 1 << 20];
    loop {
        if let Err(error) = file.write_all(&block) {
            return Err(refused("writing more", error));
        }
        progress::done(block.len() as u64, 0);
    }
}

/// Creates empty files until the host refuses, at most `count`.
pub(crate) fn many_files(request: &Request) -> Result<(), Failure> {
    let directory = request.datadir()?;
    let count = request.require::<u64>("count")?;
    for number in 0..count {
        if let Err(error) = File::create(directory.join(number.to_string())) {
            return Err(refused(&format!("file {number}"), error));
        }
        progress::done(0, 1);
    }
    Err(Failure::failed(format!("made {count} files")))
}
