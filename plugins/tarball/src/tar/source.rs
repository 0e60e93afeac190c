//! Where an archive's bytes come from.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};

/// How much of a plain archive is read at once while only its headers are looked at, in bytes.
const LOOKING: usize = 16 << 10;

/// The bytes of an archive.
pub(crate) enum Source {
    /// One after the other.
    Stream(Box<dyn Read>),
    /// From a file, where what is not wanted need not be read.
    File {
        /// The file.
        reader: BufReader<File>,
        /// How many bytes it has left.
        left: u64,
    },
}

impl Source {
    /// A plain archive whose members are looked at, not read.
    pub(crate) fn to_look_at(mut file: File) -> io::Result<Self> {
        let left = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        Ok(Self::File { reader: BufReader::with_capacity(LOOKING, file), left })
    }

    /// Passes over `count` bytes; fewer are an unexpected end.
    pub(super) fn pass_over(&mut self, count: u64) -> io::Result<()> {
        match self {
            Self::Stream(reader) => {
                let passed = io::copy(&mut reader.take(count), &mut io::sink())?;
                if passed == count { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
            }
            Self::File { reader, left } => {
                *left = left.checked_sub(count).ok_or(ErrorKind::UnexpectedEof)?;
                let distance = i64::try_from(count).map_err(|_| ErrorKind::UnexpectedEof)?;
                reader.seek_relative(distance)
            }
        }
    }
}

impl Read for Source {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Stream(reader) => reader.read(into),
            Self::File { reader, left } => {
                let read = reader.read(into)?;
                *left = left.saturating_sub(read as u64);
                Ok(read)
            }
        }
    }
}
