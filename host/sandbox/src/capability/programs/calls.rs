//! The calls with which a component runs granted programs.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::transfer::error::Kind;
use replica::process::Status;
use replica::{CapabilityKind, Context, Directories};
use tokio::sync::{mpsc, oneshot};

use super::pattern::{Values, cover, covering};
use super::runner::{self, Order, Receiver, Reply, Stopped};
use super::{EnvironmentValue, ProgramGrant, Programs, found};
use crate::Grants;
use crate::answer::{Answer, HostError};
use crate::calls::Call;
use crate::state::State;
use crate::text::printable;

/// How many arguments a component may pass to a program, and how many bytes they may have together.
const ARGUMENTS: usize = 256;
const ARGUMENT_BYTES: usize = 64 << 10;

/// How many programs one call of a component may run.
const RUNS: u32 = 1000;

/// How many characters of a program's arguments appear in a denial.
const SHOWN: usize = 512;

/// The signal that ends a process which writes a file beyond its limit.
const SIGXFSZ: i32 = 25;

/// The state with which the method's thread runs programs.
#[derive(Clone)]
pub(crate) struct ProgramCalls {
    orders: mpsc::Sender<Order>,
    context: Option<Context>,
    directories: Arc<Directories>,
    runs: u32,
}

impl ProgramCalls {
    /// Returns the sender and the receiver of the orders of one call.
    pub(crate) fn new(context: Option<Context>, directories: Arc<Directories>) -> (Self, Receiver) {
        let (orders, received) = mpsc::channel(1);
        (Self { orders, context, directories, runs: 0 }, Receiver(received))
    }

    fn values(&self) -> Values<'_> {
        Values { context: self.context.as_ref(), directories: &self.directories }
    }
}

/// How a program ended, for the component.
pub(crate) struct Completed {
    /// Its exit code or the signal that ended it.
    pub(crate) status: Status,
    /// The last lines of its output without secrets, at most 64 KiB.
    pub(crate) tail: Vec<u8>,
}

impl State {
    /// Runs a granted program to its end.
    ///
    /// # Errors
    /// `Denied` for a program that is not granted and for arguments that no pattern covers; `Invalid` for too many arguments; `Limit` if
    /// the time, the processor time or the disk budget is used up, if the program has too many processes, or if the call has already run too many programs;
    /// `Cancelled`; `Failed` if the program does not start.
    pub(crate) async fn run_program(&mut self, name: String, arguments: Vec<String>) -> Answer<Completed> {
        let object = || recorded(&name, &arguments);
        let mut call = self.reporter.call(CapabilityKind::Program, "program.run", object);
        let ended = self.run_to_its_end(&name, arguments, &mut call).await;
        call.end(ended)
    }

    async fn run_to_its_end(
        &mut self,
        name: &str,
        arguments: Vec<String>,
        call: &mut Call,
    ) -> Answer<Completed> {
        let (reply, replied) = oneshot::channel();
        let (order, orders) = self.order(name, arguments, reply)?;
        let lost = || Err(Stopped::Failed("the program was not started".to_owned()));
        let ended = match orders.send(order).await {
            Ok(()) => replied.await.unwrap_or_else(|_| lost()),
            Err(_) => lost(),
        };
        self.reporter.activity().mark();
        match &ended {
            Ok(completed) => call.add(&format!(" {}", completed.status)),
            Err(stopped) => call.add(&format!(" {}", stopped.recorded())),
        }
        match ended {
            Ok(runner::Completed { status, tail }) => {
                if let (Status::Signalled(SIGXFSZ), Some(why)) = (status, self.files.quota.longest_file()) {
                    self.files.quota.out_of_space(why);
                }
                Ok(Completed { status, tail: tail.into_bytes(|line| self.without_secrets(line)) })
            }
            Err(stopped) => Err(self.stopped(name, stopped).into()),
        }
    }

    /// Checks that [`State::run_program`] may run a program with these arguments.
    ///
    /// # Errors
    /// `Denied` and `Invalid`, in the same cases as [`State::run_program`].
    pub(crate) fn check_program(&self, name: &str, arguments: &[String]) -> Answer<()> {
        let object = || recorded(name, arguments);
        let call = self.reporter.call(CapabilityKind::Program, "program.check", object);
        call.end(self.covered(name, arguments).map(drop).map_err(Into::into))
    }

    /// Returns the grants and the state for running programs, if a grant covers the call.
    fn covered(
        &self,
        name: &str,
        arguments: &[String],
    ) -> Result<(Arc<Grants>, ProgramGrant, ProgramCalls), HostError> {
        let bytes: usize = arguments.iter().map(|argument| argument.len() + 1).sum();
        if arguments.len() > ARGUMENTS || bytes > ARGUMENT_BYTES {
            let message =
                format!("a program has at most {ARGUMENTS} arguments of {ARGUMENT_BYTES} bytes in all");
            return Err(self.fails(Kind::Invalid, &message));
        }
        let granted = self.plane().map(|plane| Arc::clone(&plane.remedies.grants));
        let (Some(calls), Some(grants)) = (&self.job.programs, granted) else {
            return Err(self.not_granted(&Programs, name));
        };
        let Some(grant) = grants.programs.get(name) else { return Err(self.deny_program(name, arguments)) };
        if !cover(&grant.args, arguments, calls.values()) {
            return Err(self.deny_arguments(name, grant, arguments));
        }
        let (grant, calls) = (grant.clone(), calls.clone());
        Ok((grants, grant, calls))
    }

    /// Checks that a grant covers the call. Returns the order for the program, and the sender for the order.
    fn order(
        &mut self,
        name: &str,
        arguments: Vec<String>,
        reply: Reply,
    ) -> Result<(Order, mpsc::Sender<Order>), HostError> {
        let (grants, grant, calls) = self.covered(name, &arguments)?;
        if calls.runs >= RUNS {
            return Err(self.fails(Kind::Limit, &format!("{RUNS} programs were run already")));
        }
        let mut environment = Vec::new();
        for (variable, value) in &grant.env {
            let value = match value {
                EnvironmentValue::Text(text) => OsString::from(text),
                EnvironmentValue::Key(key) => match grants.keys.get(key) {
                    Some(key) => OsString::from_vec(key.secret.expose().to_vec()),
                    None => return Err(self.fails(Kind::Failed, &format!("the key {key} is not granted"))),
                },
            };
            environment.push((variable.into(), value));
        }
        let (name, orders) = (name.to_owned(), calls.orders);
        if let Some(calls) = &mut self.job.programs {
            calls.runs += 1;
        }
        Ok((Order { name, grant, arguments, environment, reply }, orders))
    }

    /// Denies a program that is not granted. The remedy for the operator has the path at which the program was found. The component gets a
    /// remedy with a placeholder, because it must not learn which programs this machine has.
    fn deny_program(&self, name: &str, arguments: &[String]) -> HostError {
        let Some(calls) = &self.job.programs else { return self.not_granted(&Programs, name) };
        let args = covering(&[], arguments, calls.values());
        let line = |path: PathBuf| {
            let grant = ProgramGrant { args: args.clone(), ..ProgramGrant::new(path) };
            self.plane().and_then(|plane| plane.remedies.program(name, &grant))
        };
        let what = format!("the program {}", printable(name, 64));
        let message = match line(Path::new("/path/to").join(printable(name, 64).replace('/', ""))) {
            Some(line) => format!("no grant covers {what}; to allow it: {line}"),
            None => format!("no grant covers {what}, and no grant can allow it"),
        };
        self.denied_with(&Programs, what, line(found(name)), &message)
    }

    /// Denies arguments that the patterns of a granted program do not match. The component does not learn the rest of the grant.
    fn deny_arguments(&self, name: &str, grant: &ProgramGrant, arguments: &[String]) -> HostError {
        let Some(calls) = &self.job.programs else { return self.not_granted(&Programs, name) };
        let grant = ProgramGrant { args: covering(&grant.args, arguments, calls.values()), ..grant.clone() };
        let remedy = self.plane().and_then(|plane| plane.remedies.program(name, &grant));
        let what = format!(
            "the program {} with the arguments {}",
            printable(name, 64),
            printable(&self.without_secrets(&format!("{arguments:?}")), SHOWN)
        );
        let message = format!(
            "no pattern of `args` covers {what}; the operator's log has the line that would allow it"
        );
        self.denied_with(&Programs, what, remedy, &message)
    }

    fn without_secrets(&self, text: &str) -> String {
        self.plane().map_or_else(|| text.to_owned(), |plane| plane.without_secrets(text))
    }

    fn stopped(&self, name: &str, stopped: Stopped) -> HostError {
        match stopped {
            Stopped::Cancelled => self.error(crate::plane::cancelled()),
            Stopped::TimedOut(timeout) => {
                let message = format!(
                    "the program {name} did not end within {timeout:?} (programs.{name}.timeout) and was ended"
                );
                self.fails(Kind::Limit, &message)
            }
            Stopped::TooManyProcesses(most) => {
                let message = format!(
                    "the program {name} had more than {most} processes and threads at once (programs.{name}.processes) and was ended \
                     with all that it started"
                );
                self.fails(Kind::Limit, &message)
            }
            Stopped::TooMuchCpu(most) => {
                let message = format!(
                    "the program {name} used more than {most:?} of processor time (programs.{name}.cpu) with all that it started"
                );
                self.fails(Kind::Limit, &message)
            }
            Stopped::OutOfDisk(why) => {
                self.files.quota.out_of_space(why.clone());
                self.fails(Kind::Limit, &format!("the program {name} was ended: {why}"))
            }
            Stopped::Failed(why) => self.fails(Kind::Failed, &why),
        }
    }
}

/// Returns a program and its arguments for the record of a call.
fn recorded(name: &str, arguments: &[String]) -> String {
    format!("{name} {arguments:?}")
}
