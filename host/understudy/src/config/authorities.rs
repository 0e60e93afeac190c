//! `ca_file`: the certificate authorities that are trusted for the server of a store.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use replica::source::shown_if_there;

use super::owned_file;
use super::problem::{Origin, Problem};
use super::tree::Value;

/// How many bytes the file may have. A longer file is likely the wrong file: all authorities that a browser trusts take about 220 kB.
const LIMIT: u64 = 1 << 20;

/// A file with the certificates of authorities.
#[derive(Clone, Debug)]
pub struct Authorities {
    /// The file of certificates in PEM.
    path: PathBuf,
    /// Where the configuration names it.
    origin: Origin,
}

impl Authorities {
    /// Reads the setting, but not yet the file of certificates.
    pub(super) fn read(value: &Value<'_>) -> Option<Self> {
        Some(Self { path: value.path_of_secret()?, origin: value.origin() })
    }

    /// Returns the content of the file, which is read now.
    ///
    /// # Errors
    /// A problem at the setting that names the file.
    pub(super) fn resolve(&self) -> Result<String, Problem> {
        read(&self.path).map_err(|why| {
            let why = format!("cannot use the authorities in {}: {why}", shown_if_there(&self.path));
            Problem::new(self.origin.clone(), why)
        })
    }
}

/// Reads the file, which this user or root must own. Refuses a file that other users may change, because they could then impersonate the
/// server.
fn read(path: &Path) -> Result<String, String> {
    let (file, metadata) = owned_file::open(path)?;
    if metadata.mode() & 0o022 != 0 {
        let mode = metadata.mode() & 0o7777;
        return Err(format!("others may change it (mode {mode:04o}): `chmod {:04o}` it", mode & 0o755));
    }
    let mut text = String::new();
    file.take(LIMIT + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > LIMIT {
        return Err(format!("it is longer than {LIMIT} bytes"));
    }
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        return Err("it holds no certificate in PEM (-----BEGIN CERTIFICATE-----)".to_owned());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const CERTIFICATE: &str = "a private authority\n-----BEGIN CERTIFICATE-----\n";

    fn in_file(content: &[u8], mode: u32) -> Result<String, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
        read(file.path())
    }

    #[test]
    fn a_file_without_certificates_and_a_file_that_is_too_long_are_refused() {
        assert_eq!(in_file(CERTIFICATE.as_bytes(), 0o644).unwrap(), CERTIFICATE);
        for nothing in [&b""[..], b"-----BEGIN PRIVATE KEY-----\n"] {
            assert!(in_file(nothing, 0o644).unwrap_err().contains("no certificate"));
        }
        assert!(in_file(b"\xFF", 0o644).unwrap_err().contains("UTF-8"));
        let longest = format!("{CERTIFICATE}{}", " ".repeat(LIMIT as usize - CERTIFICATE.len()));
        assert!(in_file(longest.as_bytes(), 0o644).is_ok());
        assert!(in_file(format!("{longest} ").as_bytes(), 0o644).unwrap_err().contains("longer than"));
        assert!(read(Path::new("/")).unwrap_err().contains("not a file"));
    }

    #[test]
    fn authorities_that_others_may_change_are_refused() {
        for (mode, advice) in [(0o664, "chmod 0644"), (0o646, "chmod 0644"), (0o777, "chmod 0755")] {
            let why = in_file(CERTIFICATE.as_bytes(), mode).unwrap_err();
            assert!(why.contains(advice), "{why}");
        }
    }
}
