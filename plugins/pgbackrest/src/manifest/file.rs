//! Reads the line for one file in a manifest.

use std::fmt;
use std::num::NonZeroU64;

use restore::transfer::SHA1_OF_EMPTY;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::References;

/// The largest file, in bytes: far larger than a file system allows, and small enough that sums do not overflow.
const LARGEST: u64 = 1 << 50;

/// A file. A million such values may be in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    /// The path in the data directory, such as `base/5/1259` or `pg_tblspc/16384/PG_15_202209061/5/16385`.
    pub(crate) name: Box<str>,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// The time of its last modification, in seconds since 1970; `None` if unknown.
    pub(crate) mtime: Option<NonZeroU64>,
    /// The SHA-1 of its plain bytes.
    pub(crate) digest: [u8; 20],
    /// The permission bits; `None` for the manifest's default.
    pub(crate) mode: Option<u16>,
    /// The index of the label of the backup that contains the file; `None` if the backup itself contains the file.
    pub(crate) reference: Option<u16>,
    /// The position in a bundle; `None` if the file is a separate object, or empty.
    pub(crate) bundled: Option<Bundled>,
    /// The damaged pages when the backup was taken; `None` if no page was damaged.
    pub(crate) damage: Option<Damage>,
    /// How the file is divided into blocks; `None` if it is stored whole.
    pub(crate) blocks: Option<Box<Blocks>>,
}

/// How a file is stored in blocks of one or several backups. Its own object has its newest blocks, followed by the block map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    /// The size of a block in bytes.
    pub(crate) block: u32,
    /// The length of a block's checksum in bytes.
    pub(crate) checksum: u8,
    /// The offset of the map in the object.
    pub(crate) map_at: u64,
    /// The stored length of the map in bytes.
    pub(crate) map_length: u32,
}

/// The factor of block sizes (`BLOCK_INCR_SIZE_FACTOR` in pgBackRest's src/info/manifest.c).
const BLOCK_FACTOR: u64 = 8192;

/// The length of a block's checksum if the manifest gives none (`BLOCK_INCR_CHECKSUM_SIZE_MIN` in src/info/manifest.h).
const SHORTEST_CHECKSUM: u64 = 6;

/// The longest checksum of a block: a whole XXH3 (`XX_HASH_SIZE_MAX` in src/common/crypto/xxhash.h).
const LONGEST_CHECKSUM: u64 = 16;

/// The largest permitted block map, in bytes. A file of 1 GiB has a map of some 100 KiB.
const LARGEST_MAP: u64 = 16 << 20;

/// How many bytes of a map there may be for each block besides its checksum, and for the whole map. In the worst case each block is in a
/// super block of its own, whose numbers have some 20 bytes.
const MAP_FOR_BLOCK: u64 = 32;
const MAP_FOR_FILE: u64 = 1024;

/// A part of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bundled {
    pub(crate) bundle: NonZeroU64,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// The number of pages with wrong checksums; `None` if unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage(pub(crate) Option<u32>);

/// The value of a file's line.
#[derive(Deserialize)]
#[serde(expecting = "what is known of a file, by names")]
pub(super) struct Line<'a> {
    bi: Option<u64>,
    bic: Option<u64>,
    bim: Option<u64>,
    bni: Option<u64>,
    bno: Option<u64>,
    checksum: Option<&'a str>,
    #[serde(rename = "checksum-page")]
    is_page_checksum_right: Option<bool>,
    #[serde(rename = "checksum-page-error")]
    wrong_pages: Option<Pages>,
    mode: Option<&'a str>,
    reference: Option<&'a str>,
    #[serde(rename = "repo-size")]
    stored: Option<u64>,
    size: Option<u64>,
    timestamp: Option<i64>,
}

impl Line<'_> {
    /// Returns whether the file is stored as blocks of several backups, with a block map.
    pub(super) fn is_stored_as_blocks(&self) -> bool {
        self.bim.is_some_and(|length| length > 0) && self.size.is_some_and(|size| size > 0)
    }

    /// Returns how the file is divided into blocks; `None` if it is stored whole.
    fn blocks(&self, size: u64, bundled: Option<Bundled>) -> Result<Option<Box<Blocks>>, String> {
        if !self.is_stored_as_blocks() {
            return Ok(None);
        }
        let factor = self.bi.ok_or("has a block map and no block size")?;
        let block = factor.saturating_mul(BLOCK_FACTOR);
        let block = u32::try_from(block)
            .ok()
            .filter(|block| *block > 0)
            .ok_or_else(|| format!("would have blocks of {block} bytes"))?;
        let length = self.bic.unwrap_or(SHORTEST_CHECKSUM);
        let checksum = u8::try_from(length)
            .ok()
            .filter(|length| (1..=LONGEST_CHECKSUM).contains(&u64::from(*length)))
            .ok_or_else(|| format!("would have block checksums of {length} bytes"))?;
        let (map, stored) = (self.bim.unwrap_or(0), self.stored.unwrap_or(size));
        let most = size.div_ceil(block.into()).saturating_mul(length + MAP_FOR_BLOCK);
        let most = most.saturating_add(MAP_FOR_FILE).min(LARGEST_MAP);
        let map_length = u32::try_from(map)
            .ok()
            .filter(|_| map <= most)
            .ok_or_else(|| format!("would have a block map of {map} bytes: at most {most} are allowed"))?;
        let before = stored
            .checked_sub(map)
            .ok_or_else(|| format!("has a block map of {map} bytes in {stored} stored bytes"))?;
        let begin = bundled.map_or(0, |bundled| bundled.offset);
        if begin.saturating_add(stored) > LARGEST {
            return Err(format!("would have {stored} stored bytes"));
        }
        Ok(Some(Box::new(Blocks { block, checksum, map_at: begin + before, map_length })))
    }

    /// Makes the file `name` from the line.
    pub(super) fn file(self, name: &str, references: &mut References) -> Result<File, String> {
        let size = self.size.ok_or("has no size")?;
        if size > LARGEST {
            return Err(format!("would have {size} bytes"));
        }
        let digest = match self.checksum {
            _ if size == 0 => SHA1_OF_EMPTY,
            None => return Err("has no checksum: the backup did not end".to_owned()),
            Some(text) => digest(text).ok_or("has a checksum that is not a SHA-1")?,
        };
        let bundled = match self.bni.and_then(NonZeroU64::new) {
            None => None,
            Some(bundle) => {
                let (offset, length) = (self.bno.unwrap_or(0), self.stored.unwrap_or(size));
                if offset.saturating_add(length) > LARGEST {
                    return Err(format!("is at {offset} of a bundle"));
                }
                if length == 0 && size > 0 {
                    return Err(format!("has no byte of its {size} in a bundle"));
                }
                Some(Bundled { bundle, offset, length })
            }
        };
        let blocks = self.blocks(size, bundled)?;
        let damage = match self.is_page_checksum_right {
            Some(false) => Some(Damage(self.wrong_pages.map(|Pages(count)| count))),
            _ => None,
        };
        Ok(File {
            name: name.into(),
            size,
            mtime: self.timestamp.and_then(|time| u64::try_from(time).ok()).and_then(NonZeroU64::new),
            digest,
            mode: self.mode.map(|text| mode(text).map(|mode| mode as u16)).transpose()?,
            reference: self.reference.map(|text| references.number(text)).transpose()?,
            bundled: bundled.filter(|_| size > 0),
            damage,
            blocks,
        })
    }
}

/// Reads permission bits in octal, such as `0600`.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = is_octal.then(|| u32::from_str_radix(text, 8).ok()).flatten();
    mode.map(|mode| mode & 0o777).ok_or_else(|| "has an invalid mode".to_owned())
}

/// Reads a SHA-1 of 40 hexadecimal digits; `None` if `text` is not one.
pub(crate) fn digest(text: &str) -> Option<[u8; 20]> {
    let (digits, mut bytes) = (text.as_bytes(), [0; 20]);
    if digits.len() != 40 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// The number of pages in a list of pages and of pairs of a first and a last page: `[1,[3,5]]`.
struct Pages(u32);

impl<'de> Deserialize<'de> for Pages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counting;
        impl<'de> Visitor<'de> for Counting {
            type Value = Pages;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of pages")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pages: A) -> Result<Pages, A::Error> {
                let mut count = 0_u32;
                while let Some(OneOrMore(more)) = pages.next_element()? {
                    count = count.saturating_add(more);
                }
                Ok(Pages(count))
            }
        }
        deserializer.deserialize_seq(Counting)
    }
}

/// The number of pages of one item: a page, or a pair of a first and a last page.
struct OneOrMore(u32);

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = OneOrMore;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a page, or a first and a last one")
            }

            fn visit_u64<E>(self, _page: u64) -> Result<OneOrMore, E> {
                Ok(OneOrMore(1))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<OneOrMore, A::Error> {
                let (first, last): (Option<u64>, Option<u64>) = (pair.next_element()?, pair.next_element()?);
                while pair.next_element::<IgnoredAny>()?.is_some() {}
                let count =
                    last.zip(first).map_or(1, |(last, first)| last.saturating_sub(first).saturating_add(1));
                Ok(OneOrMore(u32::try_from(count).unwrap_or(u32::MAX)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}
