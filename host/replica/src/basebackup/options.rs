//! The operator's options for `pg_basebackup`, checked before anything is touched. Loop rules 19 and 20.

use std::ffi::OsString;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::mapping;
use super::option_table::{self, Argument, KnownOption};
use crate::{Directories, Refusal, Rule};

/// The options of the configuration: a map, or a list of flags and one-pair maps.
///
/// In a map a value that is false, zero or empty removes the option, as in Patroni (`process_user_options` in
/// `patroni/utils.py`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BasebackupOptions(Vec<BasebackupOption>);

/// One option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasebackupOption {
    /// The name of the option, without dashes; may be abbreviated as on the command line.
    pub name: String,
    /// The value of the option.
    pub value: OptionValue,
    /// Where the option is set, for messages: `FILE:LINE:COLUMN`, or a command-line flag of Understudy. `None` if the place is not known.
    pub place: Option<String>,
}

/// The value of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionValue {
    /// No value, or `true`.
    Flag,
    /// `false`.
    Off,
    /// A string, or a number as it is written in the configuration.
    Text(String),
}

impl BasebackupOptions {
    /// Returns the options of a map.
    pub fn from_map(options: impl IntoIterator<Item = BasebackupOption>) -> Self {
        let counts = |option: &BasebackupOption| match &option.value {
            OptionValue::Flag => true,
            OptionValue::Off => false,
            OptionValue::Text(text) => !text.is_empty() && text.parse::<f64>() != Ok(0.0),
        };
        Self(options.into_iter().filter(counts).collect())
    }

    /// Returns the options of a list.
    pub fn from_list(options: impl IntoIterator<Item = BasebackupOption>) -> Self {
        Self(options.into_iter().filter(|option| option.value != OptionValue::Off).collect())
    }

    /// Returns the options as arguments for the `pg_basebackup` of this major version.
    ///
    /// Resolves each name as `pg_basebackup` does (`getopt_long` accepts an unambiguous abbreviation).
    ///
    /// # Errors
    /// Fails with a [`Refusal`] that names every option that is not allowed.
    pub fn check(&self, major: u32, directories: &Directories) -> Result<Vec<OsString>, Refusal> {
        let mut arguments = Vec::new();
        let mut refusals = Vec::new();
        for option in &self.0 {
            match option.argument(major, directories) {
                Ok(argument) => arguments.extend(argument),
                Err(mut refusal) => {
                    if let Some(place) = &option.place {
                        refusal.message = format!("{place}: {}", refusal.message);
                    }
                    refusals.push(refusal);
                }
            }
        }
        let mut refusals = refusals.into_iter();
        let Some(mut first) = refusals.next() else { return Ok(arguments) };
        for further in refusals {
            first.message = format!("{}; {}", first.message, further.message);
            first.remedy = first.remedy.or(further.remedy);
        }
        Err(first)
    }
}

impl BasebackupOption {
    /// Parses an item of a list: a flag, or `name=value`.
    fn from_word(word: &str) -> Self {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, OptionValue::Text(value.to_owned())),
            None => (word, OptionValue::Flag),
        };
        Self { name: name.to_owned(), value, place: None }
    }

    /// Returns the argument for the option; `None` if the option is off, or if the host already passes the same argument.
    fn argument(&self, major: u32, directories: &Directories) -> Result<Option<OsString>, Refusal> {
        let written = self.name.escape_debug();
        if self.name.starts_with('-') || self.name.contains('=') || self.name.is_empty() {
            let long = self.name.strip_prefix('-').and_then(option_table::of_letter);
            let hint = long.map(|long| format!(" (did you mean `{long}`?)")).unwrap_or_default();
            return Err(refuse(format!("`{written}`: give the option's long name without dashes{hint}")));
        }
        let known = option_table::find(&self.name, major).map_err(refuse)?;
        let name = known.name;
        let meant =
            if name == self.name { format!("`{name}`") } else { format!("`{written}`, which is `{name}`,") };
        if let Some(why) = known.refused {
            return Err(refuse(format!("{meant} is not allowed: {why}")));
        }
        let value = match (&self.value, known.argument) {
            (OptionValue::Off, _) => return Ok(None),
            (OptionValue::Flag, Argument::None) => return Ok(Some(format!("--{name}").into())),
            (OptionValue::Flag, Argument::Required) => return Err(refuse(format!("{meant} needs a value"))),
            (OptionValue::Text(_), Argument::None) => {
                return Err(refuse(format!("{meant} takes no value")).remedy(format!("{name} = true")));
            }
            (OptionValue::Text(value), Argument::Required) => unquote(value),
        };
        if value.contains('\0') {
            return Err(refuse(format!("the value of {meant} contains a NUL byte")));
        }
        match name {
            "compress" => check_compress(major, value)?,
            "waldir" => return mapping::agree_on_wal(value, directories).map(|()| None),
            "tablespace-mapping" => return mapping::agree_on_tablespace(value, directories).map(|()| None),
            _ => {}
        }
        Ok(Some(format!("--{name}={value}").into()))
    }
}

pub(super) fn refuse(message: impl fmt::Display) -> Refusal {
    Refusal::new(Rule::BasebackupOption, format!("option of pg_basebackup: {message}"))
}

/// Refuses compression on the client, because `pg_basebackup` would then not write a plain data directory.
fn check_compress(major: u32, value: &str) -> Result<(), Refusal> {
    if major < 15 {
        return Err(refuse(format!(
            "`compress` is not allowed: pg_basebackup {major} compresses on the client only"
        )));
    }
    if !value.starts_with("server-") {
        let message = "`compress` must name server-side compression (`server-...`), because pg_basebackup must write \
                       an uncompressed directory";
        return Err(refuse(message).remedy("compress = \"server-gzip\""));
    }
    Ok(())
}

/// Removes the quotes around a whole value, as Patroni's `unquote` does, for options that were copied from its YAML.
fn unquote(value: &str) -> &str {
    let inner = |quote: char| {
        let inner = value.strip_prefix(quote)?.strip_suffix(quote)?;
        (!inner.contains([quote, '\\'])).then_some(inner)
    };
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

impl<'de> Deserialize<'de> for OptionValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;
        impl Visitor<'_> for Value {
            type Value = OptionValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a number, true or false")
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<OptionValue, E> {
                Ok(if value { OptionValue::Flag } else { OptionValue::Off })
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<OptionValue, E> {
                Ok(OptionValue::Text(value.to_string()))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<OptionValue, E> {
                Ok(OptionValue::Text(value.to_string()))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<OptionValue, E> {
                Ok(OptionValue::Text(value.to_string()))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<OptionValue, E> {
                Ok(OptionValue::Text(value.to_owned()))
            }
        }
        deserializer.deserialize_any(Value)
    }
}

impl<'de> Deserialize<'de> for BasebackupOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Both;
        impl<'de> Visitor<'de> for Both {
            type Value = BasebackupOptions;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of options, or a list of flags and of tables with one option each")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BasebackupOptions, A::Error> {
                let mut options = Vec::new();
                while let Some((name, value)) = map.next_entry()? {
                    options.push(BasebackupOption { name, value, place: None });
                }
                Ok(BasebackupOptions::from_map(options))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<BasebackupOptions, A::Error> {
                let mut options = Vec::new();
                while let Some(Item(option)) = list.next_element()? {
                    options.push(option);
                }
                Ok(BasebackupOptions::from_list(options))
            }
        }
        deserializer.deserialize_any(Both)
    }
}

/// An item of a list of options.
struct Item(BasebackupOption);

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a flag, or a table with one option")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Item, E> {
                Ok(Item(BasebackupOption::from_word(word)))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item, A::Error> {
                let (name, value) = map.next_entry()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                match map.next_entry::<String, OptionValue>()? {
                    None => Ok(Item(BasebackupOption { name, value, place: None })),
                    Some(_) => Err(de::Error::custom("only one option is allowed in each table of the list")),
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl fmt::Display for KnownOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TablespaceKey, TablespaceMap};

    fn directories() -> Directories {
        let entry = (TablespaceKey::Location("/old/a=b".into()), "/new/a".into());
        Directories {
            datadir: "/data".into(),
            wal: Some("/wal".into()),
            tablespaces: TablespaceMap::new(vec![entry]),
        }
    }

    fn judged(json: &str, major: u32) -> Result<Vec<String>, String> {
        let options: BasebackupOptions = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let arguments = options.check(major, &directories()).map_err(|refusal| refusal.message)?;
        Ok(arguments.into_iter().map(|argument| argument.into_string().unwrap()).collect())
    }

    fn allowed(json: &str) -> Vec<String> {
        judged(json, 15).unwrap()
    }

    fn refused(json: &str) -> String {
        judged(json, 15).unwrap_err()
    }

    #[test]
    fn rule_19_options_are_a_map_of_text_numbers_and_booleans() {
        assert_eq!(
            allowed(r#"{"max-rate": "100M", "status-interval": 5, "verbose": true, "checkpoint": "fast"}"#),
            ["--max-rate=100M", "--status-interval=5", "--verbose", "--checkpoint=fast"]
        );
    }

    #[test]
    fn rule_19_options_that_are_false_zero_or_empty_in_a_map_are_skipped() {
        assert_eq!(allowed(r#"{"verbose": false, "label": "", "status-interval": 0}"#), [""; 0]);
    }

    #[test]
    fn rule_19_options_are_a_list_of_flags_and_one_pair_maps() {
        let list = r#"["verbose", {"max-rate": 1024}, "label=a b", {"no-slot": true}, {"progress": false}]"#;
        assert_eq!(allowed(list), ["--verbose", "--max-rate=1024", "--label=a b", "--no-slot"]);
        assert!(refused(r#"[{"label": "a", "verbose": true}]"#).contains("only one option"));
        assert!(refused("[{}]").contains("one option"));
        assert!(refused("[5]").contains("a flag, or a table"));
        assert!(refused(r#"{"label": ["a"]}"#).contains("a string, a number"));
    }

    #[test]
    fn rule_19_quotes_around_a_whole_value_are_removed_as_patroni_does() {
        assert_eq!(allowed(r#"{"label": "\"bar baz\""}"#), ["--label=bar baz"]);
        assert_eq!(allowed(r#"{"label": "it's"}"#), ["--label=it's"]);
    }

    #[test]
    fn rule_20_every_option_of_the_table_is_refused_in_every_form() {
        let of_understudy = ["no-sync", "no-clean", "target", "help"];
        for name in patroni::NOT_ALLOWED.into_iter().chain(of_understudy) {
            for json in [
                format!(r#"{{"{name}": "x"}}"#),
                format!(r#"{{"{name}": true}}"#),
                format!(r#"["{name}"]"#),
                format!(r#"["{name}=x"]"#),
                format!(r#"[{{"{name}": "x"}}]"#),
            ] {
                let said = refused(&json);
                assert!(
                    said.contains(&format!("`{name}`")) && said.contains("not allowed"),
                    "{json}: {said}"
                );
            }
        }
        assert!(judged(r#"["incremental=/x"]"#, 17).unwrap_err().contains("not allowed"));
    }

    #[test]
    fn rule_20_an_abbreviation_is_judged_as_the_option_that_pg_basebackup_resolves_it_to() {
        for (written, meant) in [
            ("form", "format"),
            ("pg", "pgdata"),
            ("user", "username"),
            ("tab", "tablespace-mapping"),
            ("w", ""),
        ] {
            let said = refused(&format!(r#"["{written}=t"]"#));
            match meant {
                "" => assert!(said.contains("ambiguous"), "{said}"),
                meant => assert!(said.contains(meant), "{said}"),
            }
        }
        assert_eq!(allowed(r#"{"max": "1M", "check": "fast"}"#), ["--max-rate=1M", "--checkpoint=fast"]);
        assert!(refused(r#"["no-s=1"]"#).contains("ambiguous"));
    }

    #[test]
    fn rule_20_short_forms_and_dashes_are_refused_with_the_long_name() {
        for (written, long) in
            [("-D/x", "pgdata"), ("-Ft", "format"), ("-X", "wal-method"), ("-r", "max-rate")]
        {
            let said = refused(&format!(r#"["{written}"]"#));
            assert!(said.contains(long), "{said}");
        }
        assert!(refused(r#"["--verbose"]"#).contains("without dashes"));
        assert!(refused(r#"[""]"#).contains("long name"));
    }

    #[test]
    fn rule_20_an_unknown_option_is_refused_with_the_nearest_right_one() {
        let said = refused(r#"{"max-rat3": "1M"}"#);
        assert!(said.contains("max-rat3") && said.contains("max-rate"), "{said}");
        assert!(refused(r#"{"sync-method": "syncfs"}"#).contains("PostgreSQL 17"));
        assert_eq!(judged(r#"{"sync-method": "syncfs"}"#, 17).unwrap(), ["--sync-method=syncfs"]);
    }

    #[test]
    fn rule_20_compress_must_be_server_side_and_needs_version_15() {
        assert_eq!(allowed(r#"{"compress": "server-zstd:level=3"}"#), ["--compress=server-zstd:level=3"]);
        for value in [r#""gzip""#, r#""client-gzip""#, r#""none""#, "5", r#""server""#] {
            assert!(refused(&format!(r#"{{"compress": {value}}}"#)).contains("server-side"));
        }
        assert!(judged(r#"{"compress": "server-gzip"}"#, 14).unwrap_err().contains("14"));
    }

    #[test]
    fn rule_20_an_option_is_a_flag_or_has_a_value() {
        assert!(refused(r#"{"verbose": "yes"}"#).contains("takes no value"));
        assert!(refused(r#"["max-rate"]"#).contains("needs a value"));
    }

    #[test]
    fn rule_20_directories_that_match_the_configured_ones_are_dropped_as_redundant_and_others_are_refused() {
        assert_eq!(allowed(r#"["waldir=/wal/", "tablespace-mapping=/old/a\\=b=/new/a"]"#), [""; 0]);
        assert!(refused(r#"{"waldir": "/elsewhere"}"#).contains("/elsewhere"));
        for mapping in ["/old/a\\\\=b=/elsewhere", "/old/c=/new/a", "/old", "=/new/a", "/a=/b=/c"] {
            let said = refused(&format!(r#"{{"tablespace-mapping": "{mapping}"}}"#));
            assert!(said.contains("tablespace-mapping"), "{said}");
        }
    }

    #[test]
    fn every_option_that_is_not_allowed_is_named_at_once() {
        let said = refused(r#"{"format": "t", "no-sync": true, "verbose": true}"#);
        assert!(said.contains("format") && said.contains("no-sync"), "{said}");
    }
}
