//! S3, Google and Azure as stores, through their common library.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore};

use super::answer::Listed;
use super::body::{Source, outside};
use super::failures::{ask, failed};
use super::key::{self, Longest};
use super::retry::{Again, Failure, Lacks, within};
use super::transport::{Asked, FOLDER};
use super::{Backend, Etag, Object, PAGE, Page, Range};
use crate::error::{Error, Kind};

/// How many listings that somebody may go on with are kept.
const LISTINGS: usize = 16;

/// How many pages that bring nothing new are read for one that does.
const EMPTY_PAGES: usize = 1_000;

/// A bucket or container.
pub(super) struct Cloud {
    objects: Arc<dyn ObjectStore>,
    lists: Arc<dyn PaginatedListStore>,
    /// Where listings stopped: prefix, the key that the next page comes after, and the store's token for it. A listing that
    /// is not here begins after the key, which is right everywhere and slow where a store does not know how.
    listings: Mutex<VecDeque<(String, String, String)>>,
    /// Whether a listing leaves out the object whose key is the prefix itself, as the library's does for Azure.
    leaves_out_prefix: bool,
    longest_key: Longest,
    /// How long one answer is awaited, credentials that must be asked for first included.
    idle: Duration,
    /// Whether an answer has shown that the bucket itself is there.
    is_there: AtomicBool,
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
            is_there: AtomicBool::new(false),
        }
    }

    /// The same for Azure.
    pub(super) fn azure<S: ObjectStore + PaginatedListStore>(store: S, idle: Duration) -> Self {
        Self { leaves_out_prefix: true, longest_key: key::CONTAINER, ..Self::new(store, idle) }
    }

    /// Makes one request.
    async fn ask<T>(&self, request: impl Future<Output = object_store::Result<T>>) -> Result<T, Failure> {
        let answer = within(self.idle, ask(request)).await;
        if answer.is_ok() {
            self.is_there.store(true, Ordering::Relaxed);
        }
        answer
    }

    /// Asks for an object or a range of it; where one is `known`, for that one alone.
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
            extensions: Asked::Bytes.extensions(),
            ..GetOptions::default()
        };
        let answer = self.ask(self.objects.get_opts(&path(key)?, options)).await;
        if answer.as_ref().is_err_and(|failure| failure.error.kind == Kind::NotFound) {
            // Else the answer had said that it is the bucket.
            self.is_there.store(true, Ordering::Relaxed);
        }
        answer
    }

    /// Asks for the first byte of an object, for the word that an answer to HEAD has no place for: without it an expired token, a
    /// clock that is wrong and a permission that is missing are all the same.
    async fn with_a_body(&self, key: &str, without: Failure) -> Result<GetResult, Failure> {
        let first = Range { offset: 0, length: 1 };
        match self.get(key, Some(first), None).await {
            // Of an empty object there is none.
            Err(failure) if failure.lacks == Lacks::Range => self.get(key, None, None).await,
            Err(failure) if failure.again != Again::Never => Err(without),
            answer => answer,
        }
    }

    /// The object that the library would leave out of the first page.
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
    fn longest_key(&self) -> Longest {
        self.longest_key
    }

    async fn scan(&self, prefix: &str, after: Option<&str>) -> Result<Page, Failure> {
        let mut token = after.and_then(|after| self.token(prefix, after));
        // Where the store is told to begin, where it gives no token.
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
                extensions: Asked::Listing.extensions(),
                ..PaginatedListOptions::default()
            };
            let prefix_asked = (!prefix.is_empty()).then_some(prefix);
            let answer = self.ask(self.lists.list_paginated(prefix_asked, options)).await?;
            let says = answer.result.extensions.get::<Listed>().copied().unwrap_or_default();
            let further = answer.page_token.filter(|token| !token.is_empty());
            let is_cut = further.is_none() && says.is_cut(answer.result.objects.len() >= most);
            let keys = answer.result.objects.iter().map(|meta| meta.location.as_ref());
            let last = keys.map(|key| key.trim_end_matches(FOLDER)).max().map(str::to_owned);
            let listed = answer.result.objects.into_iter().map(object);
            let mut objects: Vec<Object> = listed.filter_map(not_a_folder).collect();
            if is_cut && let Some((key, before)) = out_of_order(before.as_deref(), &objects, "", false) {
                return Err(unordered(key, before));
            }
            if let Some(after) = after {
                if let Some((key, before)) = out_of_order(before.as_deref(), &objects, after, goes_on) {
                    return Err(unordered(key, before));
                }
                before = objects.last().map(|object| object.key.clone()).or(before);
                // A store that does not know `after` begins at the beginning.
                objects.retain(|object| object.key.as_str() > after);
            }
            if objects.len() > most {
                let message =
                    format!("the store lists {} objects where {most} were asked for", objects.len());
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
                // There is more, and no token: it is asked for by the last key, which the next call does.
                (None, Some(last)) => {
                    let next = last.key.clone();
                    return Ok(Page { objects, next: Some(next) });
                }
                (None, None) => {
                    // Nothing but what came before, or only marks of folders.
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
        Err(Failure::never(Kind::Limit, format!("the store lists {EMPTY_PAGES} pages with nothing on them")))
    }

    async fn head(&self, key: &str) -> Result<Object, Failure> {
        let extensions = Asked::Metadata.extensions();
        let options = GetOptions { head: true, extensions, ..GetOptions::default() };
        let answer = match self.ask(self.objects.get_opts(&path(key)?, options)).await {
            // S3 and Google say in the body whether it is the bucket that is not there, and what answers HEAD has none.
            Err(failure)
                if failure.error.kind == Kind::NotFound && !self.is_there.load(Ordering::Relaxed) =>
            {
                self.get(key, None, None).await
            }
            Err(failure) if failure.lacks == Lacks::Word => self.with_a_body(key, failure).await,
            answer => answer,
        };
        Ok(object(answer?.meta))
    }

    async fn open(
        &self,
        key: &str,
        range: Option<Range>,
        known: Option<&Object>,
    ) -> Result<(Object, Source), Failure> {
        let answer = match (self.get(key, range, known).await, range) {
            (Ok(answer), _) => answer,
            // Servers disagree on how to answer a range that is not there; what it is tells.
            (Err(failure), Some(range)) if failure.error.kind == Kind::Failed => {
                let size = self.head(key).await?.size;
                let is_outside = range.end().is_none_or(|end| end > size);
                return Err(if is_outside { outside(range, Some(size)).into() } else { failure });
            }
            (Err(failure), _) => return Err(failure),
        };
        let found = object(answer.meta.clone());
        let bytes = answer.into_stream().map(|bytes| bytes.map_err(|error| failed(&error)));
        Ok((found, Source::Stream(bytes.boxed())))
    }
}

/// A key that is not where it must be in a part of a listing, and the one that it must not come after. Where the store itself
/// `goes_on` with a listing, what comes is after all that came. Where it was only told to begin after a key, it means its own
/// order by that: if this is not that of the keys, what it left out cannot be known.
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

/// The failure of a listing of several pages that could leave something out.
fn unordered(key: &str, before: &str) -> Failure {
    let message = format!(
        "the store does not list in the order of the keys, so that some could be left out: `{}` after `{}`; use a store that \
         does (of Azure's, those without a hierarchical namespace)",
        key.escape_debug(),
        before.escape_debug()
    );
    Failure::never(Kind::Failed, message)
}

/// The failure of a listing that says that there is more and not how to go on.
fn cut_short() -> Failure {
    let message = "the store's server cuts its listing short without a token to go on with (IsTruncated without \
                   NextContinuationToken), and begins no later where it is told to (start-after): what else there is cannot be \
                   known. That is a fault of the server, which may know version 1 of ListObjects alone: use a newer one, or \
                   reach the backups in another way";
    Failure::never(Kind::Failed, message)
}

/// The failure of a listing whose token leads to itself.
fn in_a_circle() -> Failure {
    let message = "the store's server goes on with its listing by the token that it was just asked with, and so for ever: that is \
                   a fault of the server";
    Failure::never(Kind::Failed, message)
}

fn path(key: &str) -> Result<Path, Failure> {
    Path::parse(key).map_err(|error| Error::new(Kind::Invalid, error.to_string()).into())
}

/// What a listing has, unless it only marks a folder: an empty object whose key ends with `/`, as consoles and tools make it.
fn not_a_folder(mut listed: Object) -> Option<Object> {
    if let Some(folder) = listed.key.strip_suffix(FOLDER) {
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
