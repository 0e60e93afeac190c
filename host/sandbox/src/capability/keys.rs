//! Keys by name: `keys.repo = { file = "/etc/understudy/repo.pass" }`. A component gets only a handle of a key, never its bytes.

use replica::CapabilityKind;
use std::collections::BTreeSet;
use std::sync::Arc;

use foundation::secret::Secret;
use transfer::cipher::OpenPgpKey;
use transfer::keys::{Key, KeySecret};
use wasmtime::component::Resource;

use super::check::near;
use super::remedies::NAME;
use super::{Capability, Check, Remedies};
use crate::Grants;
use crate::answer::{Answer, CallError};
use crate::inspection::{Kind, Need, NeedKind, OptionSpec};
use crate::state::State;
use crate::text::{is_printable, quoted};

/// Keys by name.
pub(crate) struct Keys;

/// A key, and the stores whose objects it decrypts.
#[derive(Clone, Debug)]
pub struct KeyGrant {
    /// The pass phrase or key.
    pub secret: KeySecret,
    /// The texts that no log may show: the secret, and what an OpenPGP key was read from.
    texts: Vec<Secret>,
    /// The names of the granted stores whose objects the key decrypts. It decrypts nothing else, in particular no bytes that the
    /// component could have written itself.
    pub stores: Arc<BTreeSet<String>>,
}

impl KeyGrant {
    /// Makes a key for the objects of these stores.
    pub fn new(secret: Secret, stores: impl IntoIterator<Item = String>) -> Self {
        let texts = vec![secret.clone()];
        Self { secret: secret.into(), texts, stores: Arc::new(stores.into_iter().collect()) }
    }

    /// Reads an OpenPGP key for the objects of these stores from its text, in ASCII armour or binary.
    ///
    /// # Errors
    /// Fails with the reason if the text holds no secret key that can decrypt, or the pass phrase is missing or wrong.
    pub fn openpgp(
        text: Secret,
        pass_phrase: Option<Secret>,
        stores: impl IntoIterator<Item = String>,
    ) -> Result<Self, String> {
        let key = OpenPgpKey::read(text.expose(), pass_phrase.as_ref())?;
        let texts = [text].into_iter().chain(pass_phrase).collect();
        Ok(Self {
            secret: KeySecret::OpenPgp(Arc::new(key)),
            texts,
            stores: Arc::new(stores.into_iter().collect()),
        })
    }

    /// Returns the pass phrase or the key as text; `None` for an OpenPGP key.
    pub fn text(&self) -> Option<&Secret> {
        match &self.secret {
            KeySecret::Text(text) => Some(text),
            KeySecret::OpenPgp(_) => None,
        }
    }
}

impl Capability for Keys {
    fn kind(&self) -> CapabilityKind {
        CapabilityKind::Key
    }

    fn key(&self) -> &'static str {
        "keys"
    }

    fn meets(&self) -> Option<NeedKind> {
        Some(NeedKind::Key)
    }

    fn check_need(&self, need: &Need, check: &mut Check<'_>) {
        match check.option(&need.name) {
            None if !need.required => {}
            named => check.key(named.unwrap_or(&need.name), &need.reason),
        }
    }

    /// Checks that an option of the kind `secret` names a granted key.
    fn check_option(&self, option: &OptionSpec, needs: &[Need], check: &mut Check<'_>) {
        let is_need = |need: &Need| need.kind == NeedKind::Key && need.name == option.name;
        if option.kind == Kind::Secret
            && !needs.iter().any(is_need)
            && let Some(name) = check.option(&option.name)
        {
            check.key(name, &format!("option {}", option.name));
        }
    }

    /// Returns the line that grants a key with this name. The line has `stores` if stores are granted but none has the key's name, because
    /// without `stores` a key decrypts the objects of the store with its own name.
    fn remedy(&self, remedies: &Remedies, name: &str) -> Option<String> {
        let stores = &remedies.grants.stores;
        match stores.keys().next() {
            Some(_) if stores.contains_key(name) => remedies.named("keys", name, "file = \"/path\""),
            Some(store) => remedies.key_of_store(name, store),
            // The configuration refuses a key that decrypts nothing, so a store must be granted too.
            None => remedies.key_of_store(name, "NAME"),
        }
    }

    fn secrets<'g>(&self, grants: &'g Grants) -> Vec<&'g Secret> {
        grants.keys.values().flat_map(|key| &key.texts).collect()
    }

    fn report_entries(&self, grants: &Grants) -> Vec<(String, String)> {
        grants.keys.keys().map(|name| (format!("keys.{name}"), "granted".to_owned())).collect()
    }

    fn data_plane_interfaces(&self) -> &'static [&'static str] {
        &["keys"]
    }
}

impl Remedies {
    /// Returns the line that lets a key decrypt the objects of a store.
    pub(crate) fn key_of_store(&self, key: &str, store: &str) -> Option<String> {
        let fits = store.len() <= NAME && is_printable(store) && !store.starts_with('/');
        let value = format!("file = \"/path\", stores = [{}]", quoted(store));
        fits.then(|| self.named("keys", key, &value)).flatten()
    }
}

impl Check<'_> {
    fn key(&mut self, name: &str, reason: &str) {
        if !self.grants.keys.contains_key(name) {
            let hint = near(name, self.grants.keys.keys());
            let why = format!("it needs the key {name} ({reason}), which is not granted{hint}");
            self.unmet(why, Keys.remedy(self.remedies, name));
        }
    }
}

impl Grants {
    /// Returns the key with this name; `None` if it is not granted.
    pub(crate) fn key(&self, name: &str) -> Option<Key> {
        let granted = self.keys.get(name)?;
        Some(Key::named(name, granted.secret.clone()).bound_to(Arc::clone(&granted.stores)))
    }
}

impl State {
    /// Returns a handle of a key that the operator granted.
    ///
    /// # Errors
    /// `Denied` for a name that was not granted.
    pub(crate) fn granted_key(&mut self, name: &str) -> Answer<Resource<Key>> {
        let call = self.reporter.call(CapabilityKind::Key, "keys.named", || name.to_owned());
        let answer = match self.plane().and_then(|plane| plane.key(name)) {
            Some(key) => self.table.push(key).map_err(CallError::from),
            None => Err(self.not_granted(&Keys, name).into()),
        };
        call.end(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::tests::{check, check_with, granted, need, setting};
    use super::*;

    #[test]
    fn a_needed_key_must_be_granted_under_the_value_of_its_option_or_the_name_of_the_need() {
        let needs = [need(NeedKind::Key, "repo", true)];
        let refusal = check(&needs, &[], &["/mnt"]).unwrap_err();
        assert!(refusal.policy && refusal.message.contains("the key repo"), "{refusal}");
        let line = r#"[method.m.grants] keys.repo = { file = "/path", stores = ["NAME"] }"#;
        assert_eq!(refusal.remedy.as_deref(), Some(line));
        check_with(&needs, &[], &granted()).unwrap();
        check_with(&needs, &[setting("repo", "absent")], &granted()).unwrap_err();
        check(&[need(NeedKind::Key, "repo", false)], &[], &[]).unwrap();
    }

    #[test]
    fn the_remedy_for_a_key_binds_it_to_a_store_that_is_granted() {
        let remedies = Remedies::new("m", &granted());
        let store = granted().stores.keys().next().unwrap().clone();
        let own = format!(r#"[method.m.grants] keys.{store} = {{ file = "/path" }}"#);
        assert_eq!(Keys.remedy(&remedies, &store), Some(own));
        let other = format!(r#"[method.m.grants] keys.other = {{ file = "/path", stores = ["{store}"] }}"#);
        assert_eq!(Keys.remedy(&remedies, "other"), Some(other));
    }

    #[test]
    fn every_option_of_the_kind_secret_must_name_a_granted_key() {
        check_with(&[], &[setting("pass", "repo")], &granted()).unwrap();
        let refusal = check_with(&[], &[setting("pass", "../repo")], &granted()).unwrap_err();
        assert!(refusal.message.contains("option pass"), "{refusal}");
        let refusal = check_with(&[], &[setting("pass", "rpeo")], &granted()).unwrap_err();
        assert_eq!(
            refusal.message,
            "it needs the key rpeo (option pass), which is not granted: did you mean `repo`?"
        );
    }
}
