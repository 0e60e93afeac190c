//! `source`: facts that the host read from the source server. The component never connects to it.

use replica::source::{Fork, SourceFacts};

use super::interfaces::source;
use crate::state::State;

impl source::Host for State {
    fn server_version(&mut self) -> wasmtime::Result<Option<u32>> {
        Ok(self.source_facts("source.server-version").map(|facts| facts.server_version))
    }

    fn system_identifier(&mut self) -> wasmtime::Result<Option<u64>> {
        Ok(self.source_facts("source.system-identifier").map(|facts| facts.system_identifier))
    }

    fn wal_position(&mut self) -> wasmtime::Result<Option<source::Position>> {
        let position =
            |facts: &SourceFacts| source::Position { timeline: facts.timeline, lsn: facts.wal_position.0 };
        Ok(self.source_facts("source.wal-position").map(position))
    }

    fn timeline_history(&mut self) -> wasmtime::Result<Option<Vec<source::Ancestor>>> {
        let ancestor = |fork: &Fork| source::Ancestor { timeline: fork.timeline, ended_at: fork.at.0 };
        Ok(self
            .source_facts("source.timeline-history")
            .map(|facts| facts.history.iter().map(ancestor).collect()))
    }
}

#[cfg(test)]
mod tests {
    use replica::Lsn;
    use tokio::sync::mpsc::unbounded_channel;
    use tokio_util::sync::CancellationToken;

    use super::source::Host;
    use super::*;
    use crate::Grants;
    use crate::capability::Remedies;
    use crate::files::Files;
    use crate::reporter::Reporter;
    use crate::state::Job;

    fn state(source: Option<SourceFacts>) -> State {
        let (events, _) = unbounded_channel();
        let files = Files::none(Remedies::new("m", &Grants::default())).unwrap();
        let job = Job { source, ..Job::default() };
        State::new(files, &Grants::default(), Reporter::new("m", events), CancellationToken::new(), job)
    }

    #[test]
    fn a_component_gets_the_timeline_history_of_the_source() {
        let facts = SourceFacts {
            server_version: 150_018,
            system_identifier: 7,
            timeline: 4,
            wal_position: Lsn(0x500),
            history: vec![Fork { timeline: 1, at: Lsn(0x100) }, Fork { timeline: 3, at: Lsn(0x300) }],
            tablespaces: None,
        };
        let history = state(Some(facts)).timeline_history().unwrap().unwrap();
        let reported: Vec<_> = history.iter().map(|one| (one.timeline, one.ended_at)).collect();
        assert_eq!(reported, [(1, 0x100), (3, 0x300)]);
        assert!(state(None).timeline_history().unwrap().is_none());
    }
}
