//! libpq connection strings.

use std::fmt;
use std::path::Path;

use foundation::secret::Secret;

use super::{keywords, uri};

/// A parsed libpq connection string, in either of its forms. The `Debug` and `Display` of this type show no secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Conninfo {
    /// Keyword and value, each keyword once, in the order of the last mention.
    parameters: Vec<(String, String)>,
}

/// Why libpq would not accept a connection string. Never quotes the string, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConninfoError(pub String);

impl Conninfo {
    /// Parses `key=value ...` or `postgresql://...`. If a keyword occurs twice, its last value counts.
    ///
    /// # Errors
    /// Fails if libpq would not accept the text. The error says where, and for an unknown keyword names the nearest known one.
    pub fn parse(text: &str) -> Result<Self, ConninfoError> {
        if text.contains('\0') {
            return Err(ConninfoError("the connection string has a NUL character".to_owned()));
        }
        let found = if uri::is_uri(text) { uri::parse(text)? } else { parse_words(text)? };
        let mut conninfo = Self::default();
        let mut after_secret = false;
        for (index, (keyword, value)) in found.into_iter().enumerate() {
            if !keywords::is_known(&keyword) {
                return Err(unknown_keyword(&keyword, index + 1, after_secret));
            }
            after_secret |= keywords::is_secret(&keyword);
            conninfo.set(&keyword, value);
        }
        Ok(conninfo)
    }

    /// Returns whether libpq knows this keyword.
    pub fn is_keyword(word: &str) -> bool {
        keywords::is_known(word)
    }

    /// Returns the value of a keyword; `None` if it is missing or empty, which is the same for libpq.
    pub fn get(&self, keyword: &str) -> Option<&str> {
        let (_, value) = self.parameters.iter().find(|(known, _)| known == keyword)?;
        (!value.is_empty()).then_some(value)
    }

    /// Returns its password; `None` if it has none.
    pub fn password(&self) -> Option<Secret> {
        self.get("password").map(Secret::new)
    }

    /// Returns its secrets, including the password, each with its keyword.
    pub fn secrets(&self) -> impl Iterator<Item = (&str, Secret)> {
        let secret = |(keyword, value): &(String, String)| keywords::is_secret(keyword) && !value.is_empty();
        self.parameters
            .iter()
            .filter(move |parameter| secret(parameter))
            .map(|(keyword, value)| (keyword.as_str(), Secret::new(value.as_str())))
    }

    /// Refuses keywords that may lead to different files for this run, its native programs and the standby: a service, which libpq
    /// looks up in PGSERVICEFILE, in the home directory of the user and in a directory that it was compiled with, and relative paths.
    ///
    /// # Errors
    /// Fails with the name of the keyword and what to write instead.
    pub fn check_places(&self) -> Result<(), ConninfoError> {
        for keyword in ["service", "servicefile"] {
            if self.get(keyword).is_some() {
                return Err(ConninfoError(format!(
                    "`{keyword}` is not supported, because PGSERVICEFILE and ~/.pg_service.conf may differ between this run and the \
                     standby: write the settings of the service instead (`host`, `port`, `user`, ...)"
                )));
            }
        }
        for (keyword, path) in self.paths() {
            if !path.is_absolute() {
                return Err(ConninfoError(format!(
                    "`{keyword}` is a relative path: write it as an absolute one, which begins with `/`"
                )));
            }
        }
        Ok(())
    }

    /// Checks that the certificate and key files exist that libpq requires for every connection.
    ///
    /// # Errors
    /// Fails with the keyword that names a missing file.
    pub fn check_certificates(&self) -> Result<(), ConninfoError> {
        let missing = |keyword: &str| self.path(keyword).filter(|path| !path.exists());
        let verifies = matches!(self.get("sslmode"), Some("verify-ca" | "verify-full"));
        let has_certificate = self.path("sslcert").is_some_and(Path::exists);
        let needed = [("sslrootcert", verifies), ("sslkey", has_certificate)];
        for (keyword, _) in needed.into_iter().filter(|(_, is_needed)| *is_needed) {
            if let Some(path) = missing(keyword) {
                let shown = match keyword {
                    "sslkey" => "a file".to_owned(),
                    _ => path.display().to_string(),
                };
                return Err(ConninfoError(format!(
                    "`{keyword}` of the connection string names {shown}, which does not exist or cannot be examined"
                )));
            }
        }
        Ok(())
    }

    /// Returns the files and directories that the connection string names, each with its keyword.
    pub fn paths(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        keywords::PATHS.into_iter().filter_map(|keyword| Some((keyword, self.path(keyword)?)))
    }

    /// Returns the file that a keyword names; `sslrootcert=system` names none.
    fn path(&self, keyword: &str) -> Option<&Path> {
        self.get(keyword).filter(|value| (keyword, *value) != ("sslrootcert", "system")).map(Path::new)
    }

    /// Returns the connection string with `keyword` set to `value`.
    #[must_use]
    pub fn with(mut self, keyword: &str, value: &str) -> Self {
        self.set(keyword, value.to_owned());
        self
    }

    /// Returns the connection string without `keyword`.
    #[must_use]
    pub fn without(mut self, keyword: &str) -> Self {
        self.parameters.retain(|(known, _)| known != keyword);
        self
    }

    /// Returns `key=value ...` without `password`, `sslpassword` and the other secrets, in Patroni's order and with its
    /// escapes (`ConfigHandler.format_dsn`), so that a replica method gets what Patroni's scripts get.
    pub fn without_passwords(&self) -> String {
        let mut shown: Vec<_> =
            self.parameters.iter().filter(|(keyword, _)| !keywords::is_secret(keyword)).collect();
        shown.sort_by_key(|(keyword, _)| keywords::patroni_position(keyword));
        let words: Vec<_> =
            shown.iter().map(|(keyword, value)| format!("{keyword}={}", quote(value))).collect();
        words.join(" ")
    }

    fn set(&mut self, keyword: &str, value: String) {
        self.parameters.retain(|(known, _)| known != keyword);
        self.parameters.push((keyword.to_owned(), value));
    }
}

impl fmt::Display for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.without_passwords())
    }
}

impl fmt::Debug for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = self.secrets().map(|(keyword, _)| format!(" {keyword}=<secret>"));
        write!(f, "Conninfo({}{})", self.without_passwords(), hidden.collect::<String>())
    }
}

/// Quotes a value for libpq. The backslashes are as Patroni writes them; an empty value needs quotes, or libpq takes the
/// next word for the value.
fn quote(value: &str) -> String {
    if value.is_empty() {
        return "''".to_owned();
    }
    let mut quoted = String::with_capacity(value.len());
    for character in value.chars() {
        if matches!(character, '\'' | '\\') || is_space(character) {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted
}

/// Returns whether libpq splits words at this character: C's `isspace` in the POSIX locale.
fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

/// Returns the error about an unknown keyword. Does not show a keyword after a secret, because it may be the rest of an unquoted password
/// with a space in it.
fn unknown_keyword(keyword: &str, number: usize, after_secret: bool) -> ConninfoError {
    let nearest = keywords::nearest_to(keyword);
    let hint = nearest.map(|known| format!("; the nearest is `{known}`")).unwrap_or_default();
    let shown = match after_secret {
        true => format!("keyword {number}"),
        false => format!("keyword `{}`", keyword.escape_debug()),
    };
    ConninfoError(format!("{shown} of the connection string is unknown to libpq{hint}"))
}

/// Parses the `key=value` form, as `conninfo_parse` in libpq's `fe-connect.c` does.
fn parse_words(text: &str) -> Result<Vec<(String, String)>, ConninfoError> {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let number = found.len() + 1;
        let end = rest.find(|c| c == '=' || is_space(c)).unwrap_or(rest.len());
        let (keyword, after) = rest.split_at(end);
        let missing = || ConninfoError(format!("word {number} of the connection string has no `=`"));
        let after = after.trim_start_matches(is_space).strip_prefix('=').ok_or_else(missing)?;
        let after = after.trim_start_matches(is_space);
        let (value, after) = match after.strip_prefix('\'') {
            Some(quoted) => parse_quoted(quoted, number)?,
            None => parse_plain(after),
        };
        found.push((keyword.to_owned(), value));
        rest = after.trim_start_matches(is_space);
    }
    Ok(found)
}

fn parse_plain(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            c if is_space(c) => return (value, &text[at..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            c => value.push(c),
        }
    }
    (value, "")
}

fn parse_quoted(text: &str, number: usize) -> Result<(String, &str), ConninfoError> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\'' => return Ok((value, &text[at + 1..])),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            c => value.push(c),
        }
    }
    Err(ConninfoError(format!("the quoted value of word {number} of the connection string does not end")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(text: &str) -> Vec<(String, String)> {
        Conninfo::parse(text).unwrap().parameters
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(keyword, value)| ((*keyword).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn words_are_read_as_libpq_reads_them() {
        for (text, expected) in [
            ("", pairs(&[])),
            ("  host = a  port=1 ", pairs(&[("host", "a"), ("port", "1")])),
            (r"user='it\'s me' host=b", pairs(&[("user", "it's me"), ("host", "b")])),
            (r"user=it\'s\ me\\ host=b", pairs(&[("user", r"it's me\"), ("host", "b")])),
            ("user='a'host=b", pairs(&[("user", "a"), ("host", "b")])),
            ("host= port=1", pairs(&[("host", "port=1")])),
            ("host=''port=1", pairs(&[("host", ""), ("port", "1")])),
            ("host=a,b port=1,2 host=c", pairs(&[("port", "1,2"), ("host", "c")])),
        ] {
            assert_eq!(parameters(text), expected, "{text}");
        }
    }

    #[test]
    fn a_uri_is_read_as_libpq_reads_it() {
        for (text, expected) in [
            ("postgresql://", pairs(&[])),
            ("postgres://h", pairs(&[("host", "h")])),
            ("postgresql://u:p%40%3A@h:5433/d?sslmode=require", {
                pairs(&[("user", "u"), ("password", "p@:"), ("host", "h"), ("port", "5433"), ("dbname", "d")])
                    .into_iter()
                    .chain(pairs(&[("sslmode", "require")]))
                    .collect()
            }),
            ("postgresql://a:1,b,[2001:db8::1]:3/", pairs(&[("host", "a,b,2001:db8::1"), ("port", "1,,3")])),
            ("postgresql:///d?host=%2Ftmp&ssl=true", {
                pairs(&[("dbname", "d"), ("host", "/tmp"), ("sslmode", "require")])
            }),
            ("postgresql://%2Frun%2Fpostgresql/d", pairs(&[("host", "/run/postgresql"), ("dbname", "d")])),
            ("postgresql://u@h?", pairs(&[("user", "u"), ("host", "h")])),
        ] {
            assert_eq!(parameters(text), expected, "{text}");
        }
    }

    #[test]
    fn what_libpq_refuses_is_refused_without_quoting_a_password() {
        for text in [
            "password=hunter2 hunter2",
            "password=my hunter2=x",
            "host=a password='hunter2",
            "postgresql://u:hunter2@[::1",
            "postgresql://u:hunter2@[]",
            "postgresql://u:hunter2@[::1]x",
            "postgresql://u:hunter2%4@h",
            "postgresql://u:hunter2%00@h",
            "postgresql://u@h/?password=hunter2=",
            "postgresql://u@h/?hunter2",
            "postgresql://u:pass@hunter2@h",
            "postgresql://u:hunter2/pass@h",
            "password=hunter2\0",
        ] {
            let error = Conninfo::parse(text).unwrap_err();
            assert!(!error.0.contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn services_and_relative_paths_are_refused_by_name() {
        for (text, keyword) in [
            ("service=main", "`service`"),
            ("postgresql://?service=main", "`service`"),
            ("host=h servicefile=/etc/pg_service.conf", "`servicefile`"),
            ("host=h passfile=pgpass", "`passfile`"),
            ("host=h sslrootcert=./ca.pem", "`sslrootcert`"),
            ("host=h sslcert=~/a.pem", "`sslcert`"),
            ("host=h sslkey=a.key", "`sslkey`"),
            ("host=h sslcrldir=crl", "`sslcrldir`"),
        ] {
            let error = Conninfo::parse(text).unwrap().check_places().unwrap_err();
            assert!(error.0.contains(keyword), "{text}: {error}");
        }
        for text in ["host=h service=''", "host=h sslrootcert=system", "host=/run/x passfile=/a sslcrl=/b"] {
            Conninfo::parse(text).unwrap().check_places().unwrap();
        }
    }

    #[test]
    fn certificates_that_libpq_needs_must_exist() {
        let there = tempfile::NamedTempFile::new().unwrap();
        let there = there.path().display();
        for (text, keyword) in [
            ("sslmode=verify-full sslrootcert=/nowhere/ca.pem".to_owned(), "`sslrootcert`"),
            ("sslmode=verify-ca sslrootcert=/nowhere/ca.pem".to_owned(), "`sslrootcert`"),
            (format!("sslcert={there} sslkey=/nowhere/key"), "`sslkey`"),
        ] {
            let error = Conninfo::parse(&text).unwrap().check_certificates().unwrap_err();
            assert!(error.0.contains(keyword) && error.0.contains("does not exist"), "{text}: {error}");
            assert!(!error.0.contains("/nowhere/key"), "what is no path may be the key itself: {error}");
        }
        // libpq does not require these files.
        for text in [
            "sslmode=require sslrootcert=/nowhere/ca.pem".to_owned(),
            "sslcert=/nowhere/cert sslkey=/nowhere/key".to_owned(),
            format!("sslmode=verify-full sslrootcert={there}"),
            "sslmode=verify-full sslrootcert=system".to_owned(),
        ] {
            Conninfo::parse(&text).unwrap().check_certificates().unwrap();
        }
    }

    #[test]
    fn an_unknown_keyword_is_refused_with_the_nearest_right_one() {
        for (text, known) in
            [("hots=a", "host"), ("pasword=hunter2", "password"), ("postgresql://h/?slmode=x", "sslmode")]
        {
            let error = Conninfo::parse(text).unwrap_err();
            assert!(error.0.contains(&format!("the nearest is `{known}`")), "{error}");
            assert!(!error.0.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn rule_03_the_connection_string_is_as_patronis_scripts_get_it_less_the_passwords() {
        let text = r"port=5432 host=10.0.0.1 password=x user=repl\ icator sslpassword=y options='-c a=b' sslmode=prefer";
        let conninfo = Conninfo::parse(text).unwrap();
        let shown = r"user=repl\ icator host=10.0.0.1 port=5432 sslmode=prefer options=-c\ a=b";
        assert_eq!(conninfo.without_passwords(), shown);
        assert_eq!(conninfo.to_string(), shown);
        assert_eq!(Conninfo::parse(shown).unwrap().without_passwords(), shown);
    }

    #[test]
    fn an_empty_value_does_not_swallow_the_next_word() {
        let shown = Conninfo::parse("host='' port=1 user=''").unwrap().without_passwords();
        assert_eq!(parameters(&shown), pairs(&[("user", ""), ("host", ""), ("port", "1")]));
    }

    #[test]
    fn rule_03_no_secret_is_shown() {
        let secrets = "password=hunter2 sslpassword=hunter3 scram_client_key=hunter4 scram_server_key=hunter5 oauth_client_secret=hunter6";
        let conninfo = Conninfo::parse(secrets).unwrap();
        let shown = format!("{conninfo:?} {conninfo} {:?}", conninfo.secrets().collect::<Vec<_>>());
        assert!(!shown.contains("hunter"), "{shown}");
        assert_eq!(conninfo.secrets().count(), 5);
        assert_eq!(conninfo.password().unwrap().expose(), b"hunter2");
    }
}
