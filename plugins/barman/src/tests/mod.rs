mod archives;
mod chains;
mod choice;
pub(crate) mod scene;
mod tree;
mod wal;

use super::*;

#[test]
fn the_description_has_what_a_plan_reads() {
    let description = Barman::describe();
    for name in [
        "directory",
        "store",
        "prefix",
        "server",
        "backup",
        "target-time",
        "target-lsn",
        "target-timeline",
        "wal",
    ] {
        assert!(description.options.iter().any(|option| option.name == name), "{name}");
    }
    let required: Vec<_> =
        description.options.iter().filter(|option| option.required).map(|option| &option.name).collect();
    assert_eq!(required, ["server"]);
}
