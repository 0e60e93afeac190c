//! Writes the files of a backup that belongs to a chain: whole files, and the pages that a file lacks.

use std::sync::Arc;

use crate::budget::Charge;
use crate::chain::increment::{self, Content, Header, HeaderReader, WAL_G};
use crate::chain::{Chain, ChainUse, IncrementFormat, Needed, Pages};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Kind};
use crate::job::state::State;
use crate::pages::PageChecker;
use crate::sink::directories::Directories;
use crate::sink::file;
use crate::sink::scattered::Scattered;
use crate::target::Place;
use foundation::rooted::RelativePath;

/// The place of a member in its chain.
#[derive(Clone)]
pub(super) struct LinkOf {
    chain: ChainUse,
    /// The path of the file that the member belongs to.
    pub(super) file: RelativePath,
    content: Content,
}

impl LinkOf {
    /// Makes the place of the member `name`.
    ///
    /// # Errors
    /// `Invalid` if the file that the member belongs to cannot have its name.
    pub(super) fn new(chain: &ChainUse, name: &str) -> Result<Self, Error> {
        let (file, content) = increment::file_of(chain.chain.format(), name);
        let file = RelativePath::new(&file).map_err(|why| Error::new(Kind::Invalid, why.to_string()))?;
        Ok(Self { chain: chain.clone(), file, content })
    }

    /// Returns whether anything of the member is written.
    pub(super) fn is_needed(&self) -> bool {
        self.chain.is_newest() || self.chain.chain.needs(&text(&self.file))
    }
}

/// Returns the text of a path of a backup, whose names are UTF-8.
pub(super) fn text(path: &RelativePath) -> String {
    path.as_os_str().to_string_lossy().into_owned()
}

/// A member that is being written.
pub(super) struct Linked<'a> {
    job: &'a State,
    chain: Arc<Chain>,
    /// The number of the backup in the chain.
    link: u32,
    /// The path of the file that the member belongs to.
    path: String,
    place: Place,
    /// The size of the member in bytes.
    size: u64,
    hasher: Option<(Hasher, Digest)>,
    /// Checks the pages that are written.
    pages: Option<PageChecker>,
    stage: Stage<'a>,
    /// How many bytes were written to the file.
    written: u64,
    /// Whether the chain does not know yet how writing the file ended.
    is_open: bool,
}

enum Stage<'a> {
    /// The first bytes, from which the content of the member will be known.
    Beginning(Needed, Vec<u8>),
    /// The header of an increment.
    Header(Needed, Box<HeaderReader>),
    /// The pages of an increment, with their numbers; `None` for a page that is not needed.
    Increment { file: Scattered<'a>, pages: Pages, numbers: Vec<Option<u32>>, at: u64, _charge: Charge },
    /// The whole file, of which only the pages that the file lacks are written.
    Fill { file: Scattered<'a>, pages: Pages, at: u64, whole_pages: u32 },
    /// The whole file, of which every byte is written.
    Whole { file: Scattered<'a>, at: u64 },
    /// The member is checked but not written.
    Discard,
}

impl<'a> Stage<'a> {
    fn header(chain: &Chain, needed: Needed, size: u64) -> Self {
        let reader = HeaderReader::new(chain.format(), chain.page_size(), size, chain.memory());
        Self::Header(needed, Box::new(reader))
    }

    /// Begins to write a member that is the whole file.
    fn whole(
        directories: &mut Directories,
        job: &'a State,
        (chain, place): (&Chain, &Place),
        needed: Needed,
        size: u64,
    ) -> Result<Self, Error> {
        let destination = &job.destination;
        Ok(match needed {
            Needed::Nothing => Self::Discard,
            Needed::Pages(pages) => {
                // A last page of which the file has only a part counts as missing.
                let whole_pages = u32::try_from(size / chain.page_size().bytes()).unwrap_or(u32::MAX);
                let file = Scattered::open(destination, directories, place)?;
                Self::Fill { file, pages, at: 0, whole_pages }
            }
            Needed::Whole => {
                let mode = job.target().modes.0;
                Self::Whole { file: Scattered::create(destination, directories, place, 0, mode)?, at: 0 }
            }
        })
    }
}

impl<'a> Linked<'a> {
    /// Begins to write a member.
    ///
    /// # Errors
    /// Fails if the file cannot be created, or an archive of the newest backup contains it twice.
    pub(super) fn begin(
        directories: &mut Directories,
        job: &'a State,
        LinkOf { chain: ChainUse { chain, link, .. }, file, content }: LinkOf,
        size: u64,
        digest: Option<Digest>,
    ) -> Result<Self, Error> {
        let place = job.target().file(&file)?;
        let path = text(&file);
        let needed = chain.begin(&path, link)?;
        let pages = job.page_checker(&file, digest.as_ref());
        let hasher = digest.map(|digest| (Hasher::new(digest.algorithm), digest));
        let stage = match content {
            _ if matches!(needed, Needed::Nothing) => Stage::Discard,
            Content::Increment => Stage::header(&chain, needed, size),
            Content::Unknown if size >= WAL_G.len() as u64 => Stage::Beginning(needed, Vec::new()),
            Content::Unknown | Content::Whole => {
                Stage::whole(directories, job, (&chain, &place), needed, size)
                    .inspect_err(|_| chain.fail(&path))?
            }
        };
        let is_open = !matches!(stage, Stage::Discard);
        Ok(Self { job, chain, link, path, place, size, hasher, pages, stage, written: 0, is_open })
    }

    /// Takes the next bytes of the member.
    ///
    /// # Errors
    /// `Corrupt` if the member is no valid increment; `Limit` if memory, the budget or the disk is full; `Cancelled`.
    pub(super) fn write(&mut self, directories: &mut Directories, bytes: &[u8]) -> Result<(), Error> {
        if let Some((hasher, _)) = &mut self.hasher {
            hasher.update(bytes);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = self.step(directories, rest)?;
        }
        Ok(())
    }

    /// Takes some of the bytes, and returns the others.
    fn step<'b>(&mut self, directories: &mut Directories, bytes: &'b [u8]) -> Result<&'b [u8], Error> {
        let page = self.chain.page_size().bytes();
        match &mut self.stage {
            Stage::Beginning(needed, first) => {
                let count = (WAL_G.len() - first.len()).min(bytes.len());
                first.extend_from_slice(&bytes[..count]);
                if first.len() == WAL_G.len() {
                    let (needed, first) = (std::mem::replace(needed, Needed::Nothing), std::mem::take(first));
                    self.stage = if first == WAL_G {
                        Stage::header(&self.chain, needed, self.size)
                    } else {
                        Stage::whole(directories, self.job, (&self.chain, &self.place), needed, self.size)?
                    };
                    let mut left = &first[..];
                    while !left.is_empty() {
                        left = self.step(directories, left)?;
                    }
                }
                Ok(&bytes[count..])
            }
            Stage::Header(needed, reader) => {
                let (count, header) = reader.take(bytes)?;
                pass_over(self.job, count as u64)?;
                if let Some(header) = header {
                    let needed = std::mem::replace(needed, Needed::Nothing);
                    self.stage = self.increment(directories, needed, header)?;
                }
                Ok(&bytes[count..])
            }
            Stage::Increment { file, numbers, at, .. } => {
                let index = usize::try_from(*at / page).unwrap_or(usize::MAX);
                // A run of pages that follow each other in the file, or of pages that are not needed.
                let first = numbers.get(index).copied().flatten();
                let follows = |number: Option<u32>, pages: usize| match first {
                    None => number.is_none(),
                    Some(first) => {
                        number.is_some_and(|number| u64::from(number) == u64::from(first) + pages as u64)
                    }
                };
                let (mut run, inside) = (page - *at % page, *at % page);
                let mut pages = 1;
                while run < bytes.len() as u64
                    && numbers.get(index + pages).is_some_and(|number| follows(*number, pages))
                {
                    run += page;
                    pages += 1;
                }
                let count = usize::try_from(run).unwrap_or(usize::MAX).min(bytes.len());
                let to = first.map(|first| u64::from(first) * page + inside);
                self.written += put(self.job, file, &mut self.pages, to, &bytes[..count])?;
                *at += count as u64;
                Ok(&bytes[count..])
            }
            Stage::Fill { file, pages, at, whole_pages } => {
                let number = |at: u64| u32::try_from(at / page).unwrap_or(u32::MAX);
                let lacks = |at: u64| number(at) < *whole_pages && pages.lacks(number(at));
                let is_lacking = lacks(*at);
                let mut run = page - *at % page;
                while run < bytes.len() as u64 && lacks(*at + run) == is_lacking {
                    run += page;
                }
                let count = usize::try_from(run).unwrap_or(usize::MAX).min(bytes.len());
                let to = is_lacking.then_some(*at);
                self.written += put(self.job, file, &mut self.pages, to, &bytes[..count])?;
                *at += count as u64;
                Ok(&bytes[count..])
            }
            Stage::Whole { file, at } => {
                self.written += put(self.job, file, &mut self.pages, Some(*at), bytes)?;
                *at += bytes.len() as u64;
                Ok(&[])
            }
            Stage::Discard => {
                pass_over(self.job, bytes.len() as u64)?;
                Ok(&[])
            }
        }
    }

    /// Begins to write the pages of an increment.
    fn increment(
        &self,
        directories: &mut Directories,
        needed: Needed,
        header: Header,
    ) -> Result<Stage<'a>, Error> {
        let destination = &self.job.destination;
        let (file, mut pages, is_first) = match needed {
            Needed::Pages(pages) => (Scattered::open(destination, directories, &self.place)?, pages, false),
            Needed::Whole | Needed::Nothing => {
                let pages = self.chain.pages(header.end);
                let size = u64::from(header.count) * self.chain.page_size().bytes();
                let mode = self.job.target().modes.0;
                (Scattered::create(destination, directories, &self.place, size, mode)?, pages, true)
            }
        };
        if !header.pages.is_empty() {
            pages.make_map()?;
        }
        let needs = |pages: &mut Pages, number: u32| {
            let needed = if is_first { number < header.count } else { pages.lacks(number) };
            pages.mark(number);
            needed.then_some(number)
        };
        let numbers = header.pages.iter().map(|number| needs(&mut pages, *number)).collect();
        if self.chain.format() == IncrementFormat::WalG {
            // WAL-G cuts the file to this size before it applies the newer increments. In PostgreSQL's format, the size in the newest
            // increment applies to all.
            pages.shorten(header.count);
        }
        Ok(Stage::Increment { file, pages, numbers, at: 0, _charge: header.charge })
    }

    /// Finishes the member: compares its digest, checks its pages, and tells the chain which pages the file still lacks. Returns how many
    /// bytes were written.
    ///
    /// # Errors
    /// `Corrupt` if the digest or a page is wrong, or the member ended within the header of an increment.
    pub(super) fn finish(mut self) -> Result<u64, Error> {
        if let Some((hasher, digest)) = self.hasher.take() {
            file::compare(hasher, &digest)?;
        }
        if let Some(pages) = self.pages.take() {
            pages.finish()?;
        }
        match std::mem::replace(&mut self.stage, Stage::Discard) {
            Stage::Increment { pages, file, .. } => {
                self.chain.put_back(&self.path, pages, self.link)?;
                file.keep();
            }
            Stage::Fill { file, .. } | Stage::Whole { file, .. } => {
                file.finish(None)?;
                self.chain.complete(&self.path);
            }
            Stage::Discard => {}
            Stage::Beginning(..) | Stage::Header(..) => {
                return Err(Error::new(Kind::Corrupt, "it ends within the header of an increment"));
            }
        }
        self.is_open = false;
        Ok(self.written)
    }
}

/// Writes bytes at `to` and checks their pages, or passes over them if `to` is `None`. Returns how many were written.
fn put(
    job: &State,
    file: &mut Scattered<'_>,
    pages: &mut Option<PageChecker>,
    to: Option<u64>,
    bytes: &[u8],
) -> Result<u64, Error> {
    let length = bytes.len() as u64;
    match to {
        Some(to) => {
            if let Some(pages) = pages {
                pages.update(to, bytes);
            }
            file.write(to, bytes).map(|()| length)
        }
        None => pass_over(job, length).map(|()| 0),
    }
}

/// Counts bytes that are read and not written.
fn pass_over(job: &State, bytes: u64) -> Result<(), Error> {
    job.read_without_writing(bytes);
    job.fail_if_cancelled()
}

impl Drop for Linked<'_> {
    fn drop(&mut self) {
        if self.is_open {
            self.chain.fail(&self.path);
        }
    }
}
