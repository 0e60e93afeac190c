//! Finds out whether a passfile has a password for a connection, by libpq's rules (`passwordFromFile` in `fe-connect.c`).

use std::io::{self, Read};
use std::path::Path;

use foundation::secret::Secret;
use zeroize::Zeroizing;

use super::Conninfo;
use crate::regular_file;

/// The name of the database by which a standby looks up its password (`libpqrcv_connect` in `libpqwalreceiver.c`).
const DATABASE: &str = "replication";

/// The most bytes of a passfile that are read.
const LONGEST: u64 = 1 << 20;

/// The hosts of a connection string for which a passfile has no password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WithoutEntry {
    /// Each as the first fields of the line that the passfile lacks: `host:port:replication:user`.
    pub lines: Vec<String>,
    /// Whether the passfile has no password for any host.
    pub is_all: bool,
}

/// The fields by which libpq looks up one connection. A field is `None` if the connection string leaves its value to the standby, such as
/// the name of its user; it then matches every line.
#[derive(Debug)]
struct Wanted {
    /// The host's name, and for a socket also `localhost`, under which libpq looks up its default socket directory.
    hosts: Option<Vec<String>>,
    port: Option<String>,
    user: Option<String>,
}

impl Wanted {
    fn by(conninfo: &Conninfo) -> Vec<Self> {
        let list = |keyword: &str| -> Vec<String> {
            let text = conninfo.get(keyword).unwrap_or("");
            text.split(',').map(|part| part.trim().to_owned()).collect()
        };
        let (hosts, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
        let given = |part: Option<&String>| part.filter(|part| !part.is_empty()).cloned();
        let wanted = |index: usize| {
            let host = given(hosts.get(index)).or_else(|| given(addresses.get(index)));
            let is_socket = |host: &String| host.starts_with(['/', '@']);
            let hosts = host.map(|host| match is_socket(&host) {
                true => vec![host, "localhost".to_owned()],
                false => vec![host],
            });
            let port = if ports.len() == 1 { ports.first() } else { ports.get(index) };
            Self { hosts, port: given(port), user: conninfo.get("user").map(str::to_owned) }
        };
        (0..hosts.len().max(addresses.len())).map(wanted).collect()
    }

    /// Returns whether a line matches.
    fn matches(&self, [host, port, database, user]: &[Field; 4]) -> bool {
        let fits = |field: &Field, wanted: Option<&String>| wanted.is_none_or(|wanted| field.fits(wanted));
        let hosts_fit = self.hosts.as_ref().is_none_or(|hosts| hosts.iter().any(|wanted| host.fits(wanted)));
        hosts_fit
            && fits(port, self.port.as_ref())
            && database.fits(DATABASE)
            && fits(user, self.user.as_ref())
    }

    /// Returns the first fields of a line that would match.
    fn line(&self) -> String {
        let field = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
        let host =
            self.hosts.as_ref().and_then(|hosts| hosts.first()).map_or("*".to_owned(), |host| field(host));
        let port = self.port.as_deref().unwrap_or("*");
        let user = self.user.as_deref().map_or("*".to_owned(), field);
        format!("{host}:{port}:{DATABASE}:{user}").escape_debug().to_string().replace("\\\\", "\\")
    }
}

/// One of the first four fields of a line.
#[derive(Debug, PartialEq, Eq)]
enum Field {
    /// `*`
    Any,
    Is(Vec<u8>),
}

impl Field {
    fn fits(&self, wanted: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Is(text) => text == wanted.as_bytes(),
        }
    }
}

/// Looks up the passwords of a standby with this connection string in a passfile, host by host.
///
/// # Errors
/// Fails if the file cannot be read, or has more than 1 MiB.
pub fn hosts_without_entry(passfile: &Path, conninfo: &Conninfo) -> io::Result<WithoutEntry> {
    let entries = entries(passfile, conninfo)?;
    let count = entries.len();
    let without = entries.into_iter().filter(|entry| entry.password.is_none());
    let without: Vec<_> = without.map(|entry| entry.line).collect();
    Ok(WithoutEntry { is_all: without.len() == count, lines: without })
}

/// Returns the hosts for which `theirs` has another password than `own`, each as the first fields of its line. `own` and `theirs` are each
/// a passfile and the connection string that is looked up in it. A host counts only if both passfiles have a password for it.
///
/// # Errors
/// Fails if a file cannot be read, or has more than 1 MiB.
pub(super) fn hosts_with_another_password(
    own: (&Path, &Conninfo),
    theirs: (&Path, &Conninfo),
) -> io::Result<Vec<String>> {
    let (own, theirs) = (entries(own.0, own.1)?, entries(theirs.0, theirs.1)?);
    let differs = |entry: &Entry| {
        let same = own.iter().find(|known| known.line == entry.line);
        let known = same.and_then(|known| known.password.as_ref());
        known.zip(entry.password.as_ref()).is_some_and(|(known, password)| known != password)
    };
    Ok(theirs.into_iter().filter(differs).map(|entry| entry.line).collect())
}

/// What a passfile has for one host.
struct Entry {
    /// The first fields of a line for it.
    line: String,
    /// The password; `None` if no line matches, or the first line that matches has no password.
    password: Option<Secret>,
}

/// Looks up each host of a connection string in a passfile, in order.
fn entries(passfile: &Path, conninfo: &Conninfo) -> io::Result<Vec<Entry>> {
    let mut content = Zeroizing::new(Vec::new());
    regular_file::open(passfile)?.take(LONGEST + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LONGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 1 MiB"));
    }
    let lines: Vec<_> = content
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.starts_with(b"#"))
        .filter_map(|line| fields(line.strip_suffix(b"\r").unwrap_or(line)))
        .collect();
    // libpq uses the first line that matches, even if it has no password.
    let entry = |wanted: &Wanted| {
        let matching = lines.iter().find(|(fields, _)| wanted.matches(fields));
        let password = matching.map(|(_, password)| *password).filter(|password| !password.is_empty());
        Entry { line: wanted.line(), password: password.map(unescaped) }
    };
    Ok(Wanted::by(conninfo).iter().map(entry).collect())
}

/// Returns a password without its escapes, as libpq sends it.
fn unescaped(text: &[u8]) -> Secret {
    let mut password = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        password.push(if *byte == b'\\' { *bytes.next().unwrap_or(byte) } else { *byte });
    }
    Secret::new(password.as_slice())
}

/// Parses a line. Returns its first four fields, and the password after them with its escapes; `None` if there are fewer fields.
fn fields(line: &[u8]) -> Option<([Field; 4], &[u8])> {
    let mut rest = line;
    let mut field = || {
        if let Some(after) = rest.strip_prefix(b"*:") {
            rest = after;
            return Some(Field::Any);
        }
        let mut text = Vec::new();
        let mut bytes = rest.iter().enumerate();
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b':' => {
                    rest = rest.get(at + 1..).unwrap_or_default();
                    return Some(Field::Is(text));
                }
                b'\\' => text.extend(bytes.next().map(|(_, escaped)| *escaped)),
                byte => text.push(*byte),
            }
        }
        None
    };
    let fields = [field()?, field()?, field()?, field()?];
    Some((fields, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(lines: &str, conninfo: &str) -> WithoutEntry {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), lines).unwrap();
        hosts_without_entry(file.path(), &Conninfo::parse(conninfo).unwrap()).unwrap()
    }

    #[test]
    fn a_line_matches_as_it_does_for_libpq() {
        const WANTED: &str = "host=h port=5433 user=u";
        for (lines, conninfo, fits) in [
            ("h:5433:replication:u:x\n", WANTED, true),
            ("*:*:*:*:x", WANTED, true),
            ("h:5433:*:u:x\r\n", WANTED, true),
            ("# h:5433:*:u:x\n", WANTED, false),
            ("h:5432:*:u:x\n", WANTED, false),
            ("g:5433:*:u:x\n", WANTED, false),
            ("h:5433:postgres:u:x\n", WANTED, false),
            ("h:5433:*:v:x\n", WANTED, false),
            ("h:5433:*:u:\n*:*:*:*:x\n", WANTED, false),
            ("h:5433:*:u\n", WANTED, false),
            ("", WANTED, false),
            ("*h:*:*:*:x\n", WANTED, false),
            ("\\:\\:1:1:*:a\\:b:x\n", "host=::1 port=1 user=a:b", true),
            ("::1:1:*:u:x\n", "host=::1 port=1 user=u", false),
            ("10.0.0.1:*:*:u:x\n", "hostaddr=10.0.0.1 user=u", true),
            ("h:*:*:u:x\n", "host=h hostaddr=10.0.0.1 user=u", true),
            ("10.0.0.1:*:*:u:x\n", "host=h hostaddr=10.0.0.1 user=u", false),
            ("localhost:*:*:u:x\n", "host=/run/postgresql user=u", true),
            ("/tmp:*:*:u:x\n", "host=/tmp user=u", true),
            // The standby and libpq fill in the missing fields.
            ("h:5432:*:anybody:x\n", "host=h", true),
            ("localhost:5432:*:u:x\n", "user=u", true),
        ] {
            assert_eq!(without(lines, conninfo).lines.is_empty(), fits, "{lines} {conninfo}");
        }
    }

    #[test]
    fn another_password_for_the_same_host_is_found() {
        let file = |lines: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), lines).unwrap();
            file
        };
        let conninfo = Conninfo::parse("host=a,b port=1 user=u").unwrap();
        let own = file("a:1:*:u:x\\:y\nb:1:*:u:z\n");
        for (theirs, differing) in [
            ("a:1:*:u:x\\:y\nb:1:*:u:z\n", &[][..]),
            ("*:*:*:*:x:y\n", &["b:1:replication:u"]),
            ("a:1:*:u:w\nb:1:*:u:w\n", &["a:1:replication:u", "b:1:replication:u"]),
            ("b:1:*:u:\n", &[]),
            ("", &[]),
        ] {
            let theirs = file(theirs);
            let found = hosts_with_another_password((own.path(), &conninfo), (theirs.path(), &conninfo));
            assert_eq!(found.unwrap(), differing);
        }
    }

    #[test]
    fn each_host_is_looked_up_with_its_port() {
        let lines = "a:1:*:u:x\nb:2:*:u:x\n";
        assert_eq!(without(lines, "host=a,b port=1,2 user=u"), WithoutEntry::default());
        let missing = without(lines, "host=a,b port=1 user=u");
        assert_eq!((missing.lines, missing.is_all), (vec!["b:1:replication:u".to_owned()], false));
        let missing = without("", "host=::1,c user=a:b");
        assert_eq!(missing.lines, ["\\:\\:1:*:replication:a\\:b", "c:*:replication:a\\:b"]);
        assert!(missing.is_all);
    }
}
