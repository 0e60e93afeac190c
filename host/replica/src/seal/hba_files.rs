//! What `pg_hba.conf` and `pg_ident.conf` have the server read besides: `@file` in any field, and from version 16 on lines with `include`,
//! `include_if_exists` and `include_dir` (`tokenize_auth_file` in `src/backend/libpq/hba.c`). Only files inside the data directory are
//! read here; whether the files are there and what their rules say is not judged.

use std::collections::BTreeSet;
use std::path::Path;

use foundation::rooted::{Kind, RelativePath};

use super::configuration::{Configuration, LONGEST};
use super::hazards::refuse_or_tell;
use super::leads::{Leads, leads};
use super::places::Places;
use super::problem::{During, Findings, Problem, shown};

use crate::Rule;

const CHECK: Rule = Rule::Configuration;

/// The files and the settings that name others.
const FILES: [(RelativePath, &str); 2] = [
    (RelativePath::literal("pg_hba.conf"), "hba_file"),
    (RelativePath::literal("pg_ident.conf"), "ident_file"),
];

/// What Patroni copies over those files where they are missing (`restore_configuration_files` in `patroni/postgresql/config.py`).
const COPIES: [RelativePath; 2] =
    [RelativePath::literal("pg_hba.conf.backup"), RelativePath::literal("pg_ident.conf.backup")];

/// The options of a rule whose values are secrets, or have one in them.
const SECRETS: [&str; 3] = ["ldapbindpasswd", "ldapurl", "radiussecret"];

/// How many files are read in all.
const MOST_FILES: usize = 200;

/// How many places outside are told of; under a policy the first ends the seal.
const MOST_TOLD: usize = 50;

/// Tells of every file outside the data directory that these files have the server read, or refuses the first.
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
            if let Leads::Inside(Some(path)) = leads(places, None, Path::new(&entry.value)) {
                reader.read(&path)?;
            }
        }
    }
    for hazard in reader.outside {
        refuse_or_tell(refuse, hazard, findings)?;
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

    /// Puts what a line names among the files that wait, or tells that it lies outside.
    fn follow(
        &mut self,
        file: &RelativePath,
        number: usize,
        named: &Named,
        waiting: &mut Vec<RelativePath>,
    ) -> Result<(), Problem> {
        let (from, how) = (file.parent(), named.how);
        match leads(self.places, from.as_ref().map(RelativePath::as_path), Path::new(&named.path)) {
            Leads::Inside(Some(path)) if how == "include_dir" => self.directory(&path, waiting),
            Leads::Inside(Some(path)) => {
                waiting.push(path);
                Ok(())
            }
            Leads::Inside(None) => Ok(()),
            Leads::Mapped | Leads::Unclear | Leads::Outside => {
                if self.outside.len() < MOST_TOLD {
                    let to = match named.may_be_secret {
                        true => "a path that is not shown, for it stands behind an option with a secret"
                            .to_owned(),
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

/// The lines with those joined that a backslash continues, each with the number of its first.
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

/// What a line has the server read.
struct Named {
    /// How the line says so.
    how: &'static str,
    path: String,
    /// Whether a blank or a comma too much may have made it of a secret.
    may_be_secret: bool,
}

fn named(line: &[u8], includes: bool) -> Vec<Named> {
    let tokens = tokens(line);
    let secret = first_secret(&tokens);
    let mut named: Vec<_> = tokens
        .iter()
        .enumerate()
        .filter(|(_, token)| !token.quoted && token.text.len() > 1)
        .filter_map(|(at, token)| {
            let path = token.text.strip_prefix('@')?.to_owned();
            Some(Named { how: "@", path, may_be_secret: secret.is_some_and(|secret| at > secret) })
        })
        .collect();
    if includes && let [first, rest @ ..] = &tokens[..] {
        let directive =
            ["include", "include_if_exists", "include_dir"].into_iter().find(|word| *word == first.text);
        if let Some(how) = directive {
            let is_secret = secret.is_some();
            named.extend(rest.iter().map(|token| Named {
                how,
                path: token.text.clone(),
                may_be_secret: is_secret,
            }));
        }
    }
    named
}

/// Where the first option with a secret stands.
fn first_secret(tokens: &[Token]) -> Option<usize> {
    tokens.iter().position(|token| SECRETS.iter().any(|secret| token.text.starts_with(secret)))
}

/// What stands behind an option with a secret in its line, that option's value too: a blank or a comma too much may have made it of the
/// secret. Without the `@` of a file's name.
pub(super) fn possible_secrets(file: &[u8]) -> Vec<String> {
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
    /// Whether it begins with a quote, so that an `@` has no meaning.
    quoted: bool,
}

/// The fields of a line (`next_token`): separated by blanks and commas, with quotes in which these are plain, up to a `#`.
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

    fn told(files: &[(&str, &str)], major: u32, refuse: bool) -> Result<Vec<String>, Problem> {
        let restored = Restored::with(files);
        let mut findings = Findings::default();
        check(&restored.places(), &restored.read()?, major, refuse, &mut findings)?;
        Ok(findings.into_list().into_iter().map(|finding| finding.message).collect())
    }

    #[test]
    fn files_outside_that_are_read_for_a_rule_are_told_with_their_line() {
        let rules = "# @/etc/comment\nlocal all @/etc/users trust\nlocal \"@/etc/not\" a,@../dbs, trust\ninclude /etc/more\n\
                     host all all 127.0.0.1/32 \\\nident map=@x @\"/etc/quoted\"\n";
        let expected = [
            "pg_hba.conf line 2: `@` leads out of the data directory, to `/etc/users`",
            "pg_hba.conf line 3: `@` leads out of the data directory, to `../dbs`",
            "pg_hba.conf line 4: `include` leads out of the data directory, to `/etc/more`",
            "pg_hba.conf line 5: `@` leads out of the data directory, to `/etc/quoted`",
        ];
        assert_eq!(told(&[("pg_hba.conf", rules)], 16, false).unwrap(), expected);
        // Before version 16 a line cannot include; the server does not take such a one.
        assert_eq!(told(&[("pg_hba.conf", rules)], 15, false).unwrap().len(), 3);
        assert!(told(&[("pg_hba.conf", rules)], 16, true).unwrap_err().message.contains("refuse-commands"));
    }

    #[test]
    fn what_a_blank_may_have_made_of_a_secret_is_not_shown() {
        let rules = "host all @/etc/users 10.0.0.1/32 ldap ldapserver=x ldapbindpasswd= @/etc/hunter2\n\
                     host all all 10.0.0.1/32 radius radiussecrets=a,@/etc/hunter2\n";
        let told = told(&[("pg_hba.conf", rules)], 15, false).unwrap();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(
            told[0].contains("/etc/users") && told.iter().all(|told| !told.contains("hunter2")),
            "{told:?}"
        );
        let possible = possible_secrets(rules.as_bytes());
        assert!(possible.contains(&"/etc/hunter2".to_owned()), "{possible:?}");
        assert!(!possible.iter().any(|text| text.contains("users")), "{possible:?}");
    }

    #[test]
    fn what_lies_inside_is_read_as_the_server_would() {
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
        assert!(told(&files, 18, true).is_err());
        let told = told(&files, 18, false).unwrap();
        for outside in ["/etc/b", "/etc/x", "/etc/more-users", "/etc/i"] {
            assert!(told.iter().any(|told| told.contains(outside)), "{outside}: {told:?}");
        }
        assert_eq!(told.len(), 4, "{told:?}");
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
            assert!(told(&files, 15, false).unwrap()[0].starts_with(&format!("{name} line 1")));
            assert!(told(&files, 15, true).unwrap_err().message.contains("refuse-commands"));
        }
    }

    #[test]
    fn nothing_there_and_files_without_end_come_to_an_end() {
        assert!(told(&[], 18, true).unwrap().is_empty());
        let many: String = (0..=MOST_FILES).map(|number| format!("include f{number}\n")).collect();
        assert!(told(&[("pg_hba.conf", &many)], 18, false).unwrap_err().message.contains("200 files"));
        let outside: String = (0..100).map(|number| format!("local all @/etc/f{number} trust\n")).collect();
        assert_eq!(told(&[("pg_hba.conf", &outside)], 18, false).unwrap().len(), MOST_TOLD);
    }
}
