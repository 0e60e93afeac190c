//! `program`: native programs.

use super::interfaces::program;
use crate::answer::Answer;
use crate::state::State;

impl program::Host for State {
    fn run(&mut self, name: String, _arguments: Vec<String>) -> Answer<program::Completed> {
        match self.run_program(&name)? {}
    }
}
