//! The folder of a server: what Barman calls its backup directory, or the same folder in the store of barman-cloud. The options `directory`
//! or `store`, `prefix` and `server` name it.

use std::fmt;
use std::path::{Path, PathBuf};

use understudy::store::Bucket;
use understudy::{Error, Failure, Request, is_granted};

/// The folder of a server in a granted directory or store.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) bucket: Bucket,
    /// The folder in the bucket, without a `/` at either end.
    root: String,
    /// The folder as a path, if it is in a directory of this machine.
    pub(crate) path: Option<PathBuf>,
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
        let (name, is_local) = match (request.get::<String>("directory")?, request.get::<String>("store")?) {
            (Some(directory), None) => (directory, true),
            (None, Some(store)) => (store, false),
            _ => {
                return Err(Failure::failed("set one of the options `directory` and `store`, and not both"));
            }
        };
        let root = below(&prefix(request)?, &server);
        // `Bucket::open` tells a directory, which has an absolute path, from a store, which has a name.
        if is_local && !is_granted(&name) {
            return Err(Failure::failed(format!(
                "{name} is not granted: add it to `grants.read` of this method, as an absolute path without `..`"
            )));
        }
        if !is_local && name.starts_with('/') {
            return Err(Failure::failed(format!(
                "`store = \"{name}\"` is a path: write it as `directory`, or the name of a store"
            )));
        }
        let bucket = match Bucket::open(&name) {
            Err(Error::NotFound(_)) if is_local => {
                return Err(Failure::not_applicable(format!("there is no directory {name}")));
            }
            opened => opened?,
        };
        let path = is_local.then(|| Path::new(&name).join(&root));
        Ok(Self { bucket, root, path, server })
    }

    /// Returns the key of the object or folder `name` in the folder of the server.
    pub(crate) fn key(&self, name: &str) -> String {
        below(&self.root, name)
    }

    /// Returns the folder of the backup `id`.
    pub(crate) fn backup(&self, id: &str) -> String {
        self.key(&format!("base/{id}"))
    }

    /// Names the object `key` in a message.
    pub(crate) fn shown(&self, key: &str) -> String {
        let name = self.bucket.name();
        if self.path.is_some() {
            format!("{}/{key}", name.trim_end_matches('/'))
        } else {
            format!("{name}:{key}")
        }
    }

    /// Returns a failure that names the object `key`.
    pub(crate) fn failed(&self, key: &str, what: impl fmt::Display) -> Failure {
        Failure::failed(format!("{} {what}", self.shown(key)))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown(&self.root))
    }
}

/// Returns the path of `name` below `folder`.
fn below(folder: &str, name: &str) -> String {
    match (folder, name) {
        ("", name) => name.to_owned(),
        (folder, "") => folder.to_owned(),
        (folder, name) => format!("{folder}/{name}"),
    }
}

/// Reads the option `prefix`, which must name a folder; empty if it is not set.
fn prefix(request: &Request) -> Result<String, Failure> {
    let Some(text) = request.get::<String>("prefix")? else { return Ok(String::new()) };
    // The path in barman-cloud's URL may begin with a `/`, which Barman removes.
    let folder = text.trim_matches('/');
    let is_folder = !folder.split('/').any(|part| matches!(part, "" | "." | ".."));
    if is_folder {
        return Ok(folder.to_owned());
    }
    Err(Failure::failed(format!(
        "`prefix = \"{}\"` is not a folder below the directory or the store",
        text.escape_debug()
    )))
}
