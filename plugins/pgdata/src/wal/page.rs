//! Checks the header of a WAL page (`XLogPageHeaderData` and `XLogLongPageHeaderData` in xlog_internal.h).

use postgres_formats::Lsn;
use postgres_formats::segment::SegmentSize;

/// The size of a page header with its padding, in bytes.
pub(super) const HEADER: usize = 24;
/// The size of the header on a segment's first page, in bytes.
pub(super) const LONG_HEADER: usize = 40;

/// The flag for a page whose first record continues from the page before.
const FIRST_IS_CONTRECORD: u16 = 0x0001;
/// The flag for a page with the long header.
const IS_LONG: u16 = 0x0002;
/// Every flag that exists; 0x0004 is `XLP_BKP_REMOVABLE`, which says nothing about the contents.
const ALL_FLAGS: u16 = 0x000F;
/// The flag for a page after an incomplete record that was abandoned after a crash.
const FIRST_IS_OVERWRITE_CONTRECORD: u16 = 0x0008;

/// The properties that all pages of a cluster's WAL share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    magic: u16,
    pub(super) system_identifier: u64,
    pub(super) segment: SegmentSize,
    /// The size of a page in bytes.
    pub(super) page: usize,
}

/// The values that the header of one page must have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    /// The LSN at which the page begins.
    pub(super) at: u64,
    /// The timeline of the page.
    pub(super) timeline: u32,
    /// Whether an earlier timeline is valid too, because the page may have begun before the timeline did.
    pub(super) or_earlier: bool,
    /// How many bytes of an earlier record continue on the page; `None` if unknown.
    pub(super) continued: Option<u64>,
}

/// The header of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// The length of the header.
    pub(super) header: usize,
    /// Whether the record that began on an earlier page was abandoned.
    pub(super) overwrites: bool,
}

impl Known {
    /// Reads the properties from the header of a segment's first page.
    pub(super) fn learn(header: &[u8; LONG_HEADER]) -> Result<Self, String> {
        let magic = u16_at(header, 0);
        // 0xD098 is the magic number of version 11, 0xD118 of version 18.
        if !(0xD098..0xD200).contains(&magic) {
            return Err(format!(
                "it does not begin as WAL of PostgreSQL 11 to 18 does, but with {magic:#06x}"
            ));
        }
        if u16_at(header, 2) & IS_LONG == 0 {
            return Err("its first page has no long header".to_owned());
        }
        let (segment, page) = (u32_at(header, 32), u32_at(header, 36));
        let segment = SegmentSize::new(u64::from(segment))
            .ok_or_else(|| format!("its size is given as {segment} bytes, which is not possible"))?;
        if !page.is_power_of_two() || !(1 << 10..=1 << 16).contains(&page) {
            return Err(format!("its pages are given as {page} bytes, which is not possible"));
        }
        Ok(Self { magic, system_identifier: u64_at(header, 24), segment, page: page as usize })
    }

    /// Checks the header of `page`.
    pub(super) fn check(&self, page: &[u8], expected: &Expected) -> Result<Page, String> {
        let (magic, flags) = (u16_at(page, 0), u16_at(page, 2));
        if magic != self.magic {
            return Err(format!("its page begins with {magic:#06x} instead of {:#06x}", self.magic));
        }
        if flags & !ALL_FLAGS != 0 {
            return Err(format!("its page has the flags {flags:#06x}, which do not exist"));
        }
        let timeline = u32_at(page, 4);
        if timeline != expected.timeline
            && !(expected.or_earlier && (1..expected.timeline).contains(&timeline))
        {
            return Err(format!("its page is of timeline {timeline} instead of {}", expected.timeline));
        }
        let address = u64_at(page, 8);
        if address != expected.at {
            return Err(format!("its page says that it is {}", Lsn(address)));
        }
        if page[20..HEADER].iter().any(|byte| *byte != 0) {
            return Err("the padding of its page's header is not zero".to_owned());
        }
        let overwrites = flags & FIRST_IS_OVERWRITE_CONTRECORD != 0;
        let (continues, length) = (flags & FIRST_IS_CONTRECORD != 0, u64::from(u32_at(page, 16)));
        if continues != (length > 0) || (overwrites && continues) {
            return Err(format!(
                "its page's flags {flags:#06x} and the {length} bytes that continue do not fit"
            ));
        }
        if let Some(continued) = expected.continued
            && length != continued
            && !overwrites
        {
            return Err(format!("{length} bytes of a record continue on its page instead of {continued}"));
        }
        let is_first = expected.at.is_multiple_of(self.segment.bytes());
        if is_first != (flags & IS_LONG != 0) {
            return Err("its page has the wrong kind of header".to_owned());
        }
        if is_first {
            self.check_long(page)?;
        }
        Ok(Page { header: if is_first { LONG_HEADER } else { HEADER }, overwrites })
    }

    fn check_long(&self, page: &[u8]) -> Result<(), String> {
        let system_identifier = u64_at(page, 24);
        if system_identifier != self.system_identifier {
            let expected = self.system_identifier;
            return Err(format!("it is from the cluster {system_identifier} instead of {expected}"));
        }
        let (segment, size) = (u32_at(page, 32), u32_at(page, 36));
        if u64::from(segment) != self.segment.bytes() || size as usize != self.page {
            return Err(format!("it has segments of {segment} and pages of {size} bytes, unlike the others"));
        }
        Ok(())
    }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

/// Returns the bytes from `at` on; zeros if they are out of bounds, which no caller requests.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|slice| slice.try_into().ok()).unwrap_or([0; N])
}
