//! Cuts a program's output into lines for a log: bounded, and without control characters.

use foundation::printable::printable;

/// The most bytes of a line that are logged; the rest is cut.
pub const LONGEST_LINE: usize = 4096;

/// How many bytes of a line are kept as the program wrote them.
pub const LONGEST_KEPT_LINE: usize = 64 << 10;

/// A line without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// For a log: without control characters, at most [`LONGEST_LINE`] bytes, and a note if the rest was cut.
    pub(super) text: String,
    /// As it was written, at most [`LONGEST_KEPT_LINE`] bytes.
    pub(super) bytes: Vec<u8>,
    /// Whether `bytes` is all of it.
    pub(super) is_whole: bool,
}

/// Cuts a stream into lines, which end with a line feed or, like progress, with a carriage return. Empty lines are dropped.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    line: Vec<u8>,
    cut: bool,
}

impl Splitter {
    /// Returns the lines that end in `bytes`.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Cut> {
        let mut lines = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' | b'\r' => lines.extend(self.finish()),
                _ if self.line.len() < LONGEST_KEPT_LINE => self.line.push(*byte),
                _ => self.cut = true,
            }
        }
        lines
    }

    /// Returns the line that has not ended yet.
    pub(super) fn finish(&mut self) -> Option<Cut> {
        let bytes = std::mem::take(&mut self.line);
        let is_whole = !std::mem::take(&mut self.cut);
        let shown = &bytes[..bytes.len().min(LONGEST_LINE)];
        let mut text = printable(&String::from_utf8_lossy(shown)).into_owned();
        if shown.len() < bytes.len() || !is_whole {
            text.push_str(" [cut]");
        }
        (!bytes.is_empty()).then_some(Cut { text, bytes, is_whole })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl PartialEq<&str> for Cut {
        fn eq(&self, text: &&str) -> bool {
            self.text == *text
        }
    }

    impl PartialEq<String> for Cut {
        fn eq(&self, text: &String) -> bool {
            self.text == *text
        }
    }

    #[test]
    fn lines_end_with_either_kind_of_return_wherever_the_reads_end() {
        let mut splitter = Splitter::default();
        assert_eq!(splitter.push(b"a\r\nb\n\n 1/2"), ["a", "b"]);
        assert_eq!(splitter.push(b" kB\r 2/2 kB\rlast"), [" 1/2 kB", " 2/2 kB"]);
        assert_eq!(splitter.finish().unwrap(), "last");
        assert_eq!(splitter.finish(), None);
    }

    #[test]
    fn control_characters_are_escaped() {
        let mut splitter = Splitter::default();
        let line = splitter.push("\x1b[31mred\x07\u{202e}\u{9b}\tend\0\n".as_bytes());
        assert_eq!(line, [r"\u{1b}[31mred\u{7}\u{202e}\u{9b} end\u{0}"]);
        assert_eq!(splitter.push(b"\xff\n"), ["\u{fffd}"]);
    }

    #[test]
    fn the_rest_of_a_long_line_is_cut() {
        let mut splitter = Splitter::default();
        let line = splitter.push(&[&[b'x'; LONGEST_LINE + 1][..], b"\nnext\n"].concat());
        assert_eq!(line, [format!("{} [cut]", "x".repeat(LONGEST_LINE)), "next".to_owned()]);
        assert!(line[0].is_whole && line[0].bytes == [b'x'; LONGEST_LINE + 1]);
        let line = splitter.push(&[&[b'x'; LONGEST_KEPT_LINE + 1][..], b"\n"].concat());
        assert!(!line[0].is_whole && line[0].bytes == [b'x'; LONGEST_KEPT_LINE]);
        assert_eq!(splitter.push(b"\xff\x1b\n")[0].bytes, b"\xff\x1b");
    }
}
