//! Reads and changes pgBackRest's files backup.info, archive.info and backup.manifest. Each file has sections with `key=JSON` lines,
//! and a checksum over all lines (`src/info/info.c`). This module computes the checksum again when it writes a file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha1::{Digest as _, Sha1};

use crate::user::ServerUser;

/// The last section of the file, which has the checksum.
const CHECKSUM: &str = "\n[backrest]\nbackrest-checksum=";

/// The content of one of these files, without its checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info(Vec<(String, Vec<(String, String)>)>);

impl Info {
    /// Reads a file that is not encrypted.
    ///
    /// # Errors
    /// Fails if the file cannot be read or does not have this format.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not a file of pgBackRest's format", path.display()))
    }

    fn parse(text: &str) -> Option<Self> {
        let (text, _checksum) = text.rsplit_once(CHECKSUM)?;
        let mut sections: Vec<(String, Vec<(String, String)>)> = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                sections.push((name.to_owned(), Vec::new()));
            } else {
                // A key may be a file name and could contain `=`, but no key in these tests does. So the first `=` ends the key.
                let (key, value) = line.split_once('=')?;
                sections.last_mut()?.1.push((key.to_owned(), value.to_owned()));
            }
        }
        Some(Self(sections))
    }

    /// Returns the value of a key as JSON.
    pub fn get(&self, section: &str, key: &str) -> Option<&str> {
        let (_, lines) = self.0.iter().find(|(name, _)| name == section)?;
        lines.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Returns every key of a section.
    pub fn keys(&self, section: &str) -> Vec<&str> {
        let lines = self.0.iter().find(|(name, _)| name == section).map(|(_, lines)| lines.as_slice());
        lines.unwrap_or_default().iter().map(|(key, _)| key.as_str()).collect()
    }

    /// Sets a key to a JSON value. Adds a new key at the end of its section, and a new section at the end of the file.
    pub fn set(&mut self, section: &str, key: &str, value: &str) -> &mut Self {
        let lines = self.section(section);
        match lines.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => value.clone_into(old),
            None => lines.push((key.to_owned(), value.to_owned())),
        }
        self
    }

    /// Replaces a part of a value.
    ///
    /// # Panics
    /// Panics if the key is missing or its value does not contain `from`.
    pub fn replace(&mut self, section: &str, key: &str, from: &str, to: &str) -> &mut Self {
        let value = self.get(section, key).unwrap_or_else(|| panic!("[{section}] has no {key}"));
        assert!(value.contains(from), "`{from}` is not in {value}");
        let value = value.replace(from, to);
        self.set(section, key, &value)
    }

    /// Adds a line at its position in pgBackRest's sort order, even if the key exists already.
    pub fn add(&mut self, section: &str, key: &str, value: &str) -> &mut Self {
        let lines = self.section(section);
        let at = lines.partition_point(|(name, _)| name.as_str() <= key);
        lines.insert(at, (key.to_owned(), value.to_owned()));
        self
    }

    /// Removes a key.
    ///
    /// # Panics
    /// Panics if the key is missing.
    pub fn remove(&mut self, section: &str, key: &str) -> &mut Self {
        assert!(self.get(section, key).is_some(), "[{section}] has no {key}");
        self.section(section).retain(|(name, _)| name != key);
        self
    }

    fn section(&mut self, section: &str) -> &mut Vec<(String, String)> {
        let at = self.0.iter().position(|(name, _)| name == section).unwrap_or_else(|| {
            self.0.push((section.to_owned(), Vec::new()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    /// Returns the text with its checksum.
    pub fn text(&self) -> String {
        let (mut text, mut checked) = (String::new(), String::from("{"));
        for (at, (section, lines)) in self.0.iter().enumerate() {
            let _ = writeln!(text, "{}[{section}]", if at == 0 { "" } else { "\n" });
            let _ = write!(checked, "{}\"{section}\":{{", if at == 0 { "" } else { "," });
            for (at, (key, value)) in lines.iter().enumerate() {
                let _ = writeln!(text, "{key}={value}");
                let _ = write!(checked, "{}\"{key}\":{value}", if at == 0 { "" } else { "," });
            }
            checked.push('}');
        }
        checked.push('}');
        let digest = Sha1::digest(checked.as_bytes());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{text}{CHECKSUM}\"{digest}\"\n")
    }

    /// Writes the file and its copy.
    ///
    /// # Errors
    /// Fails if a file cannot be written.
    pub fn write(&self, path: &Path, user: ServerUser) -> Result<()> {
        let text = self.text();
        user.write(path, &text)?;
        user.write(&copy_of(path), &text)
    }
}

/// Returns the path of the copy that pgBackRest keeps of each file, such as `backup.info.copy`.
fn copy_of(path: &Path) -> PathBuf {
    let mut copy = path.as_os_str().to_owned();
    copy.push(".copy");
    copy.into()
}

#[cfg(test)]
mod unit {
    use super::Info;

    /// archive.info as pgBackRest 2.45 wrote it.
    const ARCHIVE: &str = "[backrest]\nbackrest-format=5\nbackrest-version=\"2.45\"\n\n[db]\ndb-id=1\n\
        db-system-id=7712333976774343783\ndb-version=\"15\"\n\n[db:history]\n\
        1={\"db-id\":7712333976774343783,\"db-version\":\"15\"}\n\n[backrest]\n\
        backrest-checksum=\"3fc19f6f4a2ebaff1edff488337a011f6c49f934\"\n";

    #[test]
    fn a_file_of_pgbackrest_is_written_as_it_was_read() {
        let mut info = Info::parse(ARCHIVE).unwrap();
        assert_eq!(info.text(), ARCHIVE);
        assert_eq!(info.get("db", "db-version"), Some("\"15\""));
        info.set("db", "db-version", "\"16\"").add("other", "key", "[1]").add("db", "db-name", "1");
        let text = info.text();
        assert!(
            text.contains("db-name=1\ndb-system-id")
                && text.contains("db-version=\"16\"\n")
                && text.contains("\n[other]\nkey=[1]\n"),
            "{text}"
        );
        assert!(!text.contains("3fc19f6f4a2ebaff1edff488337a011f6c49f934"), "{text}");
        info.remove("other", "key");
    }
}
