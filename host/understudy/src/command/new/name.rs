//! The name of a new method.

use thiserror::Error;

use crate::included;

/// The longest name, in characters.
const LONGEST: usize = 64;

/// Names that mean something else: the native method, and words that cargo or Rust do not accept as the name of a package or of a library
/// (`restricted_names.rs` of cargo, and the keywords in the Rust Reference).
const TAKEN: &str = "\
    abstract alloc as async await basebackup become box break build const continue core crate deps \
    do dyn else enum examples extern false final flate2 fn for gen if impl in incremental let loop \
    macro match mod move mut override priv proc-macro pub ref return self static std struct super \
    tempfile test trait true try type typeof understudy understudy-sdk union unsafe unsized use \
    virtual where while yield";

/// A name that a method, a package and a directory may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name(String);

/// Why a name is refused.
#[derive(Debug, Error)]
pub(super) enum NameError {
    /// The name has characters that it may not have.
    #[error(
        "`{}` cannot be the name of a method: it has 1 to {LONGEST} lower-case letters, digits and single `-`, and begins with a letter{}",
        .name.escape_debug(), did_you_mean(.nearest.as_deref())
    )]
    Characters { name: String, nearest: Option<String> },
    /// The name already means something else.
    #[error(
        "`{name}` has another meaning for Understudy, cargo or Rust: choose another name, such as `{name}-restore`"
    )]
    Taken { name: String },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default()
}

impl Name {
    /// Parses a name.
    pub(super) fn parse(name: &str) -> Result<Self, NameError> {
        if !is_well_formed(name) {
            return Err(NameError::Characters { name: name.to_owned(), nearest: well_formed(name) });
        }
        let is_included = included::METHODS.iter().any(|(included, _)| *included == name);
        if is_included || TAKEN.split(' ').any(|taken| taken == name) {
            return Err(NameError::Taken { name: name.to_owned() });
        }
        Ok(Self(name.to_owned()))
    }

    /// Returns the name.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name of the library that cargo makes of a package with this name.
    pub(super) fn in_rust(&self) -> String {
        self.0.replace('-', "_")
    }
}

fn is_well_formed(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= LONGEST
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(allowed)
        && !name.ends_with('-')
        && !name.contains("--")
}

/// Returns the well-formed name that is nearest to `name`; `None` if there is none.
fn well_formed(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let nearest = words.collect::<Vec<_>>().join("-");
    is_well_formed(&nearest).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_accepted_or_the_nearest_name_is_suggested() {
        for name in ["a", "acme", "acme-restore-2", &"x".repeat(LONGEST)] {
            assert_eq!(Name::parse(name).unwrap().as_str(), name);
        }
        for (name, nearest) in [
            ("Acme", Some("acme")),
            ("acme_restore", Some("acme-restore")),
            ("My Method!", Some("my-method")),
            ("../acme", Some("acme")),
            ("-acme--2-", Some("acme-2")),
            ("", None),
            ("2acme", None),
            ("äöü", None),
            (&"x".repeat(LONGEST + 1), None),
        ] {
            let Err(NameError::Characters { nearest: found, .. }) = Name::parse(name) else {
                panic!("{name}")
            };
            assert_eq!(found.as_deref(), nearest, "{name}");
        }
        assert!(Name::parse("Acme").unwrap_err().to_string().ends_with("did you mean `acme`?"));
    }

    #[test]
    fn a_name_with_another_meaning_is_refused() {
        for name in ["basebackup", "test", "fn", "understudy"] {
            assert!(matches!(Name::parse(name), Err(NameError::Taken { .. })), "{name}");
        }
    }
}
