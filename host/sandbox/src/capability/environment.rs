//! Environment variables: `environment = { LANG = "C" }`. The component sees only these variables, and none from the program's own
//! environment. The component can read every value, so a value that holds a secret of the run or looks like a secret is refused.

use std::collections::BTreeMap;

use foundation::lookalike::{Names, is_secret};
use replica::{CapabilityKind, Redactor, Refusal, Rule};
use wasmtime::component::{HasData, Linker};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::cli::WasiCliCtxView;
use wasmtime_wasi::p2::bindings::cli;

use super::check::near;
use super::{Capability, Check, Remedies};
use crate::Grants;
use crate::inspection::{Need, NeedKind};
use crate::reporter::Reporter;
use crate::state::State;
use crate::text::{key, quoted};

/// The capability to read environment variables.
pub(crate) struct Environment;

/// How many bytes all names and values may have together.
const BYTES: usize = 32 << 10;
/// How many bytes a name may have.
const NAME: usize = 64;

/// Variables of libpq, cloud providers and backup tools that are refused whatever their values are. The general rule ([`is_secret`]) is not
/// enough for them: it accepts an empty value and a value that looks like a path (`/a/b`), as a random key in base64 may.
const SECRETS: [&str; 12] = [
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "PGBACKREST_REPO1_CIPHER_PASS",
    "PGBACKREST_REPO1_S3_KEY_SECRET",
    "PGPASSWORD",
    "WALG_LIBSODIUM_KEY",
    "WALG_PGP_KEY",
];

/// The variables of one method's environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    values: BTreeMap<String, String>,
    bytes: usize,
}

/// Why a variable cannot be in the environment of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAVariable {
    /// Some programs could not read a variable with this name.
    #[error(
        "is not the name of a variable: write 1 to {NAME} letters, digits and `_`, and do not begin with a digit"
    )]
    Name,
    /// The variable always holds a secret, or its name and value look like those of a secret.
    #[error(
        "has the name of a secret or looks like one, and a method can read its environment: use the `credentials` of a store, a key (`keys.NAME`) \
         or the `token` of a server (`network`), which stay in the host"
    )]
    Secret,
    /// The value has a NUL byte.
    #[error("has a NUL byte in its value, which would end the value there")]
    Nul,
    /// All variables together are too long.
    #[error("makes the environment longer than {BYTES} bytes")]
    TooLong,
}

impl Variables {
    /// Adds a variable, or replaces the one of the same name.
    ///
    /// # Errors
    /// [`NotAVariable`]. The environment is then unchanged.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), NotAVariable> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let starts = name.bytes().next().is_some_and(|first| !first.is_ascii_digit());
        if !starts || name.len() > NAME || !name.bytes().all(allowed) {
            return Err(NotAVariable::Name);
        }
        if Self::names_secret(name) || is_secret(name, value, Names::Certain) {
            return Err(NotAVariable::Secret);
        }
        if value.contains('\0') {
            return Err(NotAVariable::Nul);
        }
        let before = self.values.get(name).map_or(0, |value| name.len() + value.len());
        let bytes = self.bytes - before + name.len() + value.len();
        if bytes > BYTES {
            return Err(NotAVariable::TooLong);
        }
        self.bytes = bytes;
        self.values.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// Returns whether the value of a variable with this name is always a secret.
    pub fn names_secret(name: &str) -> bool {
        SECRETS.iter().any(|secret| secret.eq_ignore_ascii_case(name))
    }

    /// Lists every variable with its value, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl Capability for Environment {
    fn kind(&self) -> CapabilityKind {
        CapabilityKind::Environment
    }

    fn key(&self) -> &'static str {
        "environment"
    }

    fn meets(&self) -> Option<NeedKind> {
        Some(NeedKind::Environment)
    }

    /// Checks that the needed variable is set. If an option has the same name as the need, its value names the variable, otherwise the
    /// need's own name does.
    fn check_need(&self, need: &Need, check: &mut Check<'_>) {
        let option = check.option(&need.name);
        if option.is_none() && !need.required {
            return;
        }
        let name = option.map_or_else(|| variable(&need.name), str::to_owned);
        let set = &check.grants.environment.values;
        if !set.contains_key(&name) {
            let hint = near(&name, set.keys());
            let why = format!("it needs the variable {name} ({}), which is not set{hint}", need.reason);
            check.unmet(why, self.remedy(check.remedies, &name));
        }
    }

    /// Refuses a value that holds a secret. All secrets of the run are known at this time, including those of other methods.
    fn check_grant(&self, grants: &Grants, _remedies: &Remedies, redactor: &Redactor) -> Result<(), Refusal> {
        let holds_secret = |(_, value): &(&str, &str)| redactor.redact(value) != **value;
        let Some((name, _)) = grants.environment.iter().find(holds_secret) else { return Ok(()) };
        let message = format!(
            "`environment.{name}` holds a secret of this run, which the method could read there: take the secret out of the value; keys \
             and credentials stay in the host (`keys.NAME`, `credentials` of a store, `token` of a server)"
        );
        Err(Refusal::new(Rule::Grant, message).by_policy())
    }

    /// Returns the line that sets the variable in addition to those that are set already.
    fn remedy(&self, remedies: &Remedies, name: &str) -> Option<String> {
        let mut variables = remedies.grants.environment.clone();
        variables.set(name, "...").ok()?;
        let set: Vec<_> =
            variables.iter().map(|(name, value)| format!("{name} = {}", quoted(value))).collect();
        Some(format!("[method.{}.grants] environment = {{ {} }}", key(&remedies.method), set.join(", ")))
    }

    fn report_entries(&self, grants: &Grants) -> Vec<(String, String)> {
        let set = grants.environment.iter();
        set.map(|(name, value)| (format!("environment.{name}"), value.to_owned())).collect()
    }

    fn set_up(&self, grants: &Grants, wasi: &mut WasiCtxBuilder) {
        for (name, value) in grants.environment.iter() {
            wasi.env(name, value);
        }
    }

    /// Links WASI's own implementation, whose context has the granted variables. Its calls are recorded.
    fn link(&self, linker: &mut Linker<State>) -> wasmtime::Result<()> {
        cli::environment::add_to_linker::<State, EnvironmentData>(linker, EnvironmentView::of)
    }
}

/// The environment for the length of one call.
struct EnvironmentView<'a> {
    wasi: WasiCliCtxView<'a>,
    reporter: &'a Reporter,
}

/// Marks [`EnvironmentView`] for the linker.
struct EnvironmentData;

impl HasData for EnvironmentData {
    type Data<'a> = EnvironmentView<'a>;
}

impl EnvironmentView<'_> {
    /// Returns the view of a component's state.
    fn of(state: &mut State) -> EnvironmentView<'_> {
        EnvironmentView {
            wasi: WasiCliCtxView { ctx: state.wasi.cli(), table: &mut state.table },
            reporter: &state.reporter,
        }
    }
}

impl cli::environment::Host for EnvironmentView<'_> {
    /// Returns all variables, because WASI has no call for a single one. The record of the call names them.
    fn get_environment(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        let variables = cli::environment::Host::get_environment(&mut self.wasi)?;
        let names = || variables.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        let call = self.reporter.call(CapabilityKind::Environment, "environment.get-environment", names);
        let bytes = variables.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        call.end_with(Ok(variables), |record, _| record.read(bytes as u64))
    }

    fn get_arguments(&mut self) -> wasmtime::Result<Vec<String>> {
        cli::environment::Host::get_arguments(&mut self.wasi)
    }

    fn initial_cwd(&mut self) -> wasmtime::Result<Option<String>> {
        cli::environment::Host::initial_cwd(&mut self.wasi)
    }
}

/// Returns the variable for the name of a need, which is in lower case and may have hyphens: `BACKUP_REGION` for `backup-region`.
fn variable(need: &str) -> String {
    need.to_ascii_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use foundation::secret::Secret;

    use super::super::check::tests::{check_with, need, setting};
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Grants {
        let mut grants = Grants::default();
        for (name, value) in variables {
            grants.environment.set(name, value).unwrap();
        }
        grants
    }

    #[test]
    fn a_name_or_value_that_some_programs_cannot_read_or_that_looks_like_a_secret_is_refused() {
        let mut variables = Variables::default();
        for (name, value, why) in [
            ("", "x", NotAVariable::Name),
            ("1A", "x", NotAVariable::Name),
            ("A=B", "x", NotAVariable::Name),
            ("A B", "x", NotAVariable::Name),
            ("Ä", "x", NotAVariable::Name),
            (&"A".repeat(NAME + 1), "x", NotAVariable::Name),
            ("A", "x\0y", NotAVariable::Nul),
            ("PGPASSWORD", "x", NotAVariable::Secret),
            ("pgpassword", "x", NotAVariable::Secret),
            ("PGPASSWORD", "", NotAVariable::Secret),
            ("AWS_SECRET_ACCESS_KEY", "/wJalrX/tnFEMI", NotAVariable::Secret),
            ("WALG_PGP_KEY", "x", NotAVariable::Secret),
            ("MY_TOKEN", "x", NotAVariable::Secret),
            ("URL", "postgres://u:x@h/db", NotAVariable::Secret),
        ] {
            assert_eq!(variables.set(name, value), Err(why), "{name}");
        }
        assert_eq!(variables, Variables::default());
        variables.set(&"A".repeat(NAME), "").unwrap();
        variables.set("_a1", "Größe\nof two lines").unwrap();
    }

    #[test]
    fn the_bytes_of_all_variables_are_bounded() {
        let mut variables = Variables::default();
        variables.set("A", &"x".repeat(BYTES - 1)).unwrap();
        assert_eq!(variables.set("B", ""), Err(NotAVariable::TooLong));
        // A replaced value no longer counts.
        variables.set("A", "x").unwrap();
        variables.set("B", &"x".repeat(BYTES - 3)).unwrap();
        assert_eq!(variables.set("A", "xx"), Err(NotAVariable::TooLong));
    }

    #[test]
    fn a_needed_variable_must_be_set_under_the_name_of_the_need_or_of_its_option() {
        let needs = [need(NeedKind::Environment, "backup-region", true)];
        let refusal = check_with(&needs, &[], &with(&[("LANG", "C"), ("BACKUP_REGIO", "x")])).unwrap_err();
        assert!(refusal.policy && refusal.message.contains("the variable BACKUP_REGION"), "{refusal}");
        assert!(refusal.message.ends_with("did you mean `BACKUP_REGIO`?"), "{refusal}");
        let line =
            r#"[method.m.grants] environment = { BACKUP_REGIO = "x", BACKUP_REGION = "...", LANG = "C" }"#;
        assert_eq!(refusal.remedy.as_deref(), Some(line));
        let granted = with(&[("BACKUP_REGION", "eu")]);
        check_with(&needs, &[], &granted).unwrap();
        check_with(&needs, &[setting("backup-region", "OTHER")], &granted).unwrap_err();
        check_with(&[need(NeedKind::Environment, "x", false)], &[], &granted).unwrap();
    }

    #[test]
    fn a_value_that_is_or_holds_a_secret_is_refused_without_showing_it() {
        let redactor = Redactor::new();
        redactor.add(&Secret::new("sw0rdfish-of-the-sea")).unwrap();
        redactor.add(&Secret::new("tuna")).unwrap();
        let refused = |value| {
            let grants = with(&[("LANG", "C"), ("URL", value)]);
            Environment.check_grant(&grants, &Remedies::new("m", &grants), &redactor)
        };
        // `Variables::set` accepts these values, because nothing but the redactor tells that they are secrets.
        for value in ["sw0rdfish-of-the-sea", "https://host/sw0rdfish-of-the-sea/", "tuna", "fish=tuna"] {
            let refusal = refused(value).unwrap_err();
            assert!(
                refusal.policy && refusal.message.contains("`environment.URL` holds a secret"),
                "{refusal}"
            );
            assert!(!refusal.message.contains("sw0rdfish") && !refusal.message.contains("tuna"), "{refusal}");
        }
        refused("https://host/").unwrap();
    }
}
