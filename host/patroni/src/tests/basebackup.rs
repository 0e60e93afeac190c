//! The section `basebackup`, in both of its forms.

use super::*;

#[test]
fn both_forms_of_basebackup_are_carried_over() {
    let conversion = with(
        "  basebackup:\n    max-rate: '100M'\n    checkpoint: \"'fast'\"\n    label: ''\n    verbose: 'true'\n",
    );
    all_carried(&conversion);
    let section = "[method.basebackup.options]\nmax-rate = \"100M\"\ncheckpoint = \"fast\"\nverbose = true\n";
    assert!(conversion.toml.ends_with(section), "{}", conversion.toml);
    tells(&conversion.notes, &["Patroni turns this into --verbose=true"]);
    let conversion = with(
        "  basebackup:\n    - verbose\n    - max-rate: '100M'\n    - label=a b\n    - waldir: /wal\n    - \
             tablespace-mapping: /old\\\\=x=/new\n",
    );
    all_carried(&conversion);
    let table = table(&conversion);
    let options = table["method"]["basebackup"]["options"].as_array().unwrap();
    assert_eq!(options[0].as_str(), Some("verbose"));
    assert_eq!(options[1]["max-rate"].as_str(), Some("100M"));
    assert_eq!(options[2]["label"].as_str(), Some("a b"));
    assert_eq!(options.len(), 3);
    assert_eq!(table["replica"]["wal_dir"].as_str(), Some("/wal"));
    assert_eq!(table["replica"]["tablespaces"]["/old=x"].as_str(), Some("/new"));
}

#[test]
fn options_of_basebackup_that_patroni_ignores_or_fails_on_have_remarks() {
    for (lines, part) in [
        ("basebackup:\n    - format: t\n", "Patroni does not allow the option `format`"),
        ("basebackup:\n    - max-rate: 100\n", "Patroni logs an error and ignores this"),
        ("basebackup:\n    - {a: b, c: d}\n", "Patroni logs an error and ignores this"),
        ("basebackup:\n    - 5\n", "Patroni logs an error and ignores this"),
        ("basebackup: text\n", "neither a mapping nor a list"),
        (
            "basebackup:\n    max-rate: 0100\n",
            "Patroni fails on a value in `basebackup` that is not in quotes",
        ),
        ("basebackup:\n    compress: gzip\n", "compression by the client"),
    ] {
        let conversion = with(&format!("  {lines}"));
        all_carried(&conversion);
        tells(&conversion.notes, &[part]);
    }
    for (lines, part) in [
        ("basebackup:\n    - no-clean\n", "does not allow the option `no-clean`"),
        ("basebackup:\n    - no-sy\n", "does not allow the option `no-sync`"),
        ("basebackup:\n    form: t\n", "does not allow the option `format`"),
        ("basebackup:\n    waldir: wal\n", "must be absolute"),
        ("basebackup:\n    tablespace-mapping: x\n", "have the form /OLD=/NEW"),
    ] {
        tells(&with(&format!("  {lines}")).not_carried, &[part]);
    }
}
