//! Stores by name: `stores.repo = { url = "s3://backups/pg" }`. A component can list and read the objects of a store. The host keeps the
//! credentials and keys to itself.

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

/// How many bytes an object may have if it is read in one call.
const WHOLE: u32 = 4 << 20;

/// The message of the trap if a component uses a store although it has no data plane. Such a component cannot have opened a store.
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
    pub(super) name: StoreName,
    pub(super) store: Store,
}

/// The name by which a component opened a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreName {
    /// The name of a granted store.
    Granted(Arc<str>),
    /// The absolute path of a directory for which `read` is granted.
    Directory(Arc<str>),
}

impl StoreName {
    /// Reads a name. An absolute path is a directory.
    pub(crate) fn of(name: &str) -> Self {
        if name.starts_with('/') { Self::Directory(name.into()) } else { Self::Granted(name.into()) }
    }

    /// Returns the capability that opens the store.
    pub(crate) fn capability(&self) -> CapabilityKind {
        match self {
            Self::Granted(_) => CapabilityKind::Store,
            Self::Directory(_) => CapabilityKind::Read,
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Granted(name) | Self::Directory(name) => name,
        }
    }
}

/// What a component learns about an object.
pub(crate) struct Object {
    /// Its key.
    pub(crate) key: String,
    /// Its stored size in bytes.
    pub(crate) size: u64,
    /// When it was written, in seconds since 1970.
    pub(crate) modified: Option<u64>,
    /// The store's ETag.
    pub(crate) etag: Option<String>,
}

impl Object {
    /// Converts an object. Redacts its ETag, because the server chooses that text and could put a credential into it.
    fn of(object: store::Object, plane: &Plane) -> Self {
        let etag = object.etag.map(|etag| plane.without_secrets(&etag.to_string()));
        Self { key: object.key, size: object.size, modified: object.modified, etag }
    }
}

/// A part of a listing.
pub(crate) struct Page {
    /// The objects.
    pub(crate) objects: Vec<Object>,
    /// The key after which the next page begins; `None` on the last page.
    pub(crate) next: Option<String>,
}

/// Functions for pipelines, which turn stored bytes into plain bytes.
impl State {
    /// Makes a pipeline that changes nothing.
    pub(crate) fn new_pipeline(&mut self) -> wasmtime::Result<Resource<Pipeline>> {
        Ok(self.table.push(Pipeline::default())?)
    }

    /// Makes a pipeline decrypt the stored bytes.
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

    /// Makes a pipeline decompress the bytes, after it decrypted them.
    pub(crate) fn decompress_with(
        &mut self,
        pipeline: &Resource<Pipeline>,
        codec: Codec,
    ) -> wasmtime::Result<()> {
        self.table.get_mut(pipeline)?.decompress = Some(codec);
        Ok(())
    }

    /// Returns the pipeline of a handle, or a pipeline that changes nothing if there is no handle.
    pub(super) fn pipeline(&self, via: Option<&Resource<Pipeline>>) -> wasmtime::Result<Pipeline> {
        Ok(match via {
            Some(via) => self.table.get(via)?.clone(),
            None => Pipeline::default(),
        })
    }
}

/// Functions for opened stores.
impl State {
    /// Opens a granted store by its name, or a directory by its absolute path if `read` is granted for that directory or one above it.
    ///
    /// # Errors
    /// `Denied` if the store or directory is not granted; otherwise the error of the store.
    pub(crate) async fn open_store(&mut self, name: String) -> Answer<Resource<Bucket>> {
        let name = StoreName::of(&name);
        let call = self.reporter.call(name.capability(), "store.open", || name.as_str().to_owned());
        let answer: Answer<Resource<Bucket>> = async move {
            let Some(plane) = &mut self.job.plane else {
                return Err(self.not_granted(&Stores, name.as_str()).into());
            };
            let store = match &name {
                StoreName::Directory(directory) => match plane.granted_directory(directory).await {
                    Some(opened) => opened.map_err(|error| self.error(error))?,
                    None => {
                        let path = GuestPath::root().join(directory);
                        let line = self.plane().and_then(|plane| plane.remedies.read(&path.to_host()));
                        return Err(self.denied(&Read, path.to_string(), line).into());
                    }
                },
                StoreName::Granted(granted) => match plane.granted_store(granted).await {
                    Some(opened) => opened.map_err(|error| self.error(error))?,
                    None => return Err(self.not_granted(&Stores, granted).into()),
                },
            };
            Ok(self.table.push(Bucket { name, store })?)
        }
        .await;
        call.end(answer)
    }

    /// Lists a part of the objects below a prefix.
    ///
    /// # Errors
    /// The error of the store.
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

    /// Returns the metadata of one object.
    ///
    /// # Errors
    /// The error of the store.
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
    /// `Denied` if the object may not be read through this pipeline, `Limit` if the text is longer than `limit` or 4 MiB; otherwise the
    /// error of the store or of the pipeline.
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
    /// `Denied` if the object may not be read through this pipeline, `Limit` if too many streams are open; otherwise the error of the
    /// store.
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

    /// Takes a value from an object's text as a key. From now on, blanks this value in everything that the component reads.
    ///
    /// # Errors
    /// `Denied` if the object may not be read through this pipeline, `Limit` if too many keys were derived; otherwise the error of the
    /// store or of the text.
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
            let store_name = self.table.get(bucket)?.name.clone();
            let (_, object) = self.object(bucket, key, via)?;
            let Some(plane) = &mut self.job.plane else {
                return Err(wasmtime::format_err!("{NO_PLANE}").into());
            };
            let derived = plane.derive(store_name.as_str(), object, section, name).await;
            let key = derived.map_err(|error| self.error(error))?;
            Ok(self.table.push(key)?)
        }
        .await;
        call.end(answer)
    }

    /// Begins the record of a call for an object, or for the objects below a prefix.
    fn call_on(&self, function: &'static str, bucket: &Resource<Bucket>, key: &str) -> Call {
        let bucket = self.table.get(bucket).ok();
        let capability = bucket.map_or(CapabilityKind::Store, |bucket| bucket.name.capability());
        let store = bucket.map_or("", |bucket| bucket.store.name());
        self.reporter.call(capability, function, || format!("{store}: {key}"))
    }

    fn bucket(&self, bucket: &Resource<Bucket>) -> wasmtime::Result<(&Plane, &Bucket)> {
        let plane = self.plane().ok_or_else(|| wasmtime::format_err!("{NO_PLANE}"))?;
        Ok((plane, self.table.get(bucket)?))
    }

    /// Prepares to read an object, if it may be read through this pipeline.
    fn object(
        &self,
        bucket: &Resource<Bucket>,
        key: String,
        via: Pipeline,
    ) -> Answer<(&Plane, plane::Object)> {
        let (plane, bucket) = self.bucket(bucket)?;
        plane
            .may_decrypt(bucket.name.as_str(), &via)
            .map_err(|(what, line)| self.denied(&Keys, what, line))?;
        plane.may_read(bucket.name.as_str(), &key, &via).map_err(|error| self.error(error))?;
        Ok((plane, plane.object(bucket.store.clone(), key, via)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::tests::{check, check_with, granted, need, setting};
    use super::*;

    #[test]
    fn a_needed_store_must_be_granted_under_the_name_of_the_need_or_of_its_option() {
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
