//! Pages of relations: which files consist of them, and their checksums (`data_checksums`).
//!
//! Sources: `src/include/storage/bufpage.h` for the header, `src/include/storage/checksum_impl.h` for the checksum,
//! `src/common/relpath.c` and `src/backend/storage/file/reinit.c` for the names of files, and `PageIsVerified` in
//! `src/backend/storage/page/bufpage.c` for what makes a page valid. They are the same in PostgreSQL 13 to 18.

use crate::Lsn;
use crate::names::{GLOBAL, PG_TBLSPC, TablespaceFolder, tablespace_oid};

/// The directory of the default tablespace, with a directory for each database.
const BASE: &str = "base";

/// The forks of a relation besides the main fork (`forkNames`).
const FORKS: [&str; 3] = ["fsm", "vm", "init"];

/// The offset of `pd_checksum` in the header of a page. `pd_lsn` stands before it.
const CHECKSUM: usize = 8;
/// The offset of `pd_upper`, which is zero only in the header of a new page (`PageIsNew`).
const UPPER: usize = 14;

/// How many sums are computed side by side (`N_SUMS`). A row of a page has a word for each.
const SUMS: usize = 32;
/// The size of a row in bytes.
const ROW: usize = 4 * SUMS;
/// The prime of the 32-bit FNV-1a hash (`FNV_PRIME`).
const PRIME: u32 = 16_777_619;
/// The initial values of the sums (`checksumBaseOffsets`).
const OFFSETS: [u32; SUMS] = [
    0x5b1f_36e9,
    0xb852_5960,
    0x02ab_50aa,
    0x1de6_6d2a,
    0x79ff_467a,
    0x9bb9_f8a3,
    0x217e_7cd2,
    0x83e1_3d2c,
    0xf8d4_474f,
    0xe39e_b970,
    0x42c6_ae16,
    0x9932_16fa,
    0x7b09_3b5d,
    0x98da_ff3c,
    0xf718_902a,
    0x0b1c_9cdb,
    0xe58f_764b,
    0x1876_36bc,
    0x5d7b_3bb1,
    0xe73d_e7de,
    0x92be_c979,
    0xcca6_c0b2,
    0x304a_0979,
    0x85aa_43d4,
    0x7831_25bb,
    0x6ca8_eaa2,
    0xe407_eac6,
    0x4b5c_fc3e,
    0x9fbf_8c76,
    0x15ca_20be,
    0xf2ca_9fd3,
    0x959b_d756,
];

/// Returns the number of the segment that a file of a relation holds, from 0; `None` if the file does not consist of pages. The path
/// is relative to the data directory.
///
/// Files of relations lie in `global`, `base/OID` and `pg_tblspc/OID/PG_*/OID`, and are called `OID`, `OID_fsm`, `OID_vm` or
/// `OID_init`, with `.N` behind it from the second segment on. `pg_control`, `pg_filenode.map`, `PG_VERSION`, `pg_internal.init`,
/// temporary relations (`tN_OID`) and temporary files (`pgsql_tmp`) have no such names.
pub fn segment_of_relation(path: &str) -> Option<u32> {
    let parts: Vec<&str> = path.splitn(6, '/').collect();
    let name = match *parts.as_slice() {
        [GLOBAL, name] => name,
        [BASE, database, name] if tablespace_oid(database).is_some() => name,
        [PG_TBLSPC, oid, folder, database, name]
            if tablespace_oid(oid).is_some()
                && TablespaceFolder::parse(folder.as_bytes()).is_some()
                && tablespace_oid(database).is_some() =>
        {
            name
        }
        _ => return None,
    };
    // A segment number has the spelling of an object identifier: decimal, from 1, without leading zeros.
    let (relation, segment) = match name.split_once('.') {
        None => (name, 0),
        Some((relation, segment)) => (relation, tablespace_oid(segment)?),
    };
    let number = match relation.split_once('_') {
        None => relation,
        Some((number, fork)) => FORKS.contains(&fork).then_some(number)?,
    };
    tablespace_oid(number).map(|_| segment)
}

/// What the checksum of a page says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The checksum matches the contents.
    Intact,
    /// Every byte is zero: a page that a relation was extended by and that was not used yet.
    Empty,
    /// The header is that of a new page (`pd_upper` is zero), and the page has other bytes than zeros.
    NotEmpty,
    /// The checksum does not match the contents.
    Mismatch {
        /// The checksum in the header of the page.
        stored: u16,
        /// The checksum of the contents.
        computed: u16,
    },
}

/// Judges a page by its checksum. `block` is the number of the page in its relation, counted over all segments of the fork.
///
/// # Panics
/// Panics if `page` does not have a size that PostgreSQL can be built with: a multiple of 128 bytes, at least 1024.
pub fn verify(page: &[u8], block: u32) -> Verdict {
    let short = |at: usize| u16::from_ne_bytes([page[at], page[at + 1]]);
    if short(UPPER) == 0 {
        return if page.iter().all(|byte| *byte == 0) { Verdict::Empty } else { Verdict::NotEmpty };
    }
    match (short(CHECKSUM), checksum(page, block)) {
        (stored, computed) if stored == computed => Verdict::Intact,
        (stored, computed) => Verdict::Mismatch { stored, computed },
    }
}

/// Returns the LSN in the header of a page: the end of the last record that changed it.
///
/// # Panics
/// Panics if `page` has less than eight bytes.
pub fn lsn(page: &[u8]) -> Lsn {
    let half =
        |at: usize| u64::from(u32::from_ne_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]));
    Lsn(half(0) << 32 | half(4))
}

/// Computes the checksum of a page (`pg_checksum_page`), which is never zero. The bytes of the checksum itself count as zeros.
///
/// # Panics
/// Panics if `page` does not have a size as [`verify`] needs it.
pub fn checksum(page: &[u8], block: u32) -> u16 {
    let (rows, rest) = page.as_chunks::<ROW>();
    let (Some((first, rows)), true) = (rows.split_first(), rest.is_empty()) else {
        panic!("a page cannot have {} bytes", page.len())
    };
    let mut first = *first;
    first[CHECKSUM..CHECKSUM + 2].fill(0);
    let mut sums = OFFSETS;
    add(&mut sums, &first);
    for row in rows {
        add(&mut sums, row);
    }
    // Two rows of zeros mix the bits of the last row.
    add(&mut sums, &[0; ROW]);
    add(&mut sums, &[0; ROW]);
    let sum = sums.iter().fold(0, |all, sum| all ^ sum) ^ block;
    // At most 65535, so that it fits.
    (sum % 65_535 + 1) as u16
}

/// Adds a row to the sums (`CHECKSUM_COMP`). The compiler makes vector instructions of the loop.
#[inline(always)]
fn add(sums: &mut [u32; SUMS], row: &[u8; ROW]) {
    let (words, _) = row.as_chunks::<4>();
    for (sum, word) in sums.iter_mut().zip(words) {
        let mixed = *sum ^ u32::from_ne_bytes(*word);
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}

#[cfg(test)]
mod tests;
