//! Makes files as PostgreSQL writes them, for the tests of this crate and of the crates that read them.

use crate::control_file::{SIZE, with_crc};

/// A control file of PostgreSQL 15, as its server would write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFile {
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl ControlFile {
    /// Makes the control file of a cluster in production on timeline 1, with PostgreSQL's default settings.
    pub fn in_production(system_identifier: u64) -> Self {
        let mut written = Self { bytes: vec![0; SIZE as usize] };
        written.put64(0, system_identifier).put32(8, 1300).put32(12, 202_209_061).put32(16, 6);
        written.put64(32, 0x0200_0060).put64(40, 0x0200_0028).put32(48, 1).put32(172, 1);
        for (at, value) in [(180, 100), (184, 8), (188, 10), (192, 0), (196, 64)] {
            written.put32(at, value);
        }
        written.put32(216, 8192).put32(220, 131_072).put32(228, 16 << 20);
        written
    }

    /// Writes a number of 32 bits at the offset `at`, and updates the checksum.
    ///
    /// # Panics
    /// Panics if that is beyond the end of the file.
    pub fn put32(&mut self, at: usize, value: u32) -> &mut Self {
        self.put(at, &value.to_ne_bytes())
    }

    /// Writes a number of 64 bits at the offset `at`, and updates the checksum.
    ///
    /// # Panics
    /// Panics if that is beyond the end of the file.
    pub fn put64(&mut self, at: usize, value: u64) -> &mut Self {
        self.put(at, &value.to_ne_bytes())
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        // An unknown version has no known offset of the checksum.
        if let Ok(bytes) = with_crc(self.bytes.clone()) {
            self.bytes = bytes;
        }
        self
    }
}
