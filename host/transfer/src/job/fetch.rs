//! Fetches files.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustix::fs::Stat;

use super::coalesce;
use super::copy;
use super::linked::{LinkOf, Linked, text};
use super::state::{Origin, State};
use super::stored::{Part, Stored};
use super::unit::Item;
use super::worker::Worker;
use super::{Action, EndedItem, ItemKind, Overwrite};
use crate::digest::Hasher;
use crate::error::{Error, Kind};
use crate::sink::directories::shown;
use crate::sink::file::{self, Output, Wanted};

/// How many bytes were moved for a file so far.
#[derive(Clone, Copy, Default)]
pub(super) struct Moved {
    /// The stored bytes that were read.
    pub(super) read: u64,
    /// The plain bytes that were written.
    pub(super) written: u64,
}

/// Fetches files whose stored bytes are adjacent.
pub(crate) fn run(worker: &mut Worker, job: &Arc<State>, items: Vec<Item>) {
    let mut wanted = Vec::with_capacity(items.len());
    for item in items {
        let began = Instant::now();
        match guarded(|| is_up_to_date(worker, job, &item)) {
            Ok(true) => finish(job, item, began, Moved::default(), Ok(Action::Kept)),
            Ok(false) => wanted.push(item),
            Err(error) => fail(job, item, began, error),
        }
    }
    // Without the files that exist already, the other ranges may not be adjacent any more.
    for run in coalesce::adjacent(wanted) {
        read_run(worker, job, run);
    }
}

/// Reads files with one request. If the request fails at a file, makes another request for the files after that file.
fn read_run(worker: &mut Worker, job: &Arc<State>, items: Vec<Item>) {
    let mut items = std::collections::VecDeque::from(items);
    let mut began = Instant::now();
    while let Some(first) = items.front() {
        if let Err(error) = job.fail_if_cancelled() {
            items.drain(..).for_each(|item| fail(job, item, began, error.clone()));
            return;
        }
        let range = coalesce::span(first, items.back().unwrap_or(first));
        let nothing = first.size == 0 && range.is_some_and(|range| range.length == 0);
        let stored =
            match guarded(|| Stored::open(job, job.cancel_token(), &first.origin, &first.object, range)) {
                _ if nothing => None,
                Ok(stored) => Some(Arc::new(Mutex::new(stored))),
                // One range may lie outside the object; the other ranges may succeed.
                Err(error) if error.kind == Kind::Invalid && items.len() > 1 => {
                    for item in items {
                        read_run(worker, job, vec![item]);
                    }
                    return;
                }
                Err(error) => {
                    items.drain(..).for_each(|item| fail(job, item, began, error.clone()));
                    return;
                }
            };
        let start = range.map_or(0, |range| range.offset);
        while let Some(item) = items.pop_front() {
            let ended = guarded(|| match &stored {
                Some(stored) => write(worker, job, &item, stored, start)
                    .map_err(|error| named(error, &item.object, &item.origin)),
                None => write_nothing(worker, job, &item).map(|()| Moved::default()),
            });
            let broken = stored
                .as_ref()
                .is_some_and(|stored| stored.lock().map_or(true, |stored| stored.has_failed()));
            match ended {
                Ok(moved) => finish(job, item, began, moved, Ok(Action::Written)),
                Err(error) => fail(job, item, began, error),
            }
            began = Instant::now();
            if broken {
                break;
            }
        }
    }
}

/// Reports that an item failed.
fn fail(job: &State, item: Item, began: Instant, error: Error) {
    let what = format!("`{}`", shown(&item.path));
    finish(job, item, began, Moved::default(), Err(error.of(what)));
}

/// Reports how an item ended, and how many bytes were moved for it.
fn finish(job: &State, item: Item, began: Instant, moved: Moved, ended: Result<Action, Error>) {
    if let Some(observer) = job.observer() {
        observer.ended(&EndedItem {
            of: ItemKind::File,
            store: item.origin.store.name(),
            object: &item.object,
            path: &shown(&item.path),
            bytes_read: moved.read,
            bytes_written: moved.written,
            duration: began.elapsed(),
            ended: &ended,
        });
    }
    // The chain is not used any more when the job becomes idle.
    drop(item.chain);
    item.ticket.finish(ended);
}

/// Runs `work` and turns a panic into an error.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Error::of_panic(&*panic)))
}

/// Returns whether the file exists already and `overwrite` says to keep it. Sets the mode and time of a file that is kept.
fn is_up_to_date(worker: &mut Worker, job: &State, item: &Item) -> Result<bool, Error> {
    job.fail_if_cancelled()?;
    if let Some(chain) = &item.chain {
        return Ok(!LinkOf::new(chain, &text(&item.path))?.is_needed());
    }
    if item.overwrite == Overwrite::Always {
        return Ok(false);
    }
    let place = job.target().file(&item.path)?;
    let Some((existing, status)) = file::existing(&job.destination, &mut worker.directories, &place)? else {
        return Ok(false);
    };
    let length = u64::try_from(status.st_size).unwrap_or(0);
    let fits = match item.at {
        None => length == item.size,
        Some(at) => length >= at + item.size,
    };
    let same = fits
        && match (item.overwrite, &item.digest) {
            (Overwrite::Always, _) | (Overwrite::UnlessSameDigest, None) => false,
            (Overwrite::UnlessSameSizeAndTime, _) => time_of(&status) == item.mtime,
            (Overwrite::UnlessSameContent, _) => has_same_content(worker, job, &existing, item)?,
            (Overwrite::UnlessSameDigest, Some(digest)) => {
                let hasher = hash(worker, job, &existing, item, Hasher::new(digest.algorithm))?;
                hasher.is_some_and(|hasher| hasher.finish() == *digest)
            }
        };
    if same {
        set_mode_and_time(&existing, &status, item.mode, item.mtime)?;
    }
    Ok(same)
}

/// Sets the mode and the time of a file that is kept, if they differ.
pub(super) fn set_mode_and_time(
    existing: &File,
    status: &Stat,
    mode: u32,
    mtime: Option<u64>,
) -> Result<(), Error> {
    if status.st_mode & 0o7777 != mode {
        file::set_mode(existing, mode)?;
    }
    match mtime {
        Some(time) if time_of(status) != Some(time) => file::set_time(existing, time),
        _ => Ok(()),
    }
}

fn time_of(status: &Stat) -> Option<u64> {
    u64::try_from(status.st_mtime).ok()
}

/// Hashes the item's part of the existing file; `None` if the file ends too early.
fn hash(
    worker: &mut Worker,
    job: &State,
    existing: &File,
    item: &Item,
    mut hasher: Hasher,
) -> Result<Option<Hasher>, Error> {
    let mut at = item.at.unwrap_or(0);
    let end = at + item.size;
    while at < end {
        job.fail_if_cancelled()?;
        let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(worker.buffer.len());
        match existing.read_at(&mut worker.buffer[..most], at)? {
            0 => return Ok(None),
            count => {
                hasher.update(&worker.buffer[..count]);
                job.read_without_writing(count as u64);
                at += count as u64;
            }
        }
    }
    Ok(Some(hasher))
}

/// Returns whether the existing file has the same bytes as the stored object. If the stored size differs from the item's, returns
/// false; the item fails later, when it is written.
fn has_same_content(worker: &mut Worker, job: &State, existing: &File, item: &Item) -> Result<bool, Error> {
    if item.size == 0 && item.range.is_some_and(|range| range.length == 0) {
        return Ok(true);
    }
    let stored = Stored::open(job, job.cancel_token(), &item.origin, &item.object, item.range)?;
    let length = item.range.map_or(stored.size(), |range| range.length);
    let mut plain: Box<dyn Read + Send> = Box::new(Part::new(Arc::new(Mutex::new(stored)), length));
    if !item.origin.via.is_plain() || !job.withheld.is_empty() {
        // A plugin must not learn whether the existing file equals a text that holds keys.
        plain = job
            .withheld
            .refusing(item.origin.via.decode_to_keep(plain, &job.memory_allowance(job.cancel_token()))?);
    }
    let mut pages = job.page_checker(&item.path, item.digest.as_ref());
    let half = worker.buffer.len() / 2;
    let (stored_bytes, existing_bytes) = worker.buffer.split_at_mut(half);
    let mut at = item.at.unwrap_or(0);
    let end = at + item.size;
    loop {
        job.fail_if_cancelled()?;
        let count = match plain.read(stored_bytes) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(named(Error::from(error), &item.object, &item.origin)),
        };
        if count as u64 > end - at {
            return Ok(false);
        }
        job.read_without_writing(count as u64);
        let existing_bytes = &mut existing_bytes[..count];
        match existing.read_exact_at(existing_bytes, at) {
            Ok(()) if existing_bytes == &stored_bytes[..count] => {
                if let Some(pages) = &mut pages {
                    pages.update(at, existing_bytes);
                }
                at += count as u64;
            }
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    match pages {
        Some(pages) if at == end => pages.finish().map(|()| true),
        _ => Ok(at == end),
    }
}

fn output<'a>(worker: &mut Worker, job: &'a State, item: &Item) -> Result<Output<'a>, Error> {
    let place = job.target().file(&item.path)?;
    let pages = job.page_checker(&item.path, item.digest.as_ref());
    let wanted = Wanted { size: item.size, digest: item.digest.clone(), pages, mode: item.mode };
    match item.at {
        Some(at) => Output::part(&job.destination, &mut worker.directories, &place, at, wanted),
        None => Output::replace(&job.destination, &mut worker.directories, &place, wanted),
    }
}

/// Writes an empty file, for which nothing is read.
fn write_nothing(worker: &mut Worker, job: &State, item: &Item) -> Result<(), Error> {
    if let Some(chain) = &item.chain {
        let of = LinkOf::new(chain, &text(&item.path))?;
        return Linked::begin(&mut worker.directories, job, of, 0, item.digest.clone())?.finish().map(drop);
    }
    output(worker, job, item)?.finish(item.mtime)
}

/// Writes one file. `stored` reads the object from byte `start` on.
fn write(
    worker: &mut Worker,
    job: &State,
    item: &Item,
    stored: &Arc<Mutex<Stored>>,
    start: u64,
) -> Result<Moved, Error> {
    let (position, length) = {
        let mut stored = stored.lock().unwrap_or_else(PoisonError::into_inner);
        let position = item.range.map_or(0, |range| range.offset - start);
        stored.skip_to(position)?;
        (position, item.range.map_or(stored.size(), |range| range.length))
    };
    if let Some(chain) = &item.chain {
        let of = LinkOf::new(chain, &text(&item.path))?;
        let written = write_linked(worker, job, item, of, stored, length)?;
        return Ok(Moved { read: length, written });
    }
    let mut output = output(worker, job, item)?;
    if item.origin.via.is_plain() && job.withheld.is_empty() {
        write_plain(worker, job, item, stored, (position, length), &mut output)?;
    } else {
        let part = Box::new(Part::new(Arc::clone(stored), length));
        let plain = item.origin.via.decode_to_keep(part, &job.memory_allowance(job.cancel_token()))?;
        let mut plain = job.withheld.refusing(plain);
        loop {
            // Reads at most one byte more than expected, so that a decompression bomb fails here.
            let most = usize::try_from(output.left().saturating_add(1)).unwrap_or(usize::MAX);
            let most = most.min(worker.buffer.len());
            match plain.read(&mut worker.buffer[..most]) {
                Ok(0) => break,
                Ok(count) => output.write(&worker.buffer[..count])?,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        stored.lock().unwrap_or_else(PoisonError::into_inner).unchanged()?;
    }
    output.finish(item.mtime)?;
    Ok(Moved { read: length, written: item.size })
}

/// Writes a file of a chain from the next `length` stored bytes. Returns how many bytes were written.
fn write_linked(
    worker: &mut Worker,
    job: &State,
    item: &Item,
    of: LinkOf,
    stored: &Arc<Mutex<Stored>>,
    length: u64,
) -> Result<u64, Error> {
    let part = Box::new(Part::new(Arc::clone(stored), length));
    let plain = item.origin.via.decode_to_keep(part, &job.memory_allowance(job.cancel_token()))?;
    let mut plain = job.withheld.refusing(plain);
    let Worker { directories, buffer, .. } = worker;
    let mut linked = Linked::begin(directories, job, of, item.size, item.digest.clone())?;
    let mut left = item.size;
    loop {
        // Reads at most one byte more than expected, so that a decompression bomb fails here.
        let most = usize::try_from(left.saturating_add(1)).unwrap_or(usize::MAX).min(buffer.len());
        match plain.read(&mut buffer[..most]) {
            Ok(0) if left > 0 => return Err(file::too_short(item.size - left, item.size)),
            Ok(0) => {
                // This check comes before the chain learns which pages the file has.
                stored.lock().unwrap_or_else(PoisonError::into_inner).unchanged()?;
                return linked.finish();
            }
            Ok(count) if count as u64 > left => return Err(file::too_long(item.size)),
            Ok(count) => {
                linked.write(directories, &buffer[..count])?;
                left -= count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn write_plain(
    worker: &mut Worker,
    job: &State,
    item: &Item,
    stored: &Arc<Mutex<Stored>>,
    (position, length): (u64, u64),
    output: &mut Output<'_>,
) -> Result<(), Error> {
    if length > item.size {
        return Err(file::too_long(item.size));
    }
    if length < item.size {
        return Err(file::too_short(length, item.size));
    }
    let mut stored = stored.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((from, offset)) = stored.file(position) {
        if job.rate.is_none() {
            let left = output.left();
            let copied = copy::within_kernel(job, &item.origin, from, offset, output);
            stored.count(left - output.left());
            copied?;
        }
        while output.left() > 0 {
            let most = usize::try_from(output.left()).unwrap_or(usize::MAX).min(worker.buffer.len());
            let at = offset + (item.size - output.left());
            match from.read_at(&mut worker.buffer[..most], at)? {
                0 => break,
                count => {
                    stored.pay(count as u64)?;
                    output.write(&worker.buffer[..count])?;
                }
            }
        }
        return stored.unchanged();
    }
    while output.left() > 0 {
        let most = usize::try_from(output.left()).unwrap_or(usize::MAX);
        match stored.chunk(most)? {
            None => break,
            Some(bytes) => output.write(&bytes)?,
        }
    }
    Ok(())
}

/// Puts the object's name before an error about its bytes, unless the message names the object already.
pub(super) fn named(error: Error, object: &str, origin: &Origin) -> Error {
    let object = format!("`{object}` of {}", origin.store.name());
    if error.kind != Kind::Corrupt || error.message.contains(&object) { error } else { error.of(object) }
}
