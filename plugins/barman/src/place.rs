//! The folder of a server: what Barman calls its backup directory, or the same folder in the store of barman-cloud. The options `directory`
//! or `store`, `prefix` and `server` name it.

use std::fmt;

use restore::folder::{self, Folder, below};
use understudy::{Failure, Request};

/// The folder of a server in a granted directory or store.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) at: Folder,
    /// The name of the server.
    pub(crate) server: String,
}

impl Place {
    /// Opens the folder that the options name.
    ///
    /// # Errors
    /// [`Failure::NotApplicable`] if the directory does not exist; [`Failure::Failed`] if the options contradict each other or the place is
    /// not granted.
    pub(crate) fn of(request: &Request) -> Result<Self, Failure> {
        let server: String = request.require("server")?;
        if matches!(server.as_str(), "" | "." | "..") || server.contains(['/', '\0']) {
            return Err(Failure::failed(format!(
                "`server = \"{}\"` is not the name of a server in Barman",
                server.escape_debug()
            )));
        }
        let at = Folder::open(request, below(&prefix(request)?, &server))?;
        Ok(Self { at, server })
    }

    /// Returns the key of the object or folder `name` in the folder of the server.
    pub(crate) fn key(&self, name: &str) -> String {
        self.at.key(name)
    }

    /// Returns the folder of the backup `id`.
    pub(crate) fn backup(&self, id: &str) -> String {
        self.key(&format!("base/{id}"))
    }

    /// Names the object `key` in a message.
    pub(crate) fn shown(&self, key: &str) -> String {
        self.at.shown(key)
    }

    /// Returns a failure that names the object `key`.
    pub(crate) fn failed(&self, key: &str, what: impl fmt::Display) -> Failure {
        Failure::failed(format!("{} {what}", self.shown(key)))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.at.fmt(f)
    }
}

/// Reads the option `prefix`, which must name a folder; empty if it is not set.
fn prefix(request: &Request) -> Result<String, Failure> {
    let Some(text) = request.get::<String>("prefix")? else { return Ok(String::new()) };
    // The path in barman-cloud's URL may begin with a `/`, which Barman removes.
    let request = Request::default().with("prefix", text.trim_start_matches('/'));
    Ok(folder::option(&request, "prefix")?.unwrap_or_default())
}
