//! Splits lists in the values of settings as the server does (`varlena.c`). `None` means that the server refuses the list.

use super::super::judged_settings::SPACE;

/// The characters that end an element without quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    AtSpace,
    AtCommasOnly,
}

/// Returns the names in a list such as `listen_addresses` (`SplitGUCList`).
pub(super) fn names(list: &str) -> Option<Vec<String>> {
    split(list, Ends::AtSpace)
}

/// Returns the paths in a list such as `unix_socket_directories` (`SplitDirectoriesString`).
pub(super) fn paths(list: &str) -> Option<Vec<String>> {
    split(list, Ends::AtCommasOnly)
}

fn split(list: &str, ends: Ends) -> Option<Vec<String>> {
    let mut elements = Vec::new();
    let mut rest = list.trim_start_matches(SPACE);
    if rest.is_empty() {
        return Some(elements);
    }
    loop {
        let (element, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_element(quoted)?,
            None => {
                let is_end = |c: char| c == ',' || (ends == Ends::AtSpace && SPACE.contains(&c));
                let (element, after) = rest.split_at(rest.find(is_end).unwrap_or(rest.len()));
                let element = element.trim_end_matches(SPACE);
                if element.is_empty() {
                    return None;
                }
                (element.to_owned(), after)
            }
        };
        elements.push(element);
        rest = after.trim_start_matches(SPACE);
        match rest.strip_prefix(',') {
            Some(next) => rest = next.trim_start_matches(SPACE),
            None if rest.is_empty() => return Some(elements),
            None => return None,
        }
    }
}

/// Returns an element up to its closing quote, and the rest of the text. In the element, two quotes stand for a single quote.
fn quoted_element(text: &str) -> Option<(String, &str)> {
    let mut element = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"')?;
        element.push_str(before);
        match after.strip_prefix('"') {
            Some(goes_on) => {
                element.push('"');
                rest = goes_on;
            }
            None => return Some((element, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_split_as_the_server_does() {
        for (list, as_paths, as_names) in [
            ("a", Some(vec!["a"]), Some(vec!["a"])),
            ("a, b ,c", Some(vec!["a", "b", "c"]), Some(vec!["a", "b", "c"])),
            (" \"a, b\" , c", Some(vec!["a, b", "c"]), Some(vec!["a, b", "c"])),
            ("\"a\"\"b\"", Some(vec!["a\"b"]), Some(vec!["a\"b"])),
            ("a b", Some(vec!["a b"]), None),
            ("a,", None, None),
            ("a,,b", None, None),
            ("\"a", None, None),
            ("\"a\"b", None, None),
            ("", Some(vec![]), Some(vec![])),
            (" \t", Some(vec![]), Some(vec![])),
        ] {
            let owned = |expected: Option<Vec<&str>>| {
                expected.map(|list| list.into_iter().map(str::to_owned).collect::<Vec<_>>())
            };
            assert_eq!(paths(list), owned(as_paths), "{list}");
            assert_eq!(names(list), owned(as_names), "{list}");
        }
    }
}
