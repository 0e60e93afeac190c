//! Stores by name: `stores.repo = { url = "s3://backups/pg" }`. Places where backups are, to look and to read; credentials and keys
//! stay here.

use replica::CapabilityKind;
use std::path::PathBuf;
use std::sync::Arc;

use foundation::secret::Secret;
use transfer::cipher::CipherFormat;
use transfer::codec::Codec;
use transfer::keys::Key;
use transfer::pipeline::Pipeline;
use transfer::store::{self, Range, Store};
use wasmtime::component::Resource;
use wasmtime_wasi::p2::DynInputStream;

use super::check::near;
use super::{Capability, Check, Keys, Read, Remedies};
use crate::Grants;
use crate::answer::Answer;
use crate::calls::Call;
use crate::files::{Counted, GuestPath, Watched};
use crate::inspection::{Need, NeedKind};
use crate::plane::{self, Plane};
use crate::state::State;

/// Stores by name.
pub(crate) struct Stores;

/// The most bytes that an object may have which is read whole.
const WHOLE: u32 = 4 << 20;

/// What every call of a store needs.
const NO_PLANE: &str = "a handle that was never given";

impl Capability for Stores {
    fn kind(&self) -> CapabilityKind {
        CapabilityKind::Store
    }

    fn key(&self) -> &'static str {
        "stores"
    }

    fn meets(&self) -> Option<NeedKind> {
        Some(NeedKind::Store)
    }

    fn check_need(&self, need: &Need, check: &mut Check<'_>) {
        match check.option(&need.name) {
            Some(path) if path.starts_with('/') => check.directory(path.as_ref(), need),
            None if !need.required => {}
            named => {
                let name = named.unwrap_or(&need.name);
                if !check.grants.stores.contains_key(name) {
                    let hint = near(name, check.grants.stores.keys());
                    let why =
                        format!("it needs the store {name} ({}), which is not granted{hint}", need.reason);
                    check.unmet(why, self.remedy(check.remedies, name));
                }
            }
        }
    }

    fn remedy(&self, remedies: &Remedies, name: &str) -> Option<String> {
        remedies.named("stores", name, "url = \"...\"")
    }

    fn reads(&self, grants: &Grants) -> Vec<(PathBuf, String)> {
        let stores = grants.stores.iter();
        stores.filter_map(|(name, store)| Some((store.directory()?, format!("stores.{name}")))).collect()
    }

    fn secrets<'g>(&self, grants: &'g Grants) -> Vec<&'g Secret> {
        grants.stores.values().flat_map(|store| store.credentials.given()).map(|(_, secret)| secret).collect()
    }

    fn report_entries(&self, grants: &Grants) -> Vec<(String, String)> {
        let stores = grants.stores.iter();
        stores.map(|(name, store)| (format!("stores.{name}"), store.url.clone())).collect()
    }

    fn data_plane_interfaces(&self) -> &'static [&'static str] {
        &["store"]
    }
}

/// A store that a component has opened.
#[expect(unreachable_pub, reason = "the bindings export it again")]
pub struct Bucket {
    /// As the component called it.
    pub(super) name: Arc<str>,
    pub(super) store: Store,
}

/// What a component is told of an object.
pub(crate) struct Object {
    /// Its key.
    pub(crate) key: String,
    /// Its stored size in bytes.
    pub(crate) size: u64,
    /// When it was written, in seconds since 1970.
    pub(crate) modified: Option<u64>,
    /// The store's own mark of its content.
    pub(crate) etag: Option<String>,
}

impl Object {
    /// A mark is a text of the server's, and may repeat what it was given.
    fn of(object: store::Object, plane: &Plane) -> Self {
        let etag = object.etag.map(|etag| plane.without_secrets(&etag.to_string()));
        Self { key: object.key, size: object.size, modified: object.modified, etag }
    }
}

/// A part of a listing.
pub(crate) struct Page {
    /// The objects.
    pub(crate) objects: Vec<Object>,
    /// After which the next page begins; `None` on the last.
    pub(crate) next: Option<String>,
}

/// Pipelines: how stored bytes become plain bytes.
impl State {
    /// Makes a pipeline that changes nothing.
    pub(crate) fn new_pipeline(&mut self) -> wasmtime::Result<Resource<Pipeline>> {
        Ok(self.table.push(Pipeline::default())?)
    }

    /// Has a pipeline decrypt first.
    pub(crate) fn decrypt_with(
        &mut self,
        pipeline: &Resource<Pipeline>,
        key: &Resource<Key>,
        format: CipherFormat,
    ) -> wasmtime::Result<()> {
        let key = self.table.get(key)?.clone();
        self.table.get_mut(pipeline)?.decrypt = Some((key, format));
        Ok(())
    }

    /// Has a pipeline decompress then.
    pub(crate) fn decompress_with(
        &mut self,
        pipeline: &Resource<Pipeline>,
        codec: Codec,
    ) -> wasmtime::Result<()> {
        self.table.get_mut(pipeline)?.decompress = Some(codec);
        Ok(())
    }

    /// A pipeline of the component's, or the one that changes nothing.
    pub(super) fn pipeline(&self, via: Option<&Resource<Pipeline>>) -> wasmtime::Result<Pipeline> {
        Ok(match via {
            Some(via) => self.table.get(via)?.clone(),
            None => Pipeline::default(),
        })
    }
}

/// Opened stores.
impl State {
    /// Opens a store that was granted, or by its absolute path a directory that was granted to be read, or one below it.
    ///
    /// # Errors
    /// `Denied` for what was not granted; what the store says.
    pub(crate) async fn open_store(&mut self, name: String) -> Answer<Resource<Bucket>> {
        let call = self.reporter.call(CapabilityKind::Store, "store.open", || name.clone());
        let answer: Answer<Resource<Bucket>> = async move {
            let Some(plane) = &mut self.job.plane else {
                return Err(self.not_granted(&Stores, &name).into());
            };
            let store = if name.starts_with('/') {
                match plane.granted_directory(&name).await {
                    Some(opened) => opened.map_err(|error| self.error(error))?,
                    None => {
                        let path = GuestPath::root().join(&name);
                        let line = self.plane().and_then(|plane| plane.remedies.read(&path.to_host()));
                        return Err(self.denied(&Read, path.to_string(), line).into());
                    }
                }
            } else {
                match plane.granted_store(&name).await {
                    Some(opened) => opened.map_err(|error| self.error(error))?,
                    None => return Err(self.not_granted(&Stores, &name).into()),
                }
            };
            Ok(self.table.push(Bucket { name: name.into(), store })?)
        }
        .await;
        call.end(answer)
    }

    /// Lists a part of the objects below a prefix.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn scan_store(
        &mut self,
        bucket: &Resource<Bucket>,
        prefix: String,
        after: Option<String>,
    ) -> Answer<Page> {
        let call = self.call_on("store.scan", bucket, &prefix);
        let answer: Answer<Page> = async move {
            let (plane, bucket) = self.bucket(bucket)?;
            let store = bucket.store.clone();
            let found = plane.run(async move { store.scan(&prefix, after.as_deref()).await }).await;
            let store::Page { objects, next } = found.map_err(|error| self.error(error))?;
            Ok(Page { objects: objects.into_iter().map(|found| Object::of(found, plane)).collect(), next })
        }
        .await;
        call.end(answer)
    }

    /// Tells what is known of one object.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn head_object(&mut self, bucket: &Resource<Bucket>, key: String) -> Answer<Object> {
        let call = self.call_on("store.head", bucket, &key);
        let answer: Answer<Object> = async move {
            let (plane, bucket) = self.bucket(bucket)?;
            let store = bucket.store.clone();
            let found = plane.run(async move { store.head(&key).await }).await;
            Ok(found.map(|found| Object::of(found, plane)).map_err(|error| self.error(error))?)
        }
        .await;
        call.end(answer)
    }

    /// Reads the whole plain text of an object.
    ///
    /// # Errors
    /// `Denied` where it may not be read in this way, `Limit` where it is longer than `limit` and 4 MiB; what the store and the
    /// pipeline say.
    pub(crate) async fn get_object(
        &mut self,
        bucket: &Resource<Bucket>,
        key: String,
        via: Option<&Resource<Pipeline>>,
        limit: u32,
    ) -> Answer<Vec<u8>> {
        let call = self.call_on("store.get", bucket, &key);
        let answer: Answer<Vec<u8>> = async move {
            let via = self.pipeline(via)?;
            let (plane, object) = self.object(bucket, key, via)?;
            let got = plane.run(object.get(limit.min(WHOLE) as usize)).await;
            Ok(got.map_err(|error| self.error(error))?)
        }
        .await;
        call.end_with(answer, |record, bytes| record.read(bytes.len() as u64))
    }

    /// Opens a stream of the plain text of an object, or of a range of its stored bytes.
    ///
    /// # Errors
    /// `Denied` where it may not be read in this way, `Limit` where too many are open; what the store says.
    pub(crate) async fn read_object(
        &mut self,
        bucket: &Resource<Bucket>,
        key: String,
        range: Option<Range>,
        via: Option<&Resource<Pipeline>>,
    ) -> Answer<Resource<DynInputStream>> {
        let call = self.call_on("store.read", bucket, &key);
        let state = &mut *self;
        let opened: Answer<_> = async move {
            let via = state.pipeline(via)?;
            let (plane, object) = state.object(bucket, key, via)?;
            Ok(plane.stream(object, range).await.map_err(|error| state.error(error))?)
        }
        .await;
        let stream = match opened {
            Ok(stream) => stream,
            Err(refused) => return call.end(Err(refused)),
        };
        let stream: DynInputStream = Box::new(Watched::new(stream, self.reporter.activity()));
        let stream = match call.stays_open() {
            Some(record) => Box::new(Counted::new(stream, record)),
            None => stream,
        };
        Ok(self.table.push(stream)?)
    }

    /// Keeps a value of an object's text as a key, and from now on blanks it in what the component reads.
    ///
    /// # Errors
    /// `Denied` where the object may not be read in this way, `Limit` for too many; what the store and the text say.
    pub(crate) async fn derive_key_from(
        &mut self,
        bucket: &Resource<Bucket>,
        key: String,
        via: &Resource<Pipeline>,
        section: String,
        name: String,
    ) -> Answer<Resource<Key>> {
        let call = self.call_on("store.derive-key", bucket, &key);
        let answer: Answer<Resource<Key>> = async move {
            let via = self.pipeline(Some(via))?;
            let store_name = Arc::clone(&self.table.get(bucket)?.name);
            let (_, object) = self.object(bucket, key, via)?;
            let Some(plane) = &mut self.job.plane else {
                return Err(wasmtime::format_err!("{NO_PLANE}").into());
            };
            let derived = plane.derive(&store_name, object, section, name).await;
            let key = derived.map_err(|error| self.error(error))?;
            Ok(self.table.push(key)?)
        }
        .await;
        call.end(answer)
    }

    /// Begins the record of a call that concerns an object, or the objects below a prefix.
    fn call_on(&self, function: &'static str, bucket: &Resource<Bucket>, key: &str) -> Call {
        let store = || self.table.get(bucket).map_or("", |bucket| bucket.store.name());
        self.reporter.call(CapabilityKind::Store, function, || format!("{}: {key}", store()))
    }

    fn bucket(&self, bucket: &Resource<Bucket>) -> wasmtime::Result<(&Plane, &Bucket)> {
        let plane = self.plane().ok_or_else(|| wasmtime::format_err!("{NO_PLANE}"))?;
        Ok((plane, self.table.get(bucket)?))
    }

    /// An object to read, where it may be read in this way.
    fn object(
        &self,
        bucket: &Resource<Bucket>,
        key: String,
        via: Pipeline,
    ) -> Answer<(&Plane, plane::Object)> {
        let (plane, bucket) = self.bucket(bucket)?;
        plane.may_decrypt(&bucket.name, &via).map_err(|(what, line)| self.denied(&Keys, what, line))?;
        plane.may_read(&bucket.name, &key, &via).map_err(|error| self.error(error))?;
        Ok((plane, plane.object(bucket.store.clone(), key, via)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::tests::{check, check_with, granted, need, setting};
    use super::*;

    #[test]
    fn a_store_is_needed_by_its_name_or_by_what_its_option_says() {
        let needs = [need(NeedKind::Store, "repo", true)];
        let refusal = check(&needs, &[], &["/mnt"]).unwrap_err();
        assert!(refusal.policy && refusal.message.contains("the store repo"), "{refusal}");
        let line = r#"[method.m.grants] stores.repo = { url = "..." }"#;
        assert_eq!(refusal.remedy.as_deref(), Some(line));
        check_with(&needs, &[], &granted()).unwrap();
        check_with(&needs, &[setting("repo", "other")], &granted()).unwrap_err();
        check_with(&needs, &[setting("repo", "/mnt/backups")], &granted()).unwrap();
        let refusal = check_with(&needs, &[setting("repo", "/srv/backups")], &granted()).unwrap_err();
        assert_eq!(refusal.remedy.as_deref(), Some(r#"[method.m.grants] read = ["/mnt", "/srv/backups"]"#));
        check(&[need(NeedKind::Store, "repo", false)], &[], &[]).unwrap();
        check(&[need(NeedKind::Store, "repo", false)], &[setting("repo", "s3")], &[]).unwrap_err();
    }
}
