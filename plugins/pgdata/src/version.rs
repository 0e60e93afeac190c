//! `PG_VERSION`.

/// The major version that the text of a `PG_VERSION` file names, such as 15; none where it is not the text of one.
/// Versions before 10 had two numbers (`9.6`) and are not read.
pub fn major_version(text: &str) -> Option<u32> {
    let digits = text.strip_suffix('\n').unwrap_or(text);
    (!digits.is_empty() && digits.len() <= 4 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::major_version;

    #[test]
    fn a_major_version_is_one_number_on_one_line() {
        assert_eq!(major_version("15\n"), Some(15));
        assert_eq!(major_version("18"), Some(18));
        for text in ["", "\n", "9.6\n", "15\n15\n", "fifteen", "-1", "99999999"] {
            assert_eq!(major_version(text), None, "{text:?}");
        }
    }
}
