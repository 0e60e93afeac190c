//! Extracts the server's messages about `pg_hba.conf` and `pg_ident.conf`, without possible secrets. The server repeats the part of a line
//! that it refuses, which may be the value of `ldapbindpasswd`, `radiussecrets` or `ldapurl`, or the rest of such a value after an unquoted
//! blank.

use super::ask::message_of;

/// The beginning of the message that the server does not start with this `pg_hba.conf`. The name `pg_hba.conf` follows, or from version 16
/// on the path of the file.
pub(super) const REFUSED: &str = "could not load ";

/// The beginning of the message about an `include_if_exists` whose file does not exist.
const SKIPPED: &str = "skipping missing authentication file ";

/// The replacement for a text that is not shown.
const WITHHELD: &str = "(not shown)";

/// The beginnings of the messages whose quoted texts are shown (`hba.c` and `be-secure-common.c` of 13 to 18). They quote names that the
/// server knows, names of files, and fields that precede the options of a line. Every other message is cut at its first quote or colon.
const SHOWN: [&str; 15] = [
    "authentication method \"",
    "authentication option \"",
    "configuration file \"",
    "could not compile regular expression \"",
    "could not load ",
    "could not open ",
    "could not stat file ",
    "invalid CIDR mask in address \"",
    "invalid IP address \"",
    "invalid IP mask \"",
    "invalid authentication method \"",
    "invalid regular expression \"",
    "missing entry in file \"",
    "skipping missing authentication file ",
    "specifying both host name and CIDR mask is invalid: \"",
];

/// Returns the server's messages about the two files, each with its line in the file. These are the messages after the server has begun to
/// listen, and before it goes on with its start or gives up. `secrets` lists texts of the two files that may be secrets.
pub(super) fn complaints(lines: &[&str], secrets: &[String]) -> Vec<String> {
    let mut complaints: Vec<String> = Vec::new();
    let (mut listening, mut complete) = (false, true);
    for line in lines {
        if let Some(words) = message_of(line) {
            if words.starts_with("listening on ") {
                listening = true;
                continue;
            }
            if words.starts_with("database system ") || words.starts_with(REFUSED) {
                break;
            }
            if words.starts_with(SKIPPED) {
                // The message before this one says that the missing file could not be opened.
                complaints.pop();
                complete = true;
            } else if listening {
                complaints.push(without_values(words, secrets));
                complete = false;
            }
        } else if let (false, Some(context), Some(last)) =
            (complete, line.strip_prefix("CONTEXT:"), complaints.last_mut())
        {
            last.push_str(&format!(" ({})", context.trim()));
            complete = true;
        }
    }
    complaints
}

/// Returns the messages of a server that did not read the two files, or printed something unexpected.
pub(super) fn messages_of_failed_start(said: &str, secrets: &[String]) -> String {
    let mut listening = false;
    let mut words: Vec<String> = Vec::new();
    for message in said.lines().filter_map(message_of) {
        listening |= message.starts_with("listening on ");
        let tells_nothing = ["starting ", "listening on ", "database system is shut down"]
            .iter()
            .any(|begin| message.starts_with(begin));
        if !tells_nothing {
            words.push(if listening { without_values(message, secrets) } else { message.to_owned() });
        }
    }
    words.join("; ")
}

/// Returns a message without texts that may be a secret.
fn without_values(words: &str, secrets: &[String]) -> String {
    if SHOWN.iter().any(|begin| words.starts_with(begin)) {
        return without_secrets(words, secrets);
    }
    match words.find(['"', ':']) {
        Some(end) => format!("{} {WITHHELD}", words[..end].trim_end()),
        None => words.to_owned(),
    }
}

/// Returns a message without the text between its first and its last quote, if that text contains an option with a value, a URL or one of
/// the secrets. A quoted text may itself contain quotes, so its end cannot be found.
fn without_secrets(words: &str, secrets: &[String]) -> String {
    let (Some(first), Some(last)) = (words.find('"'), words.rfind('"')) else { return words.to_owned() };
    let quoted = words.get(first + 1..last).unwrap_or_default();
    let is_secret = |text: &str| secrets.iter().any(|secret| text.ends_with(secret.as_str()));
    let withheld = quoted.contains('=')
        || quoted.contains("://")
        || is_secret(quoted)
        || quoted.split('"').any(is_secret);
    if withheld { format!("{}{WITHHELD}{}", &words[..=first], &words[last..]) } else { words.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_about_the_two_files_are_complaints() {
        let said = "LOG:  starting PostgreSQL 15.18\nLOG:  listening on Unix socket \"/tmp/x/.s.PGSQL.1\"\n\
            LOG:  invalid authentication method \"nonsense\"\nCONTEXT:  line 2 of configuration file \"/x/pg_hba.conf\"\n\
            LOG:  configuration file \"/x/pg_hba.conf\" contains no entries\nFATAL:  could not load pg_hba.conf\n\
            LOG:  database system is shut down\n";
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(
            complaints(&lines, &[]),
            [
                "invalid authentication method \"nonsense\" (line 2 of configuration file \"/x/pg_hba.conf\")",
                "configuration file \"/x/pg_hba.conf\" contains no entries",
            ]
        );
        let said = "LOG:  listening on Unix socket \"/tmp/x\"\nLOG:  could not open file \"/x\": No such file\n\
            CONTEXT:  line 1\nLOG:  skipping missing authentication file \"/x\"\nCONTEXT:  line 1\n\
            LOG:  database system was interrupted\n\
            FATAL:  required WAL directory \"pg_wal\" does not exist\n";
        assert!(complaints(&said.lines().collect::<Vec<_>>(), &[]).is_empty());
    }

    #[test]
    fn no_value_of_an_option_is_shown() {
        for (words, shown) in [
            ("could not parse LDAP URL \"ldap://u:hunter2@h\": x", "could not parse LDAP URL (not shown)"),
            ("unsupported LDAP URL scheme: hunter2", "unsupported LDAP URL scheme (not shown)"),
            (
                "authentication option not in name=value format: hunter2",
                "authentication option not in name=value format (not shown)",
            ),
            (
                "unrecognized authentication option name: \"hunter2\"",
                "unrecognized authentication option name (not shown)",
            ),
            (
                "could not parse RADIUS secret list \"a, hunter2\"",
                "could not parse RADIUS secret list (not shown)",
            ),
            ("invalid RADIUS port number: \"hunter2\"", "invalid RADIUS port number (not shown)"),
            ("invalid connection type \"hunter2\"", "invalid connection type (not shown)"),
            (
                "something new about hunter3's neighbour \"hunter2",
                "something new about hunter3's neighbour (not shown)",
            ),
            (
                "invalid authentication method \"ldapbindpasswd=hunter2\"",
                "invalid authentication method \"(not shown)\"",
            ),
            (
                "invalid IP address \"ldap://hunter2\": Name or service not known",
                "invalid IP address \"(not shown)\": Name or service not known",
            ),
            (
                "could not open secondary authentication file \"@x\" as \"/y/x\": No such file or directory",
                "could not open secondary authentication file \"@x\" as \"/y/x\": No such file or directory",
            ),
            (
                "hostssl record cannot match because SSL is disabled",
                "hostssl record cannot match because SSL is disabled",
            ),
        ] {
            assert_eq!(without_values(words, &[]), shown);
        }
    }

    #[test]
    fn a_text_after_an_option_with_a_secret_is_not_shown() {
        let words =
            "could not open secondary authentication file \"@hunter2\" as \"/y/hunter2\": No such file";
        assert_eq!(
            without_values(words, &["hunter2".to_owned()]),
            "could not open secondary authentication file \"(not shown)\": No such file"
        );
    }

    #[test]
    fn the_reasons_of_a_failed_start_are_reported() {
        let said = "LOG:  starting PostgreSQL 15.18\nFATAL:  could not load server certificate file \"/x\": no start line\n\
            LOG:  database system is shut down\n";
        assert_eq!(
            messages_of_failed_start(said, &[]),
            "could not load server certificate file \"/x\": no start line"
        );
        let said = "LOG:  listening on Unix socket \"/tmp/x\"\nLOG:  unsupported LDAP URL scheme: hunter2\nFATAL:  x\n";
        assert_eq!(messages_of_failed_start(said, &[]), "unsupported LDAP URL scheme (not shown); x");
    }
}
