//! `file:///directory`: a directory of this machine.

use tokio::runtime::Handle;

use super::chosen::Chosen;
use super::{Opened, Place, StoreKind, Tls, url};
use crate::error::Error;
use crate::store::directory::Directory;
use crate::store::key::Prefix;

/// A directory.
pub(super) static KIND: StoreKind = StoreKind {
    scheme: "file",
    example: "file:///directory",
    called: "a file store",
    place: Place::Directory,
    settings: &[],
    credentials: &[],
    several: "",
    environment: &[],
    tls: Tls::Never,
    redirects: false,
    open,
};

fn open(chosen: &Chosen<'_>, _: &Handle) -> Result<Opened, Error> {
    let directory = Directory::open(&url::directory(chosen.url())?)?;
    Ok(Opened { prefix: Prefix::default(), backend: Box::new(directory) })
}
