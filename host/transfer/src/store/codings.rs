//! The codings of a response.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

/// Returns the first line of the header `name` that names a coding other than `plain`, which leaves the bytes unchanged. `None` if there is
/// no such line. Such a response has other bytes than those that are stored, and a credential cannot be found in it.
pub fn other_coding<'h>(headers: &'h HeaderMap, name: &HeaderName, plain: &str) -> Option<&'h HeaderValue> {
    let is_plain = |line: &&HeaderValue| {
        let mut codings = line.as_bytes().split(|byte| *byte == b',');
        codings.all(|coding| coding.trim_ascii().eq_ignore_ascii_case(plain.as_bytes()))
    };
    headers.get_all(name).iter().find(|line| !is_plain(line))
}

#[cfg(test)]
mod tests {
    use reqwest::header::CONTENT_ENCODING;

    use super::*;

    #[test]
    fn a_line_that_names_another_coding_is_found() {
        for (lines, expected) in [
            (&[][..], None),
            (&["identity", "Identity , IDENTITY"], None),
            (&["identity", "gzip"], Some("gzip")),
            (&["identity, br"], Some("identity, br")),
            (&[""], Some("")),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(CONTENT_ENCODING, HeaderValue::from_static(line));
            }
            let found = other_coding(&headers, &CONTENT_ENCODING, "identity");
            assert_eq!(found.map(|line| line.to_str().unwrap()), expected, "{lines:?}");
        }
    }
}
