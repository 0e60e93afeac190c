//! The sample configuration that the Debian package installs with its examples.

use super::*;

const SAMPLE: &str = include_str!("../../../../../examples/understudy.toml");

#[test]
fn the_sample_configuration_is_read_as_it_stands_and_with_every_setting_that_is_off() {
    let config = parse(SAMPLE).unwrap();
    assert_eq!(config.methods, ["tarball", "basebackup"]);
    assert!(config.components["tarball"].no_leader);
    let switched_on: String = SAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let config = parse(&switched_on).unwrap();
    assert_eq!(config.user.as_deref(), Some("postgres"));
    assert!(config.timeout.is_some() && config.components["pgbackrest"].no_leader);
    let store = &config.components["pgbackrest"].grants.open.stores["repo"];
    assert_eq!(store.url, "s3://my-bucket/pgbackrest");
}
