//! Tests with maps that a small encoder writes, of files that change from backup to backup.

use std::collections::HashMap;

use sha1::{Digest, Sha1};

use super::*;

/// The length of the checksums.
pub(crate) const CHECKSUM: usize = 6;

/// A block of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) reference: usize,
    pub(crate) bundle: u64,
    pub(crate) offset: u64,
    pub(crate) stored: u64,
    pub(crate) plain: u64,
    /// The number of the block in its super block.
    pub(crate) block: u64,
    pub(crate) checksum: [u8; CHECKSUM],
}

/// The super blocks that a backup of a file adds, in the order of their offsets: the plain bytes of each, and its stored size.
pub(crate) type Added = Vec<(Vec<u8>, u64)>;

/// Where a backup stores a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) reference: usize,
    pub(crate) bundle: u64,
    pub(crate) offset: u64,
}

/// Divides a file into blocks, and adds the blocks that differ from those of the backup before. `stored` gives the stored size of a super
/// block.
pub(crate) fn store(
    bytes: &[u8],
    before: &[Item],
    place: Place,
    (block, super_block): (usize, usize),
    stored: &dyn Fn(&[u8]) -> u64,
) -> (Vec<Item>, Added) {
    let (mut items, mut added) = (Vec::new(), Vec::new());
    let (mut plain, mut mine, mut offset) = (Vec::new(), Vec::<usize>::new(), place.offset);
    let count = bytes.len().div_ceil(block);
    for (number, chunk) in bytes.chunks(block).enumerate() {
        let mut checksum = [0; CHECKSUM];
        checksum.copy_from_slice(&Sha1::digest(chunk)[..CHECKSUM]);
        match before.get(number) {
            Some(same) if same.checksum == checksum => items.push(*same),
            _ => {
                mine.push(items.len());
                let Place { reference, bundle, .. } = place;
                let block = mine.len() as u64 - 1;
                items.push(Item { reference, bundle, offset, stored: 0, plain: 0, block, checksum });
                plain.extend_from_slice(chunk);
            }
        }
        if !plain.is_empty() && (plain.len() >= super_block || number + 1 == count) {
            let size = stored(&plain);
            for at in mine.drain(..) {
                items[at] = Item { stored: size, plain: plain.len() as u64, ..items[at] };
            }
            added.push((std::mem::take(&mut plain), size));
            offset += size;
        }
    }
    (items, added)
}

fn number(into: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

/// Writes the map of these blocks.
pub(crate) fn encode(items: &[Item], block: u64) -> Vec<u8> {
    let mut map = vec![0];
    // Offset, stored size, plain size and next block of the last super block of each reference.
    let mut seen = HashMap::<usize, (u64, u64, u64, u64)>::new();
    let mut last_stored = None;
    let references: Vec<_> = items.chunk_by(|one, other| one.reference == other.reference).collect();
    for (at, reference) in references.iter().enumerate() {
        let super_blocks: Vec<_> = reference.chunk_by(|one, other| one.offset == other.offset).collect();
        let first = reference[0];
        let head = (first.reference as u64) << 3 | u64::from(at + 1 == references.len());
        let mut is_continued = false;
        match seen.get(&first.reference) {
            None => {
                number(&mut map, head | u64::from(first.bundle > 0) << 1 | u64::from(first.offset > 0) << 2);
                for value in [first.bundle, first.offset] {
                    if value > 0 {
                        number(&mut map, value);
                    }
                }
            }
            Some((offset, ..)) if *offset == first.offset => {
                is_continued = true;
                number(&mut map, head | 2 | u64::from(super_blocks.len() == 1) << 2);
            }
            Some((offset, stored, ..)) => {
                let gap = first.offset - (offset + stored);
                number(&mut map, head | u64::from(gap > 0) << 2);
                if gap > 0 {
                    number(&mut map, gap);
                }
            }
        }
        let state = seen.entry(first.reference).or_insert((first.offset, 0, block, 0));
        for (at, blocks) in super_blocks.iter().enumerate() {
            let (one, count) = (blocks[0], blocks.len() as u64);
            let is_partial = is_continued || one.block != 0 || count != one.plain.div_ceil(block);
            if !std::mem::take(&mut is_continued) {
                let size = match last_stored {
                    None => one.stored,
                    Some(last) => {
                        let difference = one.stored as i64 - last as i64;
                        (difference << 1 ^ difference >> 63) as u64
                    }
                };
                let is_new = one.plain != state.2;
                let bits = u64::from(at + 1 == super_blocks.len())
                    | u64::from(is_new) << 1
                    | u64::from(is_partial) << 2;
                number(&mut map, size << 3 | bits);
                if is_new {
                    let rest = one.plain % block;
                    number(&mut map, (one.plain / block) << 1 | u64::from(rest > 0));
                    if rest > 0 {
                        number(&mut map, rest);
                    }
                }
                *state = (one.offset, one.stored, one.plain, 0);
            }
            last_stored = Some(one.stored);
            if is_partial {
                let skipped = one.block - state.3;
                number(&mut map, (count - 1) << 1 | u64::from(skipped > 0));
                if skipped > 0 {
                    number(&mut map, skipped);
                }
            }
            state.3 = one.block + count;
            blocks.iter().for_each(|item| map.extend_from_slice(&item.checksum));
        }
    }
    map
}

const BLOCK: usize = 16;

fn shape(size: usize, references: usize) -> Shape {
    Shape { size: size as u64, block: BLOCK as u32, checksum: CHECKSUM as u8, references }
}

/// A generator of numbers, which is the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }
}

/// The versions of a file, with the map of each, and all super blocks by reference and offset.
type Chain = (Vec<(Vec<u8>, Vec<Item>)>, HashMap<(usize, u64), Vec<u8>>);

/// Makes a file that changes, grows and shrinks from backup to backup.
fn chain(seed: u64, backups: usize) -> Chain {
    let mut numbers = Numbers(seed);
    let (mut versions, mut stored) = (Vec::<(Vec<u8>, Vec<Item>)>::new(), HashMap::new());
    let mut bytes: Vec<u8> = (0..1 + numbers.below(40 * BLOCK)).map(|_| numbers.below(256) as u8).collect();
    for reference in 0..backups {
        for _ in 0..numbers.below(6) {
            let at = numbers.below(bytes.len());
            bytes[at] = bytes[at].wrapping_add(1);
        }
        match numbers.below(4) {
            0 => bytes.truncate(1 + numbers.below(bytes.len())),
            1 => bytes.extend((0..numbers.below(5 * BLOCK)).map(|at| at as u8)),
            _ => {}
        }
        let place = Place {
            reference,
            bundle: numbers.below(3) as u64,
            offset: (numbers.below(2) * numbers.below(100_000)) as u64,
        };
        let sizes = (BLOCK, [BLOCK, 2 * BLOCK, 5 * BLOCK][numbers.below(3)]);
        let before = versions.last().map_or(&[][..], |(_, items)| items);
        let compressed = |plain: &[u8]| 1 + plain.len() as u64 * u64::from(plain[0]) / 200;
        let (items, added) = store(&bytes, before, place, sizes, &compressed);
        let mut offset = place.offset;
        for (plain, size) in added {
            stored.insert((reference, offset), plain);
            offset += size;
        }
        versions.push((bytes.clone(), items));
    }
    (versions, stored)
}

/// Checks that the runs of `map` cover every byte of the file once and lie in their super blocks.
fn check(map: &BlockMap, shape: Shape) {
    let mut runs = Vec::new();
    for super_block in &map.super_blocks {
        let mut from = 0;
        for run in &super_block.runs {
            assert!(run.from >= from && run.length > 0, "{map:?}");
            from = run.from + run.length;
            runs.push((run.at, run.length));
        }
        assert!(from <= super_block.plain && super_block.reference < shape.references, "{map:?}");
    }
    runs.sort_unstable();
    let end = runs.iter().fold(0, |end, (at, length)| {
        assert_eq!(end, *at);
        at + length
    });
    assert_eq!(end, shape.size);
    let blocks = shape.size.div_ceil(shape.block.into()) as usize;
    assert_eq!(map.checksums.len(), blocks * usize::from(shape.checksum));
}

#[test]
fn each_version_of_a_changing_file_is_put_together_from_its_map() {
    let mut continued = 0;
    for seed in 0..300 {
        let (versions, stored) = chain(seed, 8);
        for (reference, (bytes, items)) in versions.iter().enumerate() {
            let shape = shape(bytes.len(), reference + 1);
            let map = BlockMap::parse(&encode(items, BLOCK as u64), shape).unwrap();
            check(&map, shape);
            let checksums: Vec<u8> = items.iter().flat_map(|item| item.checksum).collect();
            assert_eq!(map.checksums, checksums);
            let mut found = vec![0; bytes.len()];
            for super_block in &map.super_blocks {
                let plain = &stored[&(super_block.reference, super_block.offset)];
                assert_eq!(super_block.plain, plain.len() as u64);
                continued += super_block.runs.len() - 1;
                for run in &super_block.runs {
                    let (from, at, length) = (run.from as usize, run.at as usize, run.length as usize);
                    found[at..at + length].copy_from_slice(&plain[from..from + length]);
                    let item = items[at / BLOCK];
                    assert_eq!((super_block.bundle, super_block.stored), (item.bundle, item.stored));
                }
            }
            assert_eq!(found, *bytes, "{seed} {reference}");
        }
    }
    assert!(continued > 1000, "the chains have {continued} super blocks that are continued");
}

#[test]
fn a_map_with_changed_bytes_is_refused_or_covers_the_file() {
    let mut refused = 0;
    for seed in 0..20 {
        let (versions, _) = chain(seed, 6);
        let (bytes, items) = &versions[5];
        let (map, shape) = (encode(items, BLOCK as u64), shape(bytes.len(), 6));
        for at in 0..map.len() {
            assert!(BlockMap::parse(&map[..at], shape).is_err(), "{at} bytes of {}", map.len());
            for change in [1, 2, 4, 8, 0x80, 0xff] {
                let mut changed = map.clone();
                changed[at] ^= change;
                match BlockMap::parse(&changed, shape) {
                    Ok(map) => check(&map, shape),
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn the_error_says_what_is_wrong_with_a_map() {
    // A file of 40 bytes in blocks of 16 bytes: three blocks in one super block of 40 plain bytes and 9 stored bytes.
    let one = |count: u64| {
        let mut map = vec![0, 1, 9 << 3 | 3, 2 << 1 | 1, 8];
        map.extend(vec![7; CHECKSUM * count as usize]);
        map
    };
    let (whole, three) = (shape(40, 1), one(3));
    assert!(BlockMap::parse(&three, whole).is_ok());
    let with = |at: usize, bytes: &[u8]| {
        let mut map = three.clone();
        map.splice(at..=at, bytes.iter().copied());
        map
    };
    let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    for (map, shape, what) in [
        (Vec::new(), whole, "ends early"),
        (one(2), whole, "ends early"),
        (with(0, &[1]), whole, "has the version 1"),
        (with(0, &[2]), whole, "has the version 2"),
        (with(0, &[0xff; 10]), whole, "more than 64 bits"),
        (with(0, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), whole, "more than 64 bits"),
        (with(1, &[1 << 3 | 1]), whole, "refers to the backup 2 of the list, which has 1"),
        (with(1, &most), whole, "of the list, which has 1"),
        ([&three[..], &[0]].concat(), whole, "goes on for 1 bytes"),
        (three.clone(), shape(41, 1), "too many or too few"),
        (three.clone(), shape(39, 1), "too many or too few"),
        (three.clone(), shape(33, 1), "too many or too few"),
        (three.clone(), shape(32, 1), "has more than 2 blocks"),
        (three.clone(), shape(49, 1), "too many or too few"),
        (with(2, &[3]), whole, "a super block of 0 bytes"),
        (with(1, &[5, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2]), whole, "where no object has it"),
        (with(3, &[0]), whole, "a super block of 0 plain bytes"),
        (with(3, &most), whole, "plain bytes: 1 to 16777232 are allowed"),
        // Without a new plain size there is one block.
        (with(2, &[9 << 3 | 1]), shape(16, 1), "goes on for"),
        ([&[0, 1, 9 << 3 | 1][..], &[7; CHECKSUM]].concat(), whole, "has 1 blocks instead of 3"),
        // Two blocks of a super block with one.
        ([&[0, 1, 9 << 3 | 5, 1 << 1][..], &[7; 2 * CHECKSUM]].concat(), whole, "uses the block 2 of"),
        ([&[0, 1, 9 << 3 | 5, 1, 1][..], &[7; CHECKSUM]].concat(), whole, "uses the block 2 of"),
        // The second super block is 10 bytes smaller than the first.
        ([&[0, 1, 9 << 3][..], &[7; CHECKSUM], &[19 << 3 | 1, 1]].concat(), whole, "of 0 bytes"),
    ] {
        let error = BlockMap::parse(&map, shape).unwrap_err();
        assert!(error.contains(what), "{what}: {error} {map:?}");
    }
}

#[test]
fn the_numbers_of_super_blocks_and_runs_are_bounded() {
    let shape = |size: usize| Shape { size: size as u64, block: 1, checksum: 1, references: 2 };
    for (count, is_allowed) in [(MOST_SUPER_BLOCKS, true), (MOST_SUPER_BLOCKS + 1, false)] {
        // One block each, all of the same size.
        let mut map = vec![0, 1, 9 << 3 | u8::from(count == 1), 7];
        for at in 1..count {
            map.extend([u8::from(at + 1 == count), 7]);
        }
        let parsed = BlockMap::parse(&map, shape(count));
        assert_eq!(parsed.is_ok(), is_allowed, "{:?}", parsed.err());
    }
    let plain = LARGEST_SUPER_BLOCK + 1;
    for (count, is_allowed) in [(MOST_RUNS, true), (MOST_RUNS + 1, false)] {
        // The blocks come in turn from two super blocks.
        let item = |at: usize| Item {
            reference: at % 2,
            bundle: 0,
            offset: 0,
            stored: 9,
            plain,
            block: at as u64 / 2,
            checksum: [7; CHECKSUM],
        };
        let items: Vec<_> = (0..count).map(item).collect();
        let shape = Shape { checksum: CHECKSUM as u8, ..shape(count) };
        match BlockMap::parse(&encode(&items, 1), shape) {
            Ok(map) => assert!(is_allowed && map.super_blocks.len() == 2),
            Err(error) => {
                assert!(!is_allowed && error.contains(&format!("more than {MOST_RUNS} runs")), "{error}")
            }
        }
    }
}
