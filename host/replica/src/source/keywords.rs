//! The keywords of a libpq connection string.

use foundation::nearest::nearest;

/// Every keyword that some release of libpq from 10 to 18 knows (`PQconninfoOptions` in
/// `src/interfaces/libpq/fe-connect.c`). The installed libpq refuses those that it does not know.
const KEYWORDS: &[&str] = &[
    "application_name",
    "authtype",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "max_protocol_version",
    "min_protocol_version",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_issuer",
    "oauth_scope",
    "options",
    "passfile",
    "password",
    "port",
    "replication",
    "require_auth",
    "requirepeer",
    "requiressl",
    "scram_client_key",
    "scram_server_key",
    "service",
    "servicefile",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslkeylogfile",
    "sslmode",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
    "tty",
    "user",
];

/// Keywords whose value is a path.
pub(super) const PATHS: [&str; 7] =
    ["passfile", "sslcert", "sslcrl", "sslcrldir", "sslkey", "sslkeylogfile", "sslrootcert"];

/// Keywords whose value is a secret: those with the `dispchar` `*` in libpq, and the SCRAM keys, with which one can log in as with the
/// password.
const SECRET: &[&str] =
    &["oauth_client_secret", "password", "scram_client_key", "scram_server_key", "sslpassword"];

/// The order in which Patroni's `ConfigHandler.format_dsn` (`patroni/postgresql/config.py`) writes a connection
/// string; other keywords follow in the operator's order.
const PATRONI_ORDER: &[&str] = &[
    "dbname",
    "user",
    "passfile",
    "host",
    "port",
    "sslmode",
    "sslcompression",
    "sslcert",
    "sslkey",
    "sslrootcert",
    "sslcrl",
    "sslcrldir",
    "application_name",
    "krbsrvname",
    "gssencmode",
    "channel_binding",
    "target_session_attrs",
    "sslnegotiation",
];

pub(super) fn is_known(keyword: &str) -> bool {
    KEYWORDS.binary_search(&keyword).is_ok()
}

pub(super) fn is_secret(keyword: &str) -> bool {
    SECRET.contains(&keyword)
}

/// Returns the position of `keyword` in Patroni's order.
pub(super) fn patroni_position(keyword: &str) -> usize {
    PATRONI_ORDER.iter().position(|known| *known == keyword).unwrap_or(PATRONI_ORDER.len())
}

/// Returns the known keyword that is most similar to a misspelt one.
pub(super) fn nearest_to(word: &str) -> Option<&'static str> {
    nearest(word, KEYWORDS.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_holds_every_secret() {
        assert!(KEYWORDS.is_sorted());
        assert!(SECRET.iter().chain(PATRONI_ORDER).chain(&PATHS).all(|keyword| is_known(keyword)));
    }

    #[test]
    fn a_misspelt_keyword_has_a_nearest_one() {
        for (word, meant) in [
            ("hots", Some("host")),
            ("username", Some("user")),
            ("pasword", Some("password")),
            ("xyzzy", None),
        ] {
            assert_eq!(nearest_to(word), meant, "{word}");
        }
    }
}
