//! The name that a misspelt name was probably meant to be.

/// Returns the name among `known` that is nearest to `name`; `None` if none is near. Upper and lower case count as the same, and
/// so do `-` and `_`. A name is near if its Damerau-Levenshtein distance from `name` is at most one, plus one for each four letters
/// of `name`.
pub fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let name = plain(name);
    let distance = |known: &str| strsim::damerau_levenshtein(&name, &plain(known));
    let allowed = 1 + name.chars().count() / 4;
    known
        .into_iter()
        .map(|known| (distance(known), known))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near_or_none() {
        let known = ["keep_data", "no_leader", "plugin", "timeout"];
        assert_eq!(nearest("keep-data", known), Some("keep_data"));
        assert_eq!(nearest("no_laeder", known), Some("no_leader"));
        assert_eq!(nearest("plug", known), Some("plugin"));
        assert_eq!(nearest("wibble", known), None);
    }
}
