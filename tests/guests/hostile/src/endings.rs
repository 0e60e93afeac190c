//! Behaviours that end the component in various ways, or never end it.

use std::time::Duration;

use understudy::raw::understudy::method::cancellation;
use understudy::{Failure, Request, cancelled, log};

use crate::escaped;

/// An hour, which is longer than any test waits.
const LONG: Duration = Duration::from_secs(3600);

pub(crate) fn trap(_: &Request) -> Result<(), Failure> {
    std::process::abort()
}

#[expect(clippy::panic, reason = "this behaviour is a panic")]
pub(crate) fn panic(_: &Request) -> Result<(), Failure> {
    panic!("the method panics")
}

/// Opens 18 files that are not granted, as an interpreter that looks for its modules, and then panics.
#[expect(clippy::panic, reason = "this behaviour ends with a panic")]
pub(crate) fn denied_then_panics(_: &Request) -> Result<(), Failure> {
    for number in 0..18 {
        if std::fs::File::open(format!("/etc/understudy-absent-{number}")).is_ok() {
            return Err(escaped("opened a file that is not granted"));
        }
    }
    panic!("no module was found")
}

/// Exits with the status of a successful program.
pub(crate) fn exit(_: &Request) -> Result<(), Failure> {
    std::process::exit(0)
}

pub(crate) fn fail(_: &Request) -> Result<(), Failure> {
    Err(Failure::failed("the method fails"))
}

/// Fails with a message of 8 MiB.
pub(crate) fn fail_at_length(_: &Request) -> Result<(), Failure> {
    Err(Failure::failed("no end of it ".repeat((8 << 20) / 13)))
}

pub(crate) fn retry_later(_: &Request) -> Result<(), Failure> {
    Err(Failure::retry_later("the method wants to be tried later"))
}

pub(crate) fn not_applicable(_: &Request) -> Result<(), Failure> {
    Err(Failure::not_applicable("the method finds nothing"))
}

pub(crate) fn nothing(_: &Request) -> Result<(), Failure> {
    Ok(())
}

pub(crate) fn busy_loop(_: &Request) -> Result<(), Failure> {
    log::info!("looping");
    let mut round = 0u64;
    loop {
        round = std::hint::black_box(round.wrapping_add(1));
    }
}

pub(crate) fn sleep(_: &Request) -> Result<(), Failure> {
    log::info!("sleeping");
    std::thread::sleep(LONG);
    Err(Failure::failed("nobody woke the method"))
}

/// Checks for cancellation, ignores it and sleeps again and again.
pub(crate) fn ignore_cancel(_: &Request) -> Result<(), Failure> {
    log::info!("ignoring");
    loop {
        std::hint::black_box(cancellation::requested());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits on the host's pollable and stops when the run is cancelled.
pub(crate) fn cooperative_cancel(_: &Request) -> Result<(), Failure> {
    log::info!("waiting");
    cancellation::subscribe().block();
    cancelled()?;
    Err(Failure::failed("woken without a cancellation"))
}
