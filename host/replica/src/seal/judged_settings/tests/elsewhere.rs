//! A configuration file outside the data directory, whose settings a restored postgresql.auto.conf overrides.

use super::*;

/// Judges a restored postgresql.auto.conf. With `own_file`, the server's configuration is a file outside the data directory, although the
/// backup has a postgresql.conf.
fn judged_auto_conf(auto_conf: &str, own_file: bool, refuse: bool) -> Result<Vec<String>, Problem> {
    let restored = Restored::with(&[("postgresql.conf", ""), ("postgresql.auto.conf", auto_conf)]);
    let config_file = own_file.then(|| "/etc/own.conf".into());
    let end = EndState { config_file, ..end(refuse) };
    let mut findings = Findings::default();
    check(&restored.places(), &restored.read()?, 15, &end, &mut findings)?;
    Ok(findings.into_list().into_iter().map(|finding| finding.message).collect())
}

#[test]
fn a_restored_file_does_not_silently_take_the_place_of_the_operators() {
    for line in [
        "ssl_ca_file = 'evil.crt'",
        "ssl_cert_file = 'evil.crt'",
        "ssl_key_file = 'evil.key'",
        "ssl_crl_file = 'evil.crl'",
        "ssl_crl_dir = 'crl'",
        "krb_server_keyfile = 'FILE:evil.keytab'",
        "krb_server_keyfile = 'evil.keytab'",
    ] {
        let name = line.split(' ').next().unwrap();
        let lax = judged_auto_conf(line, true, false).unwrap();
        let says =
            |message: &String| message.contains(name) && message.contains("outside the data directory");
        assert!(lax.len() == 1 && lax.iter().all(says), "{line}: {lax:?}");
        assert!(
            judged_auto_conf(line, true, true).unwrap_err().message.contains("refuse-commands"),
            "{line}"
        );
        assert_eq!(judged_auto_conf(line, false, true).unwrap(), Vec::<String>::new(), "{line}");
    }
}

#[test]
fn on_debian_the_restored_rules_of_access_are_a_hazard() {
    let restored = Restored::with(&[]);
    let top = restored.place.path();
    for name in ["hba_file", "ident_file"] {
        let line = format!("{name} = '{}/evil'\n", top.display());
        std::fs::write(top.join("postgresql.auto.conf"), &line).unwrap();
        let is_refused = || {
            let configuration = restored.read().unwrap();
            check(&restored.places(), &configuration, 15, &end(true), &mut Findings::default()).is_err()
        };
        assert!(is_refused(), "{name}");
        std::fs::write(top.join("postgresql.conf"), "").unwrap();
        assert!(!is_refused(), "{name}");
        std::fs::remove_file(top.join("postgresql.conf")).unwrap();
    }
}

#[test]
fn lines_that_weaken_the_operators_configuration_are_listed_in_one_finding() {
    let weakening = "listen_addresses = '*'\nshared_preload_libraries = ''\nsession_preload_libraries = ' '\narchive_command = ''\n\
        archive_library = ''\nssl = off\nssl_min_protocol_version = 'TLSv1'\nssl_ciphers = 'ALL'\npassword_encryption = md5\n\
        db_user_namespace = on\nkrb_caseins_users = on\nunix_socket_permissions = 0777\nssl_ca_file = ''\n";
    let messages = judged_auto_conf(weakening, true, true).unwrap();
    assert_eq!(messages.len(), 1, "{messages:?}");
    for (number, line) in weakening.lines().enumerate() {
        let name = line.split(' ').next().unwrap();
        assert!(messages[0].contains(&format!("`{name}` is `")), "{name}: {messages:?}");
        assert!(messages[0].contains(&format!("(line {})", number + 1)), "{name}: {messages:?}");
    }
    assert_eq!(judged_auto_conf(weakening, false, true).unwrap(), Vec::<String>::new());
    let harmless = "listen_addresses = 'localhost'\nssl = on\npassword_encryption = 'scram-sha-256'\nwork_mem = '1MB'\n\
                    krb_caseins_users = off\nunix_socket_permissions = '0700'\nssl_min_protocol_version = 'TLSv1.3'\n";
    assert_eq!(judged_auto_conf(harmless, true, true).unwrap(), Vec::<String>::new());
}

#[test]
fn a_configuration_file_in_the_data_directory_is_not_the_operators_own() {
    let restored = Restored::with(&[("postgresql.conf", ""), ("postgresql.auto.conf", "ssl = off\n")]);
    let config_file = Some(restored.place.path().join("postgresql.conf"));
    let end = EndState { config_file, ..end(true) };
    let mut findings = Findings::default();
    check(&restored.places(), &restored.read().unwrap(), 15, &end, &mut findings).unwrap();
    assert!(findings.into_list().is_empty());
}

#[test]
fn a_restored_file_that_the_server_does_not_read_overrides_nothing() {
    let lines = "external_pid_file = 'promote'\nlog_directory = 'base'\nlog_filename = 'x/y'\nrecovery_target = 'immediate'\n\
                 include_if_exists '/etc/x.conf'\n";
    let restored = Restored::with(&[("postgresql.conf", lines)]);
    let own = EndState { config_file: Some("/etc/own.conf".into()), ..end(false) };
    let mut findings = Findings::default();
    let overrides = check(&restored.places(), &restored.read().unwrap(), 15, &own, &mut findings).unwrap();
    assert!(overrides.values.is_empty(), "{overrides:?}");
    let list = findings.into_list();
    assert_eq!(list.len(), 5, "{list:?}");
    assert!(list[..4].iter().all(|finding| finding.message.contains("does not read this file")), "{list:?}");
    // Patroni reads its own file although there is no postgresql.conf.
    let restored = Restored::with(&[("postgresql.base.conf", "external_pid_file = 'promote'\n")]);
    let (configuration, mut findings) = (restored.read().unwrap(), Findings::default());
    let overrides =
        check(&restored.places(), &configuration, 15, &EndState::default(), &mut findings).unwrap();
    assert_eq!(overrides.values.get("external_pid_file"), Some(&""));
}

#[test]
fn a_restored_file_that_another_file_includes_is_read_by_the_server() {
    let writes = ("x.conf", "external_pid_file = 'promote'\n");
    let is_overridden = |files: &[(&str, &str)], own: &str| {
        let (restored, operators) = (Restored::with(files), tempfile::tempdir().unwrap());
        let own_file = operators.path().join("own.conf");
        std::fs::write(&own_file, own.replace("DATADIR", restored.place.path().to_str().unwrap())).unwrap();
        let end = EndState { config_file: Some(own_file), ..end(false) };
        let (configuration, mut findings) = (restored.read().unwrap(), Findings::default());
        let overrides = check(&restored.places(), &configuration, 15, &end, &mut findings).unwrap();
        overrides.values.get("external_pid_file") == Some(&"")
    };
    assert!(is_overridden(&[("postgresql.auto.conf", "include 'x.conf'\n"), writes], "port = 1\n"));
    let main = ("postgresql.conf", writes.1);
    assert!(!is_overridden(&[main], "port = 1\n"));
    for own in ["include 'DATADIR/postgresql.conf'\n", "include_dir 'DATADIR'\n"] {
        assert!(is_overridden(&[main], own), "{own}");
    }
}

#[test]
fn only_the_last_line_of_a_setting_can_weaken_the_operators_configuration() {
    assert_eq!(judged_auto_conf("ssl = off\nssl = on\n", true, false).unwrap(), Vec::<String>::new());
    let messages = judged_auto_conf("ssl = on\nssl = off\n", true, false).unwrap();
    assert!(messages.len() == 1 && messages[0].contains("`ssl` is `off` (line 2)"), "{messages:?}");
}
