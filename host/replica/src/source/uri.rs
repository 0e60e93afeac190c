//! Parses the URI form of a connection string, as `conninfo_uri_parse` in libpq's `fe-connect.c` does.

use super::conninfo::ConninfoError;

/// Returns whether libpq parses `text` as a URI.
pub(super) fn is_uri(text: &str) -> bool {
    after_scheme(text).is_some()
}

fn after_scheme(text: &str) -> Option<&str> {
    text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"))
}

/// Returns the keywords and values of a URI, in the order in which libpq stores them. An error names the place and never the text
/// there: a password with an unescaped `/` or `@` may be anywhere.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, ConninfoError> {
    let Some(rest) = after_scheme(text) else {
        return Err(ConninfoError("a connection URI begins with postgresql://".to_owned()));
    };
    let mut found = Vec::new();
    let (user, rest) = match rest.find(['@', '/']) {
        Some(at) if rest[at..].starts_with('@') => (Some(&rest[..at]), &rest[at + 1..]),
        _ => (None, rest),
    };
    if let Some(user) = user {
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        store(&mut found, "user", name)?;
        store(&mut found, "password", password)?;
    }
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (hosts, ports) = parse_hosts(authority)?;
    store(&mut found, "host", &hosts)?;
    store(&mut found, "port", &ports)?;
    let (path, parameters) = match rest.split_once('?') {
        Some((path, parameters)) => (path, Some(parameters)),
        None => (rest, None),
    };
    store(&mut found, "dbname", path.strip_prefix('/').unwrap_or(path))?;
    for (index, parameter) in parameters.into_iter().flat_map(|all| all.split('&')).enumerate() {
        if parameters == Some("") {
            break;
        }
        found.push(parse_parameter(parameter, index + 1)?);
    }
    Ok(found)
}

fn store(found: &mut Vec<(String, String)>, keyword: &str, encoded: &str) -> Result<(), ConninfoError> {
    if !encoded.is_empty() {
        found.push((keyword.to_owned(), decode(encoded, keyword)?));
    }
    Ok(())
}

/// Returns the comma-separated lists of hosts and of ports; the list of ports is empty if no host has one.
fn parse_hosts(authority: &str) -> Result<(String, String), ConninfoError> {
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for part in authority.split(',') {
        let (host, after) = match part.strip_prefix('[') {
            Some(bracketed) => {
                let unclosed = || ConninfoError("an IPv6 address in the URI has no closing `]`".to_owned());
                let (address, after) = bracketed.split_once(']').ok_or_else(unclosed)?;
                if address.is_empty() {
                    return Err(ConninfoError("an IPv6 address in the URI is empty".to_owned()));
                }
                (address, after)
            }
            None => part.split_at(part.find(':').unwrap_or(part.len())),
        };
        let port = match after.strip_prefix(':') {
            Some(port) => port,
            None if after.is_empty() => "",
            None => {
                return Err(ConninfoError(
                    "`]` in the URI must be followed by `:`, `,`, `/` or `?`".to_owned(),
                ));
            }
        };
        // Such a host or port is part of a password that was not percent-encoded. libpq would use it as the host or the port, and print
        // it.
        if host.contains('@') || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ConninfoError(
                "the URI has a host with an `@` or a port that is not a number: write `@` in a password as %40, `/` as \
                 %2F and `:` as %3A"
                    .to_owned(),
            ));
        }
        hosts.push(host);
        ports.push(port);
    }
    let list = |parts: &[&str]| match parts.iter().all(|part| part.is_empty()) {
        true => String::new(),
        false => parts.join(","),
    };
    Ok((list(&hosts), list(&ports)))
}

fn parse_parameter(parameter: &str, number: usize) -> Result<(String, String), ConninfoError> {
    let malformed = || {
        ConninfoError(format!("parameter {number} of the URI is not of the form keyword=value with one `=`"))
    };
    let (keyword, value) = parameter.split_once('=').ok_or_else(malformed)?;
    if keyword.is_empty() || value.contains('=') {
        return Err(malformed());
    }
    let place = format!("parameter {number}");
    let (keyword, value) = (decode(keyword, &place)?, decode(value, &place)?);
    // The JDBC spelling, which libpq accepts.
    if keyword == "ssl" && value == "true" {
        return Ok(("sslmode".to_owned(), "require".to_owned()));
    }
    Ok((keyword, value))
}

fn decode(encoded: &str, place: &str) -> Result<String, ConninfoError> {
    let malformed =
        || ConninfoError(format!("the {place} of the URI has a `%` without two hexadecimal digits"));
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit =
            || rest.next().and_then(|b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        match (digit(), digit()) {
            (Some(0), Some(0)) => {
                return Err(ConninfoError(format!("the {place} of the URI has a %00, which libpq forbids")));
            }
            (Some(high), Some(low)) => bytes.push(high << 4 | low),
            _ => return Err(malformed()),
        }
    }
    String::from_utf8(bytes).map_err(|_| ConninfoError(format!("the {place} of the URI is not UTF-8")))
}
