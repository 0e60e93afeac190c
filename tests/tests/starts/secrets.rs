//! Secrets in pg_hba.conf lines, which the server repeats in its error messages.

use std::fs;

use tests::primary::Primary;

use crate::assert_fails;
use crate::configuration::ServerFiles;

/// The secret, which must not be shown.
const SECRET: &str = "hunter2";

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn no_secret_of_a_pg_hba_rule_is_shown() {
    let primary = Primary::start("hba-secrets", 100).unwrap();
    let files = ServerFiles::of(&primary);
    let rule = "host all all 10.0.0.1/32";
    let rules = [
        format!("{rule} ldap ldapurl=\"ftp://user:{SECRET}@ldap.example\""),
        format!("{rule} ldap ldapserver=x ldapbindpasswd= {SECRET}"),
        format!("{rule} ldap ldapserver=x ldapbindpasswd=a {SECRET}=b"),
        format!("{rule} ldap ldapserver=x ldapprefix=a ldapport={SECRET}"),
        format!("{rule} ldapbindpasswd={SECRET}"),
        format!("host all all ldapbindpasswd={SECRET} ldap"),
        format!("{rule} radius radiusservers=10.0.0.1 radiussecrets=\"a {SECRET}\""),
        format!("{rule} radius radiusservers=10.0.0.1 radiussecrets=\"a\" radiusports={SECRET}"),
        format!("{rule} radius radiusservers=10.0.0.1 radiussecrets={SECRET},b,c"),
        format!("{rule} radius radiusservers=10.0.0.1 radiussecret={SECRET}"),
        format!("{rule} ldap ldapserver=x ldapbindpasswd=\"a\n{SECRET} b\""),
        format!("{SECRET} all all trust"),
    ];
    for (number, rule) in rules.iter().enumerate() {
        files.append("", &format!("{rule}\nlocal all all nonsense\n"));
        let replica = primary.replica(&format!("rule-{number}"), &["basebackup"], "", "").unwrap();
        // The error for the next line shows that the server read both lines.
        let ended = assert_fails(&replica, "basebackup", &["pg_hba.conf", "\"nonsense\""]);
        assert!(!ended.output.contains(SECRET), "{rule}\n{}", ended.output);
        assert!(!ended.report.to_string().contains(SECRET), "{rule}\n{}", ended.report);
    }
    // A valid rule whose secret looks like a file name, and a line in another file.
    files
        .append("", &format!("{rule} ldap ldapserver=x ldapbasedn=\"dc=x\" ldapbindpasswd=@/etc/{SECRET}\n"));
    let outside = primary.replica("outside", &["basebackup"], "", "").unwrap();
    let ended = outside.created_by("basebackup").unwrap();
    assert!(!ended.output.contains(SECRET), "{}", ended.output);
    files.append("", "");
    let ident = primary.server.datadir().join("pg_ident.conf");
    let before = fs::read_to_string(&ident).unwrap();
    fs::write(&ident, format!("{before}map ldapbindpasswd={SECRET}\n")).unwrap();
    let ended = primary.replica("ident", &["basebackup"], "", "").unwrap().created_by("basebackup").unwrap();
    assert!(ended.output.contains("pg_ident.conf") && !ended.output.contains(SECRET), "{}", ended.output);
}
