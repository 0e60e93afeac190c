//! The program; see the library of the same name.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all: the program is its own guard of native programs, which must have one thread and no more.
    if let Some(ended) = replica::process::guard_main(std::env::args_os()) {
        return ended;
    }
    // And the child that compiles a component.
    if let Some(ended) = sandbox::compiler_main(std::env::args_os()) {
        return ended;
    }
    understudy::run(std::env::args_os(), &|name| std::env::var_os(name))
}
