//! Checks the values of a connection string as libpq does when it connects (`pqConnectOptions2`, `pqParseIntParam` and
//! `ssl_protocol_version_to_openssl` in `src/interfaces/libpq`). A standby connects only after the run.

use foundation::nearest::nearest;

use super::Conninfo;
use super::conninfo::ConninfoError;

/// The values that libpq accepts for a keyword.
#[derive(Clone, Copy, Debug)]
enum Values {
    /// One of these words.
    Words(&'static [&'static str]),
    /// One of these words, in upper or lower case.
    WordsOfAnyCase(&'static [&'static str]),
    /// Some of these words, separated by commas, either all or none of them with a `!` before the word.
    List(&'static [&'static str]),
    /// A whole number.
    Number,
    /// Port numbers, separated by commas. Each of them may be empty.
    Ports,
}

use Values::{List, Number, Ports, Words, WordsOfAnyCase};

const TLS_VERSIONS: &[&str] = &["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];
const PROTOCOL_VERSIONS: &[&str] = &["3.0", "3.2", "latest"];

/// Every keyword whose value libpq checks, with the values that some release from 10 to 18 accepts.
const JUDGED: [(&str, Values); 19] = [
    ("channel_binding", Words(&["disable", "prefer", "require"])),
    ("connect_timeout", Number),
    ("gssencmode", Words(&["disable", "prefer", "require"])),
    ("keepalives", Number),
    ("keepalives_count", Number),
    ("keepalives_idle", Number),
    ("keepalives_interval", Number),
    ("load_balance_hosts", Words(&["disable", "random"])),
    ("max_protocol_version", Words(PROTOCOL_VERSIONS)),
    ("min_protocol_version", Words(PROTOCOL_VERSIONS)),
    ("port", Ports),
    ("require_auth", List(&["gss", "md5", "none", "oauth", "password", "scram-sha-256", "sspi"])),
    ("ssl_max_protocol_version", WordsOfAnyCase(TLS_VERSIONS)),
    ("ssl_min_protocol_version", WordsOfAnyCase(TLS_VERSIONS)),
    ("sslcertmode", Words(&["allow", "disable", "require"])),
    ("sslmode", Words(&["allow", "disable", "prefer", "require", "verify-ca", "verify-full"])),
    ("sslnegotiation", Words(&["direct", "postgres"])),
    (
        "target_session_attrs",
        Words(&["any", "prefer-standby", "primary", "read-only", "read-write", "standby"]),
    ),
    ("tcp_user_timeout", Number),
];

impl Conninfo {
    /// Refuses a value that libpq does not accept.
    ///
    /// # Errors
    /// Fails with the keyword, the values that it accepts, and the nearest of these. Never quotes the value, which may be part of a
    /// password.
    pub fn check_values(&self) -> Result<(), ConninfoError> {
        for (keyword, values) in JUDGED {
            if let Some(value) = self.get(keyword)
                && let Some(why) = values.refuse(value)
            {
                return Err(ConninfoError(format!("`{keyword}` {why}")));
            }
        }
        self.check_counts()?;
        let version = |keyword: &str| {
            let value = self.get(keyword)?;
            TLS_VERSIONS.iter().position(|version| version.eq_ignore_ascii_case(value))
        };
        match (version("ssl_min_protocol_version"), version("ssl_max_protocol_version")) {
            (Some(least), Some(most)) if least > most => Err(ConninfoError(
                "`ssl_min_protocol_version` is above `ssl_max_protocol_version`".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// Checks that there is one port or as many ports as hosts, and that there are as many addresses as hosts.
    fn check_counts(&self) -> Result<(), ConninfoError> {
        let count = |keyword: &str| self.get(keyword).map(|list| list.split(',').count());
        let (hosts, addresses, ports) = (count("host"), count("hostaddr"), count("port").unwrap_or(1));
        if let (Some(hosts), Some(addresses)) = (hosts, addresses)
            && hosts != addresses
        {
            return Err(ConninfoError(format!(
                "`host` has {hosts} hosts and `hostaddr` {addresses} addresses: write as many addresses as hosts"
            )));
        }
        let hosts = addresses.or(hosts).unwrap_or(1);
        if ports != 1 && ports != hosts {
            return Err(ConninfoError(format!(
                "`port` has {ports} ports for {hosts} hosts: write one port, or one for each host"
            )));
        }
        Ok(())
    }
}

impl Values {
    /// Returns what is wrong with a value, for a message that begins with the keyword; `None` if libpq accepts the value.
    fn refuse(self, value: &str) -> Option<String> {
        match self {
            Self::Words(words) if words.contains(&value) => None,
            Self::WordsOfAnyCase(words) if words.iter().any(|word| word.eq_ignore_ascii_case(value)) => None,
            Self::Words(words) | Self::WordsOfAnyCase(words) => Some(unknown_word(value, words)),
            Self::List(words) => refuse_list(value, words),
            Self::Number => number(value).is_none().then(|| "must be a whole number".to_owned()),
            Self::Ports => {
                let is_port = |port: &str| {
                    port.is_empty() || number(port).is_some_and(|port| (1..=65_535).contains(&port))
                };
                let all = value.split(',').all(is_port);
                (!all).then(|| "must be a whole number from 1 to 65535, or a list of them".to_owned())
            }
        }
    }
}

fn unknown_word(value: &str, words: &[&str]) -> String {
    let hint = nearest(value, words.iter().copied()).map(|near| format!("did you mean `{near}`? "));
    format!("has a value that libpq does not take: {}it takes {}", hint.unwrap_or_default(), words.join(", "))
}

fn refuse_list(value: &str, words: &[&str]) -> Option<String> {
    let mut seen: Vec<&str> = Vec::new();
    let negated = value.split(',').next().is_some_and(|first| first.trim().starts_with('!'));
    for item in value.split(',').map(str::trim) {
        let word = item.strip_prefix('!').unwrap_or(item);
        if !words.contains(&word) {
            return Some(unknown_word(word, words));
        }
        if item.starts_with('!') != negated {
            return Some("mixes words with a `!` and words without: write it before all or none".to_owned());
        }
        if seen.contains(&word) {
            return Some(format!("has `{word}` twice"));
        }
        seen.push(word);
    }
    None
}

/// Parses a number as C's `strtol` does, with an optional sign, and with blanks before and after it.
fn number(text: &str) -> Option<i32> {
    text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::keywords;
    use super::*;

    fn refusal(text: &str) -> Option<String> {
        Conninfo::parse(text).unwrap().check_values().err().map(|error| error.0)
    }

    #[test]
    fn every_judged_keyword_is_one() {
        for (keyword, _) in JUDGED {
            assert!(keywords::is_known(keyword), "{keyword}");
            let why = refusal(&format!("host=h {keyword}=S3cret")).unwrap();
            assert!(why.starts_with(&format!("`{keyword}` ")) && !why.contains("S3cret"), "{why}");
            assert_eq!(refusal(&format!("host=h {keyword}=''")), None);
        }
    }

    #[test]
    fn what_libpq_takes_is_taken() {
        for text in [
            "port=5432 connect_timeout=10 keepalives=1 tcp_user_timeout=0",
            "host=a,b port=1,2",
            "host=a,b port=1,",
            "host=a,b,c port=5432",
            "port='  5432 ' connect_timeout=-1",
            "hostaddr=::1,::2 port=1,2",
            "host=a,b hostaddr=::1,::2",
            "sslmode=verify-full channel_binding=require gssencmode=disable",
            "ssl_min_protocol_version=tlsv1.2 ssl_max_protocol_version=TLSv1.3",
            "require_auth=scram-sha-256,none",
            "require_auth=!password,!md5",
            "target_session_attrs=primary load_balance_hosts=random",
            "postgresql://a:1,b:2/?sslmode=require",
        ] {
            assert_eq!(refusal(text), None, "{text}");
        }
    }

    #[test]
    fn what_libpq_refuses_is_refused_with_what_to_write() {
        for (text, says) in [
            ("sslmode=verify_full", "did you mean `verify-full`?"),
            ("sslmode=Require", "did you mean `require`?"),
            ("sslmode=xyzzy", "it takes allow, disable, prefer, require, verify-ca, verify-full"),
            ("target_session_attrs=primay", "did you mean `primary`?"),
            ("port=5432O", "from 1 to 65535"),
            ("port=99999", "from 1 to 65535"),
            ("port=0", "from 1 to 65535"),
            ("host=a,b port=1,x", "from 1 to 65535"),
            ("host=a,b,c port=1,2", "2 ports for 3 hosts"),
            ("host=a,b hostaddr=::1", "2 hosts and `hostaddr` 1 addresses"),
            ("connect_timeout=abc", "whole number"),
            ("connect_timeout=10s", "whole number"),
            ("keepalives_idle=99999999999", "whole number"),
            ("ssl_min_protocol_version=TLS1.2", "did you mean `TLSv1.2`?"),
            ("ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2", "is above"),
            ("require_auth=scram", "did you mean `scram-sha-256`?"),
            ("require_auth=scram-sha-256,!md5", "mixes"),
            ("require_auth=md5,md5", "twice"),
            ("load_balance_hosts=randon", "did you mean `random`?"),
            ("channel_binding=required", "did you mean `require`?"),
        ] {
            let why = refusal(text).unwrap_or_default();
            assert!(why.contains(says), "{text}: {why}");
        }
    }
}
