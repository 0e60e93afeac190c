//! Where the configuration of a run comes from: a file, or the flags of `run`. Everything else is the same for both.

use std::sync::Arc;

use replica::create_replica::Checked;
use replica::{EventSink, Report};

use super::{NotStarted, run};
use crate::cli::{JobArgs, RunArgs};
use crate::config::{Config, Environment};
use crate::render::about::About;

/// Where the configuration of a run comes from.
pub(super) enum ConfigSource<'a> {
    /// A file, and the flags of `create` and `check`.
    File(&'a JobArgs),
    /// The flags of `run`.
    Flags(&'a RunArgs),
}

impl ConfigSource<'_> {
    /// Reads, checks and returns the configuration.
    pub(super) fn load(&self, environment: Environment<'_>) -> Result<Config, NotStarted> {
        match self {
            Self::File(args) => Ok(Config::load(&args.config, &args.overrides(), environment)?),
            Self::Flags(args) => run::RunFlags::of(args, environment)?.config(environment),
        }
    }

    /// Returns what is known about the run before its configuration is read.
    pub(super) fn about(&self) -> About {
        match self {
            Self::File(args) => About::of(&args.config),
            Self::Flags(_) => About::of_flags(),
        }
    }

    /// Returns a sink that gives `events` every event with its remedy in the form in which the configuration was written.
    pub(super) fn with_remedies(&self, events: Arc<dyn EventSink>) -> Arc<dyn EventSink> {
        match self {
            Self::File(_) => events,
            Self::Flags(_) => Arc::new(run::AsFlags::new(events)),
        }
    }

    /// Gives the remedies of a report the same form.
    pub(super) fn write_remedies(&self, report: &mut Report) {
        match self {
            Self::File(_) => {}
            Self::Flags(_) => run::of_report(report),
        }
    }

    /// Gives the remedies of a check the same form.
    pub(super) fn write_remedies_of_check(&self, methods: &mut [Checked]) {
        match self {
            Self::File(_) => {}
            Self::Flags(_) => run::of_check(methods),
        }
    }
}
