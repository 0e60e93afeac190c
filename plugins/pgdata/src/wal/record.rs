//! Reads and checks one WAL record (`XLogRecord` in xlogrecord.h).

use postgres_formats::Lsn;

use super::page::{u32_at, u64_at};
use super::pages::{Next, Pages};
use super::{ALIGNMENT, WalError};

/// The size of a record's header.
const HEADER: usize = 24;
/// The offset of the checksum in the header. The checksum covers everything else.
const CHECKSUM: usize = 20;
/// How many bytes of a record are kept: the header, and the data of a record that ends a backup.
const PREFIX: usize = HEADER + 2 + 8;
/// The first bytes of a record, aligned so that the checksum can be computed in steps of eight bytes.
#[repr(align(8))]
struct RecordPrefix([u8; PREFIX]);
/// An upper limit for the length of a record, in bytes. It is above the longest record's length (`XLogRecordMaxSize`, 1020 MiB).
const LONGEST: u32 = 1 << 30;

/// The resource manager whose records end segments and backups (`RM_XLOG_ID`), and its kinds of records (pg_control.h).
const XLOG: u8 = 0;
const SWITCH: u8 = 0x40;
const BACKUP_END: u8 = 0x50;
/// The first byte of main data of less than 256 bytes (`XLR_BLOCK_ID_DATA_SHORT`).
const SHORT_DATA: u8 = 255;

/// What the verification needs to know about a valid record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Where the next record begins, if the page has room for it.
    pub(super) end: u64,
    /// Whether the record ends its segment early.
    pub(super) switches: bool,
    /// The start of the backup that the record ends; `None` if the record does not end a backup.
    pub(super) ends_backup_from: Option<Lsn>,
}

impl Record {
    /// Reads the record at the position of `pages`. The record before it began at `previous`. `None` if the record was abandoned.
    pub(super) fn read(pages: &mut Pages<'_>, previous: Option<u64>) -> Result<Option<Self>, WalError> {
        let begins = pages.at();
        // A record begins at a multiple of eight, so its length is never split between two pages.
        let length = u32_at(pages.rest(), 0);
        if length == 0 {
            return Err(pages.damaged(begins, "the WAL ends here, before the end of the backup"));
        }
        if !(HEADER as u32..=LONGEST).contains(&length) {
            return Err(pages.damaged(begins, format!("a record says that it has {length} bytes")));
        }
        let mut aligned = RecordPrefix([0; PREFIX]);
        let prefix = &mut aligned.0;
        let (mut read, mut sum) = (0_usize, 0);
        let length = length as usize;
        while read < length {
            if pages.rest().is_empty() && matches!(pages.next_page((length - read) as u64)?, Next::Abandoned)
            {
                return Ok(None);
            }
            let part = &pages.rest()[..pages.rest().len().min(length - read)];
            if read < PREFIX {
                let count = part.len().min(PREFIX - read);
                prefix[read..read + count].copy_from_slice(&part[..count]);
            }
            sum = crc32c::crc32c_append(sum, &part[HEADER.saturating_sub(read).min(part.len())..]);
            let count = part.len();
            pages.pass(count);
            read += count;
        }
        sum = crc32c::crc32c_append(sum, &prefix[..CHECKSUM]);
        if sum != u32_at(prefix, CHECKSUM) {
            return Err(pages.damaged(begins, "the checksum of the record does not fit"));
        }
        let claimed = u64_at(prefix, 8);
        if previous.is_some_and(|previous| previous != claimed) {
            let claimed = Lsn(claimed);
            return Err(
                pages.damaged(begins, format!("the record follows one at {claimed}, which is not there"))
            );
        }
        let padding = usize::try_from(pages.at().next_multiple_of(ALIGNMENT) - pages.at()).unwrap_or(0);
        if pages.rest().iter().take(padding).any(|byte| *byte != 0) {
            return Err(pages.damaged(begins, "the padding behind the record is not zero"));
        }
        pages.pass(padding);
        let (kind, manager) = (prefix[16] & 0xF0, prefix[17]);
        let is = |wanted: u8| manager == XLOG && kind == wanted;
        let says_start = is(BACKUP_END) && length >= PREFIX && prefix[HEADER..HEADER + 2] == [SHORT_DATA, 8];
        Ok(Some(Self {
            end: pages.at(),
            switches: is(SWITCH),
            ends_backup_from: says_start.then(|| Lsn(u64_at(prefix, HEADER + 2))),
        }))
    }
}
