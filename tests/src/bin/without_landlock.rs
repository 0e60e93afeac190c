//! `without_landlock PROGRAM ARGUMENTS...` becomes the program. Landlock's system calls fail in it, as on a kernel without Landlock.

#![forbid(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().context("no program")?;
    let rules =
        [libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule, libc::SYS_landlock_restrict_self]
            .map(|call| (call, Vec::new()));
    let answer = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules.into(), SeccompAction::Allow, answer, architecture)?;
    let filter: BpfProgram = filter.try_into()?;
    apply_filter(&filter)?;
    Err(Command::new(program).args(arguments).exec().into())
}
