//! Charges the memory for decoders' windows before it is allocated, from the sizes that streams declare at their beginning.

use std::sync::{Arc, Mutex, PoisonError};

use super::Codec;
use crate::budget::{Charge, MemoryAllowance};
use crate::error::Error;

/// Windows up to this size in bytes are part of [`DECODER_OVERHEAD`] and are not charged separately.
pub(super) const SMALL: u64 = 256 << 10;

/// The memory of a decoder in bytes, if its window is not charged separately: buffers for reading and decrypting, and the decoder's state.
pub const DECODER_OVERHEAD: u64 = (768 << 10) + SMALL;

/// The one charge for the windows of all decoders through which an object is read. A decoder that holds a charge must not wait for
/// another one, because the decoders of other objects could then wait for it, too.
#[derive(Clone)]
pub(crate) struct Windows {
    allowance: MemoryAllowance,
    charge: Arc<Mutex<Option<Charge>>>,
}

impl Windows {
    pub(crate) fn new(allowance: &MemoryAllowance) -> Self {
        Self { allowance: allowance.clone(), charge: Arc::default() }
    }

    /// Charges `more` bytes for `what`, until the last clone is dropped. First gives back what is charged, so that no decoder holds memory
    /// while it waits for more.
    ///
    /// # Errors
    /// `Limit` if too little memory is left.
    pub(crate) fn add(&self, more: u64, what: &str) -> Result<(), Error> {
        let mut charge = self.charge.lock().unwrap_or_else(PoisonError::into_inner);
        let amount = charge.take().map_or(0, |charge| charge.amount());
        *charge = Some(self.allowance.take(amount.saturating_add(more), what)?);
        Ok(())
    }
}

/// The window of one decoder.
pub(super) struct Window {
    codec: Codec,
    windows: Windows,
    /// How much of the charge is for this window.
    charged: u64,
}

impl Window {
    pub(super) fn new(codec: Codec, windows: &Windows) -> Self {
        Self { codec, windows: windows.clone(), charged: 0 }
    }

    /// Charges a window of `bytes` bytes, unless the charge covers the window already.
    ///
    /// # Errors
    /// `Limit` if too little memory is left.
    pub(super) fn charge_for(&mut self, bytes: u64) -> Result<(), Error> {
        if bytes <= SMALL || self.charged >= bytes {
            return Ok(());
        }
        let what = format!("the window of a {} stream", self.codec.name());
        self.windows.add(bytes - self.charged, &what)?;
        self.charged = bytes;
        Ok(())
    }
}

/// The longest header of a zstd frame, in bytes (RFC 8878, 3.1.1.1).
pub(super) const ZSTD_HEADER: usize = 18;

/// The memory of a zstd decoder in bytes, without the window: three blocks.
pub(super) const ZSTD_OVERHEAD: u64 = 3 * (128 << 10);

/// Returns the memory that a decoder needs for the zstd frame with this beginning: zero for a skippable frame, and for data that
/// are not a frame. `None` if more of the header is needed.
pub(super) fn zstd(begin: &[u8]) -> Option<u64> {
    const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
    let length = begin.len().min(MAGIC.len());
    if begin[..length] != MAGIC[..length] {
        return Some(0);
    }
    let descriptor = *begin.get(MAGIC.len())?;
    let single = descriptor & 0x20 != 0;
    let size_length = match descriptor >> 6 {
        0 => usize::from(single),
        flag => 1 << flag,
    };
    let size_at = MAGIC.len() + 1 + usize::from(!single) + [0, 1, 2, 4][usize::from(descriptor & 3)];
    let stated = begin.get(size_at..size_at + size_length)?;
    let mut size = [0; 8];
    size[..size_length].copy_from_slice(stated);
    let size = u64::from_le_bytes(size) + if size_length == 2 { 256 } else { 0 };
    let window = if single {
        size
    } else {
        let [exponent, mantissa] = [begin[MAGIC.len() + 1] >> 3, begin[MAGIC.len() + 1] & 7].map(u64::from);
        let base = 1 << (10 + exponent);
        let window = base + base / 8 * mantissa;
        if size_length > 0 { window.min(size) } else { window }
    };
    Some(window.saturating_add(ZSTD_OVERHEAD))
}

/// Returns the memory that a decoder needs for an LZ4 frame with this block descriptor (lz4_Frame_format.md): a stored block, and a
/// plain block with the bytes to which the next block refers.
pub(super) fn lz4(descriptor: u8) -> u64 {
    match (descriptor >> 4) & 7 {
        size @ 4..=7 => (2 << (8 + 2 * u64::from(size))) + (128 << 10),
        // The library refuses other sizes.
        _ => 0,
    }
}

/// Returns the memory that a decoder needs for a brotli stream with this first byte: the window (RFC 7932, 9.1), and the tables of
/// prefix codes.
pub(super) fn brotli(first: u8) -> u64 {
    let bits = match (first & 1, (first >> 1) & 7, (first >> 4) & 7) {
        (0, ..) => 16,
        (_, 0, 0) => 17,
        (_, 0, bits) => 8 + bits,
        (_, bits, _) => 17 + bits,
    };
    (1 << bits) + (4 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_of_a_zstd_frame_is_read_from_its_header_which_may_be_incomplete() {
        let blocks = ZSTD_OVERHEAD;
        // --long=27 and unknown size: descriptor 0x04 (with a checksum), window 0x88.
        let long = [0x28, 0xb5, 0x2f, 0xfd, 0x04, 0x88];
        assert_eq!(zstd(&long), Some((128 << 20) + blocks));
        for length in 0..long.len() {
            assert_eq!(zstd(&long[..length]), None, "{length}");
        }
        // A single segment of 5 bytes; a window that is larger than its 256 + 1 bytes; a mantissa; a dictionary's number.
        assert_eq!(zstd(&[0x28, 0xb5, 0x2f, 0xfd, 0x20, 5]), Some(5 + blocks));
        assert_eq!(zstd(&[0x28, 0xb5, 0x2f, 0xfd, 0x40, 0x88, 1, 0]), Some(257 + blocks));
        assert_eq!(zstd(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x8c]), Some((192 << 20) + blocks));
        assert_eq!(zstd(&[0x28, 0xb5, 0x2f, 0xfd, 0xa3, 1, 2, 3, 4, 0, 0, 0, 1]), Some((1 << 24) + blocks));
        assert_eq!(zstd(&[0x28, 0xb5, 0x2f, 0xfd, 0xff, 0x88]), None);
        let largest = [0xff; ZSTD_HEADER];
        let largest = [&long[..4], &[0xc3], &largest[5..]].concat();
        assert!(zstd(&largest).is_some_and(|bytes| bytes > 1 << 40));
        // A skippable frame, and data that are not a frame.
        assert_eq!((zstd(&[0x50, 0x2a]), zstd(b"x")), (Some(0), Some(0)));
    }

    #[test]
    fn the_windows_of_lz4_and_brotli_are_read_from_their_first_bytes() {
        assert_eq!(lz4(0x40), ((2 * 64) << 10) + (128 << 10));
        assert_eq!(lz4(0x70), (8 << 20) + (128 << 10));
        assert_eq!(lz4(0x10), 0);
        assert_eq!(brotli(0x0), (1 << 16) + (4 << 20));
        assert_eq!(brotli(0x0f), (1 << 24) + (4 << 20));
        assert_eq!(brotli(0x21), (1 << 10) + (4 << 20));
        assert_eq!(brotli(0x01), (1 << 17) + (4 << 20));
    }
}
