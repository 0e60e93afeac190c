//! Stores millions of listed files in little memory: records in large blocks, and a hash table of their numbers.

use std::collections::BinaryHeap;
use std::hash::{BuildHasher, RandomState};

use super::Listed;
use crate::budget::{Budget, Charge};
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Kind};

/// The size of a block in bytes. A record never spans two blocks.
const BLOCK: usize = 1 << 20;

/// About how many bytes of names [`Records::missing`] returns at most.
const NAMES: usize = 1 << 20;

/// A record begins at a multiple of this, so that 32 bits can number all records.
const ALIGNMENT: usize = 8;

/// The length of a record's head in bytes: flags, algorithm, length of the path, size.
const HEAD: usize = 12;

/// The flag of a file that has begun in an archive.
const CLAIMED: u8 = 1;

/// The flag of a file that an archive contained as listed.
const COMPLETE: u8 = 2;

/// A free slot of the table.
const FREE: u32 = u32::MAX;

/// The size and digest of a listed file.
pub(super) struct Record {
    pub(super) size: u64,
    pub(super) digest: Option<Digest>,
}

/// The records. The number of a record is its position in units of [`ALIGNMENT`].
pub(super) struct Records {
    /// The charge for the blocks and the table.
    charge: Charge,
    blocks: Vec<Vec<u8>>,
    /// A hash table with open addressing: the numbers of the records by the hash of their paths. Its length is a power of two, at
    /// least 4/3 of the number of records.
    table: Vec<u32>,
    count: usize,
    hasher: RandomState,
}

impl Records {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Makes an empty set that charges its memory to this budget.
    pub(super) fn within(memory: &Budget) -> Self {
        let hasher = RandomState::new();
        Self { charge: memory.charge_anyway(0), blocks: Vec::new(), table: Vec::new(), count: 0, hasher }
    }

    /// Charges the memory for these files, before any of them is added.
    ///
    /// # Errors
    /// `Limit` if too little is left.
    pub(super) fn reserve(&mut self, files: &[Listed]) -> Result<(), Error> {
        let mut left = self.blocks.last().map_or(0, |block| BLOCK - block.len());
        let mut blocks = 0;
        for file in files {
            let length = length(file);
            if length > left {
                blocks += 1;
                left = BLOCK;
            }
            left = left.saturating_sub(length);
        }
        let count = self.count + files.len();
        let mut table = self.table.len();
        while count * 4 > table * 3 {
            table = larger(table);
        }
        // The old table exists until the new one is filled.
        let table = if table > self.table.len() { table + table / 2 } else { table };
        let bytes = (self.blocks.len() + blocks) * (BLOCK + 64) + table * size_of::<u32>();
        match (bytes as u64).checked_sub(self.charge.amount()) {
            Some(more) => self.charge.grow(more, "a listing with more files"),
            None => Ok(()),
        }
    }

    /// Adds a file that is not listed yet. The caller calls [`Records::reserve`] first.
    pub(super) fn add(&mut self, file: &Listed) -> Result<(), Error> {
        let (algorithm, value) = match &file.digest {
            None => (0, &[][..]),
            Some(digest) => (code(digest.algorithm), &digest.value[..]),
        };
        let path = file.path.as_bytes();
        let path_length = u16::try_from(path.len())
            .map_err(|_| Error::new(Kind::Invalid, format!("a path of {} bytes is too long", path.len())))?;
        let length = length(file);
        if self.blocks.last().is_none_or(|block| block.len() + length > BLOCK) {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        let index = self.blocks.len() - 1;
        let block = &mut self.blocks[index];
        let number = u32::try_from((index * BLOCK + block.len()) / ALIGNMENT)
            .ok()
            .filter(|number| *number != FREE)
            .ok_or_else(|| Error::new(Kind::Limit, "a listing holds at most 32 GiB"))?;
        let end = block.len() + length;
        block.extend_from_slice(&[0, algorithm]);
        block.extend_from_slice(&path_length.to_le_bytes());
        block.extend_from_slice(&file.size.to_le_bytes());
        block.extend_from_slice(path);
        block.extend_from_slice(value);
        block.resize(end, 0);
        if (self.count + 1) * 4 > self.table.len() * 3 {
            self.grow();
        }
        let slot = self.free_slot(path);
        self.table[slot] = number;
        self.count += 1;
        Ok(())
    }

    /// Returns the number of the file with this path.
    pub(super) fn find(&self, path: &str) -> Option<u32> {
        if self.table.is_empty() {
            return None;
        }
        let mut slot = self.first_slot(path.as_bytes());
        loop {
            match self.table[slot] {
                FREE => return None,
                number if self.path(number) == path.as_bytes() => return Some(number),
                _ => slot = (slot + 1) % self.table.len(),
            }
        }
    }

    pub(super) fn record(&self, number: u32) -> Record {
        let bytes = self.bytes(number);
        let mut size = [0; 8];
        size.copy_from_slice(&bytes[4..HEAD]);
        let end = HEAD + path_length(bytes);
        let digest = algorithm(bytes[1])
            .map(|algorithm| Digest { algorithm, value: bytes[end..end + algorithm.length()].to_vec() });
        Record { size: u64::from_le_bytes(size), digest }
    }

    /// Records that the file has begun in an archive; returns false if it had begun before.
    pub(super) fn claim(&mut self, number: u32) -> bool {
        let flags = self.flags(number);
        let first = *flags & CLAIMED == 0;
        *flags |= CLAIMED;
        first
    }

    /// Records that an archive contained the file as listed.
    pub(super) fn mark_complete(&mut self, number: u32) {
        *self.flags(number) |= COMPLETE;
    }

    /// Returns the first `max` files, by name, that are not complete; fewer if their names are very long.
    pub(super) fn missing(&self, max: usize) -> Vec<String> {
        let mut first = BinaryHeap::new();
        for number in self.table.iter().copied().filter(|number| *number != FREE) {
            if max == 0 || self.bytes(number)[0] & COMPLETE != 0 {
                continue;
            }
            let path = self.path(number);
            if first.len() < max {
                first.push(path);
            } else if first.peek().is_some_and(|last| path < *last) {
                first.pop();
                first.push(path);
            }
        }
        let mut total = 0;
        let fits = |path: &&[u8]| {
            let before = total;
            total += path.len();
            before == 0 || total <= NAMES
        };
        let first = first.into_sorted_vec().into_iter().take_while(fits);
        first.map(|path| String::from_utf8_lossy(path).into_owned()).collect()
    }

    fn bytes(&self, number: u32) -> &[u8] {
        let at = number as usize * ALIGNMENT;
        &self.blocks[at / BLOCK][at % BLOCK..]
    }

    fn flags(&mut self, number: u32) -> &mut u8 {
        let at = number as usize * ALIGNMENT;
        &mut self.blocks[at / BLOCK][at % BLOCK]
    }

    fn path(&self, number: u32) -> &[u8] {
        let bytes = self.bytes(number);
        &bytes[HEAD..HEAD + path_length(bytes)]
    }

    fn first_slot(&self, path: &[u8]) -> usize {
        // The table's length is a power of two of at most 2^32.
        (self.hasher.hash_one(path) as usize) & (self.table.len() - 1)
    }

    fn free_slot(&self, path: &[u8]) -> usize {
        let mut slot = self.first_slot(path);
        while self.table[slot] != FREE {
            slot = (slot + 1) % self.table.len();
        }
        slot
    }

    fn grow(&mut self) {
        let larger = vec![FREE; larger(self.table.len())];
        for number in std::mem::replace(&mut self.table, larger) {
            if number != FREE {
                let slot = self.free_slot(self.path(number));
                self.table[slot] = number;
            }
        }
    }
}

/// Returns the length of the table that replaces one of this length.
fn larger(table: usize) -> usize {
    (table * 2).max(64)
}

/// Returns the length of a file's record in bytes.
fn length(file: &Listed) -> usize {
    let digest = file.digest.as_ref().map_or(0, |digest| digest.value.len());
    (HEAD + file.path.len() + digest).next_multiple_of(ALIGNMENT)
}

fn path_length(bytes: &[u8]) -> usize {
    usize::from(u16::from_le_bytes([bytes[2], bytes[3]]))
}

fn code(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::Crc32c => 1,
        Algorithm::Sha1 => 2,
        Algorithm::Sha224 => 3,
        Algorithm::Sha256 => 4,
        Algorithm::Sha384 => 5,
        Algorithm::Sha512 => 6,
    }
}

/// Returns the algorithm of a record's code; `None` if the file has no digest.
fn algorithm(code: u8) -> Option<Algorithm> {
    match code {
        1 => Some(Algorithm::Crc32c),
        2 => Some(Algorithm::Sha1),
        3 => Some(Algorithm::Sha224),
        4 => Some(Algorithm::Sha256),
        5 => Some(Algorithm::Sha384),
        6 => Some(Algorithm::Sha512),
        _ => None,
    }
}
