//! Finds the files that the server reads because of `pg_hba.conf` and `pg_ident.conf`: `@file` in any field, and from version 16 on lines
//! with `include`, `include_if_exists` and `include_dir` (`tokenize_auth_file` in `src/backend/libpq/hba.c`). This module reads only files
//! inside the data directory. It does not check whether the files exist, or what their rules are.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use foundation::rooted::{Kind, RelativePath};

use super::configuration::{Configuration, LONGEST};
use super::destination::{Destination, destination};
use super::judged_settings::refuse_or_report;
use super::places::Places;
use super::problem::{During, Findings, Problem, shown};

use crate::{Rule, regular_file};

const CHECK: Rule = Rule::Configuration;

/// The two files, each with the setting that can name another file instead.
const FILES: [(RelativePath, &str); 2] = [
    (RelativePath::literal("pg_hba.conf"), "hba_file"),
    (RelativePath::literal("pg_ident.conf"), "ident_file"),
];

/// The files that Patroni copies to those files if they are missing (`restore_configuration_files` in `patroni/postgresql/config.py`).
const COPIES: [RelativePath; 2] =
    [RelativePath::literal("pg_hba.conf.backup"), RelativePath::literal("pg_ident.conf.backup")];

/// The options of a rule whose values are, or contain, secrets.
const SECRETS: [&str; 3] = ["ldapbindpasswd", "ldapurl", "radiussecret"];

/// The most files that are read.
const MOST_FILES: usize = 200;

/// The most paths outside the data directory that are reported; with `refuse-commands` the first such path ends the seal.
const MOST_REPORTED: usize = 50;

/// Reports every file outside the data directory that the server reads because of these files, or refuses the first such file.
pub(super) fn check(
    places: &Places<'_>,
    configuration: &Configuration,
    major: u32,
    refuse: bool,
    findings: &mut Findings,
) -> Result<(), Problem> {
    let mut reader = Reader { places, includes: major >= 16, read: BTreeSet::new(), outside: Vec::new() };
    for file in COPIES {
        reader.read(&file)?;
    }
    for (file, setting) in FILES {
        reader.read(&file)?;
        for entry in
            configuration.entries.iter().filter(|entry| entry.name == setting && entry.value.starts_with('/'))
        {
            if let Destination::Inside(Some(path)) = destination(places, None, Path::new(&entry.value)) {
                reader.read(&path)?;
            }
        }
    }
    for hazard in reader.outside {
        refuse_or_report(refuse, hazard, findings)?;
    }
    Ok(())
}

struct Reader<'a> {
    places: &'a Places<'a>,
    /// Whether lines may include files.
    includes: bool,
    read: BTreeSet<RelativePath>,
    outside: Vec<String>,
}

impl Reader<'_> {
    fn read(&mut self, file: &RelativePath) -> Result<(), Problem> {
        let mut waiting = vec![file.clone()];
        while let Some(file) = waiting.pop() {
            if self.read.contains(&file) {
                continue;
            }
            if self.read.len() >= MOST_FILES {
                let message =
                    format!("pg_hba.conf and pg_ident.conf name more than {MOST_FILES} files, at `{file}`");
                return Err(Problem::new(CHECK, message));
            }
            self.read.insert(file.clone());
            if self.places.top.find(&file).during(CHECK)?.map(|metadata| metadata.kind) == Some(Kind::File) {
                let bytes = self.places.top.read(&file, LONGEST).during(CHECK)?;
                for (number, line) in logical_lines(&bytes) {
                    for named in named(&line, self.includes) {
                        self.follow(&file, number, &named, &mut waiting)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds the file that a line names to `waiting`, or reports that the file is outside the data directory.
    fn follow(
        &mut self,
        file: &RelativePath,
        number: usize,
        named: &NamedFile,
        waiting: &mut Vec<RelativePath>,
    ) -> Result<(), Problem> {
        let (from, how) = (file.parent(), named.how);
        match destination(self.places, from.as_ref().map(RelativePath::as_path), Path::new(&named.path)) {
            Destination::Inside(Some(path)) if how == "include_dir" => self.directory(&path, waiting),
            Destination::Inside(Some(path)) => {
                waiting.push(path);
                Ok(())
            }
            Destination::Inside(None) => Ok(()),
            Destination::Mapped | Destination::Unclear | Destination::Outside => {
                if self.outside.len() < MOST_REPORTED {
                    let to = match named.may_be_secret {
                        true => {
                            "a path that is not shown, because it follows an option with a secret".to_owned()
                        }
                        false => format!("`{}`", shown(named.path.as_bytes())),
                    };
                    self.outside.push(format!(
                        "{file} line {number}: `{how}` leads out of the data directory, to {to}"
                    ));
                }
                Ok(())
            }
        }
    }

    fn directory(&self, path: &RelativePath, waiting: &mut Vec<RelativePath>) -> Result<(), Problem> {
        if self.places.top.find(path).during(CHECK)?.map(|metadata| metadata.kind) != Some(Kind::Directory) {
            return Ok(());
        }
        let directory = self.places.top.open_directory(path).during(CHECK)?;
        directory
            .names(&mut |name| {
                let bytes = name.as_encoded_bytes();
                if bytes.ends_with(b".conf") && !bytes.starts_with(b".") {
                    waiting
                        .push(RelativePath::new(path.as_path().join(name)).map_err(std::io::Error::other)?);
                }
                Ok(waiting.len() <= MOST_FILES)
            })
            .during(CHECK)
            .map(drop)
    }
}

/// Returns the lines, each with its number. A line that ends in a backslash is joined with the next one.
fn logical_lines(bytes: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let mut lines: Vec<(usize, Vec<u8>)> = Vec::new();
    let mut continued = false;
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (line, goes_on) = match line.strip_suffix(b"\\") {
            Some(line) => (line, true),
            None => (line, false),
        };
        match lines.last_mut() {
            Some((_, before)) if continued => before.extend_from_slice(line),
            _ => lines.push((index + 1, line.to_vec())),
        }
        continued = goes_on;
    }
    lines
}

/// A file that the server reads because of a line.
struct NamedFile {
    /// The directive, or `@`.
    how: &'static str,
    path: String,
    /// Whether the path may be part of a secret that contains a blank or a comma.
    may_be_secret: bool,
}

fn named(line: &[u8], includes: bool) -> Vec<NamedFile> {
    let tokens = tokens(line);
    let secret = first_secret(&tokens);
    let mut named: Vec<_> = tokens
        .iter()
        .enumerate()
        .filter(|(_, token)| !token.quoted && token.text.len() > 1)
        .filter_map(|(at, token)| {
            let path = token.text.strip_prefix('@')?.to_owned();
            Some(NamedFile { how: "@", path, may_be_secret: secret.is_some_and(|secret| at > secret) })
        })
        .collect();
    if includes && let [first, rest @ ..] = &tokens[..] {
        let directive =
            ["include", "include_if_exists", "include_dir"].into_iter().find(|word| *word == first.text);
        if let Some(how) = directive {
            let is_secret = secret.is_some();
            named.extend(rest.iter().map(|token| NamedFile {
                how,
                path: token.text.clone(),
                may_be_secret: is_secret,
            }));
        }
    }
    named
}

/// Returns the position of the first option with a secret.
fn first_secret(tokens: &[Token]) -> Option<usize> {
    tokens.iter().position(|token| SECRETS.iter().any(|secret| token.text.starts_with(secret)))
}

/// Returns the possible secrets in a file of rules and in the files that it includes, wherever these are: see [`possible_secrets`]. At most
/// [`MOST_FILES`] files are read, each up to [`LONGEST`] bytes; a file that cannot be read is skipped.
pub(super) fn possible_secrets_from(file: &Path, major: u32) -> Vec<String> {
    let (mut waiting, mut read, mut possible) = (vec![file.to_owned()], BTreeSet::new(), Vec::new());
    while let Some(file) = waiting.pop() {
        if read.len() >= MOST_FILES {
            break;
        }
        if !read.insert(file.clone()) {
            continue;
        }
        let bytes = beginning(&file);
        possible.extend(possible_secrets(&bytes));
        let (from, includes) = (file.parent().unwrap_or(Path::new("/")), major >= 16);
        for named in logical_lines(&bytes).iter().flat_map(|(_, line)| named(line, includes)) {
            let path = from.join(&named.path);
            match named.how {
                "include_dir" => {
                    let names = std::fs::read_dir(&path).into_iter().flatten().flatten();
                    waiting.extend(names.take(MOST_FILES).map(|name| name.path()));
                }
                _ => waiting.push(path),
            }
            // One file may name millions of files, but no more than this many are read.
            waiting.truncate(MOST_FILES);
        }
    }
    possible
}

/// Returns the first bytes of a file; no bytes if the file cannot be read.
fn beginning(file: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    // If an error ends the reading, the part before it counts.
    let _ = regular_file::open(file).and_then(|file| file.take(LONGEST).read_to_end(&mut bytes));
    bytes
}

/// Returns the value of each option with a secret, and every field after it in its line, which may be part of the secret if that contains
/// a blank or a comma. Removes the `@` of a file's name.
fn possible_secrets(file: &[u8]) -> Vec<String> {
    let mut possible = Vec::new();
    for (_, line) in logical_lines(file) {
        let tokens = tokens(&line);
        let Some(first) = first_secret(&tokens) else { continue };
        for token in tokens.iter().skip(first) {
            let value = token.text.split_once('=').map_or(token.text.as_str(), |(_, value)| value);
            possible.extend([token.text.as_str(), value].map(|text| text.trim_start_matches('@').to_owned()));
        }
    }
    possible.retain(|text| !text.is_empty());
    possible
}

#[derive(Debug, PartialEq, Eq)]
struct Token {
    text: String,
    /// Whether the field begins with a quote, so that an `@` has no special meaning.
    quoted: bool,
}

/// Returns the fields of a line (`next_token`): separated by blanks and commas, which quotes make ordinary characters, up to a `#`.
fn tokens(line: &[u8]) -> Vec<Token> {
    let mut tokens = Vec::new();
    let (mut text, mut began, mut quoted, mut in_quote) = (Vec::new(), false, false, false);
    let mut end = |text: &mut Vec<u8>, began: &mut bool, quoted: &mut bool| {
        if *began {
            tokens.push(Token { text: String::from_utf8_lossy(text).into_owned(), quoted: *quoted });
        }
        text.clear();
        (*began, *quoted) = (false, false);
    };
    for byte in line {
        match byte {
            b'#' if !in_quote => break,
            b'"' => {
                if !began {
                    quoted = true;
                }
                (began, in_quote) = (true, !in_quote);
            }
            b',' | b' ' | b'\t' | b'\r' | 0x0b | 0x0c if !in_quote => end(&mut text, &mut began, &mut quoted),
            byte => {
                began = true;
                text.push(*byte);
            }
        }
    }
    end(&mut text, &mut began, &mut quoted);
    tokens
}

#[cfg(test)]
mod tests {
    use super::super::configuration::tests::Restored;
    use super::*;

    fn reported(files: &[(&str, &str)], major: u32, refuse: bool) -> Result<Vec<String>, Problem> {
        let restored = Restored::with(files);
        let mut findings = Findings::default();
        check(&restored.places(), &restored.read()?, major, refuse, &mut findings)?;
        Ok(findings.into_list().into_iter().map(|finding| finding.message).collect())
    }

    #[test]
    fn files_outside_that_a_rule_reads_are_reported_with_their_line() {
        let rules = "# @/etc/comment\nlocal all @/etc/users trust\nlocal \"@/etc/not\" a,@../dbs, trust\ninclude /etc/more\n\
                     host all all 127.0.0.1/32 \\\nident map=@x @\"/etc/quoted\"\n";
        let expected = [
            "pg_hba.conf line 2: `@` leads out of the data directory, to `/etc/users`",
            "pg_hba.conf line 3: `@` leads out of the data directory, to `../dbs`",
            "pg_hba.conf line 4: `include` leads out of the data directory, to `/etc/more`",
            "pg_hba.conf line 5: `@` leads out of the data directory, to `/etc/quoted`",
        ];
        assert_eq!(reported(&[("pg_hba.conf", rules)], 16, false).unwrap(), expected);
        // Before version 16 a line cannot include a file; the server refuses it.
        assert_eq!(reported(&[("pg_hba.conf", rules)], 15, false).unwrap().len(), 3);
        assert!(
            reported(&[("pg_hba.conf", rules)], 16, true).unwrap_err().message.contains("refuse-commands")
        );
    }

    #[test]
    fn a_field_that_may_be_part_of_a_secret_is_not_shown() {
        let rules = "host all @/etc/users 10.0.0.1/32 ldap ldapserver=x ldapbindpasswd= @/etc/hunter2\n\
                     host all all 10.0.0.1/32 radius radiussecrets=a,@/etc/hunter2\n";
        let reported = reported(&[("pg_hba.conf", rules)], 15, false).unwrap();
        assert_eq!(reported.len(), 3, "{reported:?}");
        assert!(
            reported[0].contains("/etc/users")
                && reported.iter().all(|reported| !reported.contains("hunter2")),
            "{reported:?}"
        );
        let possible = possible_secrets(rules.as_bytes());
        assert!(possible.contains(&"/etc/hunter2".to_owned()), "{possible:?}");
        assert!(!possible.iter().any(|text| text.contains("users")), "{possible:?}");
    }

    #[test]
    fn the_secrets_of_included_files_are_found_too() {
        let files = [
            ("pg_hba.conf", "include more\ninclude_dir all\ninclude pg_hba.conf\n"),
            ("more", "host all all 10.0.0.1/32 ldap ldapbindpasswd=hunter2\n"),
            ("all/x.conf", "host all all 10.0.0.1/32 radius radiussecrets=hunter3\n"),
        ];
        let restored = Restored::with(&files);
        let possible = |major| possible_secrets_from(&restored.place.path().join("pg_hba.conf"), major);
        for secret in ["hunter2", "hunter3"] {
            assert!(possible(16).contains(&secret.to_owned()), "{secret}: {:?}", possible(16));
        }
        assert!(possible(15).is_empty());
    }

    #[test]
    fn files_inside_are_read_as_the_server_would() {
        let files = [
            (
                "pg_hba.conf",
                "include_if_exists 'no'\ninclude more/a\ninclude_dir more/d\nlocal all @users trust\n",
            ),
            ("more/a", "include b\n"),
            ("more/b", "local @/etc/b all trust\ninclude a\n"),
            ("more/d/x.conf", "local @/etc/x all trust\n"),
            ("more/d/.y.conf", "local @/etc/y all trust\n"),
            ("users", "alice bob @/etc/more-users\n"),
            ("pg_ident.conf", "map @/etc/i all\n"),
        ];
        assert!(reported(&files, 18, true).is_err());
        let reported = reported(&files, 18, false).unwrap();
        for outside in ["/etc/b", "/etc/x", "/etc/more-users", "/etc/i"] {
            assert!(reported.iter().any(|reported| reported.contains(outside)), "{outside}: {reported:?}");
        }
        assert_eq!(reported.len(), 4, "{reported:?}");
    }

    #[test]
    fn the_file_that_a_setting_names_is_read_too() {
        let restored = Restored::with(&[("rules/hba", "local all @/etc/users trust\n")]);
        let line = format!("hba_file = '{}/rules/hba'\n", restored.place.path().display());
        std::fs::write(restored.place.path().join("postgresql.conf"), line).unwrap();
        let mut findings = Findings::default();
        check(&restored.places(), &restored.read().unwrap(), 15, false, &mut findings).unwrap();
        assert!(findings.into_list()[0].message.contains("rules/hba line 1"));
    }

    #[test]
    fn the_copies_that_patroni_puts_in_place_of_missing_files_are_read_too() {
        for name in ["pg_hba.conf.backup", "pg_ident.conf.backup"] {
            let files = [(name, "local all @/etc/users trust\n")];
            assert!(reported(&files, 15, false).unwrap()[0].starts_with(&format!("{name} line 1")));
            assert!(reported(&files, 15, true).unwrap_err().message.contains("refuse-commands"));
        }
    }

    #[test]
    fn missing_files_are_not_a_problem_and_the_number_of_files_is_bounded() {
        assert!(reported(&[], 18, true).unwrap().is_empty());
        let many: String = (0..=MOST_FILES).map(|number| format!("include f{number}\n")).collect();
        assert!(reported(&[("pg_hba.conf", &many)], 18, false).unwrap_err().message.contains("200 files"));
        let outside: String = (0..100).map(|number| format!("local all @/etc/f{number} trust\n")).collect();
        assert_eq!(reported(&[("pg_hba.conf", &outside)], 18, false).unwrap().len(), MOST_REPORTED);
    }
}
