//! The tablespaces of a backup: the object `Spec` of a sentinel (`TablespaceSpec` in WAL-G's
//! internal/databases/postgres/tablespace_spec.go). WAL-E calls it `spec`.

use std::collections::BTreeMap;
use std::fmt;

use postgres_formats::names::{PG_TBLSPC, tablespace_oid};
use serde::Deserialize;
use serde::de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor};
use understudy::Tablespace;

/// The largest permitted number of tablespaces.
pub(crate) const MOST: usize = 1000;

/// The tablespaces as a sentinel lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spec {
    /// The data directory.
    base: Option<String>,
    /// The names of the links in `pg_tblspc`.
    names: Vec<String>,
    /// Where each link leads.
    places: BTreeMap<String, Location>,
}

/// A tablespace.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
struct Location {
    /// The directory.
    loc: String,
    /// The link in the data directory.
    link: String,
}

impl Spec {
    /// Returns the tablespaces.
    ///
    /// # Errors
    /// The error says what is wrong with the list, and follows the name of the sentinel.
    pub(crate) fn tablespaces(self) -> Result<Vec<Tablespace>, String> {
        let mut found: Vec<Tablespace> = Vec::new();
        for name in &self.names {
            let shown = name.escape_debug();
            let Some(oid) = tablespace_oid(name) else {
                return Err(format!("lists the tablespace `{shown}`, which is not an oid"));
            };
            let Some(Location { loc, link }) = self.places.get(name) else {
                return Err(format!("lists the tablespace {oid} without its directory"));
            };
            if *link != format!("{PG_TBLSPC}/{oid}") {
                return Err(format!("lists the tablespace {oid} with the link `{}`", link.escape_debug()));
            }
            if !loc.starts_with('/') || loc.contains('\0') {
                let loc = loc.escape_debug();
                return Err(format!("lists the tablespace {oid} at `{loc}`, which is not an absolute path"));
            }
            // WAL-G stores the files of such a tablespace where they are, and not below pg_tblspc (`makeTablespaceSymlinkPath`).
            let is_within = self.base.as_deref().is_some_and(|base| {
                loc.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
            if is_within {
                return Err(format!(
                    "lists the tablespace {oid} at {loc}, which is within the data directory: such a backup is not restored"
                ));
            }
            if found.iter().any(|known| known.oid == oid) {
                return Err(format!("lists the tablespace {oid} twice"));
            }
            found.push(Tablespace { oid, name: None, location: loc.clone() });
        }
        Ok(found)
    }
}

impl<'de> Deserialize<'de> for Spec {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SpecVisitor)
    }
}

struct SpecVisitor;

impl<'de> Visitor<'de> for SpecVisitor {
    type Value = Spec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of tablespaces")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Spec, A::Error> {
        let (mut spec, mut has_names) = (Spec::default(), false);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "base_prefix" if spec.base.is_none() => {
                    spec.base = Some(map.next_value::<String>()?.trim_end_matches('/').to_owned())
                        .filter(|base| !base.is_empty());
                }
                "tablespaces" if !has_names => {
                    has_names = true;
                    spec.names = map.next_value::<Option<Names>>()?.unwrap_or_default().0;
                }
                key if tablespace_oid(key).is_none() => {
                    map.next_value::<IgnoredAny>()?;
                }
                key => {
                    let key = key.to_owned();
                    if spec.places.insert(key.clone(), map.next_value()?).is_some() {
                        return Err(de::Error::custom(format_args!("it has the tablespace {key} twice")));
                    }
                    if spec.places.len() > MOST {
                        return Err(de::Error::custom(format_args!("it has more than {MOST} tablespaces")));
                    }
                }
            }
        }
        Ok(spec)
    }
}

/// A bounded list of names.
#[derive(Default)]
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(NamesVisitor)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = Names;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of names")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = list.next_element()? {
            if names.len() == MOST {
                return Err(de::Error::custom(format_args!("it has more than {MOST} tablespaces")));
            }
            names.push(name);
        }
        Ok(Names(names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tablespaces(text: &str) -> Result<Vec<Tablespace>, String> {
        serde_json::from_str::<Spec>(text).map_err(|error| error.to_string()).and_then(Spec::tablespaces)
    }

    #[test]
    fn a_tablespace_is_its_oid_and_its_directory() {
        let text = r#"{"base_prefix":"/var/lib/pg","tablespaces":["16384","16385"],
            "16385":{"loc":"/fast disk","link":"pg_tblspc/16385"},"16384":{"loc":"/var/lib/pg2","link":"pg_tblspc/16384"}}"#;
        let expected = [(16384, "/var/lib/pg2"), (16385, "/fast disk")].map(|(oid, location)| Tablespace {
            oid,
            name: None,
            location: location.to_owned(),
        });
        assert_eq!(tablespaces(text), Ok(expected.to_vec()));
        assert_eq!(tablespaces(r#"{"base_prefix":"/pg","tablespaces":[]}"#), Ok(Vec::new()));
        assert_eq!(tablespaces(r#"{"base_prefix":"/pg","tablespaces":null}"#), Ok(Vec::new()));
    }

    #[test]
    fn a_list_that_contradicts_itself_is_refused() {
        let one = |name: &str, loc: &str, link: &str| {
            format!(
                r#"{{"base_prefix":"/pg/","tablespaces":["{name}"],"16384":{{"loc":"{loc}","link":"{link}"}}}}"#
            )
        };
        for (text, what) in [
            (one("../16384", "/a", "pg_tblspc/16384"), "not an oid"),
            (one("16385", "/a", "pg_tblspc/16385"), "without its directory"),
            (one("16384", "/a", "../16384"), "the link"),
            (one("16384", "a", "pg_tblspc/16384"), "not an absolute path"),
            (one("16384", "/pg/a", "pg_tblspc/16384"), "within the data directory"),
            (one("16384\",\"16384", "/a", "pg_tblspc/16384"), "twice"),
            (r#"{"16384":{"loc":"/a","link":"b"},"16384":{"loc":"/a","link":"b"}}"#.to_owned(), "twice"),
            (r#"{"tablespaces":"16384"}"#.to_owned(), "a list of names"),
            (r#"{"16384":{"loc":"/a"}}"#.to_owned(), "link"),
            ("[]".to_owned(), "a list of tablespaces"),
        ] {
            let refusal = tablespaces(&text).unwrap_err();
            assert!(refusal.contains(what), "{text}: {refusal}");
        }
    }

    #[test]
    fn a_backup_has_a_bounded_number_of_tablespaces() {
        let list = |count: usize| {
            let names: Vec<_> = (1..=count).map(|oid| format!("\"{oid}\"")).collect();
            let places: Vec<_> = (1..=count)
                .map(|oid| format!("\"{oid}\":{{\"loc\":\"/{oid}\",\"link\":\"pg_tblspc/{oid}\"}}"))
                .collect();
            (
                format!("{{\"tablespaces\":[{}],{}}}", names.join(","), places.join(",")),
                format!("{{{}}}", places.join(",")),
            )
        };
        assert_eq!(tablespaces(&list(MOST).0).unwrap().len(), MOST);
        for text in [list(MOST + 1).0, list(MOST + 1).1] {
            assert!(tablespaces(&text).unwrap_err().contains("more than 1000 tablespaces"));
        }
    }
}
