//! The name that a misspelt name was probably meant to be.

/// Returns the name among `known` that is nearest to `name`; `None` if none is similar. Upper and lower case count as the same, and so do
/// `-` and `_`. A name is near if its Damerau-Levenshtein distance from `name` is at most one, plus one for every four letters of `name`.
/// If no name is that near, returns the longest name with which `name` begins or that itself begins with `name`: `user` for `username`.
pub fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let name = plain(name);
    let distance = |known: &str| strsim::damerau_levenshtein(&name, &plain(known));
    // The search takes time and memory in proportion to the product of the lengths, and no known name is this long.
    if name.len() > LONGEST {
        return None;
    }
    let allowed = 1 + name.chars().count() / 4;
    let known: Vec<&str> = known.into_iter().collect();
    let near = known.iter().filter(|known| distance(known) <= allowed).min_by_key(|known| distance(known));
    let begins = |known: &&&str| {
        let (name, known) = (name.as_str(), plain(known));
        name.len().min(known.len()) >= SHORTEST_BEGINNING
            && (name.starts_with(&known) || known.starts_with(name))
    };
    near.or_else(|| known.iter().filter(begins).max_by_key(|known| known.len())).copied()
}

/// The longest name, in bytes, for which this module searches for a near one.
const LONGEST: usize = 200;

/// The shortest beginning, in bytes, by which a longer name counts as near. A shorter one would match too many names.
const SHORTEST_BEGINNING: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near_or_none() {
        let known = ["keep_data", "no_leader", "plugin", "timeout"];
        assert_eq!(nearest("keep-data", known), Some("keep_data"));
        assert_eq!(nearest("no_laeder", known), Some("no_leader"));
        assert_eq!(nearest("plug", known), Some("plugin"));
        assert_eq!(nearest("plugin_directory", known), Some("plugin"));
        assert_eq!(nearest("wibble", known), None);
        assert_eq!(nearest(&"plugin".repeat(100), known), None);
    }
}
