//! The program; see the library of the same name.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    // This comes first: the program may have been started as the guard of a native program, which must have one thread only.
    if let Some(ended) = replica::process::guard_main(std::env::args_os()) {
        return ended;
    }
    // The program may also have been started as the child that compiles a component.
    if let Some(ended) = sandbox::compiler_main(std::env::args_os()) {
        return ended;
    }
    // Programs that this one starts must not inherit descriptors that this program's own starter left open.
    foundation::descriptors::keep_from_programs();
    understudy::run(std::env::args_os(), &|name| std::env::var_os(name))
}
