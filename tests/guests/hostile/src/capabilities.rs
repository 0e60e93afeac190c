//! Behaviours that call interfaces without a grant.

use understudy::raw::understudy::method::keys::Key;
use understudy::raw::understudy::method::store::Bucket;
use understudy::raw::understudy::method::transfer::{Fetch, Job, Unless, Unpack};
use understudy::raw::understudy::method::{datadir, program, types};
use understudy::{Failure, Request};

use crate::{refused, verdict};

/// Reads the environment, the arguments, the working directory and standard input.
pub(crate) fn environment(_: &Request) -> Result<(), Failure> {
    let variables: Vec<_> =
        std::env::vars_os().map(|(name, value)| format!("{}={}", name.display(), value.display())).collect();
    let arguments: Vec<_> =
        std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let mut input = Vec::new();
    // Reading a closed standard input returns nothing or fails. Both are allowed.
    let read = std::io::Read::read_to_end(&mut std::io::stdin(), &mut input);
    if variables.is_empty() && arguments.is_empty() && input.is_empty() {
        return Err(refused("environment, arguments and input", format!("all are empty ({read:?})")));
    }
    Err(crate::escaped(&format!("saw {variables:?} {arguments:?} and {} bytes of input", input.len())))
}

/// Reads the environment variable that the option `variable` names. Fails unless the variable is set.
pub(crate) fn variable(request: &Request) -> Result<(), Failure> {
    let name: String = request.require("variable")?;
    match std::env::var(&name) {
        Ok(value) => {
            understudy::log::info!("{name} is {value}");
            Ok(())
        }
        Err(error) => Err(refused(&name, error)),
    }
}

/// Calls each interface that needs a grant.
pub(crate) fn ungranted(_: &Request) -> Result<(), Failure> {
    let job = Job::new(true);
    let fetch = Fetch {
        origin: 0,
        object: "object".to_owned(),
        range: None,
        path: "PG_VERSION".to_owned(),
        at: None,
        size: 3,
        digest: None,
        mode: None,
        mtime: None,
        unless: Unless::Always,
    };
    let unpack = Unpack {
        origin: 0,
        object: "object".to_owned(),
        path: "base".to_owned(),
        limit: 1 << 20,
        skip: Vec::new(),
        refuse: Vec::new(),
    };
    let attempts = vec![
        ("keys.named".to_owned(), answer(Key::named("key"))),
        ("bucket.open".to_owned(), answer(Bucket::open("repo"))),
        ("program.run".to_owned(), answer(program::run("sh", &["-c".to_owned(), "id".to_owned()]))),
        ("job.fetch".to_owned(), answer(job.fetch(&[fetch]))),
        ("job.unpack".to_owned(), answer(job.unpack(&unpack, None))),
        ("tablespace".to_owned(), answer(datadir::tablespace(1))),
        (
            "restore_command".to_owned(),
            answer(datadir::recovery_setting("restore_command", "id > /tmp/owned")),
        ),
    ];
    Err(verdict(attempts))
}

/// How many characters of a program's output are repeated.
const LAST: usize = 1000;

/// Runs a program. If the program does not exit with code 0, fails with the end of its output.
pub(crate) fn run_program(request: &Request) -> Result<(), Failure> {
    let name: String = request.require("program")?;
    let arguments: Vec<String> = request.get("arguments")?.unwrap_or_default();
    let completed = match program::run(&name, &arguments) {
        Ok(completed) => completed,
        Err(error) => return Err(Failure::failed(format!("not run: {error:?}"))),
    };
    // The host shortens long messages at their end.
    let tail: Vec<char> = String::from_utf8_lossy(&completed.tail).chars().collect();
    let tail: String = tail[tail.len().saturating_sub(LAST)..].iter().collect();
    match completed.ending {
        program::Ending::Code(0) => {
            understudy::log::info!("the program ended well: {tail}");
            Ok(())
        }
        ending => Err(Failure::failed(format!("the program ended with {ending:?}: {tail}"))),
    }
}

fn answer<T>(answer: Result<T, types::Error>) -> Result<(), String> {
    answer.map(drop).map_err(|error| format!("{error:?}"))
}
