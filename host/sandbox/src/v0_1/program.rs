//! `program`: native programs.

use replica::process::Status;

use super::interfaces::program;
use crate::answer::Answer;
use crate::state::State;

impl program::Host for State {
    async fn run(&mut self, name: String, arguments: Vec<String>) -> Answer<program::Completed> {
        let completed = self.run_program(name, arguments).await?;
        // An exit code has 8 bits, and signal numbers are smaller.
        let number = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
        let ending = match completed.status {
            Status::Exited(code) => program::Ending::Code(number(code)),
            Status::Signalled(signal) => program::Ending::Signal(number(signal)),
        };
        Ok(program::Completed { ending, tail: completed.tail })
    }

    async fn check(&mut self, name: String, arguments: Vec<String>) -> Answer<()> {
        self.check_program(&name, &arguments)
    }
}
