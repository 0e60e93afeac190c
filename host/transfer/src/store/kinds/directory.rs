//! `file:///directory`: a local directory.

use tokio::runtime::Handle;

use super::chosen::Chosen;
use super::{Opened, Place, StoreKind, Tls, url};
use crate::error::Error;
use crate::store::directory::Directory;
use crate::store::key::Prefix;

/// A local directory.
pub(super) static KIND: StoreKind = StoreKind {
    scheme: "file",
    example: "file:///directory",
    label: "a file store",
    place: Place::Directory,
    settings: &[],
    credentials: &[],
    conflict: "",
    environment: &[],
    tls: Tls::Never,
    redirects: false,
    open,
};

fn open(chosen: &Chosen<'_>, _: &Handle) -> Result<Opened, Error> {
    let directory = Directory::open(&url::directory(chosen.url())?)?;
    Ok(Opened { prefix: Prefix::default(), backend: Box::new(directory) })
}
