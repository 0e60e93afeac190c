//! S3, Google and Azure as stores, through the library object_store.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore};

use super::answer::ListingEnd;
use super::body::{Source, outside};
use super::failures::{failed, request};
use super::key::{self, KeyLimit};
use super::retry::{Failure, Missing, RetryAdvice, within};
use super::transport::{FOLDER_MARK, RequestKind};
use super::{Backend, Etag, Object, PAGE, Page, Range};
use crate::error::{Error, Kind};

/// How many unfinished listings are kept, so that the next page can continue one.
const LISTINGS: usize = 16;

/// How many pages without new keys are read at most to find a page with new keys.
const EMPTY_PAGES: usize = 1_000;

/// A bucket or container.
pub(super) struct Cloud {
    objects: Arc<dyn ObjectStore>,
    lists: Arc<dyn PaginatedListStore>,
    /// Unfinished listings: the prefix, the key after which the next page begins, and the store's token for it. A listing that is not kept
    /// here continues after its last key instead, which is always correct, but slow if the store does not support that.
    listings: Mutex<VecDeque<(String, String, String)>>,
    /// Whether listings leave out the object whose key is the prefix itself, as the library does for Azure.
    leaves_out_prefix: bool,
    longest_key: KeyLimit,
    /// How long to wait for one response, including requests for credentials before it.
    idle: Duration,
    /// Whether a response has shown that the bucket exists.
    bucket_exists: AtomicBool,
}

impl Cloud {
    pub(super) fn new<S: ObjectStore + PaginatedListStore>(store: S, idle: Duration) -> Self {
        let store = Arc::new(store);
        Self {
            objects: Arc::clone(&store) as _,
            lists: store,
            listings: Mutex::default(),
            leaves_out_prefix: false,
            longest_key: key::BUCKET,
            idle,
            bucket_exists: AtomicBool::new(false),
        }
    }

    /// Makes the store of an Azure container.
    pub(super) fn azure<S: ObjectStore + PaginatedListStore>(store: S, idle: Duration) -> Self {
        Self { leaves_out_prefix: true, longest_key: key::CONTAINER, ..Self::new(store, idle) }
    }

    /// Makes one request.
    async fn request<T>(&self, work: impl Future<Output = object_store::Result<T>>) -> Result<T, Failure> {
        let response = within(self.idle, request(work)).await;
        if response.is_ok() {
            self.bucket_exists.store(true, Ordering::Relaxed);
        }
        response
    }

    /// Requests an object or a range of it; with `known`, only if it is unchanged.
    async fn get(
        &self,
        key: &str,
        range: Option<Range>,
        known: Option<&Object>,
    ) -> Result<GetResult, Failure> {
        let options = GetOptions {
            range: range
                .map(|range| GetRange::Bounded(range.offset..range.offset.saturating_add(range.length))),
            if_match: known.and_then(|object| object.etag.as_ref()?.if_match()),
            extensions: RequestKind::Bytes.extensions(),
            ..GetOptions::default()
        };
        let response = self.request(self.objects.get_opts(&path(key)?, options)).await;
        if response.as_ref().is_err_and(|failure| failure.error.kind == Kind::NotFound) {
            // Otherwise the response would have said that the bucket is missing.
            self.bucket_exists.store(true, Ordering::Relaxed);
        }
        response
    }

    /// Requests the first byte of an object to get the error code, because a response to HEAD has no body. Without the code, an expired
    /// token, a wrong clock and a missing permission cannot be distinguished.
    async fn with_a_body(&self, key: &str, without: Failure) -> Result<GetResult, Failure> {
        let first = Range { offset: 0, length: 1 };
        match self.get(key, Some(first), None).await {
            // An empty object has no first byte.
            Err(failure) if failure.missing == Missing::Range => self.get(key, None, None).await,
            Err(failure) if failure.retry != RetryAdvice::Never => Err(without),
            response => response,
        }
    }

    /// Returns the object that the library leaves out of the first page.
    async fn left_out(&self, prefix: &str, after: Option<&str>) -> Result<Option<Object>, Failure> {
        let is_key = !prefix.is_empty() && !prefix.ends_with('/');
        if !self.leaves_out_prefix || !is_key || after.is_some_and(|after| after >= prefix) {
            return Ok(None);
        }
        match self.head(prefix).await {
            Ok(object) => Ok(Some(object)),
            Err(failure) if failure.error.kind == Kind::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    fn token(&self, prefix: &str, after: &str) -> Option<String> {
        let listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        let found = listings.iter().find(|(of, at, _)| of == prefix && at == after);
        found.map(|(_, _, token)| token.clone())
    }

    fn keep(&self, prefix: &str, after: &str, token: String) {
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        listings.retain(|(of, at, _)| of != prefix || at != after);
        if listings.len() >= LISTINGS {
            listings.pop_front();
        }
        listings.push_back((prefix.to_owned(), after.to_owned(), token));
    }
}

#[async_trait]
impl Backend for Cloud {
    fn longest_key(&self) -> KeyLimit {
        self.longest_key
    }

    async fn scan(&self, prefix: &str, after: Option<&str>) -> Result<Page, Failure> {
        let mut token = after.and_then(|after| self.token(prefix, after));
        // The key after which the store begins if it sends no token.
        let mut offset = after.map(str::to_owned);
        let goes_on = token.is_some();
        let mut left_out = self.left_out(prefix, after).await?;
        let most = PAGE - usize::from(left_out.is_some());
        // The last key of the page before.
        let mut before: Option<String> = None;
        for _ in 0..EMPTY_PAGES {
            let used = token.take();
            let options = PaginatedListOptions {
                offset: used.is_none().then(|| offset.clone()).flatten(),
                max_keys: Some(most),
                page_token: used.clone(),
                extensions: RequestKind::Listing.extensions(),
                ..PaginatedListOptions::default()
            };
            let requested_prefix = (!prefix.is_empty()).then_some(prefix);
            let response = self.request(self.lists.list_paginated(requested_prefix, options)).await?;
            let end = response.result.extensions.get::<ListingEnd>().copied().unwrap_or_default();
            let further = response.page_token.filter(|token| !token.is_empty());
            let is_cut = further.is_none() && end.is_cut(response.result.objects.len() >= most);
            let keys = response.result.objects.iter().map(|meta| meta.location.as_ref());
            let last = keys.map(|key| key.trim_end_matches(FOLDER_MARK)).max().map(str::to_owned);
            let listed = response.result.objects.into_iter().map(object);
            let mut objects: Vec<Object> = listed.filter_map(not_a_folder).collect();
            if is_cut && let Some((key, before)) = out_of_order(before.as_deref(), &objects, "", false) {
                return Err(unordered(key, before));
            }
            if let Some(after) = after {
                if let Some((key, before)) = out_of_order(before.as_deref(), &objects, after, goes_on) {
                    return Err(unordered(key, before));
                }
                before = objects.last().map(|object| object.key.clone()).or(before);
                // A store that does not support `after` begins with the first key.
                objects.retain(|object| object.key.as_str() > after);
            }
            if objects.len() > most {
                let message =
                    format!("the store lists {} objects instead of the requested {most}", objects.len());
                return Err(Failure::never(Kind::Limit, message));
            }
            objects.extend(left_out.take());
            objects.sort_unstable_by(|one, other| one.key.cmp(&other.key));
            if let Some(twice) = objects.windows(2).find(|pair| pair[0].key == pair[1].key) {
                let message = format!("the store lists `{}` twice", twice[0].key.escape_debug());
                return Err(Failure::never(Kind::Failed, message));
            }
            match (further, objects.last()) {
                (None, _) if !is_cut => return Ok(Page { objects, next: None }),
                // More objects follow, and there is no token: the next call requests them by the last key.
                (None, Some(last)) => {
                    let next = last.key.clone();
                    return Ok(Page { objects, next: Some(next) });
                }
                (None, None) => {
                    // This part has only keys that were listed before, or placeholders of folders.
                    let further = last.filter(|last| offset.as_ref().is_none_or(|offset| last > offset));
                    offset = Some(further.ok_or_else(cut_short)?);
                }
                (Some(further), None) if used.as_ref() == Some(&further) => return Err(in_a_circle()),
                (Some(further), Some(last)) => {
                    let next = last.key.clone();
                    self.keep(prefix, &next, further);
                    return Ok(Page { objects, next: Some(next) });
                }
                (Some(further), None) => token = Some(further),
            }
        }
        Err(Failure::never(Kind::Limit, format!("the store lists {EMPTY_PAGES} empty pages")))
    }

    async fn head(&self, key: &str) -> Result<Object, Failure> {
        let extensions = RequestKind::Metadata.extensions();
        let options = GetOptions { head: true, extensions, ..GetOptions::default() };
        let response = match self.request(self.objects.get_opts(&path(key)?, options)).await {
            // S3 and Google say in the body whether the bucket is missing, and a response to HEAD has no body.
            Err(failure)
                if failure.error.kind == Kind::NotFound && !self.bucket_exists.load(Ordering::Relaxed) =>
            {
                self.get(key, None, None).await
            }
            Err(failure) if failure.missing == Missing::ErrorCode => self.with_a_body(key, failure).await,
            response => response,
        };
        Ok(object(response?.meta))
    }

    async fn open(
        &self,
        key: &str,
        range: Option<Range>,
        known: Option<&Object>,
    ) -> Result<(Object, Source), Failure> {
        let response = match (self.get(key, range, known).await, range) {
            (Ok(response), _) => response,
            // Servers respond differently to a range outside of the object; the object's size decides.
            (Err(failure), Some(range)) if failure.error.kind == Kind::Failed => {
                let size = self.head(key).await?.size;
                let is_outside = range.end().is_none_or(|end| end > size);
                return Err(if is_outside { outside(range, Some(size)).into() } else { failure });
            }
            (Err(failure), _) => return Err(failure),
        };
        let found = object(response.meta.clone());
        let bytes = response.into_stream().map(|bytes| bytes.map_err(|error| failed(&error)));
        Ok((found, Source::Stream(bytes.boxed())))
    }
}

/// Finds a key that is out of order in a part of a listing, and the key before it. If the store continues a listing by its own token
/// (`goes_on`), all keys must follow `after`. If the store was only told to begin after a key, it does so in its own order. If that is not
/// the order of the keys, the store may leave out any key.
fn out_of_order<'a>(
    before: Option<&'a str>,
    objects: &'a [Object],
    after: &'a str,
    goes_on: bool,
) -> Option<(&'a str, &'a str)> {
    let mut keys = objects.iter().map(|object| object.key.as_str());
    if goes_on {
        return keys.find(|key| *key <= after).map(|key| (key, after));
    }
    let keys = before.into_iter().chain(keys);
    let pairs = keys.clone().zip(keys.skip(1));
    pairs.map(|(before, key)| (key, before)).find(|(key, before)| key < before)
}

/// Makes the failure of a listing that may leave keys out because it is not in order.
fn unordered(key: &str, before: &str) -> Failure {
    let message = format!(
        "the store does not list keys in order, so some may be left out: `{}` after `{}`; use a store that does (of Azure's, \
         one without a hierarchical namespace)",
        key.escape_debug(),
        before.escape_debug()
    );
    Failure::never(Kind::Failed, message)
}

/// Makes the failure of a listing that is truncated and cannot be continued.
fn cut_short() -> Failure {
    let message = "the store's server truncates its listing without a token to continue it (IsTruncated without \
                   NextContinuationToken), and ignores where to begin (start-after), so the rest of the keys cannot be listed. \
                   That is a bug of the server, which may support only version 1 of ListObjects: use a newer server, or another \
                   kind of store";
    Failure::never(Kind::Failed, message)
}

/// Makes the failure of a listing that repeats its token.
fn in_a_circle() -> Failure {
    let message = "the store's server repeats the token of its listing, so the listing would never end: that is a bug of the \
                   server";
    Failure::never(Kind::Failed, message)
}

fn path(key: &str) -> Result<Path, Failure> {
    Path::parse(key).map_err(|error| Error::new(Kind::Invalid, error.to_string()).into())
}

/// Returns a listed object, unless it is the placeholder of a folder: an empty object whose key ends with `/`, which consoles and
/// tools create.
fn not_a_folder(mut listed: Object) -> Option<Object> {
    if let Some(folder) = listed.key.strip_suffix(FOLDER_MARK) {
        if listed.size == 0 {
            return None;
        }
        listed.key = folder.to_owned();
    }
    Some(listed)
}

fn object(meta: ObjectMeta) -> Object {
    Object {
        key: meta.location.to_string(),
        size: meta.size,
        modified: u64::try_from(meta.last_modified.timestamp()).ok(),
        etag: meta.e_tag.as_deref().and_then(Etag::read),
    }
}
