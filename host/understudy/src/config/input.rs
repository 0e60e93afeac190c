//! Where the text of a configuration was written: in a file, or on the command line of `understudy run`.

use std::path::Path;

use super::problem::{Origin, Place};

/// Where the text of a configuration was written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input<'t> {
    /// In a file. The path is as the operator gave it.
    File(&'t Path),
    /// On the command line. Each line of the text was made from the flag with the same index.
    Flags(&'t [String]),
}

impl<'t> Input<'t> {
    /// Returns where the text at `place` was written.
    pub(super) fn origin(self, place: Place) -> Origin {
        match self {
            Self::File(file) => Origin::File { file: file.to_owned(), place },
            Self::Flags(flags) => {
                let flag = place.line.checked_sub(1).and_then(|line| flags.get(line)).or(flags.last());
                Origin::Flag { flag: flag.cloned().unwrap_or_default() }
            }
        }
    }

    /// Returns the path of the file; `None` if the text was made from flags.
    pub(super) fn file(self) -> Option<&'t Path> {
        match self {
            Self::File(file) => Some(file),
            Self::Flags(_) => None,
        }
    }

    /// Returns the folder to which a relative path refers: that of the file, or the current directory, which is empty here.
    pub(super) fn folder(self) -> &'t Path {
        self.file().and_then(Path::parent).unwrap_or(Path::new(""))
    }
}

/// A configuration that was made from flags.
#[derive(Clone, Debug, Default)]
pub struct FlagText {
    text: String,
    /// The flag of each line of `text`.
    flags: Vec<String>,
}

impl FlagText {
    /// Adds a line, such as the head of a section, and the flag that it was made from, as messages name it.
    pub fn line(&mut self, flag: &str, line: &str) {
        for line in line.lines() {
            self.text.push_str(line);
            self.text.push('\n');
            self.flags.push(flag.to_owned());
        }
    }

    /// Adds a setting and the flag that it was made from, as messages name it. `key` is written as it is, so that it can be a dotted key.
    pub fn set(&mut self, flag: &str, key: &str, value: impl Into<toml::Value>) {
        self.line(flag, &format!("{key} = {}", value.into()));
    }

    /// Returns the configuration as TOML.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn input(&self) -> Input<'_> {
        Input::Flags(&self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_the_flag_even_after_a_value_with_line_ends() {
        let mut text = FlagText::default();
        text.set("--scope", "scope", "a\nb\n\nc");
        text.set("--into", "datadir", "/data");
        let line = 1 + text.text().lines().position(|line| line.starts_with("datadir")).unwrap();
        assert_eq!(text.input().origin(Place { line, column: 1 }).to_string(), "--into");
        assert_eq!(text.input().origin(Place { line: 1, column: 1 }).to_string(), "--scope");
        let table: toml::Table = text.text().parse().unwrap();
        assert_eq!(table["scope"].as_str(), Some("a\nb\n\nc"));
    }
}
