//! The lines of an audit, for the program that writes them and for the verb `report`, which reads them.

use std::borrow::Cow;

use replica::RunResult;
use replica::event::HostCall;
use serde::{Deserialize, Serialize};

/// How many bytes the file may have.
pub(crate) const FILE_BYTES: u64 = 256 << 20;
/// How many bytes a line may have. The bounds on its names and texts keep a line shorter.
pub(crate) const LINE_BYTES: usize = 16 << 10;

/// A line of the file. The writer borrows the call (`C`) from the event.
#[derive(Serialize, Deserialize)]
pub(crate) struct Line<'a, C = HostCall<String>> {
    /// When the line was written, RFC 3339.
    pub(crate) time: String,
    #[serde(flatten)]
    pub(crate) entry: Entry<'a, C>,
}

/// The content of a line.
#[derive(Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "kebab-case")]
pub(crate) enum Entry<'a, C = HostCall<String>> {
    /// The first line.
    Begin {
        /// The version of the program that writes the file.
        version: Cow<'a, str>,
        /// The path of the configuration.
        configuration: Cow<'a, str>,
    },
    /// A request of a method to the host.
    Call {
        method: Cow<'a, str>,
        #[serde(flatten)]
        call: C,
    },
    /// The file has reached its maximum size, so later calls are not recorded.
    Full { message: String },
    /// The last line.
    End { result: RunResult },
}

/// The bytes of a line, as far as this version of the program understands them.
pub(crate) enum ReadLine {
    Known(Line<'static>),
    /// A line of a kind, or with a word, that this version does not know. Holds the reason.
    Unknown(String),
    /// Not a line of an audit.
    Damaged,
}

impl ReadLine {
    /// Reads a line without its end.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct AnyLine {
            entry: String,
        }
        match serde_json::from_slice::<Line<'_>>(bytes) {
            Ok(line) => Self::Known(line),
            Err(error) => match serde_json::from_slice(bytes) {
                Ok(AnyLine { entry }) => Self::Unknown(format!("`{entry}`: {error}")),
                Err(_) => Self::Damaged,
            },
        }
    }
}
