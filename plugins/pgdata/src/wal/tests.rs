use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::*;

const SEGMENT: u64 = 1 << 20;
const PAGE: u64 = 8192;
const SYSTEM_IDENTIFIER: u64 = 7_575_000_000_000_000_001;

/// Writes WAL as a server does, from the beginning of the second segment on.
struct Server {
    timeline: u32,
    /// The bytes that were written, from the second segment on.
    bytes: Vec<u8>,
    previous: u64,
    /// How many bytes of the current record are still to be written.
    left: u64,
    records: Vec<u64>,
}

impl Server {
    fn new(timeline: u32) -> Self {
        Self { timeline, bytes: Vec::new(), previous: 0, left: 0, records: Vec::new() }
    }

    fn at(&self) -> u64 {
        SEGMENT + self.bytes.len() as u64
    }

    fn page_header(&mut self, flags: u16, continued: u32) {
        let at = self.at();
        let first = at.is_multiple_of(SEGMENT);
        let flags = flags | if first { 2 } else { 0 };
        self.bytes.extend(0xD110u16.to_le_bytes());
        self.bytes.extend(flags.to_le_bytes());
        self.bytes.extend(self.timeline.to_le_bytes());
        self.bytes.extend(at.to_le_bytes());
        self.bytes.extend(continued.to_le_bytes());
        self.bytes.extend([0; 4]);
        if first {
            self.bytes.extend(SYSTEM_IDENTIFIER.to_le_bytes());
            self.bytes.extend((SEGMENT as u32).to_le_bytes());
            self.bytes.extend((PAGE as u32).to_le_bytes());
        }
    }

    fn begin_page(&mut self) {
        if self.at().is_multiple_of(PAGE) {
            let left = self.left as u32;
            self.page_header(u16::from(left > 0), left);
        }
    }

    /// Writes the first `until` bytes of a record, and returns the LSN at which it begins.
    fn write_until(&mut self, manager: u8, info: u8, data: &[u8], until: usize) -> u64 {
        self.begin_page();
        let begins = self.at();
        let mut record = Vec::new();
        record.extend((24 + data.len() as u32).to_le_bytes());
        record.extend(7u32.to_le_bytes());
        record.extend(self.previous.to_le_bytes());
        record.extend([info, manager, 0, 0]);
        let sum = crc32c::crc32c_append(crc32c::crc32c(data), &record);
        record.extend(sum.to_le_bytes());
        record.extend(data);
        for (written, byte) in record.iter().take(until).enumerate() {
            self.left = (record.len() - written) as u64;
            self.begin_page();
            self.bytes.push(*byte);
        }
        self.left = 0;
        while until >= record.len() && !self.at().is_multiple_of(8) {
            self.bytes.push(0);
        }
        begins
    }

    fn write(&mut self, manager: u8, info: u8, data: &[u8]) -> u64 {
        let begins = self.write_until(manager, info, data, usize::MAX);
        self.previous = begins;
        self.records.push(begins);
        begins
    }

    fn insert(&mut self, length: usize) -> u64 {
        self.write(10, 0x30, &vec![0xAB; length])
    }

    fn switch(&mut self) {
        self.write(0, 0x40, &[]);
        let length = self.bytes.len().next_multiple_of(SEGMENT as usize);
        self.bytes.resize(length, 0);
    }

    fn end_backup(&mut self, start: u64) {
        let mut data = vec![255, 8];
        data.extend(start.to_le_bytes());
        self.write(0, 0x50, &data);
    }

    fn segments(&self) -> Files {
        let mut files = BTreeMap::new();
        let size = SegmentSize::new(SEGMENT).unwrap();
        for (number, segment) in self.bytes.chunks(SEGMENT as usize).enumerate() {
            let mut segment = segment.to_vec();
            segment.resize(SEGMENT as usize, 0);
            let name = size.name(self.timeline, Lsn(SEGMENT * (number as u64 + 1)));
            files.insert(name, Rc::new(RefCell::new(segment)));
        }
        Files(files)
    }
}

#[derive(Clone)]
struct Files(BTreeMap<String, Rc<RefCell<Vec<u8>>>>);

struct Reading(Rc<RefCell<Vec<u8>>>, usize);

impl Read for Reading {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = (&self.0.borrow()[self.1..]).read(into)?;
        self.1 += read;
        Ok(read)
    }
}

impl Segments for Files {
    fn open(&mut self, name: &str) -> io::Result<Option<Box<dyn Read>>> {
        Ok(self.0.get(name).map(|bytes| Box::new(Reading(Rc::clone(bytes), 0)) as Box<dyn Read>))
    }
}

impl Files {
    fn cluster(&self) -> Cluster {
        let (name, bytes) = self.0.last_key_value().unwrap();
        Cluster::of(name, &bytes.borrow()[..]).unwrap()
    }

    fn verify(&self, timeline: u32, start: u64, stop: Stop) -> Result<Verified, WalError> {
        let piece = Piece { timeline, start: Lsn(start), stop, later: &[timeline + 1] };
        verify(&self.cluster(), &piece, &mut self.clone(), &mut || Ok(()))
    }
}

/// Writes records of many lengths over three segments, one of which ends early.
fn written() -> (Server, u64, u64) {
    let mut server = Server::new(1);
    server.insert(100);
    let start = server.insert(5);
    for length in [0, 1, 7, 8000, 8192, 20_000, 3, 8100, 1 << 18] {
        server.insert(length);
    }
    // With all these lengths, at least one header is split between two pages.
    for length in 0..400 {
        server.insert(length);
    }
    server.switch();
    server.insert(50);
    server.insert(1 << 20);
    server.end_backup(start);
    let stop = server.at();
    server.insert(10);
    (server, start, stop)
}

#[test]
fn every_record_between_start_and_stop_is_verified() {
    let (server, start, stop) = written();
    let files = server.segments();
    assert_eq!(files.0.len(), 3);
    let verified = files.verify(1, start, Stop::At(Lsn(stop))).unwrap();
    assert_eq!(verified, Verified { end: Lsn(stop), records: server.records.len() as u64 - 2 });
    assert_eq!(files.verify(1, start, Stop::EndOfBackup(Lsn(start))).unwrap(), verified);
    assert_eq!(files.cluster().system_identifier(), SYSTEM_IDENTIFIER);
    assert_eq!(files.cluster().segment_size().bytes(), SEGMENT);
}

#[test]
fn any_changed_byte_is_noticed_and_its_segment_is_named() {
    let mut server = Server::new(1);
    let start = server.insert(5);
    for length in [0, 1, 7, 8000, 3, 9_000] {
        server.insert(length);
    }
    let stop = server.at();
    let files = server.segments();
    assert!(files.verify(1, start, Stop::At(Lsn(stop))).is_ok());
    let names: Vec<_> = files.0.keys().cloned().collect();
    let mut unnoticed = Vec::new();
    for place in (start..stop).step_by(7).chain(SEGMENT + PAGE - 20..SEGMENT + PAGE + 60) {
        let name = &names[(place / SEGMENT) as usize - 1];
        let segment = &files.0[name];
        let bit = 1 << (place % 8);
        if (place % PAGE, bit) == (2, 4) {
            // The flag XLP_BKP_REMOVABLE may have any value, and is not part of a record.
            continue;
        }
        segment.borrow_mut()[(place % SEGMENT) as usize] ^= bit;
        match files.verify(1, start, Stop::At(Lsn(stop))) {
            Err(WalError::Damaged { segment, .. }) if segment == *name => {}
            // A length that is too large leads to the next segment.
            Err(WalError::Missing { .. }) => {}
            other => unnoticed.push((Lsn(place).to_string(), bit, other.is_ok())),
        }
        segment.borrow_mut()[(place % SEGMENT) as usize] ^= bit;
    }
    assert!(unnoticed.is_empty(), "{unnoticed:?}");
}

#[test]
fn padding_that_is_not_zero_is_noticed() {
    let mut server = Server::new(1);
    let start = server.insert(1);
    let stop = server.at();
    let files = server.segments();
    let mut file = files.0.first_key_value().unwrap().1.borrow_mut();
    file[(stop - SEGMENT) as usize - 1] = 1;
    drop(file);
    let error = files.verify(1, start, Stop::At(Lsn(stop))).unwrap_err().to_string();
    assert!(error.contains("000000010000000000000001 is damaged at 0/100028: the padding"), "{error}");
}

#[test]
fn bytes_after_a_segment_switch_must_be_zero() {
    let (server, start, stop) = written();
    let files = server.segments();
    *files.0.first_key_value().unwrap().1.borrow_mut().last_mut().unwrap() = 1;
    let error = files.verify(1, start, Stop::At(Lsn(stop))).unwrap_err().to_string();
    assert!(error.contains("ended early"), "{error}");
}

#[test]
fn a_segment_that_is_missing_or_truncated_is_named() {
    let (server, start, stop) = written();
    let mut files = server.segments();
    let second = files.0.keys().nth(1).unwrap().clone();
    files.0[&second].borrow_mut().truncate(5000);
    let error = files.verify(1, start, Stop::At(Lsn(stop))).unwrap_err();
    assert!(error.to_string().contains(&format!("{second} is damaged")), "{error}");
    files.0.remove(&second);
    let error = files.verify(1, start, Stop::At(Lsn(stop))).unwrap_err();
    assert!(matches!(&error, WalError::Missing { segment, .. } if *segment == second), "{error}");
}

#[test]
fn wal_that_ends_before_the_end_of_the_backup_is_noticed() {
    let mut server = Server::new(1);
    let start = server.insert(1);
    server.insert(1);
    let files = server.segments();
    for stop in [Stop::At(Lsn(server.at() + 8)), Stop::EndOfBackup(Lsn(start))] {
        let error = files.verify(1, start, stop).unwrap_err().to_string();
        assert!(error.contains("the WAL ends here"), "{error}");
    }
}

#[test]
fn the_end_of_another_backup_does_not_end_the_verification() {
    let mut server = Server::new(1);
    let start = server.insert(1);
    server.end_backup(start + 8);
    server.end_backup(start);
    let verified = server.segments().verify(1, start, Stop::EndOfBackup(Lsn(start))).unwrap();
    assert_eq!(verified.records, 3);
}

#[test]
fn a_record_that_was_abandoned_after_a_crash_is_skipped() {
    let mut server = Server::new(1);
    let start = server.insert(1);
    server.write_until(10, 0, &[1; 20_000], 100);
    let length = server.bytes.len().next_multiple_of(PAGE as usize);
    server.bytes.resize(length, 0);
    server.page_header(8, 0);
    server.insert(3);
    let stop = server.at();
    let verified = server.segments().verify(1, start, Stop::At(Lsn(stop))).unwrap();
    assert_eq!(verified.records, 2);
}

#[test]
fn a_new_timeline_begins_within_a_page_of_the_old_one() {
    let mut server = Server::new(1);
    let start = server.insert(100);
    let switch = server.at();
    let old = server.segments();
    server.timeline = 2;
    server.insert(20_000);
    let stop = server.at();
    let mut files = server.segments();
    assert!(files.verify(2, switch, Stop::At(Lsn(stop))).is_ok());
    // The last segment of the old timeline may be missing, because the first one of the new timeline begins with a copy of it.
    assert!(files.verify(1, start, Stop::At(Lsn(switch))).is_ok());
    files.0.extend(old.0);
    assert!(files.verify(1, start, Stop::At(Lsn(switch))).is_ok());
    let error = files.verify(1, start, Stop::At(Lsn(stop))).unwrap_err().to_string();
    assert!(error.contains("the WAL ends here"), "{error}");
}

#[test]
fn a_file_that_is_not_a_segment_is_refused() {
    for (bytes, what) in [(vec![0; 40], "0x0000"), (vec![0; 10], "fill whole buffer")] {
        let error = Cluster::of("000000010000000000000001", &bytes[..]).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn the_callback_can_end_the_verification() {
    let (server, start, stop) = written();
    let files = server.segments();
    let piece = Piece { timeline: 1, start: Lsn(start), stop: Stop::At(Lsn(stop)), later: &[] };
    let mut stop_now = || Err(io::Error::other("enough"));
    let error = verify(&files.cluster(), &piece, &mut files.clone(), &mut stop_now).unwrap_err();
    assert!(matches!(error, WalError::Io { error, .. } if error.to_string() == "enough"));
}
