//! Remedies: configuration lines that would allow a denied call. Each capability writes its own.

use std::path::Path;
use std::sync::Arc;

use crate::Grants;
use crate::text::{is_printable, key, quoted};

/// How many bytes a name in a line of configuration may have.
pub(super) const NAME: usize = 64;

/// Writes lines of configuration for one method.
#[derive(Clone, Debug)]
pub(crate) struct Remedies {
    pub(super) method: String,
    /// The existing grants. A new line replaces an old one, so it must repeat what the old one grants.
    pub(super) grants: Arc<Grants>,
}

impl Remedies {
    /// Makes a writer for the method with this name and these grants.
    pub(crate) fn new(method: &str, grants: &Grants) -> Self {
        Self { method: method.to_owned(), grants: Arc::new(grants.clone()) }
    }

    /// Returns the line that grants one thing by name; `None` if the name cannot be written in the configuration.
    pub(super) fn named(&self, kind: &str, name: &str, value: &str) -> Option<String> {
        let fits = !name.is_empty() && name.len() <= NAME && is_printable(name);
        fits.then(|| format!("[method.{}.grants] {kind}.{} = {{ {value} }}", key(&self.method), key(name)))
    }

    /// Returns the line that grants these paths.
    pub(super) fn paths<'a>(&self, kind: &str, granted: impl Iterator<Item = &'a Path>) -> String {
        let list: Vec<_> = granted.map(|path| quoted(&path.to_string_lossy())).collect();
        format!("[method.{}.grants] {kind} = [{}]", key(&self.method), list.join(", "))
    }
}
