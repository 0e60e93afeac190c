//! The programs that run a command which their arguments name.

const SHELLS: [&str; 6] = ["ash", "bash", "dash", "ksh", "sh", "zsh"];

/// Programs, and commands of the shell, whose arguments may be another command or variables.
const STARTERS: [&str; 31] = [
    "builtin",
    "busybox",
    "chpst",
    "chroot",
    "chrt",
    "command",
    "declare",
    "doas",
    "env",
    "envdir",
    "eval",
    "exec",
    "export",
    "flock",
    "ionice",
    "local",
    "nice",
    "nohup",
    "readonly",
    "runuser",
    "setpriv",
    "setsid",
    "ssh",
    "stdbuf",
    "su",
    "sudo",
    "systemd-run",
    "time",
    "timeout",
    "typeset",
    "xargs",
];

fn name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// Returns whether a program, given by its name or its path, is a shell.
pub fn is_shell(program: &str) -> bool {
    SHELLS.contains(&name(program))
}

/// Returns whether a program, given by its name or its path, starts another program that its arguments name, as `sudo` and `env` do, or is
/// a command of the shell that sets variables. Shells are not among them.
pub fn starts_others(program: &str) -> bool {
    STARTERS.contains(&name(program))
}
